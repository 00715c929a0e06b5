"""What the command line can do, by mouse and by keyboard: a schedule from its making to its end, and a deletion."""

from collections.abc import Callable

import pytest

from registry.database import transaction
from registry.models import Schedule, Trajectory
from registry.trajectories.imports import import_batch, read_item
from registry.wiring import Services
from tests.browser.conftest import Person
from tests.browser.hands import Hands, Keyboard, Mouse
from tests.registry.conftest import TOKENS, Rows, chats
from tests.registry.routed import make_routed

pytest.importorskip("playwright.sync_api", reason="`make test-browser` installs it")
People = Callable[..., Person]
HANDS = pytest.mark.parametrize("hands", [Mouse, Keyboard])


@HANDS
def test_a_schedule_from_its_making_to_its_end(
    person: People, services: Services, rows: Rows, api_key: str, hands: Callable[..., Hands]
) -> None:
    make_routed(rows)
    anna = person()
    anna.sign_in(api_key)
    page, hand = anna.page, hands(anna.page)
    hand.press(page.get_by_role("link", name="Schedules"))
    hand.write(page.get_by_label("Name"), "nightly")
    hand.write(page.get_by_label("By the clock"), "0 3 * *")
    hand.write(page.get_by_label("Settings of the training"), "steps=40")
    hand.press(page.get_by_role("button", name="Make the schedule"))
    page.get_by_text("has 4 fields").wait_for()
    anna.picture("refused")
    assert page.get_by_label("Settings of the training").input_value() == "steps=40"
    assert page.get_by_label("Name").input_value() == "nightly"
    hand.write(page.get_by_label("By the clock"), "0 3 * * *")
    hand.press(page.get_by_role("button", name="Make the schedule"))
    page.get_by_role("heading", name="nightly").wait_for()
    assert page.get_by_role("status").inner_text() == "nightly trains bot from now on."
    anna.picture("schedule")

    hand.press(page.get_by_role("button", name="Pause it"))
    assert page.get_by_role("status").inner_text() == "nightly is paused."
    hand.write(page.get_by_label("By the clock"), "x")
    hand.press(page.get_by_role("button", name="Change it"))
    page.get_by_text("has 1 fields").wait_for()
    assert page.get_by_role("group", name="When").get_attribute("aria-invalid") == "true"
    hand.write(page.get_by_label("By the clock"), "30 4 * * *")
    hand.press(page.get_by_role("button", name="Change it"))
    assert page.get_by_role("status").inner_text() == "nightly is changed."
    with transaction(services.sessions) as session:
        row = session.query(Schedule).one()
        assert (row.cron, row.params["training"]["steps"], row.paused_at is None) == ("30 4 * * *", 40, False)

    hand.press(page.get_by_text("Delete it", exact=True))
    hand.press(page.get_by_role("button", name="Delete the schedule nightly"))
    assert "The schedule nightly is deleted" in page.get_by_role("status").inner_text()
    assert page.get_by_role("link", name="nightly").count() == 0


@HANDS
def test_a_deletion_is_seen_before_it_is_done(
    person: People, services: Services, rows: Rows, api_key: str, hands: Callable[..., Hands]
) -> None:
    make_routed(rows)
    _send(rows, chats(5, word="parcel", metadata={"user": "anna"}))
    rows.version("a")
    ben = person()
    ben.sign_in(api_key)
    page, hand = ben.page, hands(ben.page)
    hand.press(page.get_by_role("link", name="Deletions"))
    hand.choose(page.get_by_label("All of"), "a user")
    hand.write(page.get_by_label("Which"), "nobody")
    hand.press(page.get_by_role("button", name="See what a deletion takes"))
    page.get_by_text("nothing of user").wait_for()
    assert page.evaluate("document.activeElement.id") == "plan-id", "the cursor stands where the trouble is"
    hand.write(page.get_by_label("Which"), "anna")
    hand.choose(page.get_by_label("Versions that learned it"), "are trained anew")
    hand.press(page.get_by_role("button", name="See what a deletion takes"))
    page.get_by_role("heading", name="Delete 5 trajectories for good?").wait_for()
    ben.picture("deletion-plan")
    _send(rows, chats(1, word="late", metadata={"user": "anna"}))
    hand.write(page.get_by_label("Reason"), "she asked for it")
    hand.press(page.get_by_role("button", name="Delete 5 trajectories for good"))
    page.get_by_text("6 trajectories would be deleted, not 5 as in the dry run").wait_for()
    assert page.get_by_label("Reason").input_value() == "she asked for it"
    assert _count(services) == 6
    hand.press(page.get_by_role("button", name="Delete 6 trajectories for good"))
    page.get_by_role("heading", name="6 trajectories deleted").wait_for()
    assert page.get_by_role("progressbar", name="Versions trained anew").count() == 1
    assert page.get_by_text("she asked for it").count() == 1
    assert _count(services) == 0
    ben.picture("deletion")


def _send(rows: Rows, items: list[dict[str, object]]) -> None:
    with transaction(rows.services.sessions) as session:
        read = [read_item(number, item) for number, item in enumerate(items)]
        import_batch(session, rows.project_id, read, default_task="a", tokens=TOKENS)


def _count(services: Services) -> int:
    with transaction(services.sessions) as session:
        return session.query(Trajectory).where(Trajectory.details["user"].astext == "anna").count()
