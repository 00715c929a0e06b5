"""What the rules see in a wrong answer's text."""

import time

import pytest

from memgen.analysis import failure_signs as signs

TOOLS = {
    "book": {
        "properties": {"people": {"type": "integer"}, "where": {"type": "string", "enum": ["in", "out"]}},
        "required": ["people"],
    },
    "free": None,
    "loose": {"properties": {"x": {"type": ["string", "null"]}, "y": True}, "required": "x"},
}


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("12*8=96, then 96 - 70 = 26", [(96.0, 96.0), (26.0, 26.0)]),
        ("5 boxes x 6 pens = 30 pens", [(30.0, 30.0)]),
        ("2 + 3 * 4 = 14", [(14.0, 14.0)]),
        ("10 - 2 - 3 = 5", [(5.0, 5.0)]),
        ("1,200 / 4 = 300", [(300.0, 300.0)]),
        ("12*8=86", [(96.0, 86.0)]),
        ("1/0=5", []),
        ("x = 5, so 5 = x", []),
        ("", []),
    ],
)
def test_equations_are_read_and_computed(text: str, values: list[tuple[float, float]]) -> None:
    assert [(found.value, found.result) for found in signs.equations(text)] == values


def test_an_equation_holds_within_rounding() -> None:
    [third, wrong] = signs.equations("100 / 3 = 33.33 and 100 / 3 = 34")
    assert (third.holds, wrong.holds) == (True, False)


def test_numbers_and_the_one_that_is_stated() -> None:
    assert signs.numbers("eight legs, 1,200 hairs and 2.5 eyes") == [1200.0, 2.5, 8.0]
    assert signs.stated_number("5 and 6. The answer is 11. #### 12") == 12.0
    assert signs.stated_number("5 and 6") is None
    assert signs.last_sentence("One. Two 2.5 of them.\n") == "Two 2.5 of them."
    assert signs.last_sentence("") == ""


def test_refusals_questions_and_echoes() -> None:
    assert signs.refuses("I'm sorry, but I can't help with that.")
    assert not signs.refuses("The tin can holds 5 litres.")
    assert signs.asks_back("Which one do you mean? ")
    assert signs.echoes("How many rolls are left?", "A bakery sells some. How many rolls are left?")
    assert not signs.echoes("There are 26 rolls left now.", "A bakery sells some. How many rolls are left?")
    assert not signs.echoes("left", "How many rolls are left?")


@pytest.mark.parametrize(
    ("name", "arguments", "refused"),
    [
        ("book", {"people": 2}, False),
        ("book", {"people": 2, "where": "in"}, False),
        ("book", {"people": "two"}, True),
        ("book", {"people": True}, True),
        ("book", {}, True),
        ("book", {"people": 2, "when": "now"}, True),
        ("book", {"people": 2, "where": "above"}, True),
        ("free", {"anything": 1}, False),
        ("loose", {"x": None, "y": 1}, False),
        ("loose", {"z": 1}, True),
        ("absent", {}, True),
    ],
)
def test_a_call_that_its_tool_does_not_take(name: str, arguments: dict[str, object], refused: bool) -> None:
    assert signs.refused_call({"name": name, "arguments": arguments}, TOOLS) == refused


@pytest.mark.parametrize("text", ['<tool_call>{"name": "book"', "book(people=2)", '{"tool": "book", "args": {}}'])
def test_half_a_call(text: str) -> None:
    assert signs.half_call(text, TOOLS)
    assert not signs.half_call("Please book a table.", TOOLS)


def test_what_an_expert_took_from_a_result() -> None:
    assert signs.shared_facts('{"sky": "foggy", "t": 19}', "It is 19 degrees and foggy.", "The sky?") == {"19", "foggy"}
    assert signs.shared_facts('{"ok": true}', "Done.", "Do it.") == set()


def test_programs_that_are_none() -> None:
    assert signs.broken_code("```python\ndef f(:\n```")
    assert not signs.broken_code("```python\ndef f():\n    return '\\d'\n```")


@pytest.mark.parametrize(
    "text", ["1" * 200_000, "1+" * 100_000, "12 ab cd " * 30_000, "1,111" * 50_000, "= 5 " * 50_000]
)
def test_signs_are_read_in_linear_time(text: str) -> None:
    began = time.process_time()
    signs.equations(text)
    signs.numbers(text)
    signs.stated_number(text)
    assert time.process_time() - began < 5.0
