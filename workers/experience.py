"""What a training adds to the experience that its weaver is cued from (`memgen.experience.recall`)."""

from collections.abc import Collection, Sequence
from typing import Any

from memgen.experience.cue import Cue
from memgen.experience.insights import Pair, pairs_of
from memgen.experience.pool import Insight, PastTrajectory, past_trajectory
from memgen.experience.retrieval import same_prompt
from memgen.generation.distil import distil
from memgen.memory.host import AdapterHost
from registry.wording import counted
from workers.runner import Running

MOST_PAIRS = 200
"""Most pairs that insights are distilled from in one training, the last ones: the base writes some 48 tokens each."""


def update_experience(
    running: Running,
    host: AdapterHost,
    memory: str,
    lines: Sequence[dict[str, Any]],
    *,
    min_reward: float,
    tasks_with_shared_turns: Collection[str] = (),
    written: Sequence[Insight] = (),
) -> None:
    """Add the dataset's answered trajectories to the experience that the memory has from its parent.

    Nothing is added if the memory's weaver is shown no experience. Trajectories that failed are left out, because a
    cue shows what went well; together with a success of the same prompt they yield insights, if the memory has any.

    Args:
        min_reward: a trajectory with less has failed. One without a reward is a demonstration.
        tasks_with_shared_turns: tasks whose conversations share their first turns. The turns in front of their first
            answer do not tell their questions apart, so their trajectories are neither searched for nor added.
        written: insights that a person wrote.
    """
    trained = host.memories[memory]
    if trained.recall is None:
        return
    answered = [line for line in lines if any(message["role"] == "assistant" for message in line["messages"])]
    if left_out := sorted({line["task"] for line in answered} & set(tasks_with_shared_turns)):
        running.event(
            f"not remembered for cues: trajectories of {', '.join(left_out)}, which all begin with the same turns",
            level="warning",
        )
    known = [line for line in answered if line["task"] not in tasks_with_shared_turns]
    good = [_past_trajectory(line) for line in known if not _failed(line, min_reward)]
    insights: list[Insight] = []
    if trained.config.cue_insights:
        bad = [_past_trajectory(line) for line in known if _failed(line, min_reward)]
        insights = [*written, *_distilled(running, host, pairs_of(bad, good), trained.recall.pool.insights)]
    trained.recall = trained.recall.with_entries(good, insights)
    pool = trained.recall.pool
    running.event(
        f"the weaver is shown up to {trained.config.cue_tokens} tokens of "
        f"{counted(len(pool.trajectories), 'past trajectory')} and {counted(len(pool.insights), 'insight')}",
        {
            "remembered": len(pool.trajectories),
            "of_this_dataset": len({entry.entry_id for entry in good}),
            "insights": len(pool.insights),
        },
    )


def training_cues(host: AdapterHost, memory: str, lines: Sequence[dict[str, Any]]) -> list[Cue]:
    """The cue that the weaver of `memory` is shown with each line that it is trained on, without the line's answer."""
    return host.cues(memory, [line["messages"] for line in lines], leave_one_out=True)


def _failed(line: dict[str, Any], min_reward: float) -> bool:
    return line.get("success") is False or (line["reward"] is not None and line["reward"] < min_reward)


def _past_trajectory(line: dict[str, Any]) -> PastTrajectory:
    reward = 1.0 if line["reward"] is None else line["reward"]
    return past_trajectory(line["id"], line["task"], line["messages"], reward)


def _distilled(
    running: Running, host: AdapterHost, pairs: Sequence[Pair], known: Sequence[Insight]
) -> tuple[Insight, ...]:
    """Insights that the base writes from prompts answered badly and well, if no known insight is from the prompt."""
    seen = {(insight.task, same_prompt(prompt)) for insight in known for prompt in insight.prompts}
    new = [pair for pair in pairs if (pair.success.task, same_prompt(pair.success.prompt)) not in seen][-MOST_PAIRS:]
    if not new:
        return ()
    found = distil(host, new)
    running.event(
        f"the base wrote {counted(len(found.insights), 'insight')} about {counted(len(new), 'prompt')} answered badly "
        "and well",
        {"pairs": len(new), "skipped_long": found.skipped_long, "skipped_empty": found.skipped_empty},
    )
    return found.insights
