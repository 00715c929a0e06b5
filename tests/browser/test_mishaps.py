"""What goes wrong while people work: clicks that come twice, sign-ins that end, streams that break off, many files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from registry.database import transaction
from registry.models import AliasMove, SignIn
from registry.wiring import Services
from tests.browser.conftest import Person
from tests.registry.conftest import Rows, chats
from tests.registry.routed import make_routed

People = Callable[..., Person]
_DROP = """([place, names]) => {
    const dropped = new DataTransfer();
    for (const name of names) dropped.items.add(new File(["{broken"], name));
    document.querySelector(place).dispatchEvent(
        new DragEvent("drop", { dataTransfer: dropped, bubbles: true, cancelable: true }));
}"""
_SEEN = """() => {
    window.seen = new Set();
    new MutationObserver(() => seen.add(document.querySelector(".said-text")?.textContent.length ?? 0))
        .observe(document.getElementById("answers"), { childList: true, subtree: true, characterData: true });
}"""


def _files(folder: Path, *words: str) -> list[Path]:
    for word in words:
        (folder / f"{word}.jsonl").write_text("\n".join(map(json.dumps, chats(3, word=word))))
    return [folder / f"{word}.jsonl" for word in words]


def _end_sign_ins(services: Services) -> None:
    with transaction(services.sessions) as session:
        session.query(SignIn).delete()


def _sign_in_beside(anna: Person, key: str) -> None:
    """By the link that the page offers, in a tab of its own."""
    with anna.page.context.expect_page() as opened:
        anna.page.get_by_role("link", name="Sign in").first.click()
    beside = opened.value
    beside.get_by_label("API key").fill(key)
    beside.get_by_role("button", name="Sign in").click()
    beside.get_by_role("heading", name="Overview").wait_for()
    beside.close()


def test_a_second_click_sends_nothing(person: People, services: Services, rows: Rows, api_key: str) -> None:
    make_routed(rows)
    anna = person()
    anna.sign_in(api_key)
    anna.open("/adapters/bot")
    anna.page.locator("#promote-version").select_option("3")
    anna.page.get_by_role("button", name="Make it the champion").dblclick()
    anna.page.get_by_text("champion of bot is version 3 now.").wait_for()
    with transaction(services.sessions) as session:
        assert session.query(AliasMove).filter_by(reason="").count() == 1


def test_each_file_has_its_report(person: People, rows: Rows, api_key: str, tmp_path: Path) -> None:
    rows.task("a")
    anna = person()
    anna.sign_in(api_key)
    anna.open("/trajectories")
    page = anna.page
    page.get_by_label("Task of what names none").select_option("a")
    page.locator("#file").set_input_files(_files(tmp_path, "bike", "tram"))
    page.get_by_role("button", name="Upload").click()
    page.get_by_text("tram.jsonl").wait_for()
    assert page.get_by_role("heading", name="3 trajectories stored").count() == 2
    page.evaluate(_DROP, [".drop", ["one.jsonl", "two.jsonl"]])
    assert page.evaluate("[...document.getElementById('file').files].map((each) => each.name)") == [
        "one.jsonl",
        "two.jsonl",
    ]
    page.get_by_role("button", name="Upload").click()
    page.get_by_text("two.jsonl").wait_for()
    assert page.get_by_role("cell", name="invalid_json").count() == 2


def test_an_upload_whose_sign_in_has_ended_goes_on(
    person: People, services: Services, rows: Rows, api_key: str, tmp_path: Path
) -> None:
    rows.task("a")
    anna = person()
    anna.sign_in(api_key)
    anna.open("/trajectories")
    page = anna.page
    page.get_by_label("Task of what names none").select_option("a")
    page.locator("#file").set_input_files(_files(tmp_path, "bike"))
    _end_sign_ins(services)
    page.get_by_role("button", name="Upload").click()
    _sign_in_beside(anna, api_key)
    page.get_by_role("button", name="Upload").click()
    page.get_by_role("heading", name="3 trajectories stored").wait_for()


def test_a_question_outlives_its_sign_in(person: People, services: Services, rows: Rows, api_key: str) -> None:
    anna = person()
    anna.sign_in(api_key)
    page = _ask(anna, "a long question", 4, ended=services)
    _sign_in_beside(anna, api_key)
    page.get_by_role("button", name="Ask").click()
    page.get_by_role("button", name="Good").nth(1).wait_for()
    assert page.get_by_label("Question").input_value() == "a long question"


def _ask(anna: Person, question: str, tokens: int, ended: Services | None = None) -> Any:
    anna.open("/playground")
    page = anna.page
    page.get_by_label("Question").fill(question)
    page.get_by_label("Most tokens").fill(str(tokens))
    page.evaluate(_SEEN)
    if ended is not None:
        _end_sign_ins(ended)
    page.get_by_role("button", name="Ask").click()
    return page


def test_an_answer_is_seen_while_it_comes(person: People, rows: Rows, api_key: str) -> None:
    """And at its end it is the same text, though a token of this base is one byte of a character."""
    anna = person()
    anna.sign_in(api_key)
    page = _ask(anna, "hi", 60)
    page.get_by_role("button", name="Good").nth(1).wait_for()
    assert len(page.evaluate("[...seen]")) > 5
    assert page.locator("#answers").get_attribute("aria-busy") == "false"
    assert page.get_by_role("button", name="Stop").is_disabled()


def test_an_answer_that_breaks_off_says_so(person: People, rows: Rows, api_key: str) -> None:
    anna = person()
    anna.sign_in(api_key)
    begun = 'data: {"id": "c1", "choices": [{"delta": {"content": "Half an ans"}, "logprobs": null}]}\n\n'
    anna.page.route("**/playground/answer", lambda route: route.fulfill(content_type="text/event-stream", body=begun))
    page = _ask(anna, "hi", 60)
    broke_off = page.get_by_text("The answer broke off. Ask again: the question is still there.")
    broke_off.nth(1).wait_for()
    assert page.get_by_text("Half an ans").count() == 2
    assert page.get_by_role("button", name="Good").count() == 0, "what is no answer is not rated"
    assert page.get_by_label("Question").input_value() == "hi"


def test_memory_is_marked_between_characters(person: People, rows: Rows, api_key: str) -> None:
    """A character of four tokens, in whose midst memory was woven in, and one behind it."""
    anna = person()
    anna.sign_in(api_key)
    tokens = [{"token": "\ufffd", "bytes": [byte]} for byte in "😀é".encode()]
    woven = [{"position": place, "latents": 4, "reread": 0, "probability": 0.5} for place in (9, 12, 14)]
    stamp = {"adapter": "bot", "version": 1, "seconds": 1, "cue": [], "insertions": woven}
    choice = {"delta": {"content": "😀é"}, "logprobs": {"content": tokens}}
    last = {"id": "c1", "choices": [choice], "memgen": stamp, "usage": {"prompt_tokens": 10, "completion_tokens": 6}}
    body = f"data: {json.dumps(last)}\n\ndata: [DONE]\n\n"
    anna.page.route("**/playground/answer", lambda route: route.fulfill(content_type="text/event-stream", body=body))
    page = _ask(anna, "hi", 60)
    page.get_by_text("memory woven in 3 times").first.wait_for()
    assert page.locator(".said-text").first.inner_text() == "◆◆😀◆é"
    behind = "memory woven in: behind 2 tokens of the answer, probability 0.5, 4 latents"
    assert page.get_by_role("img", name=behind).count() == 2
