"""What each page shows and does, over real rows: no script, as a screen reader or a bad network has it."""

import json
import re
import uuid
from collections.abc import Callable
from html import unescape
from importlib.resources import files
from typing import Any

import httpx
import pytest
from typer.main import get_command

from api.cli.main import app as cli
from api.dashboard.lineage import draw_lineage
from api.dashboard.rendering import static_files
from api.http.schemas import VersionOut
from registry import jobs
from registry.adapters import get_adapter
from registry.database import transaction
from registry.job_requests import TrainWeaver
from registry.loops.plan import LoopPlan
from registry.serving.aliases import promote
from registry.tasks import get_task
from registry.versions.records import get_version
from registry.wiring import Services
from tests.api.dashboard.conftest import Visitor, forms_of
from tests.api.stored import make_scores
from tests.query_counts import record_queries
from tests.registry.conftest import Rows
from tests.registry.loops.looped import make_looped
from tests.registry.routed import Routed, make_routed

CHAMPION = "/ui/adapters/bot/aliases/champion"


@pytest.fixture
def routed(rows: Rows) -> Routed:
    """Versions 1 to 4 of `bot` passed, 5 was rejected, 6 is not checked; 1 is the champion."""
    return make_routed(rows)


def test_a_service_without_anything_says_how_to_begin(visitor: Visitor) -> None:
    assert "memgen loop create" in visitor.open()
    assert "memgen adapter create" in visitor.open("/adapters")
    assert "memgen train" in visitor.open("/jobs")
    assert "memgen loop create" in visitor.open("/loops")


def test_names_are_text_and_never_markup(visitor: Visitor, services: Services, routed: Routed) -> None:
    with transaction(services.sessions) as session:
        adapter = get_adapter(session, routed.rows.project_id, "bot")
        adapter.description = "<script>alert(1)</script>"
        promote(
            session,
            adapter,
            "champion",
            get_version(session, adapter, 2),
            actor="key <b>",
            reason='"><img src=x onerror=alert(1)>',
        )
    for path in ("", "/adapters", "/adapters/bot"):
        page = visitor.open(path)
        assert "<script>alert" not in page
        assert "<img" not in page
        assert "<b>" not in page


def test_what_does_not_exist_is_a_page(visitor: Visitor, routed: Routed) -> None:
    for path in (
        "/nothing",
        "/adapters/nobody",
        "/adapters/bot/versions/77",
        f"/adapters/bot/versions/{10**30}",
        "/adapters/bot/versions/x",
        "/adapters/bot/versions/6/items",
        "/adapters/bot/routes/9",
        "/jobs/no-id",
        f"/jobs/{uuid.uuid4()}",
        "/loops/bot",
    ):
        assert "<h1>There is no such page</h1>" in visitor.open(path, status=404), path


def test_a_slash_behind_a_path_is_no_other_page(visitor: Visitor, routed: Routed) -> None:
    for path in ("", "/adapters", "/adapters/bot"):
        answer = visitor.http.get(f"/ui{path}/")
        assert (answer.status_code, answer.url.path) == (200, f"/ui{path}")
    assert visitor.http.get("/ui//evil.example//").url.host == "testserver"


def test_data_are_shown_as_they_were_written(visitor: Visitor, services: Services, routed: Routed) -> None:
    """In no notation that only machines read."""
    with transaction(services.sessions) as session:
        request = TrainWeaver.from_json({"task": "a", "parent": 1})
        job = jobs.create_job(session, routed.rows.project_id, request)
        job.state, job.result = "succeeded", {"said": "Größe <b> & 'Maß' 😀"}
        path = f"/jobs/{job.id}"
    assert "Größe <b> & 'Maß' 😀" in unescape(visitor.open(path))
    assert "<b>" not in visitor.open(path)


def test_promote_and_roll_back_with_a_reason(visitor: Visitor, routed: Routed) -> None:
    page = visitor.open("/adapters/bot")
    done = visitor.send(page, f"{CHAMPION}/promote", version="3", reason="it wins more")
    assert "champion of bot is version 3 now." in done.text
    assert "it wins more" in done.text
    assert "champion of bot is version 3 now." not in visitor.open("/adapters/bot"), "it is said once"
    done = visitor.send(done.text, f"{CHAMPION}/rollback", reason="it does not")
    assert "champion of bot is version 1 again." in done.text
    assert "it does not" in done.text


def test_a_stale_page_is_refused_and_says_so(visitor: Visitor, routed: Routed) -> None:
    stale = visitor.open("/adapters/bot")
    visitor.send(visitor.open("/adapters/bot"), f"{CHAMPION}/promote", version="2", reason="first")
    refused = visitor.send(stale, f"{CHAMPION}/promote", version="3", reason="a long reason")
    assert refused.status_code == 409
    assert "Somebody was faster" in refused.text
    assert "a long reason" in refused.text, "what was typed is not lost"
    assert "a long reason" not in visitor.open("/adapters/bot")


def test_every_move_of_an_alias_is_there(visitor: Visitor, routed: Routed) -> None:
    for n in range(60):
        routed.move_champion(2 + n % 2)
    newest = visitor.open("/adapters/bot")
    [older] = re.findall(r'href="(\?moves=[^"#]+)#aliases">Older moves', newest)
    oldest = visitor.open(f"/adapters/bot{older}")
    assert [page.count("<td>promotion</td>") for page in (newest, oldest)] == [50, 11]
    assert "Older moves" not in oldest


def test_only_versions_that_may_serve_are_offered(visitor: Visitor, routed: Routed) -> None:
    page = visitor.open("/adapters/bot")
    offered = page.partition('id="promote-version"')[2].partition("</select>")[0]
    assert [number for number in "123456" if f'value="{number}"' in offered] == ["2", "3", "4"]
    refused = visitor.http.post(f"{CHAMPION}/promote", data={**forms_of(page)[f"{CHAMPION}/promote"], "version": "5"})
    assert refused.status_code == 403


def test_the_lineage_is_a_graph(visitor: Visitor, routed: Routed) -> None:
    page = visitor.open("/adapters/bot")
    assert page.count("<circle") == 6
    assert 'aria-label="version 5, rejected, learned a"' in page
    assert 'aria-label="version 1, passed, learned a, champion"' in page


def test_lines_of_the_graph_never_meet() -> None:
    parents = {1: None, 2: 1, 3: 1, 4: 2, 5: 2, 6: 99, 7: 5, 8: 3}
    graph = draw_lineage([_version(number, parent) for number, parent in parents.items()])
    places = {(node.x, node.y) for node in graph.nodes}
    assert len(places) == len(parents)
    assert len(graph.edges) == 6
    assert all(edge.x2 > edge.x1 for edge in graph.edges)
    assert all(0 < node.x < graph.width and 0 < node.y < graph.height for node in graph.nodes)
    assert draw_lineage([]).nodes == []


def _version(number: int, parent: int | None) -> VersionOut:
    return VersionOut.model_construct(number=number, parent=parent, verdict="passed", task="a")


def test_a_version_and_its_gate(visitor: Visitor, routed: Routed) -> None:
    page = visitor.open("/adapters/bot/versions/2")
    assert "<h1>bot@2" in page
    assert "What the gate compared" in page
    items = visitor.open("/adapters/bot/versions/2/items?flipped=all")
    assert "Items that the gate compared" in items
    archived = visitor.send(page, "/ui/adapters/bot/versions/2/archive", reason="old")
    assert "bot@2 is archived." in archived.text
    back = visitor.send(archived.text, "/ui/adapters/bot/versions/2/unarchive")
    assert "bot@2 is in the lists again." in back.text


def test_a_route_from_its_start_to_its_end(visitor: Visitor, routed: Routed) -> None:
    page = visitor.open("/adapters/bot/routes")
    action = "/ui/adapters/bot/routes"
    live = visitor.send(page, action, kind="canary", version="2", share="0.5", reason="try it")
    assert live.url.path == "/ui/adapters/bot/routes/1"
    again = visitor.send(page, action, kind="canary", version="2", share="0.5", reason="try it")
    assert again.url.path == "/ui/adapters/bot/routes/1", "a form that is sent twice starts one route"
    routed.rate_sessions(lambda label, _: 1.0 if label == "bot@2" else 0.5, 10)
    page = visitor.open("/adapters/bot/routes/1")
    assert page.count('<svg class="bar"') == 2
    assert "not yet" in page
    ended = visitor.send(page, "/ui/adapters/bot/routes/1/end", reason="enough")
    assert "Route 1 has ended" in ended.text
    assert "enough" in ended.text
    assert "/ui/adapters/bot/routes/1/end" not in forms_of(ended.text)
    stale = visitor.send(page, "/ui/adapters/bot/routes/1/end", reason="again")
    assert stale.status_code == 409


def test_an_ab_route_and_what_forms_refuse(visitor: Visitor, routed: Routed) -> None:
    page = visitor.open("/adapters/bot/routes")
    action = "/ui/adapters/bot/routes"
    for version, share in (("5", "0.5"), ("2", "1.5"), ("2", "half"), ("two", "0.5")):
        refused = visitor.send(page, action, kind="ab", version=version, share=share, reason="a long reason")
        assert refused.status_code in (403, 422)
        kept = forms_of(refused.text)[action]
        assert [kept[name] for name in ("kind", "version", "share", "reason")] == [
            "ab",
            version,
            share,
            "a long reason",
        ]
    live = visitor.send(page, action, kind="ab", version="2", share="0.25")
    assert "75.0%" in live.text
    assert "25.0%" in live.text


def test_a_version_is_trained(visitor: Visitor, services: Services, routed: Routed) -> None:
    page, action = visitor.open("/adapters/bot"), "/ui/adapters/bot/train"
    queued = visitor.send(page, action, task="a", steps="7", settings="learning_rate=0.5  batch_size=2")
    assert "The training is queued." in queued.text
    again = visitor.send(page, action, task="a", steps="7", settings="learning_rate=0.5  batch_size=2")
    assert again.url == queued.url, "a form that is sent twice starts one job"
    with transaction(services.sessions) as session:
        request = jobs.request_as(jobs.get_job(session, routed.rows.project_id, _job_of(queued)), TrainWeaver)
    assert (request.task, request.parent, request.promote) == ("a", 1, True)
    assert [request.training[name] for name in ("steps", "learning_rate", "batch_size")] == [7, 0.5, 2]
    unchecked = {**forms_of(visitor.open("/adapters/bot"))[action]}
    del unchecked["promote"]  # as a browser sends a box that is not checked
    with transaction(services.sessions) as session:
        other = _job_of(visitor.http.post(action, data=unchecked))
        request = jobs.request_as(jobs.get_job(session, routed.rows.project_id, other), TrainWeaver)
    assert not request.promote
    page = visitor.open("/adapters/bot")
    for wrong in ({"settings": "steps"}, {"settings": "=1"}, {"steps": "0"}, {"steps": "x"}, {"settings": "flies=1"}):
        refused = visitor.send(page, action, **wrong)
        assert refused.status_code == 422, wrong
        assert forms_of(refused.text)[action].items() >= wrong.items(), "what was typed is not lost"


def _job_of(answer: httpx.Response) -> uuid.UUID:
    return uuid.UUID(answer.url.path.rpartition("/")[2])


def test_pages_name_commands_that_there_are() -> None:
    group = get_command(cli)
    for template in (files("api.dashboard") / "templates").iterdir():
        for first, second in re.findall(r"memgen ([a-z-]+) ?([a-z-]*)", template.read_text()):
            command = group.commands[first]  # type: ignore[attr-defined]  # a group
            assert not hasattr(command, "commands") or second in command.commands, (template.name, first, second)


def test_jobs_are_watched_and_cancelled(visitor: Visitor, services: Services, routed: Routed) -> None:
    with transaction(services.sessions) as session:
        adapter = get_adapter(session, routed.rows.project_id, "bot")
        job = jobs.create_job(session, routed.rows.project_id, TrainWeaver.from_json({"task": "a"}), adapter)
        jobs.add_event(session, job.id, "progress", "train", {"step": 1, "steps": 9, "loss": 2.5})
        jobs.add_event(session, job.id, "progress", "train", {"step": 2, "steps": 9, "loss": 2.25})
        path = f"/jobs/{job.id}"
    assert f'href="/ui{path}"' in visitor.open("/jobs")
    page = visitor.open(path)
    assert "2.25" in page
    assert "data-chart" in page
    assert f'hx-sse:connect="/ui{path}/live"' in page
    done = visitor.send(page, f"/ui{path}/cancel")
    assert "The job is cancelled." in done.text
    assert f"/ui{path}/cancel" not in forms_of(done.text)
    live = visitor.http.get(f"/ui{path}/live")
    assert live.headers["content-type"].startswith("text/event-stream")
    assert "data: " in live.text
    assert "cancelled" in live.text
    assert live.text.endswith("event: ended\ndata: \n\n")


def test_whoever_may_not_see_a_job_is_told_so_by_its_stream(visitor: Visitor) -> None:
    """In words that the page shows, and once: a browser asks again for what ends without being over."""
    nowhere = visitor.http.get(f"/ui/jobs/{uuid.uuid4()}/live").text
    assert "no job" in nowhere
    visitor.http.cookies.clear()
    signed_out = visitor.http.get(f"/ui/jobs/{uuid.uuid4()}/live").text
    assert "you are not signed in" in signed_out
    assert 'href="/ui/sign-in?next=/ui/jobs/' in signed_out
    assert all(each.endswith("event: ended\ndata: \n\n") for each in (nowhere, signed_out))


def test_a_job_is_looked_at_once_for_each_thing_that_is_sent(
    visitor: Visitor, services: Services, routed: Routed
) -> None:
    with transaction(services.sessions) as session:
        adapter = get_adapter(session, routed.rows.project_id, "bot")
        job = jobs.create_job(session, routed.rows.project_id, TrainWeaver.from_json({"task": "a"}), adapter)
        jobs.request_cancel(session, routed.rows.project_id, job.id)
        path = f"/jobs/{job.id}"
    app: Callable[..., object] = visitor.http.app
    for sent_by, looks in ((path, 1), (f"{path}/live", 2)):  # the second finds that nothing more has come
        with record_queries(app.state.services.engine) as sent:
            assert "cancelled before it began" in visitor.open(sent_by)
        assert sum("FROM job_events" in each for each in sent) == looks, sent_by
        assert sum("FROM jobs" in each for each in sent) == looks, sent_by


def test_the_newest_events_of_a_long_job_are_listed_and_its_curve_is_whole(
    visitor: Visitor, services: Services, routed: Routed
) -> None:
    with transaction(services.sessions) as session:
        job = jobs.create_job(session, routed.rows.project_id, TrainWeaver.from_json({"task": "a"}))
        for step in range(1, 701):
            jobs.add_event(session, job.id, "progress", f"at step {step}", {"step": step, "loss": 1 / step})
        path = f"/jobs/{job.id}"
    page = visitor.open(path)
    assert "at step 700" in page
    assert "at step 501<" in page
    assert "at step 500<" not in page
    [curves] = charts_of(page)
    assert curves["x"] == list(range(1, 701))
    assert len(curves["lines"]["loss"]) == 700


def test_a_curve_goes_on_where_a_lost_worker_had_been(visitor: Visitor, services: Services, routed: Routed) -> None:
    """The next attempt begins at the last checkpoint: its steps are drawn in place of those that were lost."""
    with transaction(services.sessions) as session:
        job = jobs.create_job(session, routed.rows.project_id, TrainWeaver.from_json({"task": "a"}))
        for step, loss in ((1, 4.0), (2, 3.0), (3, 9.0), (2, 2.5), (3, 2.0), (4, None), ("x", 1.0)):
            jobs.add_event(session, job.id, "progress", "train", {"step": step, "loss": loss})
        path = f"/jobs/{job.id}"
    assert charts_of(visitor.open(path)) == [{"x": [1, 2, 3], "lines": {"loss": [4, 2.5, 2]}}]


def test_scores_and_metrics_are_curves_over_versions(visitor: Visitor, services: Services, rows: Rows) -> None:
    """Task `b` is learned behind `a`, and costs it some; its name is no word that curves have a meaning for."""
    for task in ("x", "b"):
        rows.task(task)
    first = rows.version("x")
    second = rows.version("b", parent=first)
    with transaction(services.sessions) as session:
        adapter = get_adapter(session, rows.project_id, "bot")
        x, b = (get_task(session, rows.project_id, name) for name in ("x", "b"))
        make_scores(session, adapter, x, {None: 0.1, first: 0.9, second: 0.7})
        make_scores(session, adapter, b, {None: 0.2, second: 0.8})
    page = visitor.open("/adapters/bot")
    scores, metrics = charts_of(page)
    assert scores == {"x": [1, 2], "lines": {"x": [0.9, 0.7], "b": [None, 0.8]}}
    assert metrics["x"] == [1, 2]
    assert metrics["lines"]["ACC"] == [0.9, 0.75]
    assert metrics["lines"]["BWT"] == [None, pytest.approx(-0.2)]
    assert metrics["lines"]["forgetting"] == [None, pytest.approx(0.2)]
    assert "<summary>ACC, BWT and forgetting by version</summary>" in page, "without scripts it is a table"


def charts_of(page: str) -> list[dict[str, Any]]:
    return [json.loads(unescape(data)) for data in re.findall(r'data-chart="([^"]+)"', page)]


def test_a_loop_with_a_past(visitor: Visitor, rows: Rows) -> None:
    looped = make_looped(rows, LoopPlan(cron="0 3 * * *", after=200))
    looped.send(60, "parcel", reward=1.0)
    for passed in (True, False, True):
        looped.judge(passed=passed)
    looped.check()
    page = visitor.open("/loops/bot")
    assert "the canary of bot@3 is not decided" in page
    paused = visitor.send(page, "/ui/loops/bot/pause")
    assert "The loop of bot is paused." in paused.text
    assert "goes on" in visitor.send(paused.text, "/ui/loops/bot/resume").text
    looped.routed.end(1)
    for _ in range(3):
        looped.judge(passed=False)
    looped.check()
    assert "gate rejected" in visitor.open()
    assert "it starts no training" in visitor.open("/loops/bot")


@pytest.mark.parametrize("path", ["", "/adapters", "/adapters/bot", "/loops"])
def test_queries_do_not_grow_with_what_is_there(
    visitor: Visitor, routed: Routed, services: Services, path: str
) -> None:
    app: Callable[..., object] = visitor.http.app
    counts = []
    for _ in range(2):
        with record_queries(app.state.services.engine) as sent:
            visitor.open(path)
        counts.append(len(sent))
        for _ in range(4):
            routed.rows.version("a")
    assert counts[0] == counts[1]


def test_the_scripts_are_small_and_vendored_with_their_licences() -> None:
    scripts = {path: content for path, (content, kind) in static_files().items() if kind == "text/javascript"}
    assert sum(map(len, scripts.values())) < 150_000
    vendored = [entry.name for entry in (files("api.dashboard") / "static" / "vendor").iterdir()]
    assert {"htmx.LICENSE", "uPlot.LICENSE"} <= set(vendored)


def test_static_files_are_kept_for_ever_under_the_hash_of_their_content(visitor: Visitor) -> None:
    page = visitor.open()
    for path in static_files():
        answer = visitor.http.get(f"/ui/static/{path}")
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]
    assert all(f"/ui/static/{path}" in page for path in static_files() if "/vendor/" in path)
    for wrong in ("../base.html", "dashboard.css", "0" * 12 + "/dashboard.css", "%2e%2e/visits.py"):
        assert visitor.http.get(f"/ui/static/{wrong}").status_code == 404
