"""The games of the proof as the agent sees them. Compiles one tiny game."""

import json
from itertools import islice
from pathlib import Path

import pytest

from bench.loop.games import MAX_TURNS, GameSets, Play, make_games, random_success
from memgen.tasks.textworld import Game, TextWorld


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> GameSets:
    return make_games(tmp_path_factory.mktemp("games"), pool=2, test=1, seed=0, processes=1)


def test_the_walkthrough_wins(sets: GameSets) -> None:
    play = Play(sets.test[0])
    for command in sets.test[0].walkthrough:
        assert not play.over
        assert command in play.commands
        play.answer(json.dumps(command))
    assert (play.over, play.reward, play.turns) == (True, 1.0, 2)


def test_half_of_the_pool_is_won_by_one_command(sets: GameSets) -> None:
    assert sorted(len(game.walkthrough) for game in sets.pool) == [1, 2]
    easy = min(sets.pool, key=lambda game: len(game.walkthrough))
    play = Play(easy)
    play.answer(json.dumps(easy.walkthrough[0]))
    assert (play.over, play.reward) == (True, 1.0)


def test_what_is_no_command_costs_a_turn(sets: GameSets) -> None:
    play = Play(sets.test[0])
    first = play.commands
    for text in ("I would rather not", '{"command": "look"}', '"save"', '"'):
        assert not play.over
        play.answer(text)
    assert (play.over, play.reward, play.turns) == (True, 0.0, MAX_TURNS)
    assert play.commands == first
    assert [message["role"] for message in play.messages][-2:] == ["user", "assistant"]


def test_a_random_command_wins_now_and_then(sets: GameSets) -> None:
    assert 0 < random_success(sets.test, plays=60) < 0.5


def test_every_game_of_the_pool_is_played_before_any_is_again() -> None:
    task = TextWorld(Path("nowhere"), level=2)
    games = tuple(Game(task, number) for number in range(7))
    played = [game.number for some in islice(GameSets(games, ()).rounds(3, seed=1), 5) for game in some]
    assert sorted(played[:7]) == sorted(played[7:14]) == list(range(7))
    assert played[:7] != played[7:14]
