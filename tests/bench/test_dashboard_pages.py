"""The benchmark of the dashboard: what it fills is what pages show, whatever becomes of the schema."""

import uuid

import pytest
import sqlalchemy as sa
from starlette.routing import Match, Route

from api.dashboard.urls import ROUTES
from api.dashboard.visits import HOME
from bench.dashboard.__main__ import measure, pages_of
from bench.dashboard.filling import FilledProject, fill
from registry.database import transaction
from registry.models import Trajectory, TrajectoryWords
from registry.settings import Settings
from registry.trajectories.words import words_of
from registry.wiring import Services
from tests.api.live_api import serve

_VERSIONS = 12
_NO_PAGES = {"sign_in.form", "static", "nothing", "jobs.live", "analyses.files", "versions.export"}
"""What reads no rows, what goes on, and what is a file of the object store."""


@pytest.fixture
def filled(services: Services) -> tuple[FilledProject, FilledProject]:
    return fill(services.engine, services.sessions, versions=_VERSIONS, trajectories=1200)


def test_every_page_of_a_filled_project_is_measured(
    filled: tuple[FilledProject, FilledProject], settings: Settings
) -> None:
    large, small = filled
    with serve(settings) as url:
        found = measure(url, large, pages_of(large, _VERSIONS), repeats=1)
        of_small = measure(url, small, pages_of(small, 0), repeats=1)
    assert set(found) > set(of_small)
    sizes = {name: page["kilobytes"] for name, page in found.items()}
    nothing, one, many = (
        sizes[f"trajectories: {name}"] for name in ("a word that nobody has", "a word that one has", "all")
    )
    assert nothing < one < many
    assert sizes["trajectories: a session"] > nothing
    assert sizes["its items"] > 10, "with what was answered"
    assert {"trajectories: all, next page", "deletions, next page", "routes, next page"} <= set(found)
    assert all(1 <= page["statements"] <= 50 for page in found.values()), "none asks for each of 51 adapters in turn"


def test_no_page_is_left_out() -> None:
    paths = [f"{HOME}{path}".partition("?")[0] for path in pages_of(FilledProject(uuid.UUID(int=1), ""), 300).values()]
    measured = {_name_of(path) for path in paths}
    pages = {route.name.removeprefix("dashboard.") for route in ROUTES if "GET" in (route.methods or ())}
    assert measured == pages - _NO_PAGES


def test_the_words_are_those_of_the_conversations(
    filled: tuple[FilledProject, FilledProject], services: Services
) -> None:
    with transaction(services.sessions) as session:
        rows = session.execute(
            sa.select(Trajectory.messages, TrajectoryWords.words)
            .join(TrajectoryWords, TrajectoryWords.seq == Trajectory.seq)
            .where(Trajectory.project_id == filled[0].id)
            .order_by(Trajectory.seq)
            .limit(20)
        ).all()
        for row in rows:
            as_indexed = sa.func.to_tsvector(sa.text("'simple'::regconfig"), words_of(row.messages))
            assert session.scalar(sa.select(as_indexed)) == row.words
    assert len(rows) == 20


def _name_of(path: str) -> str:
    scope = {"type": "http", "path": path, "method": "GET", "root_path": ""}
    route = next(route for route in ROUTES if route.matches(scope)[0] is Match.FULL)
    assert isinstance(route, Route)
    return route.name.removeprefix("dashboard.")
