"""Every error of both trees has a status, and looks right over HTTP."""

from collections.abc import Iterator

import httpx
import pytest

import memgen.errors
import registry.errors
from api.http.problems import STATUS, code_of, status_of
from api.inference.unavailable import InferenceUnavailable
from registry.settings import Settings
from tests.api.live_api import serve


def _tree(root: type[Exception]) -> Iterator[type[Exception]]:
    yield root
    for child in root.__subclasses__():
        yield from _tree(child)


EVERY = sorted({*_tree(registry.errors.RegistryError), *_tree(memgen.errors.MemgenError)}, key=lambda e: e.__name__)


@pytest.mark.parametrize("error", EVERY, ids=lambda e: e.__name__)
def test_every_error_is_mapped(error: type[Exception]) -> None:
    mapped = [kind for kind in error.__mro__ if kind in STATUS]
    assert mapped
    root_only = mapped[0] in (registry.errors.RegistryError, memgen.errors.MemgenError)
    assert not root_only or error in (registry.errors.RegistryError, memgen.errors.MemgenError), (
        "an error must not fall through to its root's 500: map it or one of its parents"
    )


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (registry.errors.StaleAlias("x"), 409, "stale_alias"),
        (registry.errors.TaskNotFound("x"), 404, "task_not_found"),
        (registry.errors.UnknownKey("x"), 401, "unknown_key"),
        (registry.errors.MissingScope("x"), 403, "missing_scope"),
        (registry.errors.InvalidTrajectory("too_long", "x"), 422, "too_long"),
        (InferenceUnavailable("x"), 503, "inference_unavailable"),
        (memgen.errors.PromptTooLong("x"), 422, "prompt_too_long"),
        (memgen.errors.ArtifactCorrupt("x"), 500, "artifact_corrupt"),
    ],
)
def test_status_and_code(error: Exception, status: int, code: str) -> None:
    assert (status_of(error), code_of(error)) == (status, code)


def test_the_trees_drawn_in_the_docstrings_are_the_trees() -> None:
    for module, root in ((registry.errors, registry.errors.RegistryError), (memgen.errors, memgen.errors.MemgenError)):
        drawn = [line.split("──")[1].split()[0] for line in (module.__doc__ or "").splitlines() if "──" in line]
        real = [kind.__name__ for kind in _tree(root) if kind.__module__ == module.__name__][1:]
        assert sorted(drawn) == sorted(real)


@pytest.fixture
def api(settings: Settings, api_key: str) -> Iterator[httpx.Client]:
    with serve(settings) as url, httpx.Client(base_url=url, headers={"Authorization": f"Bearer {api_key}"}) as client:
        yield client


def test_problems_over_http(api: httpx.Client) -> None:
    missing = api.get("/v1/adapters/nobody")
    assert missing.headers["content-type"] == "application/problem+json"
    assert missing.json() == {
        "type": "urn:memgen:problem:adapter_not_found",
        "title": "adapter not found",
        "status": 404,
        "detail": "no adapter named 'nobody' in this project; `GET /v1/adapters` lists them",
    }
    invalid = api.post("/v1/adapters", json={"name": "x", "surprise": 1, "replay_share": "0.5"})
    assert invalid.status_code == 422
    assert {e["place"] for e in invalid.json()["errors"]} == {"body.surprise", "body.replay_share"}
    unknown = api.post("/v1/adapters", json={"name": "x", "memory": {"latent": 1}})
    assert unknown.json()["title"] == "config error"
    assert "unknown MemoryConfig fields ['latent']" in unknown.json()["detail"]
    silent = api.post("/v1/adapters", json={"name": "x", "memory": {"trigger": "never"}})
    assert silent.status_code == unknown.status_code
    assert "no memory would be woven" in silent.json()["detail"]
    elsewhere = {"form": "embedding", "weaver_base": "some/model"}
    refused = api.post("/v1/adapters", json={"name": "x", "memory": elsewhere})
    assert refused.status_code == unknown.status_code
    assert "the service's workers hold one base" in refused.json()["detail"]
    assert api.get("/v1/nowhere").json()["title"] == "http 404"


def test_keys_open_only_what_their_scopes_say(api: httpx.Client) -> None:
    made = api.post("/v1/keys", json={"name": "reader", "scopes": ["read"]}).json()
    reader = {"Authorization": f"Bearer {made['key']}"}
    assert api.get("/v1/adapters", headers=reader).status_code == 200
    for method, path in (("POST", "/v1/tasks"), ("POST", "/v1/adapters"), ("POST", "/v1/jobs"), ("GET", "/v1/keys")):
        refused = api.request(method, path, headers=reader, json={})
        assert refused.status_code == 403, path
    assert api.get("/v1/keys", headers=reader).json()["title"] == "missing scope"
    assert made["key"] not in api.get("/v1/keys").text
    api.delete(f"/v1/keys/{made['id']}")
    revoked = api.get("/v1/adapters", headers=reader)
    assert (revoked.status_code, revoked.headers["www-authenticate"]) == (401, "Bearer")
    assert httpx.get(f"{api.base_url}/v1/adapters").status_code == 401
    assert api.get("/healthz", headers={"Authorization": ""}).json() == {"status": "ok"}


def test_readiness_names_what_is_missing(api: httpx.Client) -> None:
    ready = api.get("/readyz")
    assert ready.status_code == 503
    checks = ready.json()["checks"]
    assert (checks["database"], checks["store"], checks["broker"]) == ("ok", "ok", "ok")
    assert "being loaded" in checks["model"]
