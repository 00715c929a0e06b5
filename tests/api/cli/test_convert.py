"""`memgen convert`: what it writes is what an upload of the file itself would have stored; no service runs."""

import gzip
import json
from functools import partial
from pathlib import Path

import pytest

from tests.api.cli.invoking import fail, memgen, succeed
from tests.otlp_samples import chat_messages, exports, genai, run_agent
from tests.trajectory_samples import chat, drafts, read_file

ROW = {"conversations": [{"from": "human", "value": "Hi\u2028"}, {"from": "gpt", "value": "Hello."}], "reward": 1}
BAD = {"conversations": [{"from": "narrator", "value": "x"}]}


def test_a_file_is_converted_line_by_line(tmp_path: Path) -> None:
    source, target = tmp_path / "rows.json", tmp_path / "runs.jsonl"
    source.write_bytes(gzip.compress(json.dumps([ROW, BAD, ROW, 7], indent=1).encode()))
    done = succeed("convert", str(source), str(target), "--from", "sharegpt", "--task", "t", "--json")
    assert done.document["written"] == 2
    assert done.document["refused_by_code"] == {"not_an_object": 1, "role_unknown": 1}
    assert [line["line"] for line in done.document["lines"]] == [2, 4]
    first, second = drafts(read_file(target.read_bytes(), "chat"))
    assert first == second
    assert (first.task, first.reward, first.messages[0]["content"]) == ("t", 1.0, "Hi\u2028")


def test_spans_are_joined(tmp_path: Path) -> None:
    source, target = tmp_path / "traces.pb", tmp_path / "runs.jsonl"
    source.write_bytes(b"".join(exports(partial(run_agent, write=genai))))
    done = memgen("convert", str(source), str(target), "--from", "otlp")
    assert (done.code, done.out) == (0, "")
    assert "1 written, 0 refused" in done.err
    [draft] = drafts(read_file(target.read_bytes(), "chat"))
    assert draft.messages == chat_messages()


def test_what_can_not_be_done_is_said_in_a_line(tmp_path: Path) -> None:
    source, target = tmp_path / "rows.jsonl", tmp_path / "runs.jsonl"
    source.write_text(json.dumps(BAD) + "\n" + json.dumps(chat()) + "\n")
    assert "expected one of: atif, chat, " in fail("convert", str(source), str(target), "--from", "csv")
    assert "No such file" in fail("convert", str(tmp_path / "absent"), str(target), "--from", "chat")
    assert "Is a directory" in fail("convert", str(source), str(tmp_path), "--from", "chat")
    full = memgen("convert", str(source), "/dev/full", "--from", "chat")
    assert (full.code, full.err.splitlines()[-1:]) == (
        1,
        ["memgen: /dev/full: No space left on device. Make room there, or name a place on another disk."],
    )
    assert "name a file as OUT" in fail("convert", str(source), "-", "--from", "chat", "--json")
    strict = memgen("convert", str(source), str(target), "--from", "openai", "--strict")
    assert strict.code == 1
    assert "1: unknown_field" in strict.err
    assert len(drafts(read_file(target.read_bytes(), "chat"))) == 1, "what is good is written all the same"


@pytest.mark.parametrize("cut", [30, -10])
def test_a_file_that_is_cut_off_ends_in_an_error(tmp_path: Path, cut: int) -> None:
    source, target = tmp_path / "rows.gz", tmp_path / "runs.jsonl"
    source.write_bytes(gzip.compress(json.dumps(chat()).encode() + b"\n")[:cut])
    done = memgen("convert", str(source), str(target), "--from", "chat")
    assert done.code == 1
    assert "was not read to its end" in done.err


def test_a_file_that_is_something_else_is_named(tmp_path: Path) -> None:
    source, target = tmp_path / "runs.parquet", tmp_path / "runs.jsonl"
    source.write_bytes(b"PAR1\x15\x04\n{}\nPAR1")
    done = memgen("convert", str(source), str(target), "--from", "hf-tools")
    assert done.code == 1
    assert "it is a Parquet file" in done.err
    assert "invalid_json" not in done.err


@pytest.mark.parametrize("how", ["the same path", "another path", "a link"])
def test_a_file_is_never_converted_into_itself(tmp_path: Path, how: str) -> None:
    """Opening it for writing would empty it before it is read."""
    source, target = tmp_path / "rows.jsonl", tmp_path / "rows.jsonl"
    source.write_text(json.dumps(ROW) + "\n")
    if how == "another path":
        target = tmp_path / "." / ".." / tmp_path.name / "rows.jsonl"
    elif how == "a link":
        target = tmp_path / "link.jsonl"
        target.symlink_to(source)
    assert "same file" in fail("convert", str(source), str(target), "--from", "sharegpt")
    assert source.read_text() == json.dumps(ROW) + "\n"
