"""What a training adds to the experience that its weaver is cued from (`memgen.recall`)."""

from collections.abc import Sequence
from typing import Any

from memgen.cue_text import Cue
from memgen.experience import told
from memgen.host import AdapterHost
from memgen.memory import Memory
from workers.runner import Running


def remember(running: Running, memory: Memory, lines: Sequence[dict[str, Any]], min_reward: float) -> None:
    """Let the memory remember the dataset's answered trajectories, beside what its parent did; nothing if its weaver
    is shown no experience.

    Those with less reward than `min_reward` are left out: a cue is to show what went well.
    """
    if memory.recall is None:
        return
    good = [line for line in lines if line["reward"] is None or line["reward"] >= min_reward]
    entries = [
        told(line["id"], line["task"], line["messages"], 1.0 if line["reward"] is None else line["reward"])
        for line in good
        if any(message["role"] == "assistant" for message in line["messages"])
    ]
    memory.recall = memory.recall.remembering(entries)
    running.event(
        f"the weaver is shown up to {memory.config.cue_tokens} tokens of {len(memory.recall.pool.entries)} past "
        "trajectories",
        {"remembered": len(memory.recall.pool.entries), "of_this_dataset": len({entry.entry_id for entry in entries})},
    )


def training_cues(host: AdapterHost, memory: str, lines: Sequence[dict[str, Any]]) -> list[Cue]:
    """What the weaver of `memory` is shown beside each line that it is trained on: never the line's own answer."""
    return host.cues(memory, [line["messages"] for line in lines], leave_one_out=True)
