"""What a person is shown of the versions that a trajectory has affected, however many those are."""

from registry.database import transaction
from registry.models import Version
from registry.trajectories.records import get_trajectory
from registry.versions.lineage import suites_of, touched_by, trajectory_lineage
from tests.registry.conftest import Rows
from tests.registry.routed import Routed
from tests.registry.stored_versions import trajectories


def test_those_that_serve_and_the_newest_that_learned_it_are_shown(rows: Rows) -> None:
    rows.task("a")
    rows.task("b")
    first = rows.version("a")
    chain: list[Version] = [first]
    for _ in range(5):
        chain.append(rows.version("b", parent=chain[-1]))
    again = rows.version("a", parent=chain[-1])
    elsewhere = rows.version("b")
    routed = Routed(rows)
    routed.move_champion(4)
    routed.start_canary(elsewhere.number)
    learned = trajectories(rows, held_out=False)[0]
    with transaction(rows.services.sessions) as session:
        row = get_trajectory(session, rows.project_id, learned.id)
        found = touched_by(session, row, most=1)
        assert [version.number for version in found.shown] == [4, again.number]
        assert found.direct == {again.id}
        assert found.serving[found.shown[0].id].aliases == ("champion",)
        assert found.count == len(trajectory_lineage(session, row).versions) == 7
        assert [version.number for version in touched_by(session, row, most=9).shown] == [1, 4, again.number]
        assert suites_of(session, row) == []


def test_what_nobody_learned_touched_nothing(rows: Rows) -> None:
    rows.task("a")
    held_out = trajectories(rows, held_out=True)[0]
    with transaction(rows.services.sessions) as session:
        found = touched_by(session, get_trajectory(session, rows.project_id, held_out.id), most=9)
        assert (found.shown, found.count) == ((), 0)
