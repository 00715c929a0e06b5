"""Checks of the API that commands speak to, with their key; and of the file of upstreams."""

from collections.abc import Iterator
from typing import Any

import httpx

from api.cli.diagnosis.findings import Check, Diagnosis, Installation, fail, ok, skip, warn
from memgen_client import ApiError, ApiUnreachable, Client, ClientError, JsonClient, UnexpectedReply
from registry.errors import NotConfigured
from registry.settings import Settings
from registry.upstreams import load_upstreams

_SECONDS = 10.0
_START = "`memgen up` starts it; or set MEMGEN_API_URL to where it runs"
_TAKEN = (
    "Something else may have the port: `memgen up --port 0` takes a free one; or set MEMGEN_API_URL to where the API "
    "runs. If it is the API, `memgen status` names its log"
)
_NO_KEY = "`memgen up` writes one to service.env; or set MEMGEN_API_KEY (`memgen keys create` makes further ones)"


def _api(installation: Installation) -> Iterator[Diagnosis]:
    settings = installation.settings
    url = settings.api_url
    try:
        with Client(url, "", timeout=_SECONDS, retries=0) as client:
            checks = client.health.ready().checks
    except ApiUnreachable as error:
        yield fail("API", str(error).partition(". ")[0], _TAKEN if error.was_sent else _START)
        return
    except ClientError as error:
        yield fail("API", f"what answers at {url} is no MemGen API: {error}", _TAKEN)
        return
    wrong = [f"{name}: {result}" for name, result in checks.items() if result != "ok"]
    if wrong:
        yield fail("API", f"{url} is not ready: {'; '.join(wrong)}", "Mend what it names; after a start, wait")
    else:
        yield ok("API", f"ready at {url}")
    if settings.api_key is None:
        yield fail("API key", "there is none", _NO_KEY)
        return
    yield from _with_key(settings, settings.api_key.get_secret_value())


def _with_key(settings: Settings, key: str) -> Iterator[Diagnosis]:
    try:
        with JsonClient(settings.api_url, key, timeout=_SECONDS, retries=0) as client:
            served = client.base.get()
    except ApiError as error:
        if error.status == httpx.codes.UNAUTHORIZED:
            yield fail("API key", error.detail, _NO_KEY)
        elif error.status == httpx.codes.FORBIDDEN:
            yield ok("API key", f"known, and narrow: {error.detail}")
        else:
            yield ok("API key", "known")
            yield fail("served base", f"{error.detail} ({error.status} {error.code})", "See `memgen base check`")
        return
    except ApiUnreachable as error:
        yield fail("API key", str(error), _START)
        return
    except UnexpectedReply as error:
        yield fail("API", str(error), "Run `memgen` of the service's own release")
        return
    yield ok("API key", "known")
    yield _served_base(settings, served)


def _served_base(settings: Settings, served: dict[str, Any]) -> Diagnosis:
    found = f"{served['name']} at {served['revision']}"
    if not served["accepted"]:
        return fail("served base", f"{found}: {served['refused']}", "`memgen base check` says more of a base")
    if served["name"] != settings.base_model:
        advice = "Start the service with the base that is meant, or set MEMGEN_BASE_MODEL here to the same"
        return warn("served base", f"{found}; here MEMGEN_BASE_MODEL is {settings.base_model}", advice)
    return ok("served base", found)


def _upstreams(installation: Installation) -> Iterator[Diagnosis]:
    settings = installation.settings
    if settings.upstreams is None:
        yield skip("upstreams", "MEMGEN_UPSTREAMS names no file of them")
        return
    try:
        found = load_upstreams(settings)
    except NotConfigured as error:
        yield fail(
            "upstreams", str(error), "Mend the file, or the variable that it names; docs/gateway.md has examples"
        )
        return
    yield ok("upstreams", f"{', '.join(found) or 'none'} in {settings.upstreams}; `memgen upstreams check` asks them")


CHECKS = (Check("API", _api), Check("upstreams", _upstreams))
