"""How a wrong answer went wrong: the failure types of MemGen's intervention study (arXiv 2509.24704), by rules.

The paper lets annotators label; rules are blunter. They look at what the item, the answer and the grader give: never at
what a model may have meant. Of several signs the first in `_RULES` counts, and without any a failure is `other`.
A judge, any callable from item and answer to a label, can take their place (`failure_of`).

type                      what it means
tool_parsing              a call that can't be read, or that its tool does not take
tool_response             what a tool has answered is ignored, misread, or asked for again
think_act_inconsistency   what was thought or worked out is not what is then answered or done
answer_format             the right thing where or how the grader does not read it, nothing at all, or no end
demand_misunderstood      something else than what was asked for: words for a call, a call for words, a refusal, an echo
compositional_reasoning   right steps that are miscalculated, put together wrongly, or only some of those needed
planning                  steps that hold, towards something else; another tool, or command, than the one to go on with
other                     wrong, and nothing tells how
"""

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any

from memgen.analysis import failure_signs as signs
from memgen.analysis.items import AnalysisItem
from memgen.analysis.wrong_answer import WrongAnswer
from memgen.tasks.answer_text import choice_letter, last_number, normalised_phrase
from memgen.tasks.function_calls import same_calls
from memgen.text.answers import message_calls


class FailureType(StrEnum):
    PLANNING = "planning"
    COMPOSITIONAL = "compositional_reasoning"
    TOOL_PARSING = "tool_parsing"
    TOOL_RESPONSE = "tool_response"
    ANSWER_FORMAT = "answer_format"
    DEMAND = "demand_misunderstood"
    THINK_ACT = "think_act_inconsistency"
    OTHER = "other"


Judge = Callable[[AnalysisItem, str], str]
"""From an item and the text of a wrong answer to the value of a failure type."""


def failure_of(item: AnalysisItem, text: str, *, cut_off: bool = False, judge: Judge | None = None) -> FailureType:
    """How a wrong answer went wrong, by the judge if there is one. What it says counts if it is the value of a failure
    type; if not, the rules do."""
    label = judge(item, text).strip().casefold() if judge else ""
    if label in set(FailureType):
        return FailureType(label)
    return classify_failure(item, text, cut_off=cut_off)


def classify_failure(item: AnalysisItem, text: str, *, cut_off: bool = False) -> FailureType:
    """How a wrong answer went wrong, by rules.

    Args:
        text: what was generated, thoughts and calls included.
        cut_off: it ended at its token limit.
    """
    wrong = WrongAnswer(item, text, cut_off)
    return next((failure for failure, sign in _RULES if sign(wrong)), FailureType.OTHER)


def _tool_parsing(wrong: WrongAnswer) -> bool:
    if any(signs.refused_call(call, wrong.offered) for call in wrong.calls if wrong.offered):
        return True
    return bool(wrong.offered) and not wrong.calls and signs.half_call(wrong.content, wrong.offered)


def _tool_response(wrong: WrongAnswer) -> bool:
    if not wrong.result:
        return False
    before = [call for message in wrong.item.held_out.messages for call in message_calls(message)]
    if any(same_calls([call], [old]) for call in wrong.calls for old in before):
        return True
    if wrong.wanted_calls and wrong.calls and not _same_tools(wrong):
        return False
    acted = f"{wrong.content} {_values(wrong.calls)}"
    facts = signs.shared_facts(wrong.result, f"{wrong.right} {_values(wrong.wanted_calls)}", wrong.question)
    missing = facts - set(signs.words(acted))
    return missing == facts != set() or any(word[0].isdigit() for word in missing)


def _think_act(wrong: WrongAnswer) -> bool:
    if wrong.wanted_calls or wrong.calls:
        return _thinks_of_another_call(wrong, wrong.thought or (wrong.content if wrong.calls else ""))
    if wrong.is_numeric:
        return _works_out_another_number(wrong)
    if wrong.kind == "choice":
        return _argues_for_another_choice(wrong)
    # Where a pattern reads the last line, those in front of it are thoughts said aloud.
    aloud = signs.but_last_line(wrong.content) if wrong.kind == "regex" and wrong.read is not None else ""
    right = normalised_phrase(wrong.right_read)
    return (
        bool(right)
        and _holds(wrong.thought or aloud, right)
        and not _holds(wrong.read if aloud and wrong.read else wrong.content, right)
    )


def _argues_for_another_choice(wrong: WrongAnswer) -> bool:
    answered = choice_letter(wrong.content, wrong.choices)
    if wrong.thought:
        return choice_letter(wrong.thought, wrong.choices) not in (None, answered)
    argued = choice_letter(signs.but_last_sentence(wrong.content), wrong.choices)
    # Of what is argued aloud only a right conclusion counts: others may be steps on the way.
    return argued is not None and argued == choice_letter(wrong.right, wrong.choices) != answered


def _thinks_of_another_call(wrong: WrongAnswer, thoughts: str) -> bool:
    if not thoughts:
        return False
    named = {name for name in wrong.offered if name in thoughts}
    if len(named) == 1 and not any(call["name"] in named for call in wrong.calls):
        return True
    if wrong.calls and not wrong.wanted_calls:
        return signs.needs_no_tool(thoughts)
    thought = set(signs.words(thoughts))
    wanted = set(signs.words(_values(wrong.wanted_calls))) & thought
    acted = set(signs.words(_values(wrong.calls)))
    return bool(wrong.calls and wanted - acted and acted - thought)


def _works_out_another_number(wrong: WrongAnswer) -> bool:
    answered = last_number(wrong.content)
    if wrong.thought and answered is not None:
        return last_number(wrong.thought) not in (None, answered)
    steps, stated = signs.equations(wrong.content), signs.stated_number(wrong.content)
    if not steps or stated is None or not all(step.holds for step in steps):
        return False
    return stated not in [step.result for step in steps]


def _answer_format(wrong: WrongAnswer) -> bool:
    if not wrong.content and not wrong.calls:
        return True
    if wrong.wanted_calls or wrong.calls:
        return False
    if wrong.kind == "code":
        return signs.holds_code(wrong.content) and signs.broken_code(wrong.content)
    if wrong.kind == "regex" and wrong.read is not None:
        return False
    if wrong.is_numeric:
        answered = last_number(wrong.content)
        if answered is None and wrong.cut_off:
            return True
        return wrong.right_number in signs.numbers(signs.last_sentence(wrong.content))
    if wrong.kind == "choice":
        return choice_letter(wrong.content, wrong.known_choices) is None and _names_the_choice(wrong)
    right = normalised_phrase(wrong.right_read)
    return bool(right) and _holds(wrong.content, right)


def _names_the_choice(wrong: WrongAnswer) -> bool:
    letter = choice_letter(wrong.right, wrong.choices)
    choices = wrong.choices or []
    place = ord(letter) - ord("A") if letter else len(choices)
    texts = [normalised_phrase(choices[place])] if place < len(choices) else []
    return any(text and _holds(wrong.content, text) for text in texts)


def _demand(wrong: WrongAnswer) -> bool:
    if bool(wrong.wanted_calls) != bool(wrong.calls):
        return True
    if wrong.calls:
        return False
    if signs.refuses(wrong.content) or signs.asks_back(wrong.content) or signs.echoes(wrong.content, wrong.question):
        return True
    if wrong.kind == "code":
        return not signs.holds_code(wrong.content)
    return wrong.is_numeric and not signs.numbers(wrong.content)


def _compositional(wrong: WrongAnswer) -> bool:
    if len(wrong.wanted_calls) > 1:
        names = [call["name"] for call in wrong.wanted_calls]
        return any(call["name"] in names for call in wrong.calls)
    if wrong.wanted_calls:
        # A number that nobody has said was to be worked out.
        wanted = signs.numbers(_values(wrong.wanted_calls))
        known, acted = signs.numbers(wrong.conversation), signs.numbers(_values(wrong.calls))
        return _same_tools(wrong) and any(number not in known and number not in acted for number in wanted)
    if not wrong.is_numeric:
        return False
    found, expert = signs.equations(wrong.content), signs.equations(wrong.right)
    if any(not step.holds for step in found):
        return True
    return bool({step.result for step in found} & {step.result for step in expert})


def _planning(wrong: WrongAnswer) -> bool:
    if wrong.wanted_calls:
        wanted = {call["name"] for call in wrong.wanted_calls}
        return any(call["name"] not in wanted for call in wrong.calls)
    if wrong.is_numeric:
        return bool(signs.equations(wrong.content))
    return signs.plays(wrong.conversation) and signs.is_command(wrong.read or "")


_RULES: Sequence[tuple[FailureType, Callable[[WrongAnswer], bool]]] = (
    (FailureType.TOOL_PARSING, _tool_parsing),
    (FailureType.TOOL_RESPONSE, _tool_response),
    (FailureType.THINK_ACT, _think_act),
    (FailureType.ANSWER_FORMAT, _answer_format),
    (FailureType.DEMAND, _demand),
    (FailureType.COMPOSITIONAL, _compositional),
    (FailureType.PLANNING, _planning),
)


def _same_tools(wrong: WrongAnswer) -> bool:
    return bool({call["name"] for call in wrong.calls} & {call["name"] for call in wrong.wanted_calls})


def _values(calls: Sequence[dict[str, Any]]) -> str:
    """The arguments of calls, in words."""
    return " ".join(str(value) for call in calls for value in call["arguments"].values())


def _holds(text: str, phrase: str) -> bool:
    """Whether a text holds a phrase in normal form, as whole words."""
    return f" {phrase} " in f" {normalised_phrase(text)} "
