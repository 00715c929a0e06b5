"""Which answers are recorded: by the mode, by a share of the sessions, and by what the request says itself."""

from typing import Any

import openai

from registry.models import Trajectory
from registry.wiring import Services
from tests.api.recording.test_recording import client, recorded, rows, until
from tests.api.watched import Watch, watch

__all__ = ["client", "watch"]


def set_policy(client: openai.OpenAI, **policy: Any) -> None:
    client.put("/recordings/policy", cast_to=object, body=policy)


def why_not(client: openai.OpenAI, *texts: str, session: str | None = None, **options: Any) -> str | None:
    """Why an answer to a user who says the texts, with answers between, is not recorded."""
    messages: list[Any] = []
    for text in texts:
        messages += [{"role": "user", "content": text}, {"role": "assistant", "content": "Hello."}]
    headers = {"X-Session-Id": session} if session else {}
    reply: Any = client.chat.completions.create(
        model="base", messages=messages[:-1], extra_headers={**headers, **options.pop("headers", {})}, **options
    )
    reason: str | None = reply.memgen["recorded"]["reason"]
    assert (reason is None) == (reply.memgen["recorded"]["run"] is not None)
    return reason


def counted(client: openai.OpenAI, answers: int) -> Any:
    """What is told of recording, once so many answers are counted."""

    def look() -> Any:
        state = recorded(client)
        return state if state["recorded"] + sum(state["not_recorded"].values()) == answers else None

    return until(look)


def test_a_share_takes_whole_sessions(client: openai.OpenAI, watch: Watch) -> None:
    watch.say = "Hello."
    set_policy(client, mode="all", task="support", share=0.5)
    found = {name: why_not(client, "hi", session=name) for name in map(str, range(16))}
    assert set(found.values()) == {None, "not_in_share"}
    for name, reason in found.items():
        assert why_not(client, "hi", "and?", session=name) == reason, "all of a session, or nothing"
        assert why_not(client, f"something else, {name}", session=name) == reason
    left_out = 3 * list(found.values()).count("not_in_share")
    state = counted(client, 48)
    assert (state["recorded"], state["not_recorded"]) == (48 - left_out, {"not_in_share": left_out})
    [name, *_] = [name for name, reason in found.items() if reason is not None]
    assert why_not(client, "hi", session=name, store=True) is None, "what asks is recorded"
    assert why_not(client, "hi", session=name, headers={"X-Memgen-Task": "support"}) is None


def test_without_a_session_a_share_takes_whole_conversations(client: openai.OpenAI, watch: Watch) -> None:
    watch.say = "Hello."
    set_policy(client, mode="all", task="support", share=0.5)
    found = {text: why_not(client, text) for text in map(str, range(16))}
    assert set(found.values()) == {None, "not_in_share"}
    for text, reason in found.items():
        assert why_not(client, text, "and?") == why_not(client, text, "and?", "and then?") == reason


def test_a_mode_of_off_has_nothing_to_count_where_nobody_asked(client: openai.OpenAI, watch: Watch) -> None:
    watch.say = "Hello."
    set_policy(client, mode="off", task="support")
    assert [why_not(client, "hi"), why_not(client, "hi", store=False)] == ["not_requested"] * 2
    assert why_not(client, "hi", store=True) == "off"
    assert counted(client, 1)["not_recorded"] == {"off": 1}


def test_raw_prompts_are_recorded_as_chats_if_they_are_texts(
    client: openai.OpenAI, services: Services, watch: Watch
) -> None:
    watch.say = "Hello."
    headers = {"X-Memgen-Task": "support", "X-Memgen-Run": "end"}
    for prompt, reason in (("hi", None), ([1, 2, 3], "raw_prompt")):
        reply: Any = client.completions.create(model="base", prompt=prompt, max_tokens=64, extra_headers=headers)
        assert reply.memgen["recorded"]["reason"] == reason
    [trajectory] = until(lambda: rows(services, Trajectory))
    assert [(message["role"], message["content"]) for message in trajectory.messages] == [
        ("user", "hi"),
        ("assistant", "Hello."),
    ]
    assert counted(client, 2)["not_recorded"] == {"raw_prompt": 1}
