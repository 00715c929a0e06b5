"""Which items an analysis takes."""

from collections import Counter

import pytest

from memgen.analysis.items import draw_items, read_analysis_items
from memgen.errors import ConfigError
from memgen.memory.host import AdapterHost
from tests.memgen.analysis.samples import item

ITEMS = [item(n, task="small") for n in range(5)] + [item(n, task="large") for n in range(40)]


def test_items_are_drawn_evenly_and_alike_with_equal_seeds() -> None:
    drawn = draw_items(ITEMS, 20, seed=3)
    assert Counter(one.task for one in drawn) == {"small": 5, "large": 15}
    assert drawn == draw_items(ITEMS, 20, seed=3)
    assert drawn != draw_items(ITEMS, 20, seed=4)
    assert [ITEMS.index(one) for one in drawn] == sorted(ITEMS.index(one) for one in drawn)


def test_no_more_are_drawn_than_there_are() -> None:
    assert draw_items(ITEMS, 1000) == ITEMS
    with pytest.raises(ConfigError, match="expected at least 1"):
        draw_items(ITEMS, 0)


def test_a_task_that_answers_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="task 'prose' is scored by likelihood"):
        item(1, task="prose", grader={"kind": "likelihood"})


def test_what_the_base_cannot_read_says_so(host: AdapterHost) -> None:
    long = item(1, "x" * (host.backbone.max_tokens + 1))
    [fine, troubled] = read_analysis_items(host, [item(0), long])
    assert fine.item.item_id == "words-0"
    assert not fine.read.trouble
    assert "the base reads" in troubled.read.trouble
