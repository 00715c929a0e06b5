"""What `memgen doctor` sees of the machine itself."""

import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from api.cli.diagnosis.findings import Diagnosis, Installation
from api.cli.diagnosis.machine import CHECKS, what_is_wrong
from api.cli.diagnosis.model import usable_cores
from api.local.state import ProcessState, StackState, left_processes, write_state
from registry.scratch import folder_of, new_lock
from registry.settings import load_settings


def _look(name: str, home: Path, **overrides: object) -> list[Diagnosis]:
    settings = load_settings(service_env=False, home=home, **overrides)
    [check] = [each for each in CHECKS if each.name == name]
    return list(check.look(Installation(settings, settings)))


def test_packages_are_held_against_what_the_project_asks_for(tmp_path: Path) -> None:
    assert [each.state for each in _look("packages", tmp_path)] == ["ok"], _look("packages", tmp_path)
    assert what_is_wrong(Requirement("rich>=15")) is None
    assert (what_is_wrong(Requirement("rich<1")) or "").endswith(", expected <1")
    assert what_is_wrong(Requirement("no-such-package-at-all")) == "no-such-package-at-all is missing"


def test_a_full_disk_is_a_failure_and_every_folder_on_it_is_named(tmp_path: Path) -> None:
    [roomy] = _look("disk", tmp_path, min_free_bytes=0)
    assert roomy.state == "ok"
    for place in ("the home", "the database", "the object store", "the scratch folder", "the spool", "bases"):
        assert place in roomy.found
    [full] = _look("disk", tmp_path, min_free_bytes=10**18)
    assert full.state == "fail"
    assert "MEMGEN_MIN_FREE_BYTES" in full.advice


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_can_not_be_written_to_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "spool").mkdir(mode=0o500)
    assert any(str(tmp_path / "spool") in each.found for each in _look("disk", tmp_path) if each.state == "fail")


def test_what_killed_processes_left_is_found(tmp_path: Path) -> None:
    assert [asdict(each)["found"] for each in _look("leftovers", tmp_path)] == ["none"]
    (tmp_path / "tmp").mkdir()
    descriptor, lock = new_lock(tmp_path / "tmp")
    folder_of(lock).mkdir()
    assert [each.state for each in _look("leftovers", tmp_path)] == ["ok"], "its process lives"
    os.close(descriptor)
    waiting = tmp_path / "spool" / "1-abc"
    waiting.mkdir(parents=True)
    (waiting / "00000001.jsonl").write_text("{}\n")
    (tmp_path / "secrets.json.damaged-17").write_text("")
    folders, answers, damaged = _look("leftovers", tmp_path)
    assert {each.state for each in (folders, answers, damaged)} == {"warn"}
    assert folders.found.startswith("1 folder of killed processes")
    assert answers.found.startswith("1 file of recorded answers")
    assert "secrets.json.damaged-17" in damaged.found
    assert folder_of(lock).is_dir(), "it was only looked at"


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_processes_of_a_killed_stack_are_found_and_no_others(tmp_path: Path) -> None:
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    (home / "run").mkdir(parents=True)
    elsewhere.mkdir()
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    with subprocess.Popen(command, cwd=home) as ours, subprocess.Popen(command, cwd=elsewhere) as other:
        processes = (
            ProcessState("postgres", "running", pid=ours.pid),
            ProcessState("valkey", "running", pid=other.pid),
            ProcessState("seaweed", "external"),
        )
        write_state(home, StackState(pid=1, phase="ready", started_at=0.0, processes=processes))
        try:
            assert [each.name for each in left_processes(home)] == ["postgres"]
            [left] = _look("leftovers", home)
            assert left.state == "fail"
            assert f"kill {ours.pid}`" in left.advice
        finally:
            ours.kill()
            other.kill()
    assert left_processes(home) == []


def test_cores_are_those_that_the_container_may_use(tmp_path: Path) -> None:
    limit, all_cores = tmp_path / "cpu.max", usable_cores(tmp_path / "missing")
    assert all_cores >= 1
    for text, cores in (("max 100000\n", all_cores), ("150000 100000\n", min(2, all_cores)), ("20000 100000\n", 1)):
        limit.write_text(text)
        assert usable_cores(limit) == cores
