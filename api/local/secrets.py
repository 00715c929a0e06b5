"""Passwords and keys of the local servers: generated once per home, kept in `<home>/secrets.json` (mode 0600).

Knows neither who uses them nor how.
"""

import json
import secrets
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from api.local.errors import LocalStackError
from api.local.files import write_private

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

    Raises LocalStackError where the file cannot be understood: new secrets would lock the old data away.
    """
    path = home / FILE
    if not path.exists():
        created = generate_secrets()
        write_private(path, json.dumps(asdict(created), indent=2) + "\n")
        return created
    path.chmod(0o600)
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        return Secrets(**{each.name: str(stored[each.name]) for each in fields(Secrets)})
    except (ValueError, KeyError, TypeError) as error:
        raise LocalStackError(
            f"{path} is damaged ({error!r}); expected {', '.join(f.name for f in fields(Secrets))}. "
            "Restore it, or remove it together with the data beside it to start afresh."
        ) from error
