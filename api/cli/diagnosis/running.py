"""Runs checks beside each other, each for a limited time, and lets no secret through. Knows no check."""

import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from urllib.parse import unquote, urlsplit

from pydantic import SecretStr

from api.cli.diagnosis.findings import Check, Diagnosis, Installation, fail
from registry.settings import Settings

_HIDDEN = "***"
_LONGEST_TEXT = 600


def run_checks(checks: Sequence[Check], installation: Installation, *, limit_seconds: float) -> list[Diagnosis]:
    """What the checks find, in their order. One that raises, or takes longer than `limit_seconds`, is a failure."""
    running = [_RunningCheck(check, installation) for check in checks]
    deadline = time.monotonic() + limit_seconds
    secrets = secrets_of(installation.settings)
    found = [each for check in running for each in check.wait_until(deadline, limit_seconds)]
    return [_presentable(each, secrets) for each in found]


def secrets_of(settings: Settings) -> set[str]:
    """Every password and key of the settings, as it is and as it stands in a URL."""
    secrets: set[str] = set()
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, SecretStr):
            text = value.get_secret_value()
            password = urlsplit(text).password if "://" in text else text
            secrets |= {password, unquote(password)} if password else set()
    return secrets


class _RunningCheck:
    def __init__(self, check: Check, installation: Installation) -> None:
        self._check = check
        self._found: list[Diagnosis] = []
        # A daemon: one that hangs must not keep the command from ending.
        self._thread = threading.Thread(target=self._look, args=(installation,), name=check.name, daemon=True)
        self._thread.start()

    def wait_until(self, deadline: float, limit_seconds: float) -> list[Diagnosis]:
        self._thread.join(max(0.0, deadline - time.monotonic()))
        found = [*self._found]
        if self._thread.is_alive():
            text = f"did not end within {limit_seconds:g} s"
            found.append(fail(self._check.name, text, "Look whether the machine is overloaded, or that server hangs"))
        return found

    def _look(self, installation: Installation) -> None:
        try:
            for each in self._check.look(installation):
                self._found.append(each)
        except Exception as error:  # whatever a damaged installation raises is what was to be found
            self._found.append(fail(self._check.name, f"{type(error).__name__}: {error}", "The check could not go on"))


def _presentable(diagnosis: Diagnosis, secrets: Iterable[str]) -> Diagnosis:
    """With what was found in one line, without secrets. Advice is our own words."""
    text = " ".join(diagnosis.found.split())
    for secret in sorted(secrets, key=len, reverse=True):  # the longest first: one may hold another
        text = text.replace(secret, _HIDDEN)
    return replace(diagnosis, found=text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}...")
