"""The comparison end to end on a tiny model: what is run, in what order, and that nothing is run twice."""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import set_peft_model_state_dict
from safetensors.torch import load_file

from bench.learning.__main__ import main
from bench.learning.adapted import adapted
from bench.learning.cells import Cells, stored_plans
from bench.learning.outcome import cost, write_outcome
from bench.learning.plan import LearningPlan, TaskChoice, plan_from
from bench.learning.prompting import prompting_of
from bench.learning.report import main as report_main
from bench.learning.schedule import SCORE, TRAIN, Unit, pending, run, units
from bench.learning.serving import SystemServing
from bench.learning.systems import (
    LORA,
    MEMORY,
    METHODS,
    REREADING,
    SFT,
    WIDE_LORA,
    BareBase,
    FewShot,
    Link,
    Majority,
    Retrieval,
    Routed,
    Trained,
)
from bench.learning.training import Workplace, ensure_trained, load_adapter
from bench.plain_lora import SHAPE, WIDE_SHAPE, PlainLora
from bench.report import commit
from memgen.backbone.loading import Backbone
from memgen.config import MemoryConfig
from memgen.generation.engine import generate
from memgen.generation.requests import GenerationRequest
from memgen.generation.sampling import Sampling
from memgen.memory.host import AdapterHost
from memgen.tasks.task import Observation
from memgen.text.answers import Answer
from tests.bench.learning.tiny_plan import PLAN, TASKS


def test_every_method_comes_to_an_end(finished: tuple[Workplace, list[Unit]]) -> None:
    work, did = finished
    assert len(did) == len(set(did))
    document = write_outcome(work.cells, 1)
    assert json.loads(json.dumps(document)) == json.loads(
        (work.cells.pack.path.parent.parent / "learning.json").read_text()
    )
    assert document["tasks"] == ["yes-no", "left-right"]
    assert document["seeds"] == 1
    assert set(document["methods"]) == set(METHODS)
    needed = {"acc", "bwt", "fwt", "by_task", "train_seconds", "added_parameters", "forgetting", "text_nll"}
    for name, found in document["methods"].items():
        assert needed <= {key for key, value in found.items() if value is not None}, name
        assert found["acc"] == pytest.approx(sum(found["by_task"].values()) / 2)
    methods = document["methods"]
    assert methods["base"]["added_parameters"] == methods["few-shot"]["added_parameters"] == 0
    assert methods["memgen-isolated"]["added_parameters"] == 2 * methods["memgen-replay"]["added_parameters"]
    assert methods["memgen-replay"]["train_seconds"] > 0
    steps = [
        (work.cells.trained(Trained(MEMORY, 0, (Link(SFT, 0, times=times),))) or {})["optimizer_steps"]
        for times in (1, 2)
    ]
    assert steps == [PLAN.steps, 2 * PLAN.steps]
    seconds = {name: methods[name]["train_seconds"] for name in ("memgen-isolated", "memgen-grpo", "memgen-trigger")}
    assert seconds["memgen-isolated"] < min(seconds["memgen-grpo"], seconds["memgen-trigger"])
    assert methods["majority"]["by_task"] == {"yes-no": 0.75, "left-right": 0.75}
    assert set(methods["memgen-isolated"]["routed_right"]) == {"yes-no", "left-right"}
    assert methods["memgen-replay"]["routed_right"] is None
    assert methods["majority"]["bwt"] == methods["base"]["bwt"] == 0


def test_a_rereading_memory_is_a_family_of_its_own(finished: tuple[Workplace, list[Unit]]) -> None:
    work, _ = finished
    folders = {family: ensure_trained(work, Trained(family, 0, (Link(SFT, 1),))) for family in (MEMORY, REREADING)}
    configs = {f: json.loads((folder / "memory.json").read_text())["config"] for f, folder in folders.items()}
    assert {f: config.pop("reread_tokens") for f, config in configs.items()} == {
        MEMORY: 0,
        REREADING: PLAN.reread_tokens,
    }
    assert configs[MEMORY] == configs[REREADING]
    assert {part.family for part in Routed(0, 1, 2, family=REREADING).parts} == {REREADING}
    places = {family: work.cells.place(Trained(family, 0, (Link(SFT, 1),))) for family in (LORA, MEMORY, REREADING)}
    assert places[LORA] == Path() != places[MEMORY] == places[REREADING]


def test_a_warm_memory_starts_from_the_one_before_which_serves_on(finished: tuple[Workplace, list[Unit]]) -> None:
    work, _ = finished
    first, second = Routed(0, 1, 2, family=REREADING, warm=True).parts
    assert (first, second.parent) == (Routed(0, 0, 2, family=REREADING).parts[0], first)
    assert [link.task for link in second.chain] == [0, 1]
    cells = [work.cells.trained(one) or {} for one in (first, second)]
    seconds = cost(work.cells, "memgen-rereading-warm-long", 0).train_seconds
    assert seconds == sum(cell["seconds"] for cell in cells)


def test_what_is_done_is_not_done_again(
    finished: tuple[Workplace, list[Unit]], monkeypatch: pytest.MonkeyPatch
) -> None:
    work, _ = finished
    did: list[Unit] = []

    def note(unit: Unit, _: float, __: int) -> None:
        did.append(unit)

    run(SystemServing(work, 10**8), list(METHODS), [0], on_unit=note)
    assert did == []
    lost = Unit(SCORE, Trained(MEMORY, 0, (Link(SFT, 0),)), 0)
    kept = dict(lost.cell(work.cells) or {})
    work.cells.pack.put(work.cells.key_of_scores(lost.system, "yes-no"), None)
    monkeypatch.setattr("bench.learning.training._train_memory", _must_not_train)
    run(SystemServing(work, 10**8), list(METHODS), [0], on_unit=note)
    assert did == [lost]
    assert {**kept, "seconds": 0} == {**(lost.cell(work.cells) or {}), "seconds": 0}


def _must_not_train(*_: Any) -> None:
    raise AssertionError("trained what was trained before")


def test_a_budget_ends_after_the_unit_in_work(workplace: Callable[..., Workplace]) -> None:
    work = workplace()
    methods = ["base", "majority"]
    every = units(work.cells, methods, [0])
    assert run(SystemServing(work, 0), methods, [0], budget_seconds=0) == len(every)
    did: list[Unit] = []
    with pytest.raises(KeyboardInterrupt):
        run(SystemServing(work, 0), methods, [0], on_unit=lambda unit, *_: _interrupt_at(unit, did, 2))
    assert pending(work.cells, methods, [0]) == every[2:]
    assert run(SystemServing(work, 0), methods, [0]) == 0


def _interrupt_at(unit: Unit, did: list[Unit], count: int) -> None:
    did.append(unit)
    if len(did) == count:
        raise KeyboardInterrupt


def test_lost_weights_are_trained_again_to_the_same(workplace: Callable[..., Workplace], tmp_path: Path) -> None:
    work = workplace()
    for family, file in ((LORA, "adapter_model.safetensors"), (MEMORY, "memory.safetensors")):
        system = Trained(family, 0, (Link(SFT, 0), Link(SFT, 1, replay=True)))
        first = (ensure_trained(work, system) / file).read_bytes()
        noted = work.cells.trained(system)
        for one in system.lineage:
            shutil.rmtree(work.weights / work.cells.place(one) / one.name)
        assert (ensure_trained(work, system) / file).read_bytes() == first
        assert work.cells.trained(system) == noted


def test_a_killed_training_of_lora_goes_on_from_its_checkpoint(
    workplace: Callable[..., Workplace], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, system = replace(PLAN, steps=5), Trained(LORA, 0, (Link(SFT, 0),), 1e-3)
    unbroken = (ensure_trained(workplace(plan=plan), system) / "adapter_model.safetensors").read_bytes()
    work, taken = workplace(plan=plan), 0
    step_of_lora = PlainLora.step

    def step(self: PlainLora, *args: Any, **options: Any) -> float:
        nonlocal taken
        if taken == 3:
            taken += 1
            raise KeyboardInterrupt
        taken += 1
        return step_of_lora(self, *args, **options)

    monkeypatch.setattr("bench.learning.training._CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(PlainLora, "step", step)
    with pytest.raises(KeyboardInterrupt):
        ensure_trained(work, system)
    assert work.cells.trained(system) is None
    assert (ensure_trained(work, system) / "adapter_model.safetensors").read_bytes() == unbroken
    assert taken == 4 + 2
    assert list(work.weights.glob("*.checkpoint")) == []


def test_methods_share_what_they_begin_with(workplace: Callable[..., Workplace]) -> None:
    cells = workplace().cells
    trained = [u.system.name for u in units(cells, ["memgen-sequential", "memgen-replay"], [0]) if u.action == TRAIN]
    assert trained == ["memory-s0-sft0", "memory-s0-sft0-sft1", "memory-s0-sft0-sft1r"]
    isolated = [u.system.name for u in units(cells, ["memgen-isolated"], range(2)) if u.action == TRAIN]
    assert isolated == ["memory-s0-sft0", "memory-s0-sft1", "memory-s1-sft0", "memory-s1-sft1"]
    later = [u.system.name for u in units(cells, ["memgen-trigger"], [0]) if u.action == TRAIN]
    assert later == ["memory-s0-sft0", "memory-s0-sft0-trigger0", "memory-s0-sft1", "memory-s0-sft1-trigger1"]
    longer = [u.system.name for u in units(cells, ["memgen-isolated-long"], [0]) if u.action == TRAIN]
    assert longer == ["memory-s0-sft0x2", "memory-s0-sft1x2"]


def test_seed_0_of_all_methods_comes_before_seed_1_and_the_rest_of_the_matrix_last(
    workplace: Callable[..., Workplace],
) -> None:
    third = TaskChoice("in-out", "words", "tests.bench.learning.tiny_tasks:Echo", {"words": ["in", "out"]})
    cells = workplace(plan=replace(PLAN, tasks=(*TASKS, third))).cells
    every = [(u.action, u.system.name, u.task) for u in units(cells, ["memgen-replay", "lora"], range(2))]
    first_of_seed_1 = next(n for n, (_, system, _) in enumerate(every) if "-s1-" in system)
    before = {system for _, system, _ in every[:first_of_seed_1]}
    assert {"lora0.001-s0-sft0-sft1r", "memory-s0-sft0-sft1r-sft2r"} & before == {"memory-s0-sft0-sft1r-sft2r"}
    assert "lora0.001-s0-sft0-sft1-sft2" in before
    # After the first task the third, after the second the first: neither is of ACC, BWT or FWT.
    assert every[-8:] == [
        ("score", system, task)
        for seed in (0, 1)
        for first, second in (
            (f"memory-s{seed}-sft0", f"memory-s{seed}-sft0-sft1r"),
            (f"lora0.001-s{seed}-sft0", f"lora0.001-s{seed}-sft0-sft1"),
        )
        for system, task in ((first, 2), (second, 0))
    ]


@pytest.mark.parametrize(("family", "shape"), [(LORA, SHAPE), (WIDE_LORA, WIDE_SHAPE)])
def test_an_adapted_base_answers_as_the_trained_lora(
    workplace: Callable[..., Workplace], base: Backbone, family: str, shape: MemoryConfig
) -> None:
    """Against PEFT's own forward on the same weights."""

    work = workplace(plan=replace(PLAN, steps=6, lora_rates=(3e-2,)))
    system = Trained(family, 0, (Link(SFT, 0),), 3e-2)
    folder = ensure_trained(work, system)
    served = adapted(base, load_adapter(base, system, folder))
    plain = PlainLora(base, learning_rate=1.0, target_modules=shape.target_modules)
    set_peft_model_state_dict(plain.model, load_file(folder / "adapter_model.safetensors"))
    prompt = work.material.first_prompts(work.material.held_out_items(0))[0]
    [answer] = generate(AdapterHost(served), [GenerationRequest(prompt, Sampling(6, logprobs=True))])
    [bare] = generate(AdapterHost(base), [GenerationRequest(prompt, Sampling(6, logprobs=True))])
    assert answer.logprobs is not None
    ids = torch.tensor([[*prompt, *answer.token_ids]])
    logprobs = plain.model(input_ids=ids).logits.float().log_softmax(-1)[0, len(prompt) - 1 : -1]
    expected = logprobs.gather(1, ids[0, len(prompt) :, None]).squeeze(1).tolist()
    assert list(answer.logprobs) == pytest.approx(expected, abs=1e-4)
    assert answer.logprobs != bare.logprobs


def test_prompts_of_few_shot_and_retrieval(workplace: Callable[..., Workplace]) -> None:
    work = workplace()
    question = [{"role": "system", "content": "s"}, {"role": "user", "content": "left or right, 5555?"}]
    shown = prompting_of(work.material, FewShot(0), 0)(question)
    assert [m["content"] for m in shown] == [
        "s",
        "yes or no, 1?",
        "yes",
        "yes or no, 0?",
        "yes",
        "left or right, 5555?",
    ]
    assert prompting_of(work.material, FewShot(0), None)(question) == question
    found = prompting_of(work.material, Retrieval(0, 1), 0)(question)
    assert len(found) == 6
    assert all("left or right" in m["content"] for m in found if m["role"] == "user")
    tight = replace(PLAN, demonstration_tokens=60)
    one = prompting_of(workplace(plan=tight).material, FewShot(0), 0)(question)
    assert len(one) == len(question) + 2


def test_replay_mixes_the_share_asked_for(workplace: Callable[..., Workplace]) -> None:
    material = workplace(plan=replace(PLAN, replay_share=0.25, replay_examples=3)).material
    mixed = material.sft_examples(Link(SFT, 1, replay=True), 0).examples
    own, old = material.examples(1, 0).examples, material.examples(0, 0).examples
    assert mixed[: len(own)] == own
    assert mixed[len(own) :] == tuple(old[n % 3] for n in range(8))
    assert material.sft_examples(Link(SFT, 1), 0).examples == own


def test_a_plan_survives_its_file(workplace: Callable[..., Workplace]) -> None:
    work = workplace()
    [(digest, plan)] = stored_plans(work.cells.pack.path.parent).items()
    assert digest == PLAN.digest == plan.digest
    assert plan_from(json.loads(json.dumps(asdict(LearningPlan())))).digest == LearningPlan().digest
    for other in (replace(PLAN, steps=3), replace(PLAN, dtype="bfloat16")):
        assert other.digest != PLAN.digest
    rewarded = replace(PLAN, grpo_steps=1 + PLAN.grpo_steps, outside=None)
    assert rewarded.digest == PLAN.digest
    assert rewarded.recipe_digest != PLAN.recipe_digest


def test_another_recipe_of_memories_keeps_the_results_of_everything_else(
    finished: tuple[Workplace, list[Unit]],
) -> None:
    work, _ = finished
    longer = replace(PLAN, memory={**PLAN.memory, "latents": 2 + int(PLAN.memory["latents"])})
    assert longer.digest == PLAN.digest
    other = Cells(longer, work.cells.pack.path.parent)
    lora, memory = Trained(LORA, 0, (Link(SFT, 0),), PLAN.lora_rates[0]), Trained(MEMORY, 0, (Link(SFT, 0),))
    assert work.cells.trained(lora) == other.trained(lora) is not None
    assert work.cells.trained(memory) is not None
    assert other.trained(memory) is None


def test_a_routed_system_sends_items_to_their_own_memory(
    finished: tuple[Workplace, list[Unit]], monkeypatch: pytest.MonkeyPatch
) -> None:
    work, _ = finished
    first, second = Trained(MEMORY, 0, (Link(SFT, 0),)), Trained(MEMORY, 0, (Link(SFT, 1),))
    monkeypatch.setattr("bench.learning.serving.parts_for", lambda *_: [BareBase(), second, second, first])
    scores = {BareBase(): [0.1, 0.2, 0.3, 0.4], second: [0.5, 0.6, 0.7, 0.8]}
    cells = Cells(replace(PLAN, texts=2), work.cells.pack.path.parent)
    for system, some in scores.items():
        totals = {"seconds": 4.0, "prompt_tokens": 40, "new_tokens": 8, "asked": 4, "invoked": 4}
        cells.note_scores(system, "left-right", {"scores": some, "answers": list("abcd"), **totals})
    serving = SystemServing(replace(work, cells=cells), 0)
    cell = serving.note_scores(Routed(0, 1), 1)
    assert cell["scores"][:3] == [0.1, 0.6, 0.7]
    assert cell["answers"][:3] == ["a", "b", "c"]
    assert cell["served_by"] == {"base": 1, second.name: 2, first.name: 1}
    alone = serving.score(first, 1, [work.material.held_out_items(1)[3]])
    assert cell["scores"][3] == alone.scores[0]
    assert cell["prompt_tokens"] == 10 + 20 + alone.prompt_tokens


def test_the_majority_answer_is_given_at_every_turn(workplace: Callable[..., Workplace]) -> None:
    """A game of three turns that wants the same word each time pays for each."""

    class Game:
        item_id, tools, expert, max_turns = "game", None, None, 3

        def open(self) -> "Game":
            return self

        def reset(self) -> Observation:
            return Observation(({"role": "user", "content": "?"},), 0.0)

        def step(self, answer: Answer) -> Observation:
            return Observation((), 0.25 if answer.content == "yes" else -1.0)

        def close(self) -> None: ...

    scores = SystemServing(workplace(), 0).score(Majority(0), 0, [Game()])
    assert scores.scores == (0.75,)


def test_the_command_runs_goes_on_and_reports(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results, page = tmp_path / "results" / "learning", tmp_path / "docs" / "results.md"
    command = f"bench.learning --model {tiny_base} --models {tmp_path} --cache {tmp_path / 'cache'} --results {results}"
    command += f" --page {page} --lab-book {tmp_path / 'learning.md'} --methods base memgen-sequential"
    command += " --tasks family number-filtering"
    command += " --seeds 1 --steps 1 --items 4"
    monkeypatch.setattr("sys.argv", f"{command} --budget-minutes 0".split())
    main()
    assert not json.loads((results.parent / "learning.json").read_text())["methods"]
    monkeypatch.setattr("sys.argv", command.split())
    main()
    document = json.loads((results.parent / "learning.json").read_text())
    assert set(document["methods"]) == {"base", "memgen-sequential"}
    assert len(document["commands"]) == 2
    first = page.read_text()
    assert page.read_text().rstrip().endswith(f"commit {commit() or 'unknown'}.")
    lab_book = tmp_path / "learning.md"
    assert "--budget-minutes 0" in lab_book.read_text()
    pages = f"--page {page} --lab-book {lab_book}"
    monkeypatch.setattr("sys.argv", f"report --seeds 1 --results {results} {pages}".split())
    report_main()
    assert page.read_text() == first
    monkeypatch.setattr("sys.argv", f"{command} --status".split())
    main()
    assert "0 units left" in capsys.readouterr().out


def test_a_process_may_begin_at_any_seed(tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And does no other; whichever ends last, the page tells of all."""
    results, told = tmp_path / "results" / "learning", []
    command = f"bench.learning --model {tiny_base} --models {tmp_path} --cache {tmp_path / 'cache'} --results {results}"
    command += f" --page {tmp_path / 'results.md'} --lab-book {tmp_path / 'learning.md'}"
    command += " --methods memgen-sequential --tasks family number-filtering --seeds 1 --steps 1 --items 4"
    for first in (1, 0):
        monkeypatch.setattr("sys.argv", f"{command} --first-seed {first}".split())
        main()
        document = json.loads((results.parent / "learning.json").read_text())
        told.append(document["methods"]["memgen-sequential"]["seeds"])
    assert told == [[1], [0, 1]]
    monkeypatch.setattr("sys.argv", f"{command} --first-seed -1".split())
    with pytest.raises(SystemExit, match="--first-seed is -1"):
        main()
