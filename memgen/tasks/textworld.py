"""Text games of TextWorld as a multi-turn `Task`: find the way, open, take and put things, one command a turn.

TextWorld (Côté et al., 2018, arXiv 1806.11532; the engine behind ALFWorld) generates a game from a seed and compiles
it for the interpreter, in about two seconds. Games are therefore made when they are first looked at, and kept in a
folder that several processes may share. The commands that win decide the side of a game, so no held-out solution is
seen in training.
"""

import importlib.util
import json
import os
import random
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

from memgen.errors import ConfigError, ModelNotFound
from memgen.tasks.split import is_held_out
from memgen.tasks.task import Observation
from memgen.text.answers import Answer, ChatMessage

_HELD_OUT_ONE_IN = 3
_SYSTEM = "You play a text game. Reach the goal. Answer with one command."
_STATUS_LINE = re.compile(r"\n?> +-= .*\Z", re.DOTALL)
_END = re.compile(r"\n\s*Would you like to RESTART.*\Z", re.DOTALL)
_PLAIN_COMMAND = re.compile(r"[a-z0-9][a-z0-9 '\-]*")


@dataclass(frozen=True)
class Level:
    rooms: int
    objects: int
    commands: int
    """Steps that the shortest known way to win takes."""


LEVELS = {1: Level(1, 3, 1), 2: Level(2, 4, 2), 3: Level(3, 6, 3), 4: Level(4, 8, 4), 5: Level(6, 10, 5)}
THEMES = ("house", "basic")


@dataclass(frozen=True)
class TextWorld:
    """Generated games of one level; the reward is the share of the game's score that was gained, 1 for winning.

    Raises:
        ConfigError: no such level or theme.
        ModelNotFound: the wheel textworld is not installed.
    """

    folder: Path
    """Folder in which made games are kept and looked for."""
    level: int = 2
    theme: str = "house"
    """`house` has rooms and things with names and prose, `basic` terse ones: `box7`, `K-key`."""
    show_commands: bool = True
    """List the commands that do something now with each observation."""
    games: int = 1000
    """How many there are, on both sides; one in three is held out."""
    max_new_tokens: int = 24
    name: str = "textworld"

    def __post_init__(self) -> None:
        if self.level not in LEVELS or self.theme not in THEMES:
            raise ConfigError(
                f"got level {self.level!r} and theme {self.theme!r}; textworld has the levels {sorted(LEVELS)} and the "
                f"themes {', '.join(THEMES)}"
            )
        if importlib.util.find_spec("textworld") is None:
            raise ModelNotFound(
                "the wheel textworld is not installed; run `pip install --no-deps -r requirements-data.lock`"
            )

    def training_items(self, count: int, *, seed: int = 0) -> "Sequence[Game]":
        numbers = list(range(self.games))
        random.Random(seed).shuffle(numbers)  # noqa: S311 - no secret
        return list(islice(self._side(numbers, held_out=False), count))

    def held_out_items(self, count: int) -> "Sequence[Game]":
        return list(islice(self._side(range(self.games), held_out=True), count))

    def _side(self, numbers: Sequence[int], *, held_out: bool) -> "Iterator[Game]":
        objectives: set[str] = set()
        for number in numbers:
            game = Game(self, number)
            if is_held_out(" / ".join(game.walkthrough), one_in=_HELD_OUT_ONE_IN) != held_out:
                continue
            if game.objective not in objectives:
                objectives.add(game.objective)
                yield game


@dataclass(frozen=True)
class Game:
    """One game; a `TaskItem`."""

    task: TextWorld
    number: int
    """The seed that it is generated from."""

    @property
    def item_id(self) -> str:
        return f"textworld-{self.task.theme}-{self.task.level}-{self.number}"

    @property
    def tools(self) -> list[dict[str, Any]] | None:
        return None

    @property
    def max_turns(self) -> int:
        return 2 * LEVELS[self.task.level].commands + 2

    @property
    def walkthrough(self) -> tuple[str, ...]:
        """Commands that win."""
        return tuple(self._plan["walkthrough"])

    @property
    def objective(self) -> str:
        return str(self._plan["objective"])

    @cached_property
    def expert(self) -> tuple[ChatMessage, ...] | None:
        """The walkthrough played in the game itself, with what the game says to it."""
        environment = self.open()
        try:
            seen = environment.reset()
            messages = list(seen.messages)
            for command in self.walkthrough:
                if seen.done:
                    break
                messages.append({"role": "assistant", "content": command})
                seen = environment.step(Answer(command))
                if not seen.done:
                    messages += seen.messages
        finally:
            environment.close()
        return tuple(messages) if environment.won else None

    def open(self) -> "GameEnvironment":
        return GameEnvironment(self)

    def compiled(self, write_game: Callable[[TextWorld, int, Path], None] | None = None) -> Path:
        """The game's file for the interpreter, made now if it is not there.

        Args:
            write_game: writes `game.z8` of a task's game number into a new folder; None is TextWorld's compiler.
        """
        folder = self._folder / str(self.number)
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=self._folder, prefix=".making-") as making:
                (write_game or _compile)(self.task, self.number, Path(making, "game"))
                try:
                    # Whole or not at all: another process may be making the same game, and may finish first.
                    Path(making, "game").rename(folder)
                except OSError:
                    if not folder.exists():
                        raise
        return folder / "game.z8"

    @cached_property
    def _plan(self) -> dict[str, Any]:
        """What is known of the game before it is compiled; quick to make, quicker to read."""
        path = self._folder / f"{self.number}.json"
        if not path.exists():
            game = _generate(_options(self.task, self.number))
            plan = {"objective": " ".join(game.objective.split()), "walkthrough": game.metadata["walkthrough"]}
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=self._folder, delete=False, encoding="utf-8") as file:
                json.dump(plan, file, ensure_ascii=False)
            os.replace(file.name, path)  # noqa: PTH105 - the file's name is text
        plan = json.loads(path.read_text(encoding="utf-8"))
        return dict(plan)

    @property
    def _folder(self) -> Path:
        # Another release may generate another game from the same seed.
        level = LEVELS[self.task.level]
        made_by = f"textworld-{version('textworld')}"
        return Path(self.task.folder, made_by, f"{self.task.theme}-{level.rooms}-{level.objects}-{level.commands}")


class GameEnvironment:
    """A game being played, in this process; the interpreter is a library, no child process."""

    def __init__(self, game: Game) -> None:
        self.won = False
        self._game = game
        self._running: Any = None
        self._score = 0
        self._verbs: frozenset[str] = frozenset()

    def reset(self) -> Observation:
        import textworld  # optional, as in all functions of this module, and slow to import
        from jericho import UnsupportedGameWarning

        self.close()
        wanted = textworld.EnvInfos(admissible_commands=self._game.task.show_commands, description=True)
        with warnings.catch_warnings():
            # Jericho misses its list of published games; TextWorld reads score and end from the game itself.
            warnings.simplefilter("ignore", UnsupportedGameWarning)
            self._running = textworld.start(str(self._game.compiled()), wanted)
        state = self._running.reset()
        self.won, self._score = False, 0
        self._verbs = frozenset(state["verbs"])
        text = f"Goal: {self._game.objective}\n\n{self._shown(state['description'], state)}"
        return Observation(({"role": "system", "content": _SYSTEM}, {"role": "user", "content": text}))

    def step(self, answer: Answer) -> Observation:
        """Play the first line of the answer. What is no plain command of the game costs a turn and is not sent."""
        command = _command(answer.content or "")
        if not self._is_plain(command):
            return Observation(({"role": "user", "content": "That is not a command of this game."},))
        state, _, _ = self._running.step(command)
        self.won = bool(state["won"])
        gained = (state["score"] - self._score) / state["max_score"]
        self._score = state["score"]
        text = self._shown(state["feedback"], state)
        return Observation(({"role": "user", "content": text},), gained, done=self.won or bool(state["lost"]))

    def close(self) -> None:
        if self._running is not None:
            self._running.close()
            self._running = None

    def _is_plain(self, command: str) -> bool:
        """Whether it is one action in the game: `save` and `script` write files, `quit` and `restart` ask back, and
        "look then save" is two commands."""
        words = command.split()
        return _PLAIN_COMMAND.fullmatch(command) is not None and words[0] in self._verbs and "then" not in words

    def _shown(self, text: str, state: dict[str, Any]) -> str:
        text = _tidy(text)
        if self._game.task.show_commands and not (state["won"] or state["lost"]):
            text += f"\n\nCommands: {', '.join(state['admissible_commands'])}"
        return text


def _command(text: str) -> str:
    lines = [line for line in text.strip().split("\n") if line.strip()]
    return " ".join(lines[0].casefold().strip("> \t\"'`.").split())[:100] if lines else ""


def _tidy(text: str) -> str:
    """The interpreter's text without its status line, its last question and empty lines."""
    text = _END.sub("", _STATUS_LINE.sub("", text))
    return "\n".join(line.strip() for line in text.split("\n") if line.strip())


def _options(task: TextWorld, seed: int) -> Any:
    import textworld  # optional

    options, level = textworld.GameOptions(), LEVELS[task.level]
    options.seeds = seed
    options.nb_rooms, options.nb_objects, options.quest_length = level.rooms, level.objects, level.commands
    options.grammar.theme = task.theme
    options.kb = _knowledge()
    return options


def _generate(options: Any) -> Any:
    from textworld.generator import make_game  # optional

    return make_game(options)


def _compile(task: TextWorld, seed: int, folder: Path) -> None:
    from textworld.generator import compile_game  # optional

    options = _options(task, seed)
    options.path = str(folder / "game.z8")
    compile_game(_generate(options), options)
    (folder / "game.ni").unlink()  # the source, which is not read again


@cache
def _knowledge() -> Any:
    """TextWorld's rules of what can be done with what: parsing them takes most of a game's generation."""
    from textworld.generator.data import KnowledgeBase  # optional

    return KnowledgeBase.default()
