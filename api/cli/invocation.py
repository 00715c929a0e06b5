"""The global options of one call of `memgen`, and the settings and client that follow from them.

Knows no command. Heavy modules are imported where they are first used: `memgen --help` must not wait for them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from api.cli.known_names import nearest_name

if TYPE_CHECKING:
    import typer

    from memgen_client import JsonClient
    from registry.settings import Settings


class CommandFailed(Exception):
    """A command could not do its work. The message says why and what to do."""


@dataclass(frozen=True)
class Invocation:
    home: Path | None = None
    api_url: str | None = None

    def settings(self, *, service_env: bool = True, **overrides: object) -> Settings:
        """`service_env=False` for the local stack, which must not read back what it wrote itself."""
        from pydantic import ValidationError

        from registry.settings import load_settings

        options = {"home": self.home, "api_url": self.api_url, **overrides}
        chosen = {name: value for name, value in options.items() if value is not None}
        try:
            return load_settings(service_env=service_env, **chosen)
        except ValidationError as error:
            wrong = "; ".join(f"MEMGEN_{'.'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors())
            raise CommandFailed(
                f"The settings are not valid ({wrong}). Set or unset these variables; registry/settings.py has all."
            ) from error


def invocation(context: typer.Context) -> Invocation:
    """The invocation of the running command, also where no main callback was called, as in a shell's completion."""
    root = context.find_root()
    if isinstance(root.obj, Invocation):
        return root.obj
    given = root.params
    return Invocation(home=given.get("home"), api_url=given.get("api_url"))


@contextmanager
def connect(context: typer.Context, *, timeout_seconds: float = 30.0) -> Iterator[JsonClient]:
    """A client of the API that the settings name. A refusal of a name gets a note with the one that was meant.

    Raises:
        CommandFailed: there is no key.
    """
    from memgen_client import ApiError, JsonClient

    settings = invocation(context).settings()
    if settings.api_key is None:
        raise CommandFailed(
            f"There is no API key: neither MEMGEN_API_KEY nor {settings.home}/service.env has one. Start the service "
            "with `memgen up`, or set MEMGEN_API_URL and MEMGEN_API_KEY to use another."
        )
    # Whoever sits before it is told at once, and may try again themselves.
    key = settings.api_key.get_secret_value()
    with JsonClient(settings.api_url, key, timeout=timeout_seconds, retries=0) as client:
        try:
            yield client
        except ApiError as error:
            if (name := nearest_name(client, error, context.params)) is not None:
                error.add_note(f"Did you mean {name!r}?")
            raise
