"""Signs in a wrong answer's text that tell how it went wrong: equations, refusals, half calls. Pure functions.

Each costs time linear in the text, whatever the text.
"""

import ast
import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from memgen.tasks.answer_text import answered_code

_NUMBER = r"(?<![\d.,])(?<![A-WYZa-wyz_])\$?\d++(?:,\d{3})*+(?:\.\d++)?+"
_UNIT = r"%?(?:\s?[A-Za-z]{2,20}){0,2}?"
_OPERATOR = "[-+*/x\N{MULTIPLICATION SIGN}\N{DIVISION SIGN}\N{MINUS SIGN}]"
_EQUATION = re.compile(rf"({_NUMBER}{_UNIT}(?:\s?{_OPERATOR}\s?{_NUMBER}{_UNIT}){{1,20}})\s?=\s?({_NUMBER})")
_TERM = re.compile(rf"({_OPERATOR})?\s?({_NUMBER})")
_STATED = re.compile(rf"(?:####|\banswer\b(?:\s+is)?)\s*:?\s*({_NUMBER})", re.IGNORECASE)
_ALL_NUMBERS = re.compile(_NUMBER)
_WORDS = re.compile(r"[^\W_]+")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n")
_REFUSAL = re.compile(
    r"\b(?:i(?:'|’)?m (?:sorry|unable)|i am (?:sorry|unable)|i (?:can(?:no|')t|can’t|cannot|won't)|as an ai\b|"
    r"unable to (?:help|assist))",
    re.IGNORECASE,
)
_CALL_NAME = re.compile(r'"(?:name|tool|tool_name|function|action)"\s?:\s?"')
_CALL_ARGUMENTS = re.compile(r'"(?:arguments|args|params|parameters|input|action_input)"\s?:')
_ACTION = re.compile(r"^[ \t]*action[ \t]*:[ \t]*`?([\w.-]+)", re.IGNORECASE | re.MULTILINE)
_NO_TOOL = re.compile(
    r"\b(?:no|not|without|(?:do|does|is)n['’]t)\b[^.!?\n]{0,30}?\b(?:tools?|functions?|calls?)\b", re.IGNORECASE
)
_LISTED = re.compile(r"^[ \t]*\(?([A-Z])[).:][ \t]+(\S.*)$", re.MULTILINE)
_CODE = re.compile(
    r"```|^[ \t]*(?:(?:(?:async )?def|class|import|from|return|for|while|if|print)\b|@|\w+[ \t]*=[^=])", re.MULTILINE
)
_PLAYED = re.compile(
    r"\byour task is\b|\btext (?:game|adventure)\b|^(?:admissible )?commands:", re.IGNORECASE | re.MULTILINE
)
_COUNTED = {
    word: float(number)
    for number, word in enumerate(
        (
            *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven"),
            *("twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"),
        )
    )
}
_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
}
_LONG_WORD = 4
_FEW_WORDS = 5
_LONGEST_COMMAND = 8
"""Words of a command in a game."""
_ECHO = 0.9
"""Share of an answer's words that stand in the question too, from which on it is the question."""


@dataclass(frozen=True)
class Equation:
    """A step of arithmetic that a text writes out."""

    value: float
    """What its left side is."""
    result: float
    """What the text says that it is."""

    @property
    def holds(self) -> bool:
        return abs(self.value - self.result) <= max(0.01, 0.005 * abs(self.value))


def equations(text: str) -> list[Equation]:
    """Sums, products and their like with a result: `"5 boxes x 6 pens = 30"`. Products bind closer than sums."""
    found = []
    for left, result in _EQUATION.findall(text):
        value = _value(_TERM.findall(left))
        if value is not None:
            found.append(Equation(value, _number(result)))
    return found


def numbers(text: str) -> list[float]:
    """Every number of a text, the words from zero to twenty among them."""
    written = [_number(found) for found in _ALL_NUMBERS.findall(text)]
    return written + [_COUNTED[word] for word in words(text) if word in _COUNTED]


def stated_number(text: str) -> float | None:
    """The number that a text calls its answer; None if it calls none so."""
    found = _STATED.findall(text)
    return _number(found[-1]) if found else None


def is_number(text: str) -> bool:
    """Whether a text is a number and nothing else."""
    return _ALL_NUMBERS.fullmatch(text.strip()) is not None


def last_sentence(text: str) -> str:
    return next((part for part in reversed(_SENTENCE_END.split(text)) if part.strip()), "")


def but_last_sentence(text: str) -> str:
    """What stands in front of the last sentence."""
    return text[: text.rfind(last_sentence(text))]


def but_last_line(text: str) -> str:
    """What stands in front of the last line."""
    return text.rstrip().rpartition("\n")[0]


def listed_choices(question: str) -> list[str] | None:
    """Choices that a question lists, a line each behind A, B, ...; None if it lists no two."""
    found = _LISTED.findall(question)
    in_order = [chr(ord("A") + place) for place in range(len(found))] == [letter for letter, _ in found]
    return [text.strip() for _, text in found] if len(found) > 1 and in_order else None


def words(text: str) -> list[str]:
    return [word.casefold() for word in _WORDS.findall(text)]


def refuses(text: str) -> bool:
    return _REFUSAL.search(text) is not None


def asks_back(text: str) -> bool:
    return text.rstrip().endswith("?")


def needs_no_tool(thought: str) -> bool:
    return _NO_TOOL.search(thought) is not None


def plays(conversation: str) -> bool:
    """Whether a conversation is one with a text game, as TextWorld and ALFWorld lead it."""
    return _PLAYED.search(conversation) is not None


def is_command(text: str) -> bool:
    """Whether a text may be one command of a game: a line of a few words, and no sentence."""
    line = text.strip()
    return 0 < len(line.split()) <= _LONGEST_COMMAND and "\n" not in line and line[-1] not in ".!?"


def holds_code(text: str) -> bool:
    """Whether any of a text may be a program: a code block, or a line that begins as Python's statements do."""
    return _CODE.search(text) is not None


def echoes(text: str, question: str) -> bool:
    """Whether a text says what the question said and hardly anything else."""
    found = Counter(words(text))
    return found.total() >= _FEW_WORDS and (found & Counter(words(question))).total() >= _ECHO * found.total()


def shared_facts(result: str, expert: str, question: str) -> set[str]:
    """What an expert took from a tool's result: numbers and longer words of both that the question did not hold."""
    known = set(words(question))
    return {
        word
        for word in set(words(result)) & set(words(expert)) - known
        if len(word) >= _LONG_WORD or any(character.isdigit() for character in word)
    }


def half_call(text: str, offered: Mapping[str, Any]) -> bool:
    """Whether a text that holds no readable call means one: the call's mark, its JSON, a tool's name with a bracket
    behind it, or behind ReAct's `Action:`."""
    if "<tool_call" in text or "</tool_call" in text:
        return True
    if _CALL_NAME.search(text) and _CALL_ARGUMENTS.search(text):
        return True
    return any(f"{name}(" in text for name in offered) or any(name in offered for name in _ACTION.findall(text))


def refused_call(call: Mapping[str, Any], offered: Mapping[str, Any]) -> bool:
    """Whether a call can't be carried out: its tool is not offered, or does not take its arguments."""
    if call["name"] not in offered:
        return True
    schema, arguments = _object(offered[call["name"]]), call["arguments"]
    properties, required = _object(schema.get("properties")), schema.get("required")
    if isinstance(required, list) and any(name not in arguments for name in required):
        return True
    if properties and any(name not in properties for name in arguments):
        return True
    return any(not _fits(value, _object(properties.get(name))) for name, value in arguments.items())


def broken_code(text: str) -> bool:
    """Whether an answer's program is no Python."""
    try:
        with warnings.catch_warnings(action="ignore"):  # of a program that is only looked at
            ast.parse(answered_code(text))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return True
    return False


def _object(value: Any) -> Mapping[str, Any]:
    """A part of a schema, which may be anything where nobody checked it."""
    return value if isinstance(value, dict) else {}


def _fits(value: Any, schema: Mapping[str, Any]) -> bool:
    kinds = _TYPES.get(str(schema.get("type")))  # a list of types, or none, lets everything pass
    if kinds is not None and (not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)):
        return False
    choices = schema.get("enum")
    return not isinstance(choices, list) or value in choices


def _value(terms: Sequence[tuple[str, str]]) -> float | None:
    """What a chain of numbers and operators is; None where it divides by zero."""
    total, product = 0.0, _number(terms[0][1])
    for operator, text in terms[1:]:
        number = _number(text)
        if operator in ("*", "x", "\N{MULTIPLICATION SIGN}"):
            product *= number
        elif operator in ("/", "\N{DIVISION SIGN}"):
            if number == 0:
                return None
            product /= number
        else:
            total, product = total + product, number if operator == "+" else -number
    return total + product


def _number(text: str) -> float:
    return float(text.replace(",", "").replace("$", ""))
