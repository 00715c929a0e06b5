"""Figures of the pages are those of the committed measurements (`bench/results`)."""

import json
import re
from typing import Any

import pytest

from bench.loop.report import Hour
from bench.loop.report import table as hours_table
from tests.docs.pages import ROOT, section, table


def _measured(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((ROOT / "bench" / "results" / f"{name}.json").read_text(encoding="utf-8"))
    return document


def _keys(cell: str) -> list[str]:
    """``a_b1`, `_b8`` names `a_b1` and `a_b8`."""
    first, *others = re.findall(r"`(\w+)`", cell)
    return [first, *(first.rpartition("_")[0] + other for other in others)]


def _is_rounded(shown: str, measured: float) -> bool:
    """Whether the text is the figure, rounded to the text's own places."""
    places = len(shown.partition(".")[2])
    return abs(float(shown) - measured) <= 0.5 * 10**-places + 1e-9


HEAD, ROWS = table("docs/serving.md", "key")
SERVING = [
    (column, key, shown)
    for row in ROWS
    for column, cell in zip(HEAD[3:], row[3:], strict=True)
    for key, shown in zip(_keys(row[0]), cell.split(", ") if cell != "–" else ["–"] * 9, strict=False)
]


@pytest.mark.parametrize(("column", "key", "shown"), SERVING)
def test_what_serving_costs(column: str, key: str, shown: str) -> None:
    document = _measured("serving-float32" if "float32" in column else "serving")
    key += "_threads2" if re.search("(two|2) threads", column) else ""
    assert (key in document) == (shown != "–")
    assert shown == "–" or _is_rounded(shown.split()[0], document[key])


@pytest.mark.parametrize("row", ROWS, ids=lambda row: _keys(row[0])[0])
def test_what_was_wished_for_is_the_bar_of_the_measurement(row: list[str]) -> None:
    wished = [float(number) for number in re.findall(r"[\d.]+", row[2])]
    bars = _measured("serving-float32")["bars"]
    for key in _keys(row[0]):
        sign, bar = bars.get(key, ("", None))
        assert wished == ([] if bar is None else [bar])
        assert ("more" in row[2]) == (sign == ">=")


def test_every_bar_of_serving_has_its_row() -> None:
    assert set(_measured("serving-float32")["bars"]) <= {key for row in ROWS for key in _keys(row[0])}


def test_how_a_full_queue_answered() -> None:
    [shown] = re.findall(r"\((\d+) answered, (\d+) got 429\)", "".join(map("".join, ROWS)))
    found = [_measured(name)["method"].get("over_http") for name in ("serving", "serving-float32")]
    counts = [full["queue_full"] for full in found if full is not None]
    assert shown in {(str(count["answered"]), str(count["refused"])) for count in counts}


def test_what_recording_costs() -> None:
    text = " ".join(section("docs/recording.md", "Measured").split())
    document = _measured("recording")
    load, found, took = document["load"], document["found"], document["latency"]
    for figure in (
        f"{load['answers_per_second']} answers a second",
        f"{found['runs']:,} runs with {found['answers']:,} answers each",
        f"stood {document['seconds_to_the_last_trajectory']} s behind",
        f"took {took['recorded']['median_ms']:.0f} ms (median)",
        f"not, of the same agents, {took['not_recorded']['median_ms']:.0f} ms",
    ):
        assert figure in text, figure
    assert found["one_trajectory"] == found["runs"]
    assert (found["lost"], found["doubled"], found["not_asked_but_recorded"]) == (0, 0, 0)


def test_how_well_the_base_judges() -> None:
    _, rows = table("docs/judges.md", "judging")
    found = _measured("judges")["agreement"]
    assert {row[0] for row in rows} == set(found)
    for kind, agreement, interval, undecided in rows:
        low, high = found[kind]["interval"]
        ties = found[kind]["preferences"].count(0.5) / len(found[kind]["preferences"])
        assert agreement == f"{found[kind]['agreement']:.1%}"
        assert interval == f"{low:.1%} to {high:.1%}"
        assert undecided.split(",")[0] == f"{ties:.0%}"


def test_what_the_loop_learned() -> None:
    page, document = (ROOT / "docs" / "loop_proof.md").read_text(encoding="utf-8"), _measured("loop")
    assert hours_table([Hour(**hour) for hour in document["hours"]], document["test_games"]) in page
    low, high = document["interval"]
    for sentence in (
        f"wins {document['gain_points']:+.1f} points of the unseen games more than the bare base",
        f"(95%: {low:+} to {high:+})",
        f"a random command each turn wins {document['random']:.1%}",
        f"Uploaded by hand: {document['uploaded_by_hand']}. The whole took {document['seconds']:.0f} s",
    ):
        assert sentence in page, sentence


def test_what_memories_are_compared_by() -> None:
    shown = re.findall(r"\d+\.\d+(?:%| s\b)", (ROOT / "docs" / "compare.md").read_text(encoding="utf-8"))
    results = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    assert len(shown) == 4
    assert [figure for figure in shown if figure not in results] == []
