"""What a free text answers: its last number, its choice of letters, its code. Pure functions of strings."""

import re
import string
from collections.abc import Sequence

# No sign directly behind a word or a bracket, where it is an operator; a comma only between groups of three digits.
_NUMBER = re.compile(
    r"(?:(?<![\w)])[-+])?(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|(?<![\d.])\.\d+)(?:[eE][-+]?\d+)?"
)
_MINUS = "\N{MINUS SIGN}"
_FINAL = "####"
# Possessive: runs of spaces would be searched once for each place that one could be split at.
_OPENING = r"[\s*_(\[\"'`$]*+(?:\\(?:boxed|text|mathrm|mathbf)\{)*+"
# "A" and "I" in front of a word are words themselves.
_LETTER = r"(?:(?![AI]\s+[a-z])[A-Z](?![\w'’])|[a-z](?=\W*$))"
_REASONED = r"[AI](?=\s+(?:because|since|as|is|due|right|correct)\b)"
_STATED = re.compile(
    r"(?i:\b(?:answer|(?:option|choice)(?=\s+is)|(?:correct|right|best)\s+(?:option|choice|one))\b(?:\s+is)?"
    rf"(?:\s+(?:option|choice))?)\s*+[:=]?{_OPENING}({_REASONED}|{_LETTER})",
    re.MULTILINE,
)
_OPTION = re.compile(
    rf"(?i:\b(?:option|choice|choose|pick|select))\b{_OPENING}({_REASONED}|{_LETTER})"
    r"(?!\W*\s(?:is|was|seems|looks)\s+(?:wrong|incorrect|not|false)\b)"
)
_LEADING = re.compile(r"(?:\\boxed\{|[\s*_(\[\"'`$])*([A-Za-z])(?:\W*$|[*_]*[).:\]][*_]*,?\s)")
_MARKED = re.compile(r"(?:\(|\[|\*\*|\\boxed\{)([A-Z])(?:\)|\]|\*\*|\})")
_ALONE = re.compile(rf"(?<![\w'’]){_LETTER}")
_FENCE = re.compile(r"```[^\n`]*\n(.*?)(?:\n?```|\Z)", re.DOTALL)
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


def last_number(text: str) -> float | None:
    """The number behind the last `####` (GSM8K's mark of the final answer) if there is one, else the last of all."""
    text = text.replace(_MINUS, "-")
    marked = _NUMBER.search(text.rpartition(_FINAL)[2]) if _FINAL in text else None
    found = [marked.group()] if marked else _NUMBER.findall(text)
    return float(found[-1].replace(",", "")) if found else None


def choice_letter(text: str, choices: Sequence[str] | None = None) -> str | None:
    """The letter that the text settles on: `"The answer is (B)"`, `"**B**"`, `"B) Paris"`, or B's own text `"Paris"`.

    In this order: the last "answer is ..."; the last "option ..." that is not called wrong; a letter at the start; the
    one choice whose text occurs; a marked letter; the only lone letter. None where these find nothing or several.
    `choices` bounds the letters, A being the first.
    """
    letters = string.ascii_uppercase[: len(choices)] if choices is not None else string.ascii_uppercase

    def known(found: Sequence[str]) -> list[str]:
        return [letter.upper() for letter in found if letter.upper() in letters]

    if stated := known(_STATED.findall(text)) or known(_OPTION.findall(text)):
        return stated[-1]
    if (leading := _LEADING.match(text)) and known([leading.group(1)]):
        return leading.group(1).upper()
    if named := _named_choices(text, choices or ()):
        return letters[named[0]] if len(named) == 1 else None
    if marked := known(_MARKED.findall(text)):
        return marked[-1]
    alone = set(known(_ALONE.findall(text)))
    return alone.pop() if len(alone) == 1 else None


def _named_choices(text: str, choices: Sequence[str]) -> list[int]:
    """Indices of the choices that occur in the text, but for those that are only part of another one there."""
    plain = [" ".join(choice.casefold().split()) for choice in choices]
    within = " ".join(text.casefold().split())
    found = [i for i, choice in enumerate(plain) if choice and re.search(rf"(?<!\w){re.escape(choice)}(?!\w)", within)]
    return [i for i in found if not any(plain[i] != plain[j] and plain[i] in plain[j] for j in found)]


def normalised_phrase(text: str) -> str:
    """TriviaQA's normal form: lower case, no punctuation, no articles, single spaces."""
    kept = "".join(" " if c in string.punctuation + "‘’´`_" else c for c in text.lower())
    return " ".join(_ARTICLES.sub(" ", kept).split())


def answered_code(text: str, *, prompt: str = "", entry_point: str = "") -> str:
    """The program of an answer: its code block, or the raw text that goes on where `prompt` ends.

    Args:
        prompt: code that the answer completes, ending inside of `entry_point`; "" where the answer is the whole.
        entry_point: the wanted function or class, or "". The last block that defines it is taken, else the last.
    """
    blocks = [str(block) for block in _FENCE.findall(text)]
    defines = (
        re.compile(rf"^(?:(?:async )?def|class) {re.escape(entry_point)}\b", re.MULTILINE) if entry_point else None
    )
    if blocks:
        defining = [block for block in blocks if defines and defines.search(block)]
        code = (defining or blocks)[-1]
    else:
        code = text
    if not prompt:
        return code
    if defines and defines.search(code):
        # What stands in front of the function may be needed: imports, and functions that it uses.
        start = defines.search(prompt)
        return f"{prompt[: start.start()] if start else ''}\n{code}\n"
    return f"{prompt}{_function_body(code)}\n"


def _function_body(code: str) -> str:
    """The completion of a function, up to where a base model goes on to write other things.

    Surrounding white space of an answer is often stripped, and with it the indentation of the first line only.
    """
    lines = code.strip("\n").split("\n")
    if lines[0] and not lines[0][0].isspace():
        indents = [len(line) - len(line.lstrip()) for line in lines[1:] if line.strip()]
        opened = lines[0].rstrip().endswith(":") and bool(indents) and indents[0] <= 4
        if opened or (indents and min(indents) == 0):
            # Not by `textwrap`, which also takes U+2028 and its like for ends of lines, within texts of the code too.
            return "\n".join(f"    {line}" if line.strip() else line for line in lines)
        lines[0] = "    " + lines[0]
    for number, line in enumerate(lines):
        if line and not line[0].isspace() and line[0] not in ")]}\"'":
            lines = lines[:number]
            break
    return "\n".join(lines)
