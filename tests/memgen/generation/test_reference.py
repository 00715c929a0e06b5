"""The literal reference against plain transformers and against both forms worked out by hand.

Folders are written here with PEFT and safetensors alone; the weaver by hand is a base whose weights PEFT merged.
"""

import ast
import copy
import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from tests import reference, reference_memory
from tests.fixtures_model import save_tiny_base
from tests.reference_memory import ReferenceMemory

PROMPTS = [list(range(5, 5 + n)) for n in (1, 2, 7, 19)]
STOP = frozenset({2})
DELIMITERS = ["?", "G", "R", "c", "L", "H"]
"""What a random model likes to say; it hardly ever says a comma."""
FORMS = ("cache", "embedding")


@pytest.fixture(scope="module")
def base(tiny_base: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.float32)


@pytest.fixture(scope="module")
def tokenizer(tiny_base: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(tiny_base)


@pytest.fixture(scope="module")
def narrow_base(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedModel:
    """Another base for the weaver, of another size."""
    folder = save_tiny_base(tmp_path_factory.mktemp("narrow") / "narrow", seed=7, hidden_size=48)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def random_tensors(form: str, hidden: int, weaver_hidden: int, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    tensors = {"trigger_head.weight": normal(2, hidden) / 8, "trigger_head.bias": normal(2) / 8}
    for name, count in (("prompt_queries", 3), ("inference_queries", 2)):
        tensors[f"{name}.latents"] = normal(count, weaver_hidden)
        tensors[f"{name}.norm.weight"] = 1 + normal(weaver_hidden) / 8
        tensors[f"{name}.norm.bias"] = normal(weaver_hidden) / 8
        tensors[f"{name}.scale"] = torch.tensor(0.3)
    if form == "embedding":
        tensors["reasoner_to_weaver.weight"] = torch.eye(weaver_hidden, hidden) + normal(weaver_hidden, hidden) / 20
        tensors["reasoner_to_weaver.bias"] = normal(weaver_hidden) / 20
        tensors["weaver_to_reasoner.weight"] = torch.eye(hidden, weaver_hidden) + normal(hidden, weaver_hidden) / 20
        tensors["weaver_to_reasoner.bias"] = normal(hidden) / 20
    return tensors


def save_lora(base: PreTrainedModel, folder: Path, *, seed: int, trained: bool = True, name: str = "default") -> None:
    torch.manual_seed(seed)
    config = LoraConfig(
        r=4, lora_alpha=8, lora_dropout=0.5, target_modules=["q_proj", "v_proj"], init_lora_weights=not trained
    )
    model = get_peft_model(copy.deepcopy(base), config, adapter_name=name)
    model.save_pretrained(str(folder), save_embedding_layers=False)


def save_memory(
    folder: Path,
    base: PreTrainedModel,
    form: str,
    *,
    trigger: str = "always",
    max_insertions: int = 5,
    weaver_base: PreTrainedModel | None = None,
    trained: bool = True,
    head: tuple[float, float] | None = None,
    reread_tokens: int = 0,
) -> Path:
    """A memory with random weights. `head` makes the trigger's logits these, whatever it reads."""
    weaver_base = weaver_base or base
    tensors = random_tensors(form, base.config.hidden_size, weaver_base.config.hidden_size)
    if head is not None:
        tensors["trigger_head.weight"] = torch.zeros_like(tensors["trigger_head.weight"])
        tensors["trigger_head.bias"] = torch.tensor(head)
    if trigger not in ("lora", "head"):
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("trigger_head")}
    config = {"form": form, "trigger": trigger, "max_insertions": max_insertions, "delimiters": DELIMITERS}
    config["reread_tokens"] = reread_tokens
    folder.mkdir()
    (folder / "memory.json").write_text(json.dumps({"format": 2, "config": config}))
    save_file(tensors, folder / "memory.safetensors")
    save_lora(weaver_base, folder / "weaver", seed=1, trained=trained)
    if trigger == "lora":
        save_lora(base, folder / "trigger", seed=2)
    return folder


def delimiters_in(tokens: list[int], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Indices of the tokens that are one. No digit takes part: none of ours is a point or comma."""
    return [n for n, token in enumerate(tokens) if tokenizer.decode([token]) in DELIMITERS]


# ---- Both forms by hand. `places` maps the tokens in front of an insertion to its queries.


def named(places: list[int]) -> dict[int, str]:
    """All insertions of a memory that wove at the prompt's end."""
    return dict.fromkeys(places, "inference_queries") | {places[0]: "prompt_queries"}


def queries_by_hand(tensors: dict[str, Tensor], name: str) -> Tensor:
    latents = tensors[f"{name}.latents"]
    centred = latents - latents.mean(dim=1, keepdim=True)
    normed = centred / (centred.square().mean(dim=1, keepdim=True) + 1e-5).sqrt()
    return (normed * tensors[f"{name}.norm.weight"] + tensors[f"{name}.norm.bias"]) * tensors[f"{name}.scale"]


def merged_lora(base: PreTrainedModel, folder: Path) -> PreTrainedModel:
    return PeftModel.from_pretrained(copy.deepcopy(base), folder).merge_and_unload()


@torch.no_grad()
def cache_by_hand(
    base: PreTrainedModel,
    folder: Path,
    tokens: list[int],
    places: dict[int, str],
    reads_newest: PreTrainedModel | None = None,
    again: Sequence[int] = (),
) -> Tensor:
    """Last hidden states `(T, H)`: token by token over one cache that is kept; the newest perhaps by another model.

    `again` are tokens that the weaver reads, one by one, in front of the prompt's queries.
    """
    tensors, weaver = load_file(folder / "memory.safetensors"), merged_lora(base, folder / "weaver")
    cache, states = DynamicCache(), []
    for n, token in enumerate(tokens):
        for known in again if places.get(n) == "prompt_queries" else ():
            weaver(torch.tensor([[known]]), past_key_values=cache)
        if n in places:
            weaver(inputs_embeds=queries_by_hand(tensors, places[n])[None], past_key_values=cache)
        reader = reads_newest if reads_newest is not None and n == len(tokens) - 1 else base
        states.append(reader.model(torch.tensor([[token]]), past_key_values=cache).last_hidden_state[0, 0])
    return torch.stack(states)


@torch.no_grad()
def embedding_by_hand(
    base: PreTrainedModel,
    folder: Path,
    tokens: list[int],
    places: dict[int, str],
    weaver_base: PreTrainedModel | None = None,
    cue: list[int] | None = None,
) -> Tensor:
    """Last hidden states `(T, H)`, each of what predicts the next token: one pass over tokens and latents."""
    tensors, weaver = load_file(folder / "memory.safetensors"), merged_lora(weaver_base or base, folder / "weaver")
    to_weaver, to_weaver_bias = tensors["reasoner_to_weaver.weight"], tensors["reasoner_to_weaver.bias"]
    to_reasoner, to_reasoner_bias = tensors["weaver_to_reasoner.weight"], tensors["weaver_to_reasoner.bias"]
    rows: list[Tensor] = []
    last_rows = []
    for n, token in enumerate(tokens, start=1):
        rows.append(base.model.embed_tokens.weight[token])
        if n in places:
            read = torch.stack([*base.model.embed_tokens.weight[cue or []], *rows]) @ to_weaver.T + to_weaver_bias
            sequence = torch.cat([read, queries_by_hand(tensors, places[n])])
            hidden = weaver.model(inputs_embeds=sequence[None]).last_hidden_state[0]
            rows.extend(hidden[len(read) :] @ to_reasoner.T + to_reasoner_bias)
        last_rows.append(len(rows) - 1)
    return base.model(inputs_embeds=torch.stack(rows)[None]).last_hidden_state[0, last_rows]


BY_HAND = {"cache": cache_by_hand, "embedding": embedding_by_hand}


# ---- Without latents


@pytest.mark.parametrize("prompt", PROMPTS, ids=len)
def test_without_memory_equals_transformers(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: list[int]
) -> None:
    ids = torch.tensor([prompt])
    expected = base.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=False)
    answer = reference.generate(None, base, prompt, 24, STOP, tokenizer)
    assert answer.tokens == [t for t in expected[0, len(prompt) :].tolist() if t != 2]
    assert answer.decisions == []


@pytest.mark.parametrize("form", FORMS)
def test_a_trigger_that_never_fires_equals_the_base(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tmp_path: Path, form: str
) -> None:
    folder = save_memory(tmp_path / "m", base, form, trigger="never")
    answer = reference.generate(ReferenceMemory(base, folder, tokenizer), base, PROMPTS[2], 24, STOP, tokenizer)
    assert answer == reference.generate(None, base, PROMPTS[2], 24, STOP, tokenizer)


def test_a_stop_token_ends_the_answer_and_is_left_out(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    free = reference.generate(None, base, PROMPTS[2], 24, STOP, tokenizer).tokens
    stopped = reference.generate(None, base, PROMPTS[2], 24, frozenset({free[6]}), tokenizer).tokens
    assert stopped == free[: free.index(free[6])]


def test_loss_without_memory_is_transformers_own(base: PreTrainedModel) -> None:
    ids, labels = torch.tensor([[*PROMPTS[2], 9, 8, 7]]), torch.tensor([[*[-100] * 7, 9, 8, 7]])
    torch.testing.assert_close(reference.loss(None, base, PROMPTS[2], [9, 8, 7]), base(ids, labels=labels).loss)


# ---- With latents


@pytest.mark.parametrize("prompt", PROMPTS, ids=len)
@pytest.mark.parametrize("form", FORMS)
def test_answer_and_decisions_are_those_worked_out_by_hand(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tmp_path: Path, form: str, prompt: list[int]
) -> None:
    folder = save_memory(tmp_path / "m", base, form, max_insertions=3)
    answer = reference.generate(ReferenceMemory(base, folder, tokenizer), base, prompt, 40, STOP, tokenizer)

    behind = 0 if form == "cache" else 1
    points = [len(prompt) - 1, *(len(prompt) + n for n in delimiters_in(answer.tokens[:-1], tokenizer)[:3])]
    assert answer.decisions == [(point + behind, True, 1.0) for point in points]
    assert len(points) > 2

    states = BY_HAND[form](base, folder, [*prompt, *answer.tokens], named([d.position for d in answer.decisions]))
    assert answer.tokens == base.lm_head(states)[len(prompt) - 1 : -1].argmax(dim=-1).tolist()
    assert answer.tokens != reference.generate(None, base, prompt, 40, STOP, tokenizer).tokens


@pytest.mark.parametrize("form", FORMS)
def test_loss_is_the_one_worked_out_by_hand(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tmp_path: Path, form: str
) -> None:
    """Delimiters: one in the prompt, three in the target of which the budget takes two, one as its last token."""
    folder = save_memory(tmp_path / "m", base, form, max_insertions=2)
    prompt, target = tokenizer("a?b")["input_ids"], tokenizer("xGyRRzc")["input_ids"]
    places = [2, 4, 6] if form == "cache" else [3, 5, 7]
    states = BY_HAND[form](base, folder, [*prompt, *target], named(places))
    expected = F.cross_entropy(base.lm_head(states)[2:-1], torch.tensor(target))
    torch.testing.assert_close(reference.loss(ReferenceMemory(base, folder, tokenizer), base, prompt, target), expected)


@pytest.mark.parametrize("form", FORMS)
def test_no_latents_behind_the_last_token_of_a_target(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tmp_path: Path, form: str
) -> None:
    memory = ReferenceMemory(base, save_memory(tmp_path / "m", base, form), tokenizer)
    reference.loss(memory, base, [5, 6], tokenizer("xyz?")["input_ids"]).backward()
    assert memory.tensors["prompt_queries.latents"].grad is not None
    assert memory.tensors["inference_queries.latents"].grad is None


def test_cache_form_with_an_untrained_lora_is_the_base_reading_the_queries(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    """With B = 0 a latent is the key and value of an input embedding, so one pass without a cache gives the same."""
    folder = save_memory(tmp_path / "m", base, "cache", trained=False)
    memory = ReferenceMemory(base, folder, tokenizer)
    prompt, target = [5, 6, 7], tokenizer("xGyz")["input_ids"]
    embed = base.get_input_embeddings()
    sequence = [
        embed(torch.tensor([5, 6])),
        memory.queries("prompt_queries"),
        embed(torch.tensor([7, target[0]])),
        memory.queries("inference_queries"),
        embed(torch.tensor(target[1:3])),
    ]
    logits = base(inputs_embeds=torch.cat(sequence)[None]).logits[0, [5, 6, 9, 10]]
    torch.testing.assert_close(
        reference.loss(memory, base, prompt, target), F.cross_entropy(logits, torch.tensor(target))
    )


@pytest.mark.parametrize(("tokens", "again"), [(1, [6]), (2, [5, 6]), (9, [5, 6])])
def test_the_weaver_reads_the_prompts_last_tokens_again(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tmp_path: Path, tokens: int, again: list[int]
) -> None:
    """In front of the prompt's queries, without the newest token; inside the answer nothing."""
    folder = save_memory(tmp_path / "m", base, "cache", reread_tokens=tokens)
    target = tokenizer("xGyz")["input_ids"]
    states = cache_by_hand(base, folder, [5, 6, 7, *target], named([2, 4]), again=again)
    expected = F.cross_entropy(base.lm_head(states)[2:-1], torch.tensor(target))
    memory = ReferenceMemory(base, folder, tokenizer)
    torch.testing.assert_close(reference.loss(memory, base, [5, 6, 7], target), expected)


def test_a_weaver_on_another_base(
    base: PreTrainedModel, narrow_base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    folder = save_memory(tmp_path / "m", base, "embedding", weaver_base=narrow_base)
    memory = ReferenceMemory(base, folder, tokenizer, narrow_base)
    target = tokenizer("xGyz")["input_ids"]
    states = embedding_by_hand(base, folder, [5, 6, *target], named([2, 4]), narrow_base)
    expected = F.cross_entropy(base.lm_head(states)[1:-1], torch.tensor(target))
    torch.testing.assert_close(reference.loss(memory, base, [5, 6], target), expected)


@pytest.mark.parametrize("form", FORMS)
def test_budgets_differ_only_behind_the_first_delimiter(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tmp_path: Path, form: str
) -> None:
    none, some = (
        reference.generate(
            ReferenceMemory(base, save_memory(tmp_path / str(budget), base, form, max_insertions=budget), tokenizer),
            base,
            PROMPTS[3],
            40,
            STOP,
            tokenizer,
        )
        for budget in (0, 5)
    )
    first = delimiters_in(some.tokens, tokenizer)[0]
    assert none.tokens[: first + 1] == some.tokens[: first + 1]
    assert none.tokens != some.tokens
    assert none.decisions == some.decisions[:1]


# ---- A cue


CUE = [90, 91, 92, 93]


def test_cache_form_with_a_cue_is_one_pass_in_which_only_queries_see_it(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    """With B = 0 and no cache: the cue stands apart from the context, at positions of its own from 0 on."""
    memory = ReferenceMemory(base, save_memory(tmp_path / "m", base, "cache", trained=False), tokenizer)
    prompt, target = [5, 6, 7], tokenizer("xGyz")["input_ids"]
    embed = base.get_input_embeddings()
    sequence = [
        embed(torch.tensor([*CUE, 5, 6])),
        memory.queries("prompt_queries"),
        embed(torch.tensor([7, target[0]])),
        memory.queries("inference_queries"),
        embed(torch.tensor(target[1:3])),
    ]
    is_query = torch.tensor([False] * 6 + [True] * 3 + [False] * 2 + [True] * 2 + [False] * 2)
    seen = torch.ones(15, 15, dtype=torch.bool).tril()
    seen[4:, :4] &= is_query[4:, None]
    positions = torch.tensor([[*range(4), *range(11)]])
    mask = torch.zeros(15, 15).masked_fill(~seen, -torch.inf)[None, None]
    embeds = torch.cat(sequence)[None]
    logits = base(inputs_embeds=embeds, attention_mask=mask, position_ids=positions).logits[0, [9, 10, 13, 14]]
    torch.testing.assert_close(
        reference.loss(memory, base, prompt, target, CUE), F.cross_entropy(logits, torch.tensor(target))
    )


def test_embedding_form_with_a_cue_is_the_one_worked_out_by_hand(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    folder = save_memory(tmp_path / "m", base, "embedding", max_insertions=2)
    prompt, target = tokenizer("a?b")["input_ids"], tokenizer("xGyRRzc")["input_ids"]
    states = embedding_by_hand(base, folder, [*prompt, *target], named([3, 5, 7]), cue=CUE)
    expected = F.cross_entropy(base.lm_head(states)[2:-1], torch.tensor(target))
    memory = ReferenceMemory(base, folder, tokenizer)
    torch.testing.assert_close(reference.loss(memory, base, prompt, target, CUE), expected)


@pytest.mark.parametrize("form", FORMS)
def test_a_cue_matters_to_latents_alone(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tmp_path: Path, form: str
) -> None:
    answers = {}
    for trigger in ("always", "never"):
        folder = save_memory(tmp_path / trigger, base, form, trigger=trigger)
        memory = ReferenceMemory(base, folder, tokenizer)
        answers[trigger] = [
            reference.generate(memory, base, PROMPTS[2], 24, STOP, tokenizer, cue).tokens for cue in ((), CUE, CUE[:1])
        ]
    assert len(set(map(tuple, answers["always"]))) == 3
    bare = reference.generate(None, base, PROMPTS[2], 24, STOP, tokenizer, CUE).tokens
    assert answers["never"] == [bare] * 3
    assert bare == reference.generate(None, base, PROMPTS[2], 24, STOP, tokenizer).tokens


# ---- The trigger


@pytest.mark.parametrize("trigger", ["lora", "head"])
@pytest.mark.parametrize("form", FORMS)
def test_the_head_decides(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tmp_path: Path, form: str, trigger: str
) -> None:
    def answer(trigger: str, head: tuple[float, float] | None) -> reference.ReferenceAnswer:
        folder = save_memory(tmp_path / f"{trigger}{head}", base, form, trigger=trigger, head=head, max_insertions=2)
        return reference.generate(ReferenceMemory(base, folder, tokenizer), base, PROMPTS[2], 40, STOP, tokenizer)

    always, invoked, skipped = answer("always", None), answer(trigger, (0.0, 1.0)), answer(trigger, (0.0, 0.0))
    assert invoked.tokens == always.tokens
    assert [d[:2] for d in invoked.decisions] == [d[:2] for d in always.decisions]
    assert [d.probability for d in invoked.decisions] == pytest.approx([1 / (1 + math.exp(-1))] * 3)
    # Equal logits skip; a skip takes nothing from the budget of 2, so every delimiter is asked about.
    assert skipped.tokens == reference.generate(None, base, PROMPTS[2], 40, STOP, tokenizer).tokens
    assert len(skipped.decisions) == 1 + len(delimiters_in(skipped.tokens[:-1], tokenizer)) > 3
    assert {d[1:] for d in skipped.decisions} == {(False, 0.5)}


@pytest.mark.parametrize("trigger", ["lora", "head"])
@pytest.mark.parametrize("form", FORMS)
def test_what_the_trigger_reads(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tmp_path: Path, form: str, trigger: str
) -> None:
    """At each of its decisions, by hand; the latents of those before are among it."""
    folder = save_memory(tmp_path / "m", base, form, trigger=trigger, max_insertions=9)
    tensors = load_file(folder / "memory.safetensors")
    answer = reference.generate(ReferenceMemory(base, folder, tokenizer), base, PROMPTS[2], 40, STOP, tokenizer)
    assert {d.invoked for d in answer.decisions} == {True, False}

    tokens, behind = [*PROMPTS[2], *answer.tokens], 0 if form == "cache" else 1
    places: dict[int, str] = {}
    for n, decision in enumerate(answer.decisions):
        so_far = tokens[: decision.position - behind + 1]
        state = trigger_state_by_hand(form, trigger, base, folder, so_far, places)
        logits = tensors["trigger_head.weight"] @ state + tensors["trigger_head.bias"]
        assert decision.probability == pytest.approx(float(torch.sigmoid(logits[1] - logits[0])), abs=1e-5)
        assert decision.invoked == (logits[1] > logits[0])
        if decision.invoked:
            places[decision.position] = "inference_queries" if n else "prompt_queries"
    assert places


@torch.no_grad()
def trigger_state_by_hand(
    form: str, trigger: str, base: PreTrainedModel, folder: Path, tokens: list[int], places: dict[int, str]
) -> Tensor:
    if trigger == "head":
        return BY_HAND[form](base, folder, tokens[:-1], places)[-1]
    reader = merged_lora(base, folder / "trigger")
    if form == "cache":
        return cache_by_hand(base, folder, tokens, places, reads_newest=reader)[-1]
    return reader.model(torch.tensor([tokens])).last_hidden_state[0, -1]


@pytest.mark.parametrize("form", FORMS)
def test_the_trigger_may_read_a_prompt_of_one_token(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tmp_path: Path, form: str
) -> None:
    folder = save_memory(tmp_path / "m", base, form, trigger="lora")
    memory = ReferenceMemory(base, folder, tokenizer)
    [decision, *_] = reference.generate(memory, base, [5], 1, STOP, tokenizer).decisions
    hidden = merged_lora(base, folder / "trigger").model(torch.tensor([[5]])).last_hidden_state[0, 0]
    expected = memory.linear("trigger_head", hidden).softmax(dim=0)[1]
    assert decision.probability == pytest.approx(expected.item(), abs=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_the_head_reads_zeros_at_the_end_of_a_prompt_of_one_token(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tmp_path: Path, form: str
) -> None:
    memory = ReferenceMemory(base, save_memory(tmp_path / "m", base, form, trigger="head"), tokenizer)
    [decision, *_] = reference.generate(memory, base, [5], 1, STOP, tokenizer).decisions
    skip, invoke = memory.tensors["trigger_head.bias"].tolist()
    assert decision.probability == pytest.approx(1 / (1 + math.exp(skip - invoke)))


# ---- Delimiters


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("yes,", True),
        ("yes.", True),
        ("yes\n", True),
        ("yes", False),
        ("3.", False),
        ("costs 1,", False),
        ("3\n", True),
        ("3 .", True),
        ("3..", True),
        ("x².", True),
        (".", True),
        ("a. ", False),
        ("a<|im_end|>", False),
        ("3<|im_end|>.", True),
    ],
)
def test_ends_in_delimiter(tokenizer: PreTrainedTokenizerBase, text: str, expected: bool) -> None:
    tokens = tokenizer(text)["input_ids"]
    assert reference.ends_in_delimiter(tokens, [",", ".", "\n", ">"], tokenizer) == expected


def test_a_delimiter_may_take_several_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    tokens = tokenizer("yes。")["input_ids"]
    ends = [reference.ends_in_delimiter(tokens[: n + 1], ["。"], tokenizer) for n in range(len(tokens))]
    assert ends == [False, False, False, False, False, True]


# ---- Gradients, dtypes, folders


@pytest.mark.parametrize("form", FORMS)
def test_gradients_reach_everything_the_weaver_trains(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tmp_path: Path, form: str
) -> None:
    folder = save_memory(tmp_path / "m", base, form)
    memory, target = ReferenceMemory(base, folder, tokenizer), tokenizer("xGyRz")["input_ids"]
    reference.loss(memory, base, PROMPTS[2], target).backward()

    assert memory.tensors.keys() == load_file(folder / "memory.safetensors").keys()
    assert all(tensor.grad.abs().sum() > 0 for tensor in memory.tensors.values())
    gradients, saved = memory.lora_gradients("weaver"), load_file(folder / "weaver/adapter_model.safetensors")
    # Nothing reads what the last layer's queries attend to when only its keys and values stay.
    unread = {name for name in saved if form == "cache" and "layers.1.self_attn.q_proj" in name}
    assert gradients.keys() == saved.keys() - unread
    assert all(gradient.shape == saved[name].shape for name, gradient in gradients.items())
    assert all(gradient.abs().sum() > 0 for gradient in gradients.values())


@pytest.mark.parametrize("form", FORMS)
def test_a_gradient_is_the_slope_of_the_loss(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tmp_path: Path, form: str
) -> None:
    """Through later weavings too, which read the earlier latents."""
    memory = ReferenceMemory(base, save_memory(tmp_path / "m", base, form), tokenizer)
    tensors, target = list(memory.tensors.values()), tokenizer("xGyRz")["input_ids"]
    reference.loss(memory, base, PROMPTS[2], target).backward()
    norm = torch.stack([tensor.grad.norm() for tensor in tensors]).norm()
    losses = []
    with torch.no_grad():
        for step in (5e-4, -1e-3):
            for tensor in tensors:
                tensor += step * tensor.grad / norm
            losses.append(reference.loss(memory, base, PROMPTS[2], target))
    torch.testing.assert_close((losses[0] - losses[1]) / 1e-3, norm, rtol=0.01, atol=0)


@pytest.mark.parametrize("trigger", ["lora", "head"])
@pytest.mark.parametrize("form", FORMS)
def test_bfloat16_is_near_float32(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tmp_path: Path, form: str, trigger: str
) -> None:
    folder = save_memory(tmp_path / "m", base, form, trigger=trigger, head=(0.0, 1.0))
    small = copy.deepcopy(base).to(torch.bfloat16)
    memory, target = ReferenceMemory(small, folder, tokenizer), tokenizer("xGyRz")["input_ids"]
    loss = reference.loss(memory, small, PROMPTS[2], target)
    loss.backward()
    exact = reference.loss(ReferenceMemory(base, folder, tokenizer), base, PROMPTS[2], target)
    assert loss.item() == pytest.approx(exact.item(), rel=0.05)
    assert {g.dtype for g in memory.lora_gradients("weaver").values()} == {torch.float32}
    assert {t.dtype for t in memory.tensors.values()} == {torch.float32}
    answer = reference.generate(memory, small, PROMPTS[2], 8, STOP, tokenizer)
    assert answer.decisions[0].invoked


@pytest.mark.parametrize("active", [True, False], ids=["trigger", "no-trigger"])
def test_a_public_checkpoint_is_the_same_memory(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tmp_path: Path, active: bool
) -> None:
    ours = save_memory(tmp_path / "ours", base, "embedding", trigger="lora" if active else "always", max_insertions=2)
    public = save_public(tmp_path / "public", base, active=active)
    one, other = ReferenceMemory(base, ours, tokenizer), ReferenceMemory.from_public(base, public, tokenizer)
    other.delimiters = one.delimiters

    assert (one.form, one.trigger, one.max_insertions) == (other.form, other.trigger, other.max_insertions)
    assert one.tensors.keys() == other.tensors.keys()
    for name, tensor in one.tensors.items():
        torch.testing.assert_close(other.tensors[name], tensor, rtol=0, atol=0)
    answers = [reference.generate(memory, base, PROMPTS[2], 24, STOP, tokenizer) for memory in (one, other)]
    assert answers[0] == answers[1]
    assert len(answers[0].decisions) > 1


def save_public(folder: Path, base: PreTrainedModel, *, active: bool) -> Path:
    """What the public code's `save_pretrained` writes: an inactive trigger is saved too."""
    tensors = random_tensors("embedding", base.config.hidden_size, base.config.hidden_size)

    def linear(name: str) -> dict[str, Tensor]:
        return {part: tensors[f"{name}.{part}"] for part in ("weight", "bias")}

    folder.mkdir()
    config = {
        "prompt_latents_len": 3,
        "inference_latents_len": 2,
        "max_inference_aug_num": 2,
        "trigger_active": active,
    }
    (folder / "config.json").write_text(json.dumps(config))
    projections = {name: linear(name) for name in ("reasoner_to_weaver", "weaver_to_reasoner")}
    torch.save(projections, folder / "projs.bin")
    weaver = {}
    for kind in ("prompt", "inference"):
        weaver[f"{kind}_query_latents"] = tensors[f"{kind}_queries.latents"]
        weaver[f"{kind}_latent_ln"] = linear(f"{kind}_queries.norm")
        weaver[f"{kind}_latent_scale"] = tensors[f"{kind}_queries.scale"].reshape(1)
    torch.save(weaver, folder / "weaver.bin")
    torch.save({"output_layer": linear("trigger_head")}, folder / "trigger.bin")
    save_lora(base, folder / "weaver", seed=1, name="weaver")
    save_lora(base, folder / "trigger", seed=2, name="trigger")
    return folder


def test_the_base_is_left_alone(base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    memory = ReferenceMemory(base, save_memory(tmp_path / "m", base, "cache", trigger="lora"), tokenizer)
    reference.generate(memory, base, PROMPTS[2], 4, STOP, tokenizer)
    assert before.keys() == base.state_dict().keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in base.state_dict().items())


@pytest.mark.parametrize("module", [reference, reference_memory], ids=lambda module: module.__name__)
def test_nothing_of_memgen_is_imported(module: object) -> None:
    tree = ast.parse(Path(module.__file__).read_text())
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert "torch" in names
    assert not [name for name in names if name.split(".")[0] == "memgen"]
