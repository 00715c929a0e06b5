"""Tables and pictures for notebooks: whole SVG and HTML, every text escaped, secrets left out."""

import re
from datetime import UTC, datetime
from typing import Any
from xml.etree import ElementTree

from memgen_client.models.adapters import Adapter, Scores
from memgen_client.models.analyses import Analysis, LatentMap
from memgen_client.models.jobs import Job
from memgen_client.models.model import Model
from memgen_client.models.routes import Route, RouteResults
from memgen_client.models.rows import Page, Rows
from memgen_client.models.service import NewKey, WebhookSecret
from memgen_client.pictures.matrix import matrix
from memgen_client.pictures.scatter import scatter
from tests.registry.analyzed import found

EVIL = "<script>alert('x')</script>&\"'"
NOW = "2026-01-01T00:00:00Z"


def parsed(html: str) -> ElementTree.Element:
    """The fragment as XML: whatever is not escaped or not closed breaks it."""
    assert "<script" not in html
    return ElementTree.fromstring(f"<div>{html}</div>")


def svg(html: str) -> str:
    [found] = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    return str(found)


def score(value: float) -> dict[str, Any]:
    return {"score": value, "items": 10, "left_out": 0, "suite": 1, "seconds": 0.1}


def scores(**more: Any) -> Scores:
    return Scores.model_validate(
        {
            "tasks": ["sums", EVIL],
            "base": {"sums": score(0.1), EVIL: score(0.2)},
            "versions": {"1": {"sums": score(0.9)}, "2": {"sums": score(0.7), EVIL: score(0.8)}},
            "metrics": {"version": 2, "acc": 0.75, "bwt": -0.2, "fwt": None, "forgetting": {"sums": 0.2, EVIL: 0.0}},
            "history": [],
            **more,
        }
    )


def route(**more: Any) -> dict[str, Any]:
    return {
        **{"adapter": EVIL, "number": 3, "kind": "canary", "state": "live", "shadow_share": None, "level": 0.05},
        **{"arms": [{"version": 6, "weight": 0.95}, {"version": 7, "weight": 0.05}], "smallest_effect": 0.05},
        **{"reward_source": None, "promotion": "never", "margin": None, "created_at": NOW, "ended_at": None},
        **more,
    }


def test_the_matrix_shows_each_measured_score_and_the_metrics() -> None:
    html = scores()._repr_html_()
    texts = [each.text for each in parsed(html).iter() if each.text]
    assert {"0.100", "0.200", "0.900", "0.700", "0.800", "base", "ACC", "BWT", "FWT", "0.75", "-0.2"} <= set(texts)
    assert html.count("<rect") == 5
    assert "forgetting of sums" in texts
    assert "<rect" not in scores(tasks=[], base={}, versions={}, metrics=None)._repr_html_()


def test_a_cell_is_as_dark_as_its_score_is_high() -> None:
    def depths(rows: list[tuple[str, dict[str, float]]]) -> list[float]:
        return [float(each) for each in re.findall(r"fill-opacity='([\d.]+)'", matrix(["t"], rows))]

    low, middle, high = depths([("a", {"t": 0.0}), ("b", {"t": 0.5}), ("c", {"t": 1.0})])
    assert (low, middle, high) == (0.06, 0.53, 1.0)
    low, high = depths([("a", {"t": -9.0}), ("b", {"t": -3.0})])
    assert (low, high) == (0.06, 1.0)
    assert depths([("a", {"t": -9.0})]) == [0.53]


def test_routes_show_their_shares_and_results_their_intervals() -> None:
    html = Route.model_validate(route())._repr_html_()
    assert "version 6: 95%  version 7: 5%" in [each.text for each in parsed(html).iter()]
    assert [float(w) for w in re.findall(r"width='([\d.]+)' height='20' fill", svg(html))] == [399, 21]
    arm = {"exposures": 10, "feedback": 5, "sessions": 5, "sessions_needed": 0, "difference": None}
    interval = {"low": 0.25, "high": 0.75}
    found = {
        "verdict": "not yet",
        "estimate": 0.1,
        "interval": {"low": -0.2, "high": 0.4},
        "non_inferior": True,
    }
    results = RouteResults.model_validate(
        {
            "route": route(),
            "arms": [
                {**arm, "version": 6, "weight": 0.95, "mean": 0.5, "interval": interval},
                {**arm, "version": 7, "weight": 0.05, "mean": None, "interval": interval, "difference": found},
            ],
            "shadow": None,
        }
    )
    html = results._repr_html_()
    texts = [each.text for each in parsed(html).iter()]
    assert "not yet, non-inferior" in texts
    assert (html.count("<line"), html.count("<circle")) == (2, 1)
    assert re.findall(r"<line x1='([\d.]+)' y1='13' x2='([\d.]+)'", html) == [("195", "405")]


def test_several_show_as_a_table_and_one_as_its_fields() -> None:
    job = {
        **{"id": EVIL, "kind": "evaluate", "state": "queued", "adapter": None, "params": {"a": 1}, "attempt": 0},
        **{"progress": {}, "result": None, "error": None, "created_at": NOW, "started_at": None},
        **{"finished_at": None, "waits_for_broker": False},
    }
    rows = Rows([Job.model_validate(job)])
    heads = [each.text for each in parsed(rows._repr_html_()).iter("th")]
    assert heads == ["id", "kind", "state", "adapter", "created at", "finished at"]
    assert len(list(parsed(rows[0]._repr_html_()).iter("tr"))) == len(job)
    assert "2026-01-01 00:00" in rows._repr_html_()
    assert parsed(Rows[Job]()._repr_html_()).findtext("p") == "none"
    page = Page(rows, "next")
    assert (list(page), len(page)) == (list(rows), 1)
    assert "next_cursor" in page._repr_html_()


def test_a_long_text_is_cut_and_a_table_without_named_columns_has_the_plain_ones() -> None:
    class Note(Model):
        text: str
        parts: list[int]
        at: datetime

    note = Note(text="x" * 1000, parts=[1], at=datetime(2026, 1, 1, tzinfo=UTC))
    html = Rows([note])._repr_html_()
    assert [each.text for each in parsed(html).iter("th")] == ["text", "at"]
    assert len(html) < 600


def test_secrets_do_not_stand_in_a_notebook() -> None:
    key = {"id": "1", "name": "n", "hint": "mg_ab", "scopes": [], "created_at": NOW, "revoked_at": None}
    shown = NewKey.model_validate({**key, "key": "mg_secret"})._repr_html_()
    assert ("mg_ab" in shown, "mg_secret" in shown) == (True, False)
    hook = {
        **{"name": "n", "url": "https://x", "events": [], "enabled": True, "disabled_reason": None, "deliveries": {}},
        **{"former_secret_until": None, "failing_since": None, "created_at": NOW},
    }
    shown = WebhookSecret.model_validate({**hook, "secret": "whsec_1"})._repr_html_()
    assert ("https://x" in shown, "whsec_1" in shown) == (True, False)


def test_an_adapter_shows_where_its_aliases_stand() -> None:
    adapter = Adapter.model_validate(
        {
            **{"name": EVIL, "description": "", "base_model": "b", "base_revision": "r", "base_identity": None},
            **{"strategy": "replay", "memory": {}, "aliases": {"champion": 7}, "created_at": NOW, "replay_share": 0.25},
            **{"gate_margin": 0.05, "gate_rule": "point", "gate_level": 0.05, "gate_settled": False, "gate_gain": True},
            **{"gate_policy": "automatic", "canary_share": 0.05, "canary_promotion": "better", "canary_margin": 0.05},
            "retry_replay_share": None,
        }
    )
    assert adapter.champion == 7
    for html in (adapter._repr_html_(), Rows([adapter])._repr_html_()):
        assert "champion: 7" in [each.text for each in parsed(html).iter()]


def test_latents_are_dots_by_task_and_by_cluster() -> None:
    document = found(job_id="j", analyzed_at=NOW)
    document["map"]["points"][0]["task"] = EVIL
    analysis = Analysis.model_validate(document)
    by_task, by_cluster = re.findall(r"<svg.*?</svg>", analysis.map._repr_html_(), re.DOTALL)
    texts = [each.text for each in parsed(by_task).iter() if each.text]
    assert {"t-SNE by task", EVIL, "a", "b"} <= set(texts)
    assert by_task.count("fill-opacity") == by_cluster.count("fill-opacity") == 30
    assert "cluster 2" in by_cluster
    assert parsed(analysis._repr_html_()) is not None
    assert analysis.ablations is not None
    assert "as trained" in analysis.ablations._repr_html_()
    assert parsed(analysis.ablations._repr_html_()) is not None
    assert "no points" in LatentMap(points=[], explained_variance=[0.0, 0.0], perplexity=1.0)._repr_html_()


def test_of_very_many_dots_some_are_drawn() -> None:
    drawn = scatter("many", [(float(n), float(-n)) for n in range(10_000)], [f"g{n % 10}" for n in range(10_000)])
    assert 1000 < drawn.count("fill-opacity") <= 1500
    assert all(f"g{n}" in drawn for n in range(10))
    assert scatter("one", [(1.0, 1.0)], ["a"]).count("<path") == 2


def test_groups_differ_by_more_than_their_colour() -> None:
    drawn = scatter("many", [(float(n), float(n)) for n in range(56)], [f"g{n:02}" for n in range(56)])
    legend = re.findall(r"<path d='M[\d. ]+(\w[^']*)' fill='([^']+)'/>", drawn)
    assert len(legend) == len(set(legend)) == 56
    assert len({shape for shape, _ in legend[:7]}) == 7
