"""Episodes of a model in environments: the one loop behind rollouts and the evaluation of tasks.

Unfinished episodes advance together, a turn of each in shared batches. It knows neither training nor statistics.
"""

import contextlib
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from memgen.backbone.prompt_cache import PromptCache
from memgen.errors import Cancelled, ConfigError, PromptTooLong, SandboxUnavailable, UnknownGrader, in_one_line
from memgen.generation.engine import generate_all
from memgen.generation.requests import Generation, GenerationRequest, check_fits
from memgen.generation.sampling import Sampling
from memgen.memory.host import AdapterHost
from memgen.tasks.task import Environment, TaskItem
from memgen.text.answers import ChatMessage, answer_message, parse_answer

ResultT = TypeVar("ResultT")

DONE = "done"
"""The environment ended the episode."""
TURNS = "turns"
"""The item's `max_turns` are spent."""
CONTEXT = "context"
"""The next turn would not fit the model's context."""
FAILED = "failed"
"""Its environment, its grader or the chat template raised an error, which is this episode's alone."""

_BATCHES_IN_FLIGHT = 4
"""Enough to make batches of prompts of similar length; not more, since each episode holds an open environment."""
_PROMPT_BYTES = 2**30


@dataclass(frozen=True)
class Turn:
    prompt_ids: tuple[int, ...]
    generation: Generation
    cue_ids: tuple[int, ...] = ()
    """What the weaver read beside the prompt."""


@dataclass(frozen=True)
class Episode:
    item_id: str
    turns: tuple[Turn, ...]
    """Empty if the first prompt did not fit the context."""
    reward: float
    """Sum over the steps."""
    finish: str
    """`done`, `turns`, `context` or `failed`."""
    trouble: str = ""
    """What failed, in plain words."""
    unplayable: bool = False
    """Whether the item is at fault and nobody can play it, as far as is known: it fails before the first answer, or
    refuses its own reference."""


@dataclass(frozen=True)
class PlaySettings:
    """How episodes are played, which changes none of them."""

    batch_size: int = 16
    """Answers generated at once. At most four batches of environments are open at a time."""
    prompts: PromptCache | None = None
    """Prompts already read; None keeps up to 1 GiB of the episodes' own where they have several turns."""
    should_stop: Callable[[], bool] | None = None
    """Called after each batch; true ends the play by Cancelled."""


DEFAULT_PLAY = PlaySettings()


def play(
    host: AdapterHost,
    memory: str | None,
    items: Sequence[TaskItem],
    sampling_of: Callable[[int, int], Sampling],
    *,
    leave_one_out: bool = False,
    settings: PlaySettings = DEFAULT_PLAY,
) -> list[Episode]:
    """Let `memory` (None: the bare base) play each item once; an item may stand in `items` several times.

    The conversation grows by the assistant's message and the environment's. Each turn is generated behind the whole
    conversation, rendered anew, so a memory is woven where it is woven when serving. An answer cut off by its token
    limit is stepped like any other.

    Args:
        sampling_of: the sampling of (index in `items`, turn number from 0). With a seed of its own for each pair,
            episodes repeat whatever the batches in float32, and in bfloat16 with the same batches.
        leave_one_out: keep from the weaver what its experience knows of an item's very question
            (`memgen.experience.recall`).

    Returns:
        Episodes in the order of `items`.

    Raises:
        Cancelled: `settings.should_stop` returned true. Environments are closed, as after every error.
        SandboxUnavailable: an environment runs what is answered, and this system can't isolate it.
    """
    if settings.prompts is None:
        several = any(item.max_turns > 1 for item in items)
        settings = replace(settings, prompts=PromptCache(host.backbone.decoder, _PROMPT_BYTES if several else 0))
    finished: dict[int, Episode] = {}
    waiting = deque(range(len(items)))
    running: list[_Running] = []
    try:
        while waiting or running:
            going = len(running)
            while waiting and len(running) < _BATCHES_IN_FLIGHT * settings.batch_size:
                index = waiting.popleft()
                running.append(_Running(index, items[index]))
                running[-1].try_to(running[-1].begin)
            _cue(host, memory, running[going:], leave_one_out=leave_one_out)
            _take_turns(host, memory, running, sampling_of, settings)
            finished.update((episode.index, episode.result()) for episode in running if episode.finish)
            running = [episode for episode in running if not episode.finish]
    finally:
        for episode in running:
            episode.close()
    return [finished[index] for index in range(len(items))]


class _Running:
    """An episode under way: its environment, conversation and turns so far."""

    def __init__(self, index: int, item: TaskItem) -> None:
        self.index = index
        self.turns: list[Turn] = []
        self.finish = ""
        self.messages: list[ChatMessage] = []
        self.cue_ids: tuple[int, ...] = ()
        self.trouble = ""
        self.unplayable = False
        self._item = item
        self._environment: Environment | None = None
        self._reward = 0.0

    def try_to(self, act: Callable[[], ResultT]) -> ResultT | None:
        """What `act` returns; None if it fails, and with it the episode."""
        try:
            return act()
        except (Cancelled, SandboxUnavailable):
            raise
        except Exception as error:  # an environment is foreign code: whatever it raises ends this episode only
            self.trouble = f"{type(error).__name__}: {in_one_line(error)}"
            self.unplayable = not self.turns or isinstance(error, UnknownGrader)
            self.finish = FAILED
            with contextlib.suppress(Exception):
                self.close()
            return None

    def begin(self) -> None:
        self._environment = self._item.open()
        first = self._environment.reset()
        self.messages = list(first.messages)
        self._reward = _finite(first.reward)
        if first.done:
            self._end(DONE)

    def next_request(self, host: AdapterHost, memory: str | None, sampling: Sampling) -> GenerationRequest | None:
        """The next turn's, or None if the episode has ended."""
        if self.finish:
            return None
        prompt = host.backbone.profile.prompt_ids(self.messages, self._item.tools)
        request = GenerationRequest(prompt, sampling, memory, cue_ids=self.cue_ids)
        try:
            check_fits(host, request)
        except PromptTooLong:
            self._end(CONTEXT)
            return None
        return request

    def take(self, request: GenerationRequest, generation: Generation) -> None:
        self.turns.append(Turn(request.prompt_ids, generation, request.cue_ids))
        answer = parse_answer(generation.text)
        seen = self._opened.step(answer)
        self._reward += _finite(seen.reward)
        if seen.done:
            self._end(DONE)
        elif len(self.turns) >= self._item.max_turns:
            self._end(TURNS)
        else:
            self.messages += [answer_message(answer), *seen.messages]

    def result(self) -> Episode:
        turns = tuple(self.turns)
        return Episode(self._item.item_id, turns, self._reward, self.finish, self.trouble, self.unplayable)

    def close(self) -> None:
        if self._environment is not None:
            self._environment.close()

    @property
    def _opened(self) -> Environment:
        if self._environment is None:
            raise RuntimeError("the episode has not begun")
        return self._environment

    def _end(self, finish: str) -> None:
        self.finish = finish
        self.close()


def _finite(reward: float) -> float:
    if not math.isfinite(reward):
        raise ConfigError(f"the environment's reward is {reward}; expected a finite number")
    return reward


def _cue(host: AdapterHost, memory: str | None, episodes: Sequence[_Running], *, leave_one_out: bool) -> None:
    """Retrieve what the weaver reads beside each of the episodes, from their first messages."""
    cues = host.cues(memory, [episode.messages for episode in episodes], leave_one_out=leave_one_out)
    for episode, cue in zip(episodes, cues, strict=True):
        episode.cue_ids = cue.token_ids


def _take_turns(
    host: AdapterHost,
    memory: str | None,
    episodes: Sequence[_Running],
    sampling_of: Callable[[int, int], Sampling],
    settings: PlaySettings,
) -> None:
    """Generate the next turn of every episode that goes on, in shared batches."""

    def check_stop(_: int) -> None:
        if settings.should_stop and settings.should_stop():
            raise Cancelled("stopped while episodes were played")

    turns: list[tuple[_Running, GenerationRequest]] = []
    for episode in episodes:
        sampling = sampling_of(episode.index, len(episode.turns))
        request = episode.try_to(partial(episode.next_request, host, memory, sampling))
        if request is not None:
            turns.append((episode, request))
    requests = [request for _, request in turns]
    answers = generate_all(host, requests, batch_size=settings.batch_size, prompts=settings.prompts, on_done=check_stop)
    for (episode, request), answer in zip(turns, answers, strict=True):
        episode.try_to(partial(episode.take, request, answer))
