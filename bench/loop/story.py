"""The hours of the proof: what the agent plays, what its loop makes of it, and what the owner reads of both.

The agent gets an address, a key and the name of a model. The loop is told once what to do by itself; from then on the
story only plays, waits and reads. An hour stands for a day and its night: the agent plays, then nobody asks anything,
and the loop learns.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from bench.loop.agent import Agent, Result
from bench.loop.games import GameSets, random_success
from bench.loop.report import Hour
from bench.loop.service import ADAPTER, Service
from memgen.tasks.textworld import Game

BASE = "base"
_OPEN, _KEPT_OUT = "canary", ("rejected", "stopped")


@dataclass(frozen=True)
class Plan:
    """How much is played, and when rewards are flipped."""

    seed: int = 0
    pool: int = 100
    """Games that the agent plays, again and again."""
    test_games: int = 48
    """Games that it never plays but in the test."""
    round_games: int = 24
    """Games played at a time, all at once; behind each round the story looks whether a canary has ended."""
    first_rounds: int = 5
    """Rounds of hour 0, which the bare base plays, and mostly loses."""
    rounds: int = 3
    """Rounds of an honest hour behind it."""
    canary_rounds: int = 4
    """Rounds, at most, of an hour in which a canary runs."""
    poisoned_rounds: int = 4
    steps: int = 24
    """Optimizer steps of a training."""
    honest_hours: int = 1
    """Hours between the first and the poisoned one: what the gate judges by is what the champion was judged by, and of
    one day's runs that are a dozen items, by which a version that got worse by ten points is not seen."""
    later_rounds: int = 2
    """Rounds of the hour behind the poisoned one."""
    most_seconds: float = 900.0
    """How long a night may take, on a machine with other work too."""


@dataclass(frozen=True)
class Story:
    random: float
    """Share of the test's games won by a random command each turn."""
    base: list[Result]
    champion: list[Result]
    """The test of the last champion."""
    hours: list[Hour]
    poison_stopped: bool


@dataclass
class _Run:
    """The story as far as it is told."""

    plan: Plan
    service: Service
    agent: Agent
    sets: GameSets
    rounds: Iterator[list[Game]]
    say: Callable[[str], None]
    hours: list[Hour] = field(default_factory=list)
    tested: dict[str | None, list[Result]] = field(default_factory=dict)
    """Results of the test by champion; None is the bare base."""


def tell(plan: Plan, service: Service, sets: GameSets, say: Callable[[str], None]) -> Story:
    """Play all hours on a service that has learned nothing yet."""
    service.set_up_loop(steps=plan.steps)
    chance = random_success(sets.test, plays=3)
    say(f"a random command each turn wins {100 * chance:.1f}% of the unseen games")
    with Agent(service.url + "/v1", service.agent_key(), ADAPTER) as agent:
        run = _Run(plan, service, agent, sets, sets.rounds(plan.round_games, plan.seed), say)
        _test(run)
        _hour(run, rounds=plan.first_rounds)
        for _ in range(plan.honest_hours):
            _hour(run, rounds=plan.rounds)
        # Between two nights, so that what is learned of it is not thinned by a day of honest rewards.
        _hour(run, rounds=0, poisoned_rounds=plan.poisoned_rounds)
        # Nobody has mended anything: the poisoned runs are still there to learn from.
        _hour(run, rounds=plan.later_rounds)
        if service.live_route():  # a day decides it
            _hour(run, rounds=1, learns=False)
        hours = [_with_its_end(service, hour) for hour in run.hours]
        stopped = all(hour.verdict in _KEPT_OUT for hour in hours if hour.poisoned)
        return Story(chance, run.tested[None], _test(run), hours, stopped)


def _with_its_end(service: Service, hour: Hour) -> Hour:
    """An hour whose version went on a canary, with what that came to in the next."""
    if hour.verdict != _OPEN or hour.trained is None:
        return hour
    return replace(hour, verdict=service.verdict_of(hour.trained))


def _hour(run: _Run, *, rounds: int, poisoned_rounds: int = 0, learns: bool = True) -> Hour:
    """Play a day, and let the loop learn from it at night; then test who serves."""
    began = time.monotonic()
    results = _play(run, rounds)
    for _ in range(poisoned_rounds):
        results += run.agent.play(next(run.rounds), reward_of=lambda won: 1.0 - won)
    hour = Hour(
        hour=len(run.hours),
        games=len(results),
        won=sum(result.won for result in results),
        answered_by=dict(Counter(result.version or BASE for result in results)),
        poisoned=poisoned_rounds * run.plan.round_games,
    )
    run.say(f"hour {hour.hour}: won {hour.won} of {hour.games} games")
    hour = _night(run, hour) if learns else hour
    tested = _test(run)
    seconds = round(time.monotonic() - began, 1)
    won = sum(result.won for result in tested)
    hour = replace(hour, champion=run.service.champion(), test_won=won, seconds=seconds)
    run.hours.append(hour)
    return hour


def _play(run: _Run, rounds: int) -> list[Result]:
    """So many rounds, and on until a canary has ended; one that has not by its last round is ended by its owner."""
    results: list[Result] = []
    played = 0
    while played < rounds or (run.service.live_route() and played < run.plan.canary_rounds):
        results += run.agent.play(next(run.rounds))
        played += 1
    if run.service.live_route():
        run.say("the canary is still undecided; its owner ends it")
        run.service.end_canary()
    return results


def _night(run: _Run, hour: Hour) -> Hour:
    """The hour with the version that the loop made of it, and what its gate said."""
    version = run.service.night(seconds=run.plan.most_seconds)
    name = f"{ADAPTER}@{version['number']}"
    verdict, why = run.service.verdict_of(name), "; ".join(version["gate"]["reasons"])
    run.say(f"hour {hour.hour}: {name} {verdict}: {why}")
    return replace(hour, trained=name, verdict=verdict, why=why)


def _test(run: _Run) -> list[Result]:
    """The unseen games, played by who serves now; once for each champion."""
    champion = run.service.champion()
    if champion not in run.tested:
        run.tested[champion] = run.agent.test(run.sets.test, model=champion or BASE, seed=run.plan.seed)
        won = sum(result.won for result in run.tested[champion])
        run.say(f"{champion or 'the bare base'} wins {won} of {len(run.sets.test)} unseen games")
    return run.tested[champion]
