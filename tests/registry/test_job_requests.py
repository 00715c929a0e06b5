"""Requests of jobs: stored JSON is read and written without a change, and nobody else reads it by key."""

import ast
from pathlib import Path
from typing import Any

import pytest

from registry.errors import UnreadableRow
from registry.job_requests import (
    BOOKKEEPING,
    REQUESTS,
    TRAININGS,
    AnalyzeVersion,
    AnyTraining,
    CheckImport,
    Evaluate,
    JobKind,
    JobRequest,
    Method,
    PlayedEnvironment,
    RecordImport,
    TrainTrigger,
    TrainWeaver,
    read_request,
    replaced_named,
    versions_named,
)

ENVIRONMENT = {"name": "textworld", "options": {"level": 1}, "items": 8}
PRODUCT = ("api", "workers", "registry", "memgen", "bench")
STORED: list[tuple[str, dict[str, Any]]] = [
    ("train_weaver", {"task": "a"}),
    ("train_weaver", {"task": "a", "parent": None}),
    ("train_weaver", {"task": "a", "parent": 3, "training": {"steps": 5}, "min_reward": 0.5, "promote": True}),
    (
        "train_weaver",
        {
            "task": "a",
            "parent": None,
            "method": "grpo",
            "training": {},
            "min_reward": 1,
            "promote": False,
            "environment": ENVIRONMENT,
            "insights": ["Be brief."],
            "replay_share": 0.6,
            "replaces": 2,
            "retry_of": 4,
        },
    ),
    ("train_trigger", {"tasks": ["a", "b"], "parent": 1, "training": {"steps": 5}}),
    ("train_trigger", {"tasks": [], "parent": 1, "environment": ENVIRONMENT, "task": "a", "replaces": 1}),
    ("evaluate", {"version": 2}),
    ("check_import", {"version": 2, "promote": False}),
    ("check_import", {"version": 2}),
    ("judge", {"judge": "strict", "task": "a", "model": "base", "up_to": 9, "max_calls": 5}),
    (
        "judge",
        {
            "judge": "strict",
            "task": "a",
            "model": "bot@3",
            "version": 3,
            "up_to": 9,
            "after": 2,
            "max_calls": 5,
            "max_tokens": 1000,
            "unrewarded": True,
            "held_out": True,
            "again": True,
            "by_itself": True,
        },
    ),
    ("analyze", {"version": 3, "tasks": ["a"]}),
    (
        "analyze",
        {
            **{"version": 3, "tasks": ["a", "b"], "items": 50, "least_clusters": 2, "most_clusters": 4},
            **{"interventions": False, "ablations": True, "seed": 7},
            **{"against": 2, "judge": "strict", "judge_model": "base", "max_calls": 40},
        },
    ),
    ("import", {"origin": "bot@7"}),
]


@pytest.mark.parametrize(("kind", "params"), STORED)
def test_stored_params_come_back_as_they_were(kind: str, params: dict[str, Any]) -> None:
    request = read_request(kind, params)
    assert request.kind == kind
    assert request.to_json() == params
    assert read_request(kind, request.to_json()) == request


def test_keys_that_old_rows_lack_have_the_defaults_of_their_time() -> None:
    assert TrainWeaver.from_json({"task": "a"}) == TrainWeaver(
        task="a",
        parent=None,
        method=Method.SFT,
        training={},
        min_reward=0.5,
        promote=True,
        replay_share=None,
        environment=None,
        insights=(),
        replaces=None,
        retry_of=None,
    )
    assert CheckImport.from_json({"version": 1}).promote
    read = TrainWeaver.from_json({"task": "a", "method": "grpo", "environment": ENVIRONMENT, "seed": 3})
    assert (read.method, read.environment) == (Method.GRPO, PlayedEnvironment("textworld", {"level": 1}, 8))


def test_a_new_request_is_written_as_the_service_always_wrote_it() -> None:
    written = {"task": "a", "parent": None, "method": "sft", "training": {}, "min_reward": 0.5, "promote": True}
    assert TrainWeaver("a").to_json() == written
    assert type(TrainWeaver("a").to_json()["method"]) is str
    assert TrainWeaver("a", insights=("x",)).to_json() == {**written, "insights": ["x"]}
    assert TrainTrigger(("a",), 1).to_json() == {
        "tasks": ["a"],
        "parent": 1,
        "training": {},
        "min_reward": 0.5,
        "promote": True,
    }
    assert Evaluate(1).to_json() == {"version": 1}
    assert CheckImport(1, promote=False).to_json() == {"version": 1, "promote": False}
    assert RecordImport("bot@7").to_json() == {"origin": "bot@7"}


def test_what_is_changed_is_written_even_as_the_default() -> None:
    old = TrainWeaver.from_json({"task": "a", "parent": 3})
    assert old.changed(parent=None, promote=True).to_json() == {"task": "a", "parent": None, "promote": True}
    assert old.changed(retry_of=4, replay_share=0.6).to_json() == {
        "task": "a",
        "parent": 3,
        "retry_of": 4,
        "replay_share": 0.6,
    }
    assert old.to_json() == {"task": "a", "parent": 3}


@pytest.mark.parametrize(
    ("kind", "params", "message"),
    [
        ("train_weaver", {"parent": 1}, r"TrainWeaver: the keys are \['parent'\].*'task'"),
        ("train_weaver", {"task": "a", "method": "dpo"}, "method is 'dpo'"),
        ("train_weaver", {"task": "a", "insights": None}, "insights is None"),
        ("train_weaver", {"task": "a", "insights": "Be brief."}, "insights is 'Be brief.'"),
        ("train_weaver", {"task": "a", "parent": "1"}, "parent is '1'"),
        ("train_weaver", {"task": "a", "environment": "textworld"}, "environment is 'textworld'"),
        ("train_weaver", {"task": "a", "environment": {"name": "textworld"}}, "PlayedEnvironment: the keys are"),
        ("train_trigger", {"tasks": None}, "tasks is None"),
        ("evaluate", {"version": None}, "version is None"),
        ("analyze", {"version": 1, "tasks": "a"}, "tasks is 'a'"),
        ("analyze", {"version": 1, "tasks": [], "items": "many"}, "items is 'many'"),
        ("bake", {}, "the kind is 'bake'; expected one of analyze"),
    ],
)
def test_what_was_never_stored_so_is_refused(kind: str, params: dict[str, Any], message: str) -> None:
    with pytest.raises(UnreadableRow, match=message):
        read_request(kind, params)


def test_a_key_of_another_release_is_kept_and_not_read() -> None:
    old = read_request("train_weaver", {"task": "a", "start_from": "b"})
    assert old == TrainWeaver("a")
    assert isinstance(old, TrainWeaver)
    assert old.changed(replay_share=0.6).to_json() == {"task": "a", "start_from": "b", "replay_share": 0.6}


def test_a_null_is_no_number() -> None:
    stored = {"task": "a", "replaces": None, "retry_of": None, "replay_share": None}
    read = read_request("train_weaver", stored)
    assert isinstance(read, TrainWeaver)
    assert (read.replaces, read.retry_of, read.replay_share, read.to_json()) == (None, None, None, stored)


def test_what_a_job_holds_is_known_also_if_it_can_not_be_read() -> None:
    assert versions_named("bake", {"parent": 2}) == versions_named("bake", {"version": 2}) == (2,)
    assert versions_named("train_weaver", {"task": "a", "method": "dpo", "parent": 3}) == (3,)
    assert versions_named("bake", {}) == versions_named("bake", {"parent": "x"}) == ()
    assert (replaced_named({"replaces": 4}), replaced_named({"replaces": None}), replaced_named({})) == (4, None, None)


def test_every_kind_has_its_request() -> None:
    assert set(REQUESTS) == set(JobKind)
    assert {kind for kind, request in REQUESTS.items() if issubclass(request, AnyTraining)} == set(TRAININGS)
    assert set(BOOKKEEPING) == {JobKind.IMPORT}
    requests: list[JobRequest] = [TrainWeaver("a", 2), TrainTrigger(("a",), 2), Evaluate(2), CheckImport(2)]
    assert [request.versions_needed for request in requests] == [(2,)] * 4
    assert (TrainWeaver("a").versions_needed, RecordImport("bot@7").versions_needed) == ((), ())
    assert AnalyzeVersion(3, ("a",), against=2).versions_needed == (3, 2)


def _reads_by_key(node: ast.AST) -> bool:
    """`x.params["k"]`, `x.params.get("k")`, `"k" in x.params`; `manifest` likewise."""

    def stored(part: ast.AST) -> bool:
        return isinstance(part, ast.Attribute) and part.attr in ("params", "manifest")

    if isinstance(node, ast.Subscript):
        return stored(node.value)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return node.func.attr == "get" and stored(node.func.value)
    return isinstance(node, ast.Compare) and any(stored(part) for part in node.comparators)


def test_nobody_reads_stored_requests_and_manifests_by_key() -> None:
    root = Path(__file__).parents[2]
    found = {
        (path.relative_to(root).as_posix(), ast.unparse(node))
        for room in PRODUCT
        for path in (root / room).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if _reads_by_key(node)
    }
    assert found == {
        # Queries on columns; and imported manifests, which another installation wrote.
        ("registry/jobs.py", "Job.params['promote']"),
        ("registry/jobs.py", "Job.params['model']"),
        ("registry/loops/attempts.py", "Job.params['task']"),
        ("registry/versions/analyses.py", "Job.params['version']"),
        ("registry/datasets/manifest.py", "Dataset.manifest['trains']"),
        ("registry/datasets/manifest.py", "dataset.manifest.get('trains')"),
    }


def test_nobody_spells_a_kind_or_a_method_as_text() -> None:
    """The client is another program and may not import the registry."""
    root = Path(__file__).parents[2]
    # The last is a noun of its own, and a field of tasks.
    spelled = {member.value for member in (*JobKind, *Method)} - {JobKind.JUDGE.value}
    rooms = [root / "registry", root / "workers", root / "api" / "endpoints"]
    found = [
        f"{path.relative_to(root)}:{node.lineno}"
        for path in (path for room in rooms for path in room.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and node.value in spelled and path != root / "registry" / "job_requests.py"
    ]
    assert found == []
