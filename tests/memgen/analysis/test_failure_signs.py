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


def test_an_action_as_react_writes_it_is_a_call() -> None:
    assert signs.half_call('Thought: a table.\nAction: book\nAction Input: {"people": 2}', TOOLS)
    assert not signs.half_call("Action: wait\nAction Input: none", TOOLS)


def test_thoughts_that_want_no_tool() -> None:
    assert signs.needs_no_tool("This is simple. I don't need to call any tool.")
    assert signs.needs_no_tool("No tool is needed here.")
    assert not signs.needs_no_tool("I am not sure. The tool book may help.")


def test_choices_that_a_question_lists() -> None:
    assert signs.listed_choices("Which?\nA) Mars\n(B) the sun \nC. Venus") == ["Mars", "the sun", "Venus"]
    assert signs.listed_choices("Which?\nA) Mars\nC) Venus") is None
    assert signs.listed_choices("A) Mars") is None


def test_commands_of_a_game() -> None:
    assert signs.plays("You play a text game. Reach the goal.")
    assert signs.plays("You see a shelf.\n\nCommands: go east, take book")
    assert signs.plays("Your task is to: put a clean plate on the table.")
    assert not signs.plays("What are the commands: ls or dir?")
    assert signs.is_command("unlock chest with key")
    assert not signs.is_command("I would go there first.")
    assert not signs.is_command("")


def test_texts_that_hold_no_program() -> None:
    assert not signs.holds_code("Which language would you like me to use?")
    assert signs.holds_code("def f():\n    return 1")
    assert signs.holds_code("x = 5")
    assert signs.holds_code("Here it is:\n```\nf(\n```")


def test_parts_of_a_text() -> None:
    assert signs.but_last_sentence("It is hot. So it is C. Answer: A") == "It is hot. So it is C. "
    assert signs.but_last_line("I take it.\n> take lamp\n") == "I take it."
    assert [signs.is_number(text) for text in (" 1,200.5 ", "12 apples", "")] == [True, False, False]


def test_what_an_expert_took_from_a_result() -> None:
    assert signs.shared_facts('{"sky": "foggy", "t": 19}', "It is 19 degrees and foggy.", "The sky?") == {"19", "foggy"}
    assert signs.shared_facts('{"ok": true}', "Done.", "Do it.") == set()


def test_programs_that_are_none() -> None:
    assert signs.broken_code("```python\ndef f(:\n```")
    assert not signs.broken_code("```python\ndef f():\n    return '\\d'\n```")


@pytest.mark.parametrize(
    "text",
    [
        *("1" * 200_000, "1+" * 100_000, "12 ab cd " * 30_000, "1,111" * 50_000, "= 5 " * 50_000),
        *("\n" * 100_000, "A) x" + " " * 100_000, "no tool " * 20_000, "action\n" * 20_000),
    ],
    ids=lambda text: repr(text[:9]),
)
def test_signs_are_read_in_linear_time(text: str) -> None:
    began = time.process_time()
    signs.equations(text)
    signs.numbers(text)
    signs.stated_number(text)
    signs.listed_choices(text)
    signs.holds_code(text)
    signs.needs_no_tool(text)
    signs.half_call(text, TOOLS)
    signs.plays(text)
    assert time.process_time() - began < 5.0
