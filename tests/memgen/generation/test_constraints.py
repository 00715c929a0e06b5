"""Grammars of answers: what they take, what is read back of it, what they cost."""

import json
import random
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from memgen.errors import ConstraintUnsupported, SchemaRefused
from memgen.generation.constraints import Grammars, Matcher, schema_fault
from memgen.generation.draws import Draws, choose
from memgen.generation.sampling import Sampling
from memgen.text.answer_grammars import CallForm, Constraint, call_frame, grammar_of
from memgen.text.answers import parse_answer
from memgen.text.json_schemas import ANY_OBJECT, check_bounds, grammar_schema
from memgen.text.probing import probe
from memgen.text.profile import BaseProfile
from tests.fixtures_model import save_tiny_tokenizer

NATIVE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}{% for c in m.tool_calls or [] %}"
    "{{ '\n' if not loop.first or m.content }}<tool_call>\n"
    '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}'
    "\n</tool_call>{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
END = 2


def schema(properties: dict[str, Any]) -> str:
    return grammar_schema({"type": "object", "properties": properties, "required": list(properties)}, strict=True)


GO = CallForm("go", schema({"to": {"enum": ["n", 's"']}, "steps": {"type": "integer", "minimum": 0, "maximum": 99}}))
STOP = CallForm('st"op é', schema({}))


@pytest.fixture(scope="module", params=["spelled", "native"])
def profile(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> BaseProfile:
    folder = tmp_path_factory.mktemp(request.param)
    save_tiny_tokenizer(folder, *([NATIVE] if request.param == "native" else []))
    return probe(AutoTokenizer.from_pretrained(folder), [END])


def ids(profile: BaseProfile, text: str) -> list[int]:
    return list(profile.tokenizer(text, add_special_tokens=False).input_ids)


def matcher(profile: BaseProfile, constraint: Constraint, *, opened: bool = False) -> Matcher:
    grammars = Grammars.of(profile.tokenizer, profile.stop_token_ids)
    return grammars.matcher(grammar_of(constraint, profile, opens_reasoning=opened))


def takes(profile: BaseProfile, constraint: Constraint, text: str, *, opened: bool = False) -> bool:
    """Whether the text may be the whole answer."""
    held = matcher(profile, constraint, opened=opened)
    for token in [*ids(profile, text), END]:
        if held.forbidden(259)[token]:
            return False
        held.take(token)
    return True


def drawn(profile: BaseProfile, constraint: Constraint, seed: int, most: int = 400) -> str | None:
    """An answer drawn from random logits, ends likely; None if it does not end."""
    logits = torch.randn(most, 259, generator=torch.Generator().manual_seed(seed))
    logits[:, END] += 3
    row = Draws(Sampling(temperature=1.0, seed=seed), stops=[END], matcher=matcher(profile, constraint))
    tokens: list[int] = []
    for step in logits:
        [chosen] = choose(step[None], [row])
        if chosen.token == END:
            return str(profile.tokenizer.decode(tokens))
        tokens.append(chosen.token)
    return None


def written(profile: BaseProfile, *calls: tuple[str, str]) -> str:
    opening, end, between = call_frame(profile)
    return between.join(
        f'{opening}{{"name": {json.dumps(name, ensure_ascii=False)}, "arguments": {arguments}}}{end}'
        for name, arguments in calls
    )


def test_calls_have_the_templates_frame(profile: BaseProfile) -> None:
    call = {"id": "a", "type": "function", "function": {"name": "go", "arguments": '{"a": 1}'}}
    message = {"role": "assistant", "content": "", "tool_calls": [call, call]}
    assert profile.answer_text(message).startswith(written(profile, ("go", '{"a": 1}'), ("go", '{"a": 1}')))


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("parallel", [True, False])
def test_forced_calls_are_read_back_and_valid(profile: BaseProfile, parallel: bool, seed: int) -> None:
    text = drawn(profile, Constraint(calls=(GO, STOP), must_call=True, parallel=parallel), seed)
    if text is None:
        assert parallel, "one call ends"
        return
    answer = parse_answer(text)
    assert answer.content is None
    assert answer.tool_calls
    assert len(answer.tool_calls) == 1 or parallel
    for call in answer.tool_calls:
        if call["name"] == "go":
            assert set(call["arguments"]) == {"to", "steps"}
            assert call["arguments"]["to"] in ("n", 's"')
            assert 0 <= call["arguments"]["steps"] <= 99
        else:
            assert (call["name"], call["arguments"]) == ('st"op é', {})


def test_a_call_among_text_is_one_of_the_tools(profile: BaseProfile) -> None:
    free = Constraint(calls=(GO, STOP))
    go = written(profile, ("go", '{"to": "n", "steps": 7}'))
    for text in ("", "hi", "a <tool b", f"so: {go}", f"{go}\nand {go} more"):
        assert takes(profile, free, text), text
    for text in ("<tool_call>x", written(profile, ("fly", "{}")), written(profile, ("go", '{"to": "west"}')), go[:-1]):
        assert not takes(profile, free, text), text
    once = Constraint(calls=(GO, STOP), parallel=False)
    assert takes(profile, once, f"so: {go}")
    assert not takes(profile, once, f"{go}\n{go}")


def test_content_is_by_its_schema_and_behind_a_thought(profile: BaseProfile) -> None:
    held = Constraint(schema({"a": {"type": "string"}}))
    assert takes(profile, held, '{"a": "é\\n"}')
    for text in ('{"a": 1}', '{"a":  "x"}', 'so {"a": "x"}', '{"a": "x"} so', ""):
        assert not takes(profile, held, text), text
    assert takes(profile, held, 'hm </think>\n\n{"a": "x"}', opened=True)
    assert not takes(profile, held, '{"a": "x"}', opened=True)
    either = Constraint(schema({"a": {"type": "string"}}), calls=(STOP,))
    assert takes(profile, either, '{"a": "x"}')
    assert takes(profile, either, written(profile, (STOP.name, "{}")))


def test_a_row_beside_is_free(profile: BaseProfile) -> None:
    logits = torch.zeros(2, 259)
    logits[:, 100] = 5.0
    rows = [Draws(Sampling(), matcher=matcher(profile, Constraint(schema({})))), Draws(Sampling())]
    assert [each.token for each in choose(logits, rows)] == [ids(profile, "{")[0], 100]


def test_an_end_that_is_forced_comes_before_its_time(profile: BaseProfile) -> None:
    row = Draws(Sampling(min_tokens=50), stops=[END], matcher=matcher(profile, Constraint(schema({}))))
    assert [choose(torch.zeros(1, 259), [row])[0].token for _ in range(3)] == [*ids(profile, "{}"), END]


def test_grammars_are_kept_and_dropped(profile: BaseProfile, monkeypatch: pytest.MonkeyPatch) -> None:
    grammars = Grammars(profile.tokenizer, profile.stop_token_ids)
    compiled: list[str] = []
    original = Grammars._compile
    monkeypatch.setattr(Grammars, "_compile", lambda self, text: compiled.append(text) or original(self, text))
    first, *others = [grammar_of(Constraint(schema({f"p{n}": {}})), profile) for n in range(70)]
    for grammar in (first, first, *others, first):
        grammars.matcher(grammar)
    assert compiled == [first, *others, first]


def test_a_matcher_has_a_state_of_its_own(profile: BaseProfile) -> None:
    one, other = (matcher(profile, Constraint(schema({"a": {}}))) for _ in range(2))
    one.take(ids(profile, "{")[0])
    assert not one.forbidden(259)[ids(profile, '"')[0]]
    assert other.forbidden(259)[ids(profile, '"')[0]]


def test_a_tokenizer_without_its_tokens_is_refused_in_words() -> None:
    class Slow(PreTrainedTokenizerBase): ...

    with pytest.raises(ConstraintUnsupported, match="expected a fast tokenizer"):
        Grammars(Slow(), frozenset({0}))


def test_faults_are_named() -> None:
    for given, word in (({"not": {}}, "not"), ({"type": "wizard"}, "wizard"), ({"pattern": "(?=a)"}, "look-around")):
        assert word in (schema_fault(grammar_schema({"type": "string", **given}, strict=True)) or "")
    assert schema_fault(grammar_schema(ANY_OBJECT, strict=True)) is None


def bad_schemas() -> Iterator[Any]:
    yield from ({"minItems": 10**9}, {"maxLength": 10_001}, {"multipleOf": 999_983}, {"multipleOf": 1e-300}, [], None)
    yield {"properties": {"a": {"$ref": "#/properties/a"}}}
    yield {"enum": ["x" * 200_000]}
    yield {"const": "\ud800"}


@pytest.mark.parametrize("given", list(bad_schemas()))
def test_what_would_cost_too_much_is_refused_before(given: Any) -> None:
    with pytest.raises(SchemaRefused):
        check_bounds(given)


def test_bounds_leave_what_is_usual() -> None:
    draw = random.Random(0)
    for _ in range(50):
        items = {"type": "array", "maxItems": draw.randint(0, 10_000), "items": {"multipleOf": draw.choice([0.01, 5])}}
        check_bounds({"type": "object", "properties": {"a": items, "b": {"$ref": "#/properties/a"}}})
