"""Generated text games: made, kept, won and lost. Compiles one tiny game."""

import os
from pathlib import Path

import psutil
import pytest

from memgen.errors import ConfigError
from memgen.generation.episodes import play
from memgen.generation.sampling import Sampling
from memgen.memory.host import AdapterHost
from memgen.tasks.split import is_held_out
from memgen.tasks.textworld import Game, TextWorld
from memgen.text.answers import Answer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("games")


@pytest.fixture(scope="module")
def game(folder: Path) -> Game:
    return TextWorld(folder, level=2, theme="basic").held_out_items(1)[0]


def test_the_walkthrough_earns_the_reward(game: Game) -> None:
    environment = game.open()
    seen = environment.reset()
    assert [m["role"] for m in seen.messages] == ["system", "user"]
    first = seen.messages[1]["content"]
    assert first.startswith(f"Goal: {game.objective}")
    assert game.walkthrough[0] in first.partition("Commands: ")[2].split(", ")
    rewards = []
    for command in game.walkthrough:
        assert not seen.done
        seen = environment.step(Answer(f"> {command.upper()}.\nI am sure."))
        rewards.append(seen.reward)
    environment.close()
    assert (sum(rewards), seen.done) == (1.0, True)
    assert "RESTART" not in seen.messages[0]["content"]
    assert "$$" not in first + seen.messages[0]["content"]


def test_the_expert_is_a_conversation_with_the_game(game: Game) -> None:
    expert = game.expert
    assert expert is not None
    assert tuple(m["content"] for m in expert if m["role"] == "assistant") == game.walkthrough
    assert [m["role"] for m in expert] == ["system", *["user", "assistant"] * len(game.walkthrough)]
    assert len(game.walkthrough) == 2 < game.max_turns


def test_wrong_commands_earn_nothing(game: Game) -> None:
    environment = game.open()
    environment.reset()
    for command in ("examine banana", "look", "", "dance", "look then look"):
        seen = environment.step(Answer(command))
        assert (seen.reward, seen.done) == (0.0, False)
        assert seen.messages[0]["content"]
    # The game goes on: nothing was harmed.
    assert sum(environment.step(Answer(command)).reward for command in game.walkthrough) == 1.0
    environment.close()


@pytest.mark.parametrize("command", ["save", "script", "look. save", "look then save", "look, save", "quit", "restart"])
def test_commands_to_the_interpreter_are_not_sent(
    game: Game, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = set(game.compiled().parent.iterdir())
    monkeypatch.chdir(tmp_path)
    environment = game.open()
    environment.reset()
    seen = environment.step(Answer(command))
    assert seen.messages[0]["content"] == "That is not a command of this game."
    assert not seen.done
    environment.close()
    environment.close()
    assert list(tmp_path.iterdir()) == []
    assert set(game.compiled().parent.iterdir()) == before


def test_games_are_made_once_and_leave_nothing_behind(game: Game, folder: Path) -> None:
    before = set(psutil.Process(os.getpid()).children(recursive=True))
    path = game.compiled()
    made = path.stat().st_mtime_ns
    again = TextWorld(folder, level=2, theme="basic").held_out_items(1)[0]
    assert (again, again.compiled().stat().st_mtime_ns) == (game, made)
    assert sorted(p.name for p in path.parent.iterdir()) == ["game.json", "game.z8"]
    assert not [p for p in folder.rglob("*") if p.name.startswith((".making-", "tmp"))]
    assert set(psutil.Process(os.getpid()).children(recursive=True)) <= before


def test_whoever_makes_a_game_first_has_made_it_for_all(tmp_path: Path) -> None:
    [game] = TextWorld(tmp_path, level=1, theme="basic").training_items(1)
    [plan] = [path for path in tmp_path.rglob("*.json") if path.stem == str(game.number)]
    place = plan.with_suffix("")

    def made_by_another_meanwhile(task: TextWorld, seed: int, folder: Path) -> None:
        for made, text in ((folder, "ours"), (place, "theirs")):
            made.mkdir()
            (made / "game.z8").write_text(text)

    assert game.compiled(made_by_another_meanwhile).read_text() == "theirs"
    assert [path for path in place.parent.iterdir() if path.is_dir()] == [place]


def test_a_model_plays_it(game: Game, host: AdapterHost) -> None:
    first, second = play(host, None, [game, game], lambda item, turn: Sampling(max_new_tokens=8))
    assert first.finish in ("turns", "context")
    assert first.turns
    assert 0.0 <= first.reward < 1.0
    assert [t.generation.text for t in first.turns] == [t.generation.text for t in second.turns]


def test_the_solution_decides_the_side(folder: Path) -> None:
    task = TextWorld(folder, level=1, theme="basic", games=30)
    train, test = task.training_items(100), task.held_out_items(100)
    assert 2 <= len(test) < len(train) <= 28
    assert all(is_held_out(" / ".join(g.walkthrough), one_in=3) for g in test)
    assert {g.walkthrough for g in train}.isdisjoint(g.walkthrough for g in test)
    assert [g.item_id for g in task.held_out_items(2)] == [g.item_id for g in test[:2]]
    assert [g.number for g in task.training_items(9, seed=1)] != [g.number for g in task.training_items(9, seed=2)]


def test_commands_need_not_be_shown(game: Game, folder: Path) -> None:
    silent = TextWorld(folder, level=2, theme="basic", show_commands=False).held_out_items(1)[0]
    assert (silent.item_id, silent.compiled()) == (game.item_id, game.compiled())
    expert, with_commands = silent.expert, game.expert
    assert expert is not None
    assert with_commands is not None
    assert [m["content"].partition("\n\nCommands:")[0] for m in with_commands] == [m["content"] for m in expert]


@pytest.mark.parametrize("options", [{"level": 9}, {"theme": "space"}])
def test_unknown_levels_and_themes_are_refused(options: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"textworld has the levels \[1, 2, 3, 4, 5\] and the themes house, basic"):
        TextWorld(tmp_path, **options)
