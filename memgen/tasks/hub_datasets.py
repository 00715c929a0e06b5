"""The sets of the MemGen paper as tasks, loaded with Hugging Face `datasets` from the hub or from a local folder.

Each loader takes `source`, a hub id or a folder with files that `datasets` reads (`train.parquet`, `test.jsonl`, ...)
in the columns its docstring names. `datasets` is an optional dependency: `pip install 'memgen-service[hub]'`.

Divergences from the paper: TriviaQA is asked closed-book, without its search tool; ALFWorld is a record of expert
trajectories and no simulator.
"""

import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from memgen.errors import ConfigError, ModelNotFound
from memgen.tasks.graders import Grader, Reference, make_grader
from memgen.tasks.recorded import RecordedConversation
from memgen.tasks.row_task import DataRow, Rows, RowTask, Side, keep_split, split_by_question
from memgen.tasks.split import question_digest
from memgen.tasks.task import SingleTurn
from memgen.text.answers import ChatMessage

_CALCULATOR = re.compile(r"<<[^>]*>>")
_GPQA_ANSWERS = ("Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")


def gsm8k(
    source: str = "openai/gsm8k", *, config: str = "main", cache_dir: Path | None = None, max_new_tokens: int = 320
) -> RowTask:
    """Grade-school word problems (arXiv 2110.14168). Splits `train` and `test` (held out); graded by the number.

    Columns: `question`; `answer`, steps with calculator marks `<<48/2=24>>` (left out of the expert) and, last,
    `#### 72`.
    """
    ask, grade = "Think step by step. End with #### and the number alone.", make_grader({"kind": "numeric"})

    def make_item(row: DataRow) -> SingleTurn:
        expert = _CALCULATOR.sub("", row["answer"])
        return _single_turn("gsm8k", row["question"], ask, expert, grade)

    sides = _kept_sides(source, config, ("train", "test"), ("question", "answer"), "question", cache_dir)
    return RowTask("gsm8k", max_new_tokens, *sides, make_item)


def kodcode(
    source: str = "KodCode/KodCode-Light-RL-10K",
    *,
    config: str | None = None,
    one_in: int = 5,
    timeout_seconds: float = 10.0,
    cache_dir: Path | None = None,
    max_new_tokens: int = 768,
) -> RowTask:
    """Synthetic programming questions (arXiv 2503.02951), graded by their pytest tests in the sandbox.

    Columns of this set and of `KodCode/KodCode-V1`: `question`; `solution`, Python source; `test`, a pytest module that
    begins `from solution import ...`; `test_info`, a list of `{function_name, parameter_list, function_declaration,
    docstring}`, whose names that the tests call go into the question. Only split `train` is read; one question
    in `one_in` is held out. The sandbox's Python needs pytest, and whatever packages a question is about.
    """
    grade = make_grader({"kind": "code", "timeout_seconds": timeout_seconds})

    def make_item(row: DataRow) -> SingleTurn:
        declared = [info["function_declaration"] for info in row.get("test_info") or () if info["function_declaration"]]
        named = "".join(f"\nDefine `{declaration}`" for declaration in declared)
        ask = f"Answer with the Python code in one code block.{named}"
        names = [info["function_name"] for info in row.get("test_info") or () if info.get("function_name")]
        metadata = {"tests": row["test"], "test_form": "pytest", "entry_point": names[0] if names else ""}
        return _single_turn(
            "kodcode", row["question"], ask, f"```python\n{row['solution'].strip()}\n```", grade, metadata
        )

    rows = _load(source, config, "train", ("question", "solution", "test"), cache_dir)
    sides = split_by_question(rows, _column(rows, "question"), one_in=one_in)
    return RowTask("kodcode", max_new_tokens, *sides, make_item)


def trivia_qa(
    source: str = "mandarjoshi/trivia_qa",
    *,
    config: str = "rc.nocontext",
    cache_dir: Path | None = None,
    max_new_tokens: int = 32,
) -> RowTask:
    """Trivia (arXiv 1705.03551), closed-book. Splits `train` and `validation` (held out; `test` has no answers).

    Columns: `question`; `answer`, a struct with `value`, `aliases`, `normalized_aliases`. Graded as TriviaQA's exact
    match: any alias, in its normal form.
    """
    ask, grade = "Answer with the name or phrase only.", make_grader({"kind": "alias"})

    def make_item(row: DataRow) -> SingleTurn:
        answer = row["answer"]
        accepted = sorted({*answer["aliases"], *answer["normalized_aliases"]})
        return _single_turn("trivia-qa", row["question"], ask, answer["value"], grade, {"aliases": accepted})

    sides = _kept_sides(source, config, ("train", "validation"), ("question", "answer"), "question", cache_dir)
    return RowTask("trivia-qa", max_new_tokens, *sides, make_item)


def gpqa(
    source: str = "Idavidrein/gpqa",
    *,
    config: str = "gpqa_main",
    one_in: int = 2,
    cache_dir: Path | None = None,
    max_new_tokens: int = 512,
) -> RowTask:
    """Graduate science questions of four choices (arXiv 2311.12022); the hub asks to accept its terms first.

    Columns: `Question`, `Correct Answer`, `Incorrect Answer 1` to `3`. Only split `train` exists; one question in
    `one_in` is held out. The order of the choices is fixed by the question. Experts give the letter alone: the set's
    explanations argue in letters of another order.
    """
    ask, grade = 'Think, then end with "The answer is (X)", X being the letter.', make_grader({"kind": "choice"})

    def make_item(row: DataRow) -> SingleTurn:
        question, texts = row["Question"].strip(), [row[name].strip() for name in _GPQA_ANSWERS]
        order = list(range(4))
        random.Random(question_digest(question)).shuffle(order)  # noqa: S311 - no secret
        choices = [texts[index] for index in order]
        listing = "\n".join(f"({letter}) {text}" for letter, text in zip("ABCD", choices, strict=True))
        expert = f"The answer is ({'ABCD'[order.index(0)]})"
        return _single_turn("gpqa", f"{question}\n\n{listing}", ask, expert, grade, {"choices": choices})

    rows = _load(source, config, "train", ("Question", *_GPQA_ANSWERS), cache_dir)
    sides = split_by_question(rows, _column(rows, "Question"), one_in=one_in)
    return RowTask("gpqa", max_new_tokens, *sides, make_item)


def alfworld(
    source: str = "zai-org/AgentInstruct",
    *,
    config: str | None = None,
    split: str = "alfworld",
    one_in: int = 5,
    cache_dir: Path | None = None,
    max_new_tokens: int = 128,
) -> RowTask:
    """Household tasks in text (arXiv 2010.03768): the 336 ReAct trajectories of AgentInstruct (arXiv 2310.12823).

    They are expert conversations for SFT. ALFWorld's simulator and its reward are not in the set: an item's environment
    replays the record and rewards the expert's own actions (`memgen.tasks.recorded`). One trajectory in `one_in` is
    held out.

    Columns: `id`; `conversations`, a list of `{from: human | gpt, value, loss}`, where `loss` false marks a turn of the
    assistant that is not to be learned.
    """

    def make_item(row: DataRow) -> RecordedConversation:
        return RecordedConversation(row["id"], tuple(_message(turn) for turn in row["conversations"]))

    rows = _load(source, config, split, ("id", "conversations"), cache_dir)
    # The task and its rooms stand in the human turns; several trajectories may share the first.
    questions = [
        "\n".join(turn["value"] for turn in conversation if turn["from"] == "human")
        for conversation in _column(rows, "conversations")
    ]
    sides = split_by_question(rows, questions, one_in=one_in)
    return RowTask("alfworld", max_new_tokens, *sides, make_item)


def _message(turn: DataRow) -> ChatMessage:
    roles = {"human": "user", "gpt": "assistant", "system": "system"}
    if turn["from"] not in roles:
        raise ConfigError(f"a turn is from {turn['from']!r}; expected one of {', '.join(roles)}")
    message = {"role": roles[turn["from"]], "content": turn["value"]}
    return {**message, "weight": 0} if turn["from"] == "gpt" and turn.get("loss") is False else message


def _single_turn(
    task: str, question: str, ask: str, expert: str, grade: Grader, metadata: dict[str, Any] | None = None
) -> SingleTurn:
    prompt = ({"role": "user", "content": f"{question.strip()}\n\n{ask}"},)
    reference = Reference({"role": "assistant", "content": expert}, metadata or {})
    return SingleTurn(f"{task}-{question_digest(question)[:16]}", prompt, grade, reference)


def _kept_sides(
    source: str,
    config: str | None,
    splits: tuple[str, str],
    columns: tuple[str, ...],
    question: str,
    cache_dir: Path | None,
) -> tuple[Side, Side]:
    training, held_out = (_load(source, config, split, columns, cache_dir) for split in splits)
    return keep_split(training, _column(training, question), held_out, _column(held_out, question))


def _load(source: str, config: str | None, split: str, columns: tuple[str, ...], cache_dir: Path | None) -> Rows:
    """Rows of one split.

    Raises:
        ModelNotFound: `datasets` is not installed, or can't load the source.
        ConfigError: a column is missing.
    """
    try:
        import datasets  # optional: an extra of this package
    except ImportError as error:
        raise ModelNotFound(
            f"dataset {source!r} needs the package datasets; run `pip install 'memgen-service[hub]'`"
        ) from error
    cache = str(cache_dir) if cache_dir is not None else None
    try:
        if Path(source).is_dir() and config not in datasets.get_dataset_config_names(source):
            config = None  # a folder of plain files has no configurations
        rows = datasets.load_dataset(source, config, split=split, cache_dir=cache)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise ModelNotFound(
            f"split {split!r} of dataset {source!r} (configuration {config!r}) can't be loaded: {error}; expected a "
            "hub id that can be reached and whose terms were accepted, or a folder with a file of that split"
        ) from error
    if missing := [column for column in columns if column not in rows.column_names]:
        raise ConfigError(f"dataset {source!r} has the columns {sorted(rows.column_names)}; expected also {missing}")
    return cast(Rows, rows)


def _column(rows: Rows, name: str) -> Sequence[Any]:
    return list(cast(Any, rows)[name])  # a `datasets.Dataset` gives a column for a name
