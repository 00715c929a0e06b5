"""Procedural reasoning tasks of reasoning-gym as expert trajectories."""

from collections.abc import Iterator
from typing import Any


def reasoning_trajectories(dataset: str, *, size: int, seed: int, **options: Any) -> Iterator[dict[str, Any]]:
    """`size` trajectories of a reasoning-gym dataset: its question, and its answer as the assistant turn.

    `metadata.entry` is what reasoning-gym's scorer needs to grade another answer to the same question.
    """
    import reasoning_gym as gym  # slow to import

    for entry in gym.create_dataset(dataset, size=size, seed=seed, **options):
        number = entry["metadata"]["source_index"]
        yield {
            "trajectory_id": f"{dataset}-{seed}-{number}",
            "messages": [
                {"role": "user", "content": entry["question"]},
                {"role": "assistant", "content": entry["answer"]},
            ],
            "reward": 1.0,
            "reward_source": "grader",
            "success": True,
            "metadata": {"entry": entry},
        }
