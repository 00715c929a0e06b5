"""Training, serving and rollback with the stock `openai` client, a worker in this process, and a tiny base."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest
import sqlalchemy as sa

from registry.database import transaction
from registry.settings import Settings
from tests.api.live_api import serve
from tests.workers.conftest import Workshop, settings, workshop

__all__ = ["settings", "workshop"]


@pytest.fixture
def api_url(settings: Settings, workshop: Workshop) -> Iterator[str]:
    with serve(settings, serve_model=True) as url:
        yield url


@pytest.fixture
def client(api_url: str, api_key: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{api_url}/v1", api_key=api_key, max_retries=0) as made:
        yield made


def _say(client: openai.OpenAI, model: str, text: str = "y1") -> tuple[str, str | None]:
    answer = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": text}], max_tokens=8, temperature=0
    )
    return answer.model, answer.choices[0].message.content


def test_promotion_and_rollback_reach_the_next_answer(
    workshop: Workshop, client: openai.OpenAI, api_url: str, api_key: str
) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        _say(client, "bot")
    assert missing.value.code == "model_not_found"
    workshop.add_task("yes")
    workshop.work(workshop.queue("yes"))
    assert _say(client, "bot") == ("bot@1", "yes")
    assert _say(client, "base")[1] != "yes"

    # A second version that answers otherwise; the gate's margin is opened so that it may serve.
    with transaction(workshop.services.sessions) as session:
        session.execute(sa.text("update adapters set strategy = 'sequential', replay_share = 0, gate_margin = 1"))
    workshop.add_task("nope", [_clash(n) for n in range(40)])
    workshop.work(workshop.queue("nope", parent=1))
    assert _say(client, "bot") == ("bot@2", "no!")
    assert _say(client, "bot@champion") == ("bot@2", "no!")
    assert _say(client, "bot@1") == ("bot@1", "yes")

    headers = {"Authorization": f"Bearer {api_key}"}
    url = f"{api_url}/v1/adapters/bot/aliases/champion/rollback"
    moved = httpx.post(url, json={"reason": "worse", "expected_version": 2}, headers=headers)
    assert (moved.status_code, moved.json()["to_version"]) == (200, 1)
    assert _say(client, "bot") == ("bot@1", "yes")
    assert httpx.post(url, json={"expected_version": 2}, headers=headers).status_code == 409

    listed = {model.id for model in client.models.list().data}
    assert listed == {"base", "bot", "bot@champion", "bot@1", "bot@2"}
    scores = httpx.get(f"{api_url}/v1/adapters/bot/scores", headers=headers).json()
    assert scores["versions"]["1"]["yes"]["score"] == 1.0
    assert scores["metrics"]["bwt"] == scores["versions"]["2"]["yes"]["score"] - 1.0


def _clash(number: int) -> dict[str, object]:
    """The prompts of `yes` with another answer: the two tasks can't both be right."""
    messages = [{"role": "user", "content": f"y{number}"}, {"role": "assistant", "content": "no!"}]
    return {"messages": messages, "session_id": str(number)}


def test_versions_mixed_in_one_batch_keep_apart(workshop: Workshop, client: openai.OpenAI) -> None:
    workshop.add_task("yes")
    workshop.work(workshop.queue("yes"))
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda n: _say(client, ("base", "bot@1")[n % 2]), range(24)))
    assert answers[1::2] == [("bot@1", "yes")] * 12
    # Not one text: in bfloat16 the answer of a random base depends on the size of its batch.
    base = _say(client, "base")[1]
    assert base
    assert all(model == "base" and said and said[0] == base[0] for model, said in answers[::2])


def test_the_answer_is_stamped(workshop: Workshop, client: openai.OpenAI) -> None:
    workshop.add_task("yes")
    workshop.work(workshop.queue("yes"))
    raw = client.chat.completions.with_raw_response.create(
        model="bot", messages=[{"role": "user", "content": "y1"}], max_tokens=8
    )
    assert raw.headers["x-memgen-version"] == "bot@1"
    answer = raw.parse()
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 3
    stamp = answer.model_extra["memgen"]
    assert (stamp["adapter"], stamp["version"], stamp["alias"]) == ("bot", 1, "champion")
    assert stamp["insertions"] == [
        {"choice": 0, "position": answer.usage.prompt_tokens - 1, "latents": 8, "reread": 0, "probability": 1.0}
    ]
    assert 0 < stamp["seconds"] < 60

    with client.chat.completions.with_streaming_response.create(
        model="bot", messages=[{"role": "user", "content": "y1"}], max_tokens=8, temperature=0, stream=True
    ) as reply:
        assert reply.headers["x-memgen-version"] == "bot@1"
        chunks = list(reply.parse())
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "yes"
    assert {chunk.model for chunk in chunks} == {"bot@1"}
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert {**chunks[-1].model_extra["memgen"], "seconds": stamp["seconds"]} == stamp


def test_a_bad_request_hurts_only_itself(workshop: Workshop, client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as long:
        _say(client, "base", "x" * 2000)
    assert long.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError) as greedy:
        client.chat.completions.create(model="base", messages=[{"role": "user", "content": "x"}], max_tokens=5000)
    assert greedy.value.code == "max_tokens_too_large"
    with pytest.raises(openai.BadRequestError) as foreign:
        client.chat.completions.create(model="base", messages=[{"role": "nobody", "content": "x"}])
    assert foreign.value.code == "role_unknown"
    assert _say(client, "base")[0] == "base"


def test_a_damaged_artifact_serves_nobody(workshop: Workshop, client: openai.OpenAI) -> None:
    workshop.add_task("yes")
    workshop.work(workshop.queue("yes"))
    [version] = workshop.versions()
    workshop.services.store.put(f"{version.artifact_key}/memory.safetensors", b"not what was trained")
    with pytest.raises(openai.InternalServerError) as damaged:
        _say(client, "bot")
    assert damaged.value.code == "artifact_corrupt"
    assert _say(client, "base")[0] == "base"
