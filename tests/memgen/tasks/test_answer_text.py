"""What free texts answer."""

import time
from typing import Any

import pytest

from memgen.tasks.answer_text import answered_code, choice_letter, last_number, normalised_phrase

CITIES = ["Rome", "Paris", "New York", "York"]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("48/2 = 24\n48+24 = 72\n#### 72", 72.0),
        ("#### 1,234.5\nI checked it 3 times.", 1234.5),
        ("first #### 1, then #### $-2", -2.0),
        ("in all 7, ####", 7.0),
        ("it is -3.", -3.0),
        ("2.5e3", 2500.0),
        ("#### .5", 0.5),
        ("\N{MINUS SIGN}72", -72.0),
        ("from 5-10", 10.0),
        ("x=-3", -3.0),
        ("the points (3,4)", 4.0),
        ("1,2,3", 3.0),
        ("12,345.5,", 12345.5),
        ("none", None),
    ],
)
def test_last_number(text: str, number: float | None) -> None:
    assert last_number(text) == number


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        (" b ", "B"),
        ("**B**", "B"),
        ("(B)", "B"),
        ("B.", "B"),
        ("B) Paris", "B"),
        ("**B.** because", "B"),
        ("The answer is (B)", "B"),
        ("The answer is **B**.", "B"),
        ("Answer: B", "B"),
        ("answer is b.", "B"),
        ("So the final answer is: $\\boxed{\\text{B}}$", "B"),
        ("\\boxed{C}", "C"),
        ("A seems right. No: the answer is (A). Wait, the answer is (D)", "D"),
        ("A is wrong, so I choose option C", "C"),
        ("It must be (A) or rather (C)", "C"),
        ("I think D", "D"),
        ("A cat or a dog, who knows", None),
        ("either B or C", None),
        ("", None),
        ("The answer is a mammal", None),
        ("The answer is (C). Option D is incorrect because it ignores spin.", "C"),
        ("The answer is (C), since option D ignores spin.", "C"),
        ("Option B is wrong. The correct one is (C).", "C"),
        ("Option B is wrong, option C is not false.", None),
        ("The answer is A because B is wrong.", "A"),
        ("Answer: A is right, D is not", "A"),
        ("The correct option is D.", "D"),
        ("I pick B", "B"),
    ],
)
def test_choice_letter(text: str, letter: str | None) -> None:
    assert choice_letter(text) == letter


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("paris", "B"),
        ("The answer is Paris.", "B"),
        ("It is New  York", "C"),
        ("York", "D"),
        ("Rome or Paris", None),
        ("The answer is (E)", None),
        ("(Z) no, (B)", "B"),
        ("(C), found in 2 steps", "C"),
        ("I would say D", "D"),
    ],
)
def test_choices_are_known_by_their_text_and_bound_the_letters(text: str, letter: str | None) -> None:
    assert choice_letter(text, CITIES) == letter


def test_normalised_phrase() -> None:
    assert normalised_phrase("The  Beatles!") == normalised_phrase("beatles") == "beatles"
    assert normalised_phrase("Jean-Luc Picard") == "jean luc picard"
    assert normalised_phrase("Theatre") == "theatre"


PROMPT = 'import math\n\ndef helper(x):\n    return x\n\ndef f(x):\n    """Doc."""\n'


def _f(answer: str) -> object:
    names: dict[str, object] = {}
    exec(answered_code(answer, prompt=PROMPT, entry_point="f"), names)
    f = names["f"]
    assert callable(f)
    return f(4)


@pytest.mark.parametrize(
    "answer",
    [
        "```python\ndef f(x):\n    return helper(math.sqrt(x))\n```",
        "Sure!\n```\ndef f(x):\n    return helper(math.sqrt(x))\n```\nFor example:\n```python\nprint(f(4))\n```",
        "```py\nimport math\ndef f(x):\n    return helper(math.sqrt(x))",
        "```python\n    return helper(math.sqrt(x))\n```",
        "def f(x):\n    return helper(math.sqrt(x))",
        "    return helper(math.sqrt(x))",
        "return helper(math.sqrt(x))",
        "y = math.sqrt(x)\n    return helper(y)",
        "y = math.sqrt(x)\nreturn helper(y)",
        "if x:\n        return math.sqrt(x)\n    return 0",
        "if x:\n    return math.sqrt(x)\nreturn 0",
        "if x:\n    return math.sqrt(x)",
        "import math as m\nreturn m.sqrt(x)",
        "import math as m\n    return m.sqrt(x)",
        "def g(y):\n        return math.sqrt(y)\n    return g(x)",
        "def g(y):\n    return math.sqrt(y)\nreturn g(x)",
        "    return math.sqrt(x)\n\ndef g(:\n    broken",
        "    return math.sqrt(x)\n\n# Test\nprint(f('no'))",
    ],
)
def test_every_form_of_a_function_is_understood(answer: str) -> None:
    assert _f(answer) == 2.0


def test_code_without_a_prompt_is_taken_as_it_stands() -> None:
    assert answered_code("x = 1") == "x = 1"
    assert answered_code("Here:\n```python\nx = 1\n```\nor\n```python\nx = 2\n```") == "x = 2"
    assert answered_code("```python\ndef g(): pass\n```\n```\n$ run\n```", entry_point="g") == "def g(): pass"
    assert answered_code("```python\nclass G: pass\n```\nOutput:\n```\n3\n```", entry_point="G") == "class G: pass"


def test_code_is_indented_by_its_own_lines() -> None:
    """Texts in it hold characters that Python's `splitlines` takes for ends of lines."""
    text = "a\u2028b\x85c\x1cd"
    for answer in (f"y = {text!a}\nreturn {text!r}\n", f"def g():\n    return {text!r}\n\nreturn g()\n"):
        answer = answer.replace(repr(text), f"'{text}'")
        names: dict[str, Any] = {}
        exec(answered_code(answer, prompt="def f():\n", entry_point="f"), names)
        assert names["f"]() == text


@pytest.mark.parametrize(
    "words", ["answer{}#", "the answer is{}-", "option{}#", "The answer is:{}?", "best choice{}\n"]
)
def test_a_choice_is_looked_for_in_linear_time(words: str) -> None:
    def seconds(spaces: int) -> float:
        started = time.process_time()
        choice_letter(words.format(" \n" * spaces), ["x", "y"])
        return time.process_time() - started

    assert min(seconds(20_000) for _ in range(3)) < 40 * max(min(seconds(2_000) for _ in range(3)), 0.001)
