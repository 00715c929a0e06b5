"""Two tasks that a random model with a byte tokenizer can begin to learn."""

from collections.abc import Sequence
from dataclasses import dataclass

from memgen.tasks.graders import Reference, make_grader
from memgen.tasks.task import SingleTurn


@dataclass(frozen=True)
class Echo:
    """Say one of two words, as the question's number is even or odd."""

    words: tuple[str, str]
    name: str = "echo"
    max_new_tokens: int = 4

    def training_items(self, count: int, *, seed: int = 0) -> Sequence[SingleTurn]:
        return [self._item(number) for number in range(1000 * seed, 1000 * seed + count)]

    def held_out_items(self, count: int) -> Sequence[SingleTurn]:
        return [self._item(number) for number in range(1_000_000, 1_000_000 + count)]

    def _item(self, number: int) -> SingleTurn:
        answer = self.words[number % 3 == 2]
        prompt = ({"role": "user", "content": f"{self.words[0]} or {self.words[1]}, {number}?"},)
        reference = Reference({"role": "assistant", "content": answer}, {})
        return SingleTurn(f"{self.words[0]}-{number}", prompt, make_grader({"kind": "exact"}), reference)
