"""The page of what a version has learned, without a script."""

import uuid

import pytest

from api.dashboard.scatter import MARGIN, MOST_DOTS, SIDE, draw_scatter
from registry import jobs
from registry.database import transaction
from registry.wiring import Services
from tests.api.dashboard.conftest import Visitor, forms_of, key_with
from tests.registry.analyzed import analyze
from tests.registry.conftest import Rows

PAGE = "/adapters/bot/versions/1/analysis"


@pytest.fixture
def versions(rows: Rows) -> Rows:
    rows.task("a")
    for _ in range(2):
        rows.version("a")
    return rows


def test_a_version_that_nobody_has_looked_into_says_how(visitor: Visitor, versions: Rows) -> None:
    assert f'href="/ui{PAGE}"' in visitor.open("/adapters/bot/versions/1")
    page = visitor.open(PAGE)
    assert "memgen analyze bot@1" in page
    assert "<svg" not in page
    assert "There is no such page" in visitor.open("/adapters/bot/versions/9/analysis", status=404)


def test_what_was_found_is_on_the_page(visitor: Visitor, versions: Rows) -> None:
    job_id = analyze(versions.services, versions.project_id)
    page = visitor.open(PAGE)
    assert page.count('<figure class="scatter">') == 4, "t-SNE and PCA, by task and by cluster"
    assert page.count('<path d="M') == 4 * 30 + page.count('class="mark"')
    for text in (
        "30 latents of 10 answers",
        "planning memory",
        "no clear role",
        "&#39; &lt;plan&gt;&#39;",
        "10.0% to 40.0%",
        "above 0.31",
        "as trained",
        "They are much alike.",
        "cluster 2 (10)",
    ):
        assert text in page, text
    assert f"/ui/jobs/{job_id}" in page
    assert f"/ui{PAGE}" in visitor.open(f"/jobs/{job_id}")
    files = visitor.http.get(f"/ui{PAGE}/files")
    assert (files.status_code, files.headers["content-type"]) == (200, "application/x-tar")


def test_names_are_text_and_never_markup(visitor: Visitor, versions: Rows) -> None:
    evil = "<script>alert(1)</script>"
    analyze(
        versions.services,
        versions.project_id,
        clusters={"verdict": evil, "reason": evil, "choices": [], "clusters": [], "explained_by": {evil: 0.5}},
        tokens={
            "directions": [{"name": "latent 3", "tokens": [{"token_id": 1, "token": evil, "cosine": 0.5}]}],
            "chance_cosine": 0.3,
        },
    )
    assert "<script>alert" not in visitor.open(PAGE).lower()


def test_an_analysis_without_anything_woven_has_no_picture(visitor: Visitor, versions: Rows) -> None:
    analyze(
        versions.services,
        versions.project_id,
        latents=0,
        map={"points": [], "explained_variance": [0.0, 0.0], "perplexity": 0.0},
        clusters={"verdict": "no clusters", "reason": "none", "choices": [], "clusters": [], "explained_by": {}},
        interventions={
            "items": 10,
            "accuracy": 0.75,
            "effects": [],
            "confidence": None,
            "rule": "A role needs a rise.",
        },
        drift=None,
        ablations=None,
    )
    page = visitor.open(PAGE)
    assert "<svg" not in page
    assert "Nothing was woven" in page
    assert "There is no cluster to be dropped." in page


def test_it_is_started_once_from_the_page(visitor: Visitor, versions: Rows) -> None:
    page, action = visitor.open(PAGE), f"/ui{PAGE}"
    for _ in range(2):
        done = visitor.send(page, action, items="12", against="2")
        assert done.url.path.startswith("/ui/jobs/")
    with transaction(versions.services.sessions) as session:
        [job] = [
            each
            for each in jobs.list_jobs(session, versions.project_id, before=None, limit=9)
            if each.kind == "analyze"
        ]
        assert (job.params["items"], job.params["against"], job.params["ablations"]) == (12, 2, True)
    fields = {**forms_of(page)[action], "once": uuid.uuid4().hex, "items": "many"}
    assert visitor.http.post(action, data=fields).status_code == 422
    without = {**forms_of(page)[action], "once": uuid.uuid4().hex}
    del without["ablations"]
    job_id = visitor.http.post(action, data=without).url.path.rpartition("/")[2]
    with transaction(versions.services.sessions) as session:
        job = jobs.get_job(session, versions.project_id, uuid.UUID(job_id))
        assert (job.params["interventions"], job.params["ablations"]) == (True, False)


def test_who_may_only_read_starts_none(stranger: Visitor, services: Services, versions: Rows) -> None:
    _, key = key_with(services, versions.project_id, "read")
    stranger.sign_in(key)
    assert f"/ui{PAGE}" not in forms_of(stranger.open(PAGE))


def test_dots_stay_in_the_picture_and_are_few() -> None:
    points = [(float(n), float(n * n)) for n in range(5 * MOST_DOTS)]
    picture = draw_scatter("many", points, [f"group {n % 11:02}" for n in range(len(points))])
    dots = [dot for group in picture.groups for dot in group.dots]
    assert 0 < len(dots) <= MOST_DOTS
    assert all(MARGIN <= x <= SIDE - MARGIN and MARGIN <= y <= SIDE - MARGIN for x, y in dots)
    assert sum(group.points for group in picture.groups) == len(points)
    assert [group.name for group in picture.groups] == [f"group {n:02}" for n in range(11)]
    assert len({group.shape for group in picture.groups[:7]}) == 7, "whoever sees no colours sees these"
    [same] = draw_scatter("one", [(1.0, 1.0)], ["a"]).groups
    assert same.dots == [(SIDE / 2, SIDE / 2)]
    assert draw_scatter("none", [], []).groups == []
