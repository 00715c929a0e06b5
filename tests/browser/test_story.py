"""The demo's story in a browser, from an upload to a rollback, by mouse and by keyboard: a real service, a worker that
trains a tiny base, and answers of what it has learned. By mouse it is also what `make pictures` takes pictures of.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from registry.database import transaction
from registry.models import Job
from registry.settings import Settings
from registry.wiring import Services
from tests.api.live_api import serve
from tests.browser.conftest import Person
from tests.browser.hands import Hands, Keyboard, Mouse
from tests.workers.conftest import TRAINING, Workshop, open_workshop

ADAPTER = "shop-bot"
STOCK, RETURNS = "Is item {} in stock?", "May I return item {}?"
TASKS = {"stock": (STOCK, "yes"), "returns": (RETURNS, "no!")}
SESSIONS = 40
"""Of the A/B test."""
_SETTINGS = " ".join(f"{name}={value}" for name, value in TRAINING.items() if name != "steps")


@pytest.fixture
def settings(settings: Settings, tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The base has a name that pictures may show, and no place on this machine."""
    (tmp_path / "tiny-llama").symlink_to(tiny_base)
    monkeypatch.chdir(tmp_path)
    return settings.model_copy(update={"base_model": "tiny-llama", "checkpoint_interval_seconds": 0.01})


@pytest.fixture
def workshop(settings: Settings, services: Services, project_id: Any) -> Iterator[Workshop]:
    """A small margin would refuse what a tiny base forgets; here a person decides."""
    with open_workshop(settings, project_id, ADAPTER, gate_margin=0.25, replay_share=0.5) as opened:
        yield opened


@pytest.fixture
def url(settings: Settings, workshop: Workshop) -> Iterator[str]:
    with serve(settings, serve_model=True) as found:
        yield found


@pytest.fixture
def api(url: str, api_key: str) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {api_key}"}
    with httpx.Client(base_url=f"{url}/v1", headers=headers, timeout=60) as client:
        for name in TASKS:
            client.post("/tasks", json={"name": name, "grader": {"kind": "exact"}, "holdout_share": 0.3})
        yield client


@pytest.mark.parametrize("hand", [Mouse, Keyboard])
def test_from_an_upload_to_a_rollback(
    person: Callable[..., Person],
    workshop: Workshop,
    api: httpx.Client,
    api_key: str,
    tmp_path: Path,
    hand: Callable[[Any], Hands],
) -> None:
    anna = person(viewport={"width": 1280, "height": 760})
    story = Story(anna, hand(anna.page), workshop, tmp_path)
    anna.sign_in(api_key)
    story.upload("stock")
    story.train("stock", 1)
    story.promote(1)
    story.upload("returns")
    story.train("returns", 2)
    story.look_at_the_gate(2)
    story.start_ab(2)
    rate_answers(api)
    story.look_at_the_route()
    story.ask_both(RETURNS.format(7))
    story.promote(2)
    story.look_at_the_overview()
    story.roll_back(2, 1)
    history = api.get(f"/adapters/{ADAPTER}/aliases/champion/history").json()["data"]
    assert [(move["from_version"], move["to_version"]) for move in history] == [(None, 1), (1, 2), (2, 1)]
    assert {answer_of(api, "s1", RETURNS.format(7))[0] for _ in range(3)} == {f"{ADAPTER}@1"}


class Story:
    """What a person does, page by page; pictures are taken on the way, if they are wanted."""

    def __init__(self, person: Person, hands: Hands, workshop: Workshop, folder: Path) -> None:
        self.person, self.page, self.hands = person, person.page, hands
        self.workshop, self.folder = workshop, folder
        self.is_pictured = isinstance(hands, Mouse)

    def picture(self, name: str) -> None:
        if self.is_pictured:
            self.person.picture(name)

    def go(self, *links: str) -> None:
        for name in links:
            self.send(self.page.get_by_role("link", name=name, exact=True).first)

    def send(self, target: Any) -> None:
        """Press what leads to another page, and wait for it: the one before may have what is looked for next, too."""
        with self.page.expect_navigation():
            self.hands.press(target)

    def heard(self) -> str:
        return str(self.page.get_by_role("status").first.inner_text())

    def upload(self, task: str) -> None:
        question, answer = TASKS[task]
        lines = [
            {"messages": [{"role": "user", "content": question.format(n)}, {"role": "assistant", "content": answer}]}
            for n in range(40)
        ]
        file = self.folder / f"{task}.jsonl"
        file.write_text("\n".join(map(json.dumps, lines)))
        self.go("Trajectories")
        self.hands.choose(self.page.get_by_label("Task of what names none"), task)
        self.hands.attach(self.page.locator("#file"), file)
        self.hands.press(self.page.get_by_role("button", name="Upload"))
        self.page.get_by_role("heading", name="40 trajectories stored").wait_for()

    def train(self, task: str, number: int) -> None:
        """The version passes its gate, and waits for a person: the form says so."""
        self.go("Adapters", ADAPTER)
        form = self.page.get_by_role("form", name="Train")
        self.hands.choose(form.get_by_label("Task"), task)
        self.hands.write(form.get_by_label("Steps"), str(TRAINING["steps"]))
        self.hands.write(form.get_by_label("Settings"), _SETTINGS)
        self.hands.tick(form.get_by_label("Champion if it passes its gate"))
        self.send(form.get_by_role("button", name="Train a version"))
        assert self.heard() == "The training is queued."
        with transaction(self.workshop.services.sessions) as session:
            [job_id] = session.scalars(sa.select(Job.id).where(Job.state == "queued"))
        ended = self.workshop.work(job_id)
        assert (ended.state, ended.result and ended.result["version"]) == ("succeeded", number), ended.error
        self.page.get_by_text("succeeded", exact=True).first.wait_for()  # by what the service sends, without a reload
        self.go(f"{ADAPTER}@{number}")
        self.page.get_by_role("heading", name=f"{ADAPTER}@{number}").wait_for()
        assert self.page.get_by_text("passed", exact=True).count() > 0

    def promote(self, number: int) -> None:
        self.go("Adapters", ADAPTER)
        form = self.page.get_by_role("form", name="Promote")
        self.hands.choose(form.get_by_label("Version"), str(number))
        self.hands.write(form.get_by_label("Reason"), "it answers better")
        self.send(form.get_by_role("button", name="Make it the champion"))
        assert self.heard() == f"champion of {ADAPTER} is version {number} now."
        self.picture("adapter")

    def look_at_the_gate(self, number: int) -> None:
        self.go("Adapters", ADAPTER, f"{ADAPTER}@{number}")
        self.page.get_by_role("region", name="What the gate compared").wait_for()
        self.picture("gate")

    def start_ab(self, number: int) -> None:
        self.go("Adapters", ADAPTER, "Routes")
        form = self.page.get_by_role("form", name="Try a version")
        self.hands.choose(form.get_by_label("How"), "A/B")
        self.hands.write(form.get_by_label("Version"), str(number))
        self.hands.write(form.get_by_label("Share"), "0.5")
        self.hands.write(form.get_by_label("Reason"), "does it help with returns?")
        self.send(form.get_by_role("button", name="Start it beside version 1"))
        assert self.heard() == "Route 1 is live."

    def look_at_the_route(self) -> None:
        self.page.reload()
        assert self.page.locator("svg.bar").count() == 2
        assert self.page.get_by_text("better", exact=True).count() == 1
        self.picture("route")

    def ask_both(self, question: str) -> None:
        self.go("Playground")
        for place, model in (("Model 1", f"{ADAPTER}@1"), ("Model 2", f"{ADAPTER}@2")):
            self.hands.choose(self.page.get_by_label(place), model)
        self.hands.write(self.page.get_by_label("Question"), question)
        self.hands.write(self.page.get_by_label("Most tokens"), "8")
        self.hands.press(self.page.get_by_role("button", name="Ask"))
        second = self.page.get_by_role("region", name=f"{ADAPTER}@2")
        self.hands.press(second.get_by_role("button", name="Good"))
        self.page.get_by_text("Counted as good.").wait_for()
        assert second.locator(".said-text").inner_text() == "◆no!", "memory is woven in behind the prompt"
        self.picture("playground")

    def look_at_the_overview(self) -> None:
        self.go("Overview")
        assert self.page.get_by_role("link", name=f"{ADAPTER}@2").count() > 0
        self.picture("overview")

    def roll_back(self, number: int, to: int) -> None:
        self.go("Adapters", ADAPTER)
        form = self.page.get_by_role("form", name="Roll back")
        self.hands.write(form.get_by_label("Reason"), "one more look")
        self.send(form.get_by_role("button", name=f"Roll back from {number}"))
        assert self.heard() == f"champion of {ADAPTER} is version {to} again."


def answer_of(api: httpx.Client, session: str, question: str) -> tuple[str, str, str]:
    """(exact version, completion id, text) of an answer to a user."""
    body = {"model": ADAPTER, "messages": [{"role": "user", "content": question}], "max_tokens": 8, "temperature": 0}
    reply = api.post("/chat/completions", json=body, headers={"X-Session-Id": session}).json()
    return reply["model"], reply["id"], reply["choices"][0]["message"]["content"]


def rate_answers(api: httpx.Client) -> None:
    """Users ask about returns, and say whether they were helped."""
    for number in range(SESSIONS):
        _, completion, text = answer_of(api, f"s{number}", RETURNS.format(number))
        api.post("/feedback", json={"completion_id": completion, "reward": float(text == "no!")}).raise_for_status()
