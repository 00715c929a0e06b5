"""The shared loop of episodes, with environments that write down what they are told."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from memgen.artifacts.artifact import load_artifact
from memgen.errors import Cancelled, SandboxUnavailable
from memgen.generation.episodes import Episode, PlaySettings, play
from memgen.generation.sampling import Sampling
from memgen.memory.host import AdapterHost
from memgen.tasks.task import Observation
from memgen.text.answers import Answer, ChatMessage, parse_answer


@dataclass
class ScriptedItem:
    """An item whose environment says `hello`, then counts; ends after `steps` steps."""

    item_id: str
    steps: int = 2
    max_turns: int = 9
    hello: str = "hello"
    tools: list[dict[str, Any]] | None = None
    expert: tuple[ChatMessage, ...] | None = None
    answers: list[Answer] = field(default_factory=list)
    open_now: int = 0

    def open(self) -> "ScriptedItem":
        self.open_now += 1
        self.answers.clear()
        return self

    def reset(self) -> Observation:
        return Observation(({"role": "user", "content": f"{self.hello} {self.item_id}"},))

    def step(self, answer: Answer) -> Observation:
        self.answers.append(answer)
        number = len(self.answers)
        return Observation(({"role": "user", "content": f"{number}."},), reward=0.25, done=number == self.steps)

    def close(self) -> None:
        self.open_now = 0


def drawn(index: int, turn: int) -> Sampling:
    return Sampling(max_new_tokens=6, temperature=1.0, seed=100 * index + turn)


def texts(episodes: Sequence[Episode]) -> list[list[str]]:
    return [[turn.generation.text for turn in episode.turns] for episode in episodes]


def test_the_conversation_grows_by_answer_and_observation(host: AdapterHost) -> None:
    item = ScriptedItem("a", steps=3)
    [episode] = play(host, None, [item], drawn)
    assert (episode.item_id, episode.finish, episode.reward, len(episode.turns)) == ("a", "done", 0.75, 3)
    messages = [{"role": "user", "content": "hello a"}]
    for number, turn in enumerate(episode.turns, start=1):
        assert turn.prompt_ids == host.backbone.profile.prompt_ids(messages)
        assert item.answers[number - 1] == parse_answer(turn.generation.text)
        messages += [
            {"role": "assistant", "content": parse_answer(turn.generation.text).content or ""},
            {"role": "user", "content": f"{number}."},
        ]


def test_max_turns_end_an_episode(host: AdapterHost) -> None:
    [episode] = play(host, None, [ScriptedItem("a", steps=5, max_turns=2)], drawn)
    assert (episode.finish, len(episode.turns), episode.reward) == ("turns", 2, 0.5)


def test_episodes_do_not_depend_on_their_batches(host: AdapterHost, artifacts: dict[str, Path]) -> None:
    load_artifact(host, "m", artifacts["yes"])
    items = [ScriptedItem(str(n), steps=1 + n % 3, hello="hi " * (1 + 7 * (n % 2))) for n in range(11)]
    together = play(host, "m", items, drawn, settings=PlaySettings(batch_size=16))
    alone = play(host, "m", items, drawn, settings=PlaySettings(batch_size=1))  # four at a time, the others wait
    assert texts(together) == texts(alone)
    assert [len(e.turns) for e in together] == [1 + n % 3 for n in range(11)]
    assert [e.item_id for e in together] == [str(n) for n in range(11)]
    assert all(item.open_now == 0 for item in items)


def test_no_more_than_four_batches_of_environments_are_open(host: AdapterHost) -> None:
    items = [ScriptedItem(str(n), steps=1 + n % 2) for n in range(12)]
    open_at_once: set[int] = set()

    def counted(index: int, turn: int) -> Sampling:
        open_at_once.add(sum(item.open_now for item in items))
        return drawn(index, turn)

    play(host, None, items, counted, settings=PlaySettings(batch_size=2))
    assert max(open_at_once) == 8


def test_an_item_may_be_played_several_times(host: AdapterHost) -> None:
    class Fresh(ScriptedItem):
        def open(self) -> ScriptedItem:
            return ScriptedItem(self.item_id, self.steps)

    episodes = play(host, None, [Fresh("a")] * 3, drawn)
    assert len({tuple(t) for t in texts(episodes)}) == 3
    assert texts(play(host, None, [Fresh("a")] * 3, drawn)) == texts(episodes)


def test_an_episode_that_outgrows_the_context_ends(host: AdapterHost) -> None:
    long, short = ScriptedItem("a", hello="x" * 2000), ScriptedItem("b")
    first, second = play(host, None, [long, short], drawn)
    assert (first.finish, first.turns, first.reward) == ("context", (), 0.0)
    assert second.finish == "done"


def test_environments_are_closed_when_asked_to_stop(host: AdapterHost) -> None:
    items = [ScriptedItem(str(n)) for n in range(3)]
    with pytest.raises(Cancelled):
        play(host, None, items, drawn, settings=PlaySettings(should_stop=lambda: items[0].open_now == 1))
    assert [item.open_now for item in items] == [0, 0, 0]


class Broken(ScriptedItem):
    """It fails where its `breaks` says."""

    breaks = ""

    def open(self) -> ScriptedItem:
        self._fail("open")
        return super().open()

    def reset(self) -> Observation:
        self._fail("reset")
        return super().reset()

    def step(self, answer: Answer) -> Observation:
        seen = super().step(answer)
        if len(self.answers) == 2:
            self._fail("step")
        return replace(seen, reward=float("nan")) if self.breaks == "reward" else seen

    def close(self) -> None:
        super().close()
        self._fail("close")

    def _fail(self, where: str) -> None:
        if self.breaks == where:
            raise OSError(f"{where} is broken\nmore of it")


def broken(where: str) -> Broken:
    item = Broken("b", steps=3)
    item.breaks = where
    return item


@pytest.mark.parametrize(
    ("where", "turns", "reward", "unplayable"),
    [("open", 0, 0.0, True), ("reset", 0, 0.0, True), ("step", 2, 0.25, False), ("close", 3, 0.75, False)],
)
def test_an_environment_that_fails_ends_its_own_episode(
    host: AdapterHost, where: str, turns: int, reward: float, unplayable: bool
) -> None:
    good = [ScriptedItem("a"), ScriptedItem("c")]
    first, failed, last = play(host, None, [good[0], broken(where), good[1]], drawn)
    assert (failed.finish, failed.trouble) == ("failed", f"OSError: {where} is broken")
    assert (len(failed.turns), failed.reward, failed.unplayable) == (turns, reward, unplayable)
    assert texts([first, last]) == texts(play(host, None, [good[0], ScriptedItem("b"), good[1]], drawn)[::2])
    assert (first.finish, last.finish, first.trouble) == ("done", "done", "")


def test_a_reward_that_is_no_number_is_the_environments_fault(host: AdapterHost) -> None:
    [episode] = play(host, None, [broken("reward")], drawn)
    assert (episode.finish, episode.reward) == ("failed", 0.0)
    assert "reward is nan" in episode.trouble


def test_a_system_that_can_isolate_nothing_is_nobodys_episode(host: AdapterHost) -> None:
    class Unsafe(ScriptedItem):
        def step(self, answer: Answer) -> Observation:
            raise SandboxUnavailable("no namespaces here")

    items = [ScriptedItem("a"), Unsafe("b")]
    with pytest.raises(SandboxUnavailable):
        play(host, None, items, drawn)
    assert [item.open_now for item in items] == [0, 0]
