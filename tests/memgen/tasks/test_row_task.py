"""Splits and orders of small tables."""

from memgen.tasks.graders import Reference
from memgen.tasks.row_task import DataRow, RowTask, keep_split, split_by_question
from memgen.tasks.split import is_held_out
from memgen.tasks.task import SingleTurn, TaskItem
from memgen.text.answers import Answer

ROWS = [{"question": f"What is {number}?"} for number in range(100)]
QUESTIONS = [row["question"] for row in ROWS]


def _grade(answer: Answer, reference: Reference) -> float:
    return 1.0


def _item(row: DataRow) -> SingleTurn:
    return SingleTurn(row["question"], (), _grade, Reference({}))


def _names(items: "list[TaskItem]") -> list[str]:
    return [item.item_id for item in items]


def test_a_table_without_a_split_is_split_by_its_questions() -> None:
    training, held_out = split_by_question(ROWS, QUESTIONS, one_in=4)
    task = RowTask("t", 8, training, held_out, _item)
    trained, tested = _names(list(task.training_items(100))), _names(list(task.held_out_items(100)))
    assert sorted(trained + tested) == sorted(QUESTIONS)
    assert sorted(tested) == sorted(q for q in QUESTIONS if is_held_out(q, one_in=4))
    assert 10 < len(tested) < 40
    assert tested != sorted(tested, key=QUESTIONS.index), "the order of the table is not to be kept"
    assert _names(list(task.held_out_items(3))) == tested[:3]
    assert _names(list(task.training_items(5, seed=1))) != trained[:5]
    assert sorted(_names(list(task.training_items(100, seed=1)))) == sorted(trained)


def test_the_side_of_a_question_does_not_depend_on_the_other_rows() -> None:
    whole = split_by_question(ROWS, QUESTIONS, one_in=4)[1]
    half = split_by_question(ROWS[50:], QUESTIONS[50:], one_in=4)[1]
    assert {ROWS[i]["question"] for i in whole.order if i >= 50} == {ROWS[50 + i]["question"] for i in half.order}


def test_a_held_out_question_is_not_trained_on_in_another_spelling() -> None:
    held = ["what is  7?", "Why?"]
    training, held_out = keep_split(ROWS, QUESTIONS, held, held)
    assert sorted(training.order) == [index for index in range(100) if index != 7]
    assert sorted(held_out.order) == [0, 1]
