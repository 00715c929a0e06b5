"""How a step's examples are shared among passes and devices."""

import pytest

from memgen.training.batches import parts_of_batch
from memgen.training.examples import Example


def _examples(count: int) -> list[Example]:
    return [Example((5,), (n,)) for n in range(count)]


def test_passes_take_neighbours_and_devices_take_turns() -> None:
    parts = parts_of_batch(_examples(5), 2, 2)
    assert [[[e.target_ids[0] for e in shard] for shard in shards] for shards in parts] == [[[0], [1]], [[2, 4], [3]]]


@pytest.mark.parametrize(("count", "passes", "devices"), [(8, 1, 1), (8, 3, 2), (7, 2, 3), (6, 3, 2), (5, 5, 1)])
def test_every_example_is_computed_once_and_nobody_is_idle(count: int, passes: int, devices: int) -> None:
    examples = _examples(count)
    shards = [shard for part in parts_of_batch(examples, passes, devices) for shard in part]
    assert len(shards) == passes * devices
    assert all(shards)
    assert sorted(e.target_ids[0] for shard in shards for e in shard) == list(range(count))
