"""Passwords and keys of the local servers: generated once per home, kept in `<home>/secrets.json` (mode 0600).

Knows neither who uses them nor how.
"""

import json
import secrets
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from urllib.parse import unquote, urlsplit

from dotenv import dotenv_values

from api.local.errors import LocalStackError
from api.local.files import set_aside, write_private
from api.local.ports import LOOPBACK
from registry.settings import SERVICE_ENV

FILE = "secrets.json"


@dataclass(frozen=True)
class Secrets:
    postgres_password: str = field(repr=False)
    s3_access_key: str = field(repr=False)
    s3_secret_key: str = field(repr=False)
    api_key: str = field(repr=False)


def generate_secrets() -> Secrets:
    return Secrets(
        postgres_password=secrets.token_urlsafe(24),
        s3_access_key=f"memgen{secrets.token_hex(8)}",
        s3_secret_key=secrets.token_urlsafe(30),
        api_key=f"mg_{secrets.token_urlsafe(32)}",
    )


def load_or_create_secrets(home: Path) -> Secrets:
    """The secrets of this home, generated where missing. A mode other than 0600 is put right.

    A file that cannot be understood is written anew from the URLs of the last start. Raises LocalStackError where
    these are gone too: new secrets would lock the old data away.
    """
    path = home / FILE
    if not path.exists():
        return _write(path, _from_service_env(home) or generate_secrets())
    path.chmod(0o600)
    try:
        stored = json.loads(path.read_bytes())
        return Secrets(**{each.name: _text(stored[each.name]) for each in fields(Secrets)})
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        known = _from_service_env(home)
        if known is None:
            raise LocalStackError(
                f"{path} is damaged ({error!r}); expected {', '.join(f.name for f in fields(Secrets))}. "
                "Restore it, or remove it together with the data beside it to start afresh."
            ) from error
        set_aside(path, repr(error))
        return _write(path, known)


def _write(path: Path, secrets_: Secrets) -> Secrets:
    write_private(path, json.dumps(asdict(secrets_), indent=2) + "\n")
    return secrets_


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError(f"{type(value).__name__} for a text")
    return value


def _from_service_env(home: Path) -> Secrets | None:
    """The secrets in the URLs that the last start wrote for this home's own servers; None where one is missing."""
    try:
        env = dotenv_values(home / SERVICE_ENV)
        database, s3 = (urlsplit(env[f"MEMGEN_{name}_URL"] or "") for name in ("DATABASE", "S3"))
        found = (database.password, s3.username, s3.password, env["MEMGEN_API_KEY"])
        ours = {database.hostname, s3.hostname} == {LOOPBACK}
        return Secrets(*(unquote(_text(each)) for each in found)) if ours else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
