"""The games that the agent plays: text games of TextWorld, each the service's and the agent's alike only as text.

Knows nothing of models and services. The games of the test are on the other side of the task's split: their winning
commands are those of no game that the agent plays by day.
"""

import json
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memgen.tasks.textworld import Game, GameEnvironment, TextWorld
from memgen.text.answers import Answer

MAX_TURNS = 4
"""The shortest way to win takes one command or two."""
_SEEN_IN_DESIGN = 60
"""The first unseen games, by which agent, hours and margins were chosen: nothing is claimed of them."""
_COMMANDS = "Commands: "


@dataclass(frozen=True)
class GameSets:
    pool: tuple[Game, ...]
    """Games that the agent plays every hour, again and again."""
    test: tuple[Game, ...]

    def rounds(self, size: int, seed: int) -> Iterator[list[Game]]:
        """So many games of the pool at a time without end, each once before any is played again."""
        draw, left = random.Random(seed), list[Game]()  # noqa: S311 - an order of play, no secret
        while True:
            if len(left) < size:
                left = [*draw.sample(self.pool, len(self.pool)), *left]
            yield [left.pop() for _ in range(size)]


def make_games(folder: Path, *, pool: int, test: int, seed: int, processes: int = 2) -> GameSets:
    """Generate and compile the games, which takes about half a second each, unless they are in the folder.

    Half of the pool is won by one command, half by two; all games of the test need two.
    """
    folder.mkdir(parents=True, exist_ok=True)
    easy, hard = (TextWorld(folder, level=level, theme="basic") for level in (1, 2))
    days = (*easy.training_items(pool // 2, seed=seed), *hard.training_items(pool - pool // 2, seed=seed))
    sets = GameSets(days, tuple(hard.held_out_items(_SEEN_IN_DESIGN + test)[_SEEN_IN_DESIGN:]))
    with ProcessPoolExecutor(processes) as workers:
        list(workers.map(_compile, [*sets.pool, *sets.test], chunksize=4))
    return sets


def _compile(game: Game) -> None:
    game.compiled()


class Play:
    """One game under way, as the agent sees it: messages, the commands that do something now, an end, a reward."""

    def __init__(self, game: Game) -> None:
        self._environment: GameEnvironment = game.open()
        seen = self._environment.reset()
        self.messages: list[dict[str, Any]] = [dict(message) for message in seen.messages]
        self.commands: Sequence[str] = _commands(self.messages)
        self.turns = 0
        self.over = False
        self.reward = 0.0
        """1 once the game is won, else 0."""

    def answer(self, text: str) -> None:
        """Play the command that an answer of the model spells as a JSON string; anything else costs a turn."""
        self.turns += 1
        seen = self._environment.step(Answer(_command(text)))
        self.messages.append({"role": "assistant", "content": text})
        self.reward = float(self._environment.won)
        if seen.done or self.turns >= MAX_TURNS:
            self.over = True
            self._environment.close()
            return
        new = [dict(message) for message in seen.messages]
        self.messages += new
        self.commands = _commands(new) or self.commands


def random_success(games: Sequence[Game], *, plays: int, seed: int = 0) -> float:
    """How often one of the listed commands, drawn at random each turn, wins."""
    draw, won = random.Random(seed), 0.0  # noqa: S311 - a baseline, no secret
    for game in games:
        for _ in range(plays):
            play = Play(game)
            while not play.over:
                play.answer(json.dumps(draw.choice(play.commands)))
            won += play.reward
    return won / (plays * len(games))


def _commands(messages: Sequence[dict[str, Any]]) -> Sequence[str]:
    for message in reversed(messages):
        lines = [line for line in str(message["content"]).split("\n") if line.startswith(_COMMANDS)]
        if lines:
            return lines[-1].removeprefix(_COMMANDS).split(", ")
    return ()


def _command(text: str) -> str:
    try:
        command = json.loads(text)
    except ValueError:
        return ""
    return command if isinstance(command, str) else ""
