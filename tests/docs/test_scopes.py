"""What a key may do is what the pages say: refused with every other scope, let in with that one alone."""

from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import httpx
import pytest

from registry.database import transaction
from registry.keys import create_key
from registry.settings import Settings
from registry.wiring import Services
from tests.api.live_api import serve

PROMISED = {
    "read": (
        "POST /v1/chat/completions",
        "POST /v1/completions",
        "POST /v1/messages",
        "POST /v1/responses",
        "GET /v1/base",
        "GET /v1/feedback",
        "GET /v1/loops",
        "GET /v1/recordings",
        "GET /v1/trajectories",
        "GET /v1/upstreams",
    ),
    "write": (
        "PUT /v1/recordings/policy",
        "PUT /v1/recordings/policies/bot",
        "POST /v1/feedback",
        "POST /v1/traces",
        "DELETE /v1/responses/resp_1",
    ),
    "train": ("POST /v1/loops/bot/pause", "POST /v1/loops/bot/resume"),
    "promote": ("GET /v1/adapters/bot/versions/1/export",),
    "admin": (
        "POST /v1/loops",
        "DELETE /v1/loops/bot",
        "POST /v1/upstreams/strong/check",
        "GET /v1/webhooks",
        "POST /v1/webhooks",
        "GET /v1/webhooks/ops/deliveries",
        "DELETE /v1/webhooks/ops",
    ),
}
"""Requests by the scope that docs/*.md name for them. `admin` may do what all the others may."""


@pytest.fixture
def keys(services: Services, project_id: UUID) -> dict[str, tuple[str, str]]:
    """By scope: a key that has it alone, and one that has all others (without `admin`, which has them all)."""
    with transaction(services.sessions) as session:
        return {
            scope: (
                create_key(session, project_id, "alone", [scope])[1],
                create_key(
                    session, project_id, "others", [other for other in PROMISED if other not in (scope, "admin")]
                )[1],
            )
            for scope in PROMISED
        }


@pytest.fixture
def api(settings: Settings, tiny_base: Path) -> Iterator[httpx.Client]:
    with (
        serve(settings.model_copy(update={"base_model": str(tiny_base)})) as url,
        httpx.Client(base_url=url, timeout=20) as client,
    ):
        yield client


def test_each_request_takes_the_scope_that_its_page_names(api: httpx.Client, keys: dict[str, tuple[str, str]]) -> None:
    for scope, requests in PROMISED.items():
        for request in requests:
            method, path = request.split(" ")
            alone, others = (
                api.request(
                    method, path, json=None if method == "GET" else {}, headers={"Authorization": f"Bearer {key}"}
                )
                for key in keys[scope]
            )
            assert others.status_code == 403, f"{request} is done without {scope}"
            assert alone.status_code not in (401, 403), f"{request} asks for more than {scope}"
