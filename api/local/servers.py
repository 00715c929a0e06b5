"""Which of the three servers run here and which the user brings. Knows how each starts and is checked.

A URL in the settings is used as it is and only checked. Pass settings loaded with `service_env=False`: the
file holds our own servers' URLs, which must not pass for the user's.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from api.local import health
from api.local.files import write_private
from api.local.postgres import launch_postgres
from api.local.processes import Server
from api.local.seaweed import launch_seaweed
from api.local.secrets import Secrets
from api.local.valkey import launch_valkey
from registry.settings import SERVICE_ENV, Settings


@dataclass(frozen=True)
class ServerPlan:
    """One server: `launch` it here, or `check` the `url` that the user configured."""

    name: str
    setting: str
    """The field of Settings that holds its URL."""
    url: str | None
    launch: Callable[[int | None], Server]
    """Takes the port that it had before, which its clients know; None at the first start."""
    check: Callable[[str], None]


def plan_servers(settings: Settings, home: Path, secrets: Secrets) -> tuple[ServerPlan, ...]:
    logs = home / "logs"
    return (
        ServerPlan(
            "postgres",
            "database_url",
            settings.database_url.get_secret_value() if settings.database_url else None,
            lambda port: launch_postgres(
                home / "postgres",
                logs / "postgres.log",
                secrets.postgres_password,
                port=port or settings.postgres_port,
            ),
            health.check_database,
        ),
        ServerPlan(
            "valkey",
            "broker_url",
            settings.broker_url.get_secret_value() if settings.broker_url else None,
            lambda _port: launch_valkey(home / "valkey", logs / "valkey.log"),
            health.check_broker,
        ),
        ServerPlan(
            "seaweed",
            "s3_url",
            settings.s3_url.get_secret_value() if settings.s3_url else None,
            lambda port: launch_seaweed(
                home / "seaweed",
                logs / "seaweed.log",
                secrets,
                bucket=settings.s3_bucket,
                region=settings.s3_region,
                port=port or settings.s3_port,
            ),
            lambda url: health.check_s3(url, settings.s3_bucket, settings.s3_region),
        ),
    )


def write_service_env(settings: Settings) -> None:
    """Writes what every process of this home, and every client on this machine, needs to find the servers."""
    lines = ["# Written by `memgen up` at every start. Environment variables win over this file."]
    names = ["database_url", "broker_url", "s3_url", "api_url", "api_key"]
    if settings.vllm_url:
        names.append("vllm_url")
    for name in names:
        value = getattr(settings, name)
        text = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        escaped = text.replace("\\", "\\\\").replace("'", "\\'")
        lines.append(f"MEMGEN_{name.upper()}='{escaped}'")
    write_private(settings.home / SERVICE_ENV, "\n".join(lines) + "\n")
