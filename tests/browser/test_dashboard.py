"""The dashboard as people use it: by mouse, by keyboard, on a phone, two at once, and with a sign-in that ends."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from registry import jobs
from registry.adapters import get_adapter
from registry.database import transaction
from registry.job_requests import TrainWeaver
from registry.models import Job, SignIn
from registry.wiring import Services
from tests.browser.conftest import Person
from tests.registry.analyzed import analyze
from tests.registry.conftest import Rows, chats
from tests.registry.routed import Routed, make_routed

Axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="`make test-browser` installs it").Axe
People = Callable[..., Person]
PAGES = (
    "",
    "/adapters",
    "/adapters/bot",
    "/adapters/bot/settings",
    "/adapters/bot/versions/2",
    "/adapters/bot/versions/2/items?flipped=all",
    "/adapters/bot/versions/2/analysis",
    "/adapters/bot/routes",
    "/adapters/bot/routes/1",
    "/loops",
    "/jobs",
    "/trajectories",
    "/playground",
    "/schedules",
    "/tasks",
    "/tasks/a",
    "/judges",
    "/feedback",
    "/recordings",
    "/deletions",
    "/keys",
    "/no/such/page",
)


@pytest.fixture
def routed(rows: Rows) -> Routed:
    """Versions 1 to 4 of `bot` passed, 5 was rejected, 6 is not checked; 1 is the champion."""
    return make_routed(rows)


@pytest.fixture
def full(routed: Routed) -> Routed:
    """With a canary that has rewards, and a version that was looked into."""
    routed.start_canary(2, 0.5)
    routed.rate_sessions(lambda label, number: float(label == "bot@2" or number % 2), 20)
    analyze(routed.rows.services, routed.rows.project_id, version=2)
    return routed


def test_the_story_by_mouse(person: People, routed: Routed, api_key: str) -> None:
    anna = person()
    anna.sign_in(api_key)
    page = anna.page
    page.get_by_role("link", name="bot", exact=True).first.click()
    anna.picture("adapter")
    page.locator("#promote-version").select_option("3")
    page.get_by_role("form", name="Promote").get_by_label("Reason").fill("it wins more")
    page.get_by_role("button", name="Make it the champion").click()
    assert page.get_by_role("status").inner_text() == "champion of bot is version 3 now."
    page.get_by_role("button", name="Roll back from 3").click()
    assert page.get_by_role("status").inner_text() == "champion of bot is version 1 again."
    page.get_by_role("link", name="Routes").click()
    page.locator("#start-version").fill("2")
    page.get_by_label("Share").fill("0.5")
    page.get_by_role("button", name="Start it beside version 1").click()
    assert page.get_by_role("status").inner_text() == "Route 1 is live."
    routed.rate_sessions(lambda label, _: float(label == "bot@2"), 10)
    page.reload()
    anna.picture("route")
    page.get_by_role("button", name="Let the champion answer everything").click()
    assert "Route 1 has ended" in page.get_by_role("status").inner_text()
    page.get_by_role("button", name="Sign out").click()
    page.get_by_role("heading", name="Sign in").wait_for()


def test_the_story_by_keyboard(person: People, routed: Routed, api_key: str) -> None:
    ben = person()
    page, press = ben.page, ben.page.keyboard.press
    ben.open("/adapters/bot")
    page.keyboard.type(api_key)  # the field has the focus
    press("Enter")
    page.get_by_role("heading", name="bot", exact=True).wait_for()
    press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    press("Enter")
    for _ in range(100):
        press("Tab")
        if page.evaluate("document.activeElement.id") == "promote-version":
            break
    press("ArrowDown")
    press("Tab")
    page.keyboard.type("by keyboard")
    press("Enter")
    assert "champion of bot is version" in page.get_by_role("status").inner_text()
    assert page.get_by_text("by keyboard").count() == 1


def test_two_browsers_race_on_one_alias(person: People, routed: Routed, api_key: str) -> None:
    anna, ben = person(), person()
    for each in (anna, ben):
        each.sign_in(api_key)
        each.open("/adapters/bot")
    anna.page.locator("#promote-version").select_option("2")
    ben.page.locator("#promote-version").select_option("3")
    ben.page.get_by_role("form", name="Promote").get_by_label("Reason").fill("a long reason")
    for each in (anna, ben):
        each.page.get_by_role("button", name="Make it the champion").click()
    assert anna.page.get_by_role("status").inner_text() == "champion of bot is version 2 now."
    assert ben.page.get_by_role("heading", name="That did not work").count() == 1
    assert ben.page.get_by_text("Somebody was faster").count() == 1
    assert ben.page.get_by_text("a long reason").count() == 1
    ben.picture("stale")
    ben.page.get_by_role("link", name="Back").click()
    assert ben.page.get_by_role("button", name="Roll back from 2").count() == 1


def test_a_sign_in_that_ends_in_mid_form_loses_nothing(
    person: People, services: Services, routed: Routed, api_key: str
) -> None:
    anna = person()
    anna.sign_in(api_key)
    anna.open("/adapters/bot")
    page = anna.page
    page.locator("#promote-version").select_option("4")
    page.get_by_role("form", name="Promote").get_by_label("Reason").fill("written with care")
    with transaction(services.sessions) as session:
        session.query(SignIn).delete()
    page.get_by_role("button", name="Make it the champion").click()
    page.get_by_label("API key").fill(api_key)
    page.get_by_role("button", name="Sign in").click()
    assert page.get_by_text("written with care").count() == 1
    page.get_by_role("button", name="Send it").click()
    assert page.get_by_role("status").inner_text() == "champion of bot is version 4 now."


def test_a_job_is_seen_while_it_works(person: People, services: Services, routed: Routed, api_key: str) -> None:
    with transaction(services.sessions) as session:
        adapter = get_adapter(session, routed.rows.project_id, "bot")
        job = jobs.create_job(session, routed.rows.project_id, TrainWeaver.from_json({"task": "a"}), adapter)
        job_id = job.id
    anna = person()
    anna.sign_in(api_key)
    anna.open(f"/jobs/{job_id}")
    page = anna.page
    page.get_by_role("button", name="Cancel it").focus()

    def work(step: int, state: str) -> None:
        with transaction(services.sessions) as session:
            row = session.get_one(Job, job_id)
            row.state, row.progress = state, {"phase": "train", "step": step, "steps": 3, "loss": 3.0 - step}
            jobs.add_event(session, job_id, "progress", "train", {"step": step, "loss": 3.0 - step})

    for step in (1, 2):
        work(step, "running")
        page.get_by_text(f"train: step {step} of 3").wait_for()
        assert page.evaluate("document.activeElement.textContent") == "Cancel it", "the focus stays where it was"
    page.locator(".uplot").wait_for()
    anna.picture("job")
    page.keyboard.press("Enter")
    assert "The job" in page.get_by_role("status").inner_text()


def test_a_file_is_uploaded(person: People, rows: Rows, api_key: str, tmp_path: Path) -> None:
    rows.task("a")
    anna = person()
    anna.sign_in(api_key)
    anna.open("/trajectories")
    file = tmp_path / "runs.jsonl"
    file.write_text("\n".join([*map(json.dumps, chats(3, word="bike")), "{broken"]))
    page = anna.page
    page.get_by_label("Task of what names none").select_option("a")
    page.locator("#file").set_input_files(file)
    page.get_by_role("button", name="Upload").click()
    page.get_by_role("heading", name="3 trajectories stored").wait_for()
    assert page.get_by_role("cell", name="4", exact=True).count() == 1
    anna.picture("upload")


def test_the_playground_answers_side_by_side(person: People, rows: Rows, api_key: str) -> None:
    anna = person()
    anna.sign_in(api_key)
    anna.open("/playground")
    page = anna.page
    page.get_by_label("Model 2").select_option("base")
    page.get_by_label("Question").fill("hi")
    page.get_by_label("Most tokens").fill("8")
    page.get_by_role("button", name="Ask").click()
    page.get_by_role("button", name="Good").nth(1).wait_for()
    assert page.get_by_text("memory woven in 0 times").count() == 2
    page.get_by_role("button", name="Good").first.click()
    page.get_by_text("Counted as good.").wait_for()
    anna.picture("playground")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_keeps_anybody_out(person: People, full: Routed, api_key: str, scheme: str) -> None:
    anna = person(color_scheme=scheme)
    anna.sign_in(api_key)
    for path in PAGES:
        anna.open(path)
        found = Axe().run(anna.page).response["violations"]
        serious = [
            (each["id"], [node["html"] for node in each["nodes"]][:3])
            for each in found
            if each["impact"] in ("serious", "critical")
        ]
        assert serious == [], path
        anna.picture(f"{scheme}{path.partition('?')[0].replace('/', '-') or '-overview'}")


def test_nothing_is_wider_than_a_phone(person: People, full: Routed, api_key: str) -> None:
    anna = person(viewport={"width": 375, "height": 700}, is_mobile=True, has_touch=True)
    anna.sign_in(api_key)
    for path in PAGES:
        anna.open(path)
        assert anna.page.evaluate("document.documentElement.scrollWidth") <= 375, path
    anna.open("/adapters/bot")
    anna.picture("phone")


def test_without_scripts_people_still_promote(person: People, routed: Routed, api_key: str) -> None:
    anna = person(java_script_enabled=False)
    anna.sign_in(api_key)
    anna.open("/adapters/bot")
    anna.page.locator("#promote-version").select_option("2")
    anna.page.get_by_role("button", name="Make it the champion").click()
    assert anna.page.get_by_role("status").inner_text() == "champion of bot is version 2 now."
    anna.open("/playground")
    assert "The playground needs scripts" in anna.page.locator("body").inner_text()
