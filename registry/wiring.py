"""The composition root: engines, sessions and stores are made here from the settings, and nowhere else.

Built after fork in workers and in the app's lifespan; never at import.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pydantic import SecretStr
from sqlalchemy import Engine
from sqlalchemy.orm import Session, sessionmaker

from registry.database import make_engine, make_sessions
from registry.errors import NotConfigured
from registry.object_store import ObjectStore
from registry.scratch import Scratch
from registry.settings import Settings


@dataclass(frozen=True)
class Services:
    settings: Settings
    engine: Engine
    sessions: sessionmaker[Session]
    store: ObjectStore
    scratch: Scratch
    """This process's folder for files while it works."""

    def close(self) -> None:
        self.engine.dispose()
        self.store.close()
        self.scratch.close()


def make_services(settings: Settings) -> Services:
    """Connect to nothing yet; raises NotConfigured for a missing URL."""
    engine = make_engine(configured(settings.database_url, "MEMGEN_DATABASE_URL"))
    store = ObjectStore(configured(settings.s3_url, "MEMGEN_S3_URL"), settings.s3_bucket, settings.s3_region)
    return Services(settings, engine, make_sessions(engine), store, Scratch(settings.scratch_dir))


@contextmanager
def open_services(settings: Settings) -> Iterator[Services]:
    services = make_services(settings)
    try:
        yield services
    finally:
        services.close()


def configured(value: SecretStr | None, variable: str) -> str:
    if value is None:
        raise NotConfigured(f"{variable} is not set; run `memgen up` to start local servers, or set it")
    return value.get_secret_value()
