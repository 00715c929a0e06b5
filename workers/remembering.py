"""What a training adds to the experience that its weaver is cued from (`memgen.recall`)."""

from collections.abc import Sequence
from typing import Any

from memgen.cue_text import Cue
from memgen.experience import Insight, PastTrajectory, told
from memgen.host import AdapterHost
from memgen.insights import distil, pairs_of
from memgen.retrieval import same_prompt
from workers.runner import Running

MOST_PAIRS = 200
"""That insights are distilled from in one training, the last ones: the base writes some 48 tokens for each."""


def remember(
    running: Running,
    host: AdapterHost,
    memory: str,
    lines: Sequence[dict[str, Any]],
    *,
    min_reward: float,
    written: Sequence[Insight] = (),
) -> None:
    """Let the memory remember the dataset's answered trajectories, beside what its parent did; nothing if its weaver
    is shown no experience.

    Those with less reward than `min_reward` are left out: a cue is to show what went well. What went wrong teaches
    insights, if the memory keeps any.

    Args:
        written: insights that somebody wrote.
    """
    trained = host.memories[memory]
    if trained.recall is None:
        return
    entries = [
        told(line["id"], line["task"], line["messages"], 1.0 if line["reward"] is None else line["reward"])
        for line in lines
        if any(message["role"] == "assistant" for message in line["messages"])
    ]
    good = [entry for entry in entries if entry.reward >= min_reward]
    insights: list[Insight] = []
    if trained.config.cue_insights:
        known = trained.recall.pool.insights
        insights = [*written, *_distilled(running, host, entries, known, min_reward)]
    trained.recall = trained.recall.remembering(good, insights)
    pool = trained.recall.pool
    running.event(
        f"the weaver is shown up to {trained.config.cue_tokens} tokens of {len(pool.trajectories)} past trajectories "
        f"and {len(pool.insights)} insights",
        {
            "remembered": len(pool.trajectories),
            "of_this_dataset": len({entry.entry_id for entry in good}),
            "insights": len(pool.insights),
        },
    )


def training_cues(host: AdapterHost, memory: str, lines: Sequence[dict[str, Any]]) -> list[Cue]:
    """What the weaver of `memory` is shown beside each line that it is trained on: never the line's own answer."""
    return host.cues(memory, [line["messages"] for line in lines], leave_one_out=True)


def _distilled(
    running: Running,
    host: AdapterHost,
    entries: Sequence[PastTrajectory],
    known: Sequence[Insight],
    min_reward: float,
) -> tuple[Insight, ...]:
    """What the base makes of each prompt that was answered badly and well, unless an insight is known from it."""
    seen = {(insight.task, same_prompt(prompt)) for insight in known for prompt in insight.prompts}
    pairs = [
        pair
        for pair in pairs_of(entries)
        if pair.success.reward >= min_reward and (pair.success.task, same_prompt(pair.success.prompt)) not in seen
    ][-MOST_PAIRS:]
    if not pairs:
        return ()
    found = distil(host, pairs)
    running.event(
        f"the base wrote {len(found.insights)} insights about {len(pairs)} prompts answered badly and well",
        {"pairs": len(pairs), "skipped_long": found.skipped_long, "skipped_empty": found.skipped_empty},
    )
    return found.insights
