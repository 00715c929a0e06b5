"""What a sender should know of a trajectory that is accepted: that it will hardly be learned from, or judged on.

By the defaults of memories and trainings; an adapter or a job may have others.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from memgen.config import MemoryConfig, TrainingConfig
from memgen.tasks.graders import why_unfit
from registry.trajectories.conversations import last_supervised
from registry.trajectories.imports import LineWarning
from registry.trajectories.records import NewTrajectory


@dataclass(frozen=True)
class ImportAdvice:
    """Called with a trajectory that is about to be stored."""

    max_tokens: int
    """Tokens that the base reads."""

    def __call__(self, trajectory: NewTrajectory) -> Sequence[LineWarning]:
        return self._if_held_out(trajectory) if trajectory.held_out else self._if_trained_on(trajectory)

    def _if_held_out(self, trajectory: NewTrajectory) -> list[LineWarning]:
        found = []
        messages, woven = trajectory.draft.messages, MemoryConfig().most_woven
        if reason := why_unfit(trajectory.task.grader, messages[last_supervised(messages)]):
            found.append(LineWarning("not_judged", f"it is held out, and nobody can be judged on it: {reason}"))
        if trajectory.tokens > self.max_tokens - woven:
            found.append(
                LineWarning(
                    "no_room_for_memory",
                    f"it is held out, and its {trajectory.tokens} tokens of {self.max_tokens} leave no room for the "
                    f"{woven} that a memory weaves by default: versions with such a memory are not judged on it. Send "
                    "shorter conversations to judge by",
                )
            )
        return found

    def _if_trained_on(self, trajectory: NewTrajectory) -> list[LineWarning]:
        longest = min(TrainingConfig().max_example_tokens, self.max_tokens - MemoryConfig().most_woven)
        if trajectory.tokens <= longest:
            return []
        return [
            LineWarning(
                "too_long_to_learn",
                f"its longest turn has {trajectory.tokens} tokens with its prompt, and trainings skip what is longer "
                f"than {longest} by default; set max_example_tokens of the training, or send shorter conversations",
            )
        ]
