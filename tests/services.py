"""Real servers for tests: PostgreSQL (not durable), Valkey and SeaweedFS, one set a pytest worker."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from api.local.postgres import start_postgres
from api.local.processes import stop
from api.local.seaweed import start_seaweed
from api.local.secrets import generate_secrets
from api.local.valkey import start_valkey

BUCKET = "memgen"


@dataclass(frozen=True)
class Servers:
    database_url: str
    broker_url: str
    s3_url: str


@contextmanager
def run_servers() -> Iterator[Servers]:
    """All three; stopped and their data removed at the end. Call it in the main thread."""
    # Not pytest's own folder: that is private to its owner, and PostgreSQL's account must get through.
    home = Path(tempfile.mkdtemp(prefix="memgen-"))
    home.chmod(0o711)
    secrets = generate_secrets()
    with ExitStack() as cleanup:
        cleanup.callback(shutil.rmtree, home, ignore_errors=True)
        postgres = start_postgres(home / "pg", home / "pg.log", secrets.postgres_password, durable=False)
        cleanup.callback(stop, [postgres.child])
        valkey = start_valkey(home / "valkey", home / "valkey.log")
        cleanup.callback(stop, [valkey.child])
        seaweed = start_seaweed(home / "s3", home / "s3.log", secrets, bucket=BUCKET)
        cleanup.callback(stop, [seaweed.child])
        yield Servers(postgres.url, valkey.url, seaweed.url)
