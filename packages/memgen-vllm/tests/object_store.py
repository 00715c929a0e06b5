"""A real object store with the reference's artifacts, until its input ends. Run by the service's environment.

    python packages/memgen-vllm/tests/object_store.py REFERENCE HOME        (from the root)

Prints one line of JSON: the store's URL, and the project whose artifacts these are. One byte of `broken` is changed.
"""

import json
import sys
import uuid
from pathlib import Path

from api.local.processes import stop
from api.local.seaweed import start_seaweed
from api.local.secrets import generate_secrets
from registry.object_store import ObjectStore
from registry.versions.artifacts import artifact_key

BUCKET = "memgen"


def main(reference: Path, home: Path) -> None:
    seaweed = start_seaweed(home / "s3", home / "s3.log", generate_secrets(), bucket=BUCKET)
    try:
        store, project = ObjectStore(seaweed.url, BUCKET, "us-east-1"), uuid.uuid4()
        named: dict[str, str] = json.loads((reference / "reference.json").read_text())["artifacts"]
        for name, sha256 in named.items():
            key = artifact_key(project, sha256)
            store.put_folder(key, reference / "artifacts" / sha256)
            if name == "broken":
                path = f"{key}/memory.safetensors"
                data = bytearray(store.get(path))
                data[-1] ^= 1
                store.put(path, bytes(data))
        sys.stdout.write(json.dumps({"url": seaweed.url, "project": str(project)}) + "\n")
        sys.stdout.flush()
        sys.stdin.read()
    finally:
        stop([seaweed.child])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
