"""The benchmark of the dashboard: what it fills is what pages show, whatever becomes of the schema."""

from bench.dashboard.__main__ import measure, pages_of
from bench.dashboard.filling import fill
from registry.settings import Settings
from registry.wiring import Services
from tests.api.live_api import serve


def test_every_page_of_a_filled_project_is_measured(settings: Settings, services: Services) -> None:
    large, small = fill(services.engine, services.sessions, versions=12, trajectories=400)
    with serve(settings) as url:
        found = measure(url, large, pages_of(large, 12), repeats=1)
        of_small = measure(url, small, pages_of(small, 0), repeats=1)
    assert set(found) > set(of_small)
    sizes = {name: page["kilobytes"] for name, page in found.items()}
    nothing, one, many = (
        sizes[f"trajectories: {name}"] for name in ("a word that nobody has", "a word that one has", "all")
    )
    assert nothing < one < many
    assert sizes["trajectories: a session"] > nothing
    assert sizes["its items"] > 10, "with what was answered"
