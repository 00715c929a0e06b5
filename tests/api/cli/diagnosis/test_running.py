"""Checks that break, hang or would show a secret."""

import threading
from collections.abc import Iterator

from pydantic import SecretStr

from api.cli.diagnosis.findings import Check, Diagnosis, Installation, ok
from api.cli.diagnosis.running import run_checks, secrets_of
from registry.settings import Settings, load_settings

PASSWORD, KEY = "p/w-very-secret", "mg_very-secret"


def _settings() -> Settings:
    return load_settings(
        service_env=False,
        database_url=SecretStr("postgresql+psycopg://memgen:p%2Fw-very-secret@127.0.0.1:1/memgen"),
        api_key=SecretStr(KEY),
    )


def _run(*checks: Check, limit_seconds: float = 30.0) -> list[Diagnosis]:
    return run_checks(checks, Installation(_settings(), _settings()), limit_seconds=limit_seconds)


def test_one_that_breaks_is_a_failure_and_keeps_what_it_had_found() -> None:
    def breaks(_: Installation) -> Iterator[Diagnosis]:
        yield ok("one", "fine")
        raise RuntimeError(f"can't log in with {PASSWORD}\nor {KEY}")

    found = _run(Check("one", breaks), Check("two", lambda _: [ok("two", "fine")]))
    assert [(each.check, each.state, each.found) for each in found] == [
        ("one", "ok", "fine"),
        ("one", "fail", "RuntimeError: can't log in with *** or ***"),
        ("two", "ok", "fine"),
    ]


def test_one_that_hangs_is_a_failure_and_holds_up_no_other() -> None:
    end = threading.Event()

    def hangs(_: Installation) -> Iterator[Diagnosis]:
        yield ok("one", "fine")
        end.wait(60)

    try:
        found = _run(Check("one", hangs), Check("two", lambda _: [ok("two", "fine")]), limit_seconds=0.2)
    finally:
        end.set()
    assert [(each.check, each.state) for each in found] == [("one", "ok"), ("one", "fail"), ("two", "ok")]
    assert found[1].found == "did not end within 0.2 s"


def test_passwords_are_known_as_they_are_and_as_they_stand_in_a_url() -> None:
    assert secrets_of(_settings()) == {PASSWORD, "p%2Fw-very-secret", KEY}
