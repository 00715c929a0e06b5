"""Scratch folders: of one process each, and nobody's for long once it is dead."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from registry.scratch import Scratch, sweep

_OTHER = """
import sys
from pathlib import Path
from registry.scratch import Scratch
folder = Scratch(Path(sys.argv[1])).folder
(folder / "data").write_text("secret")
print(folder, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path: Path) -> Iterator[tuple["subprocess.Popen[str]", Path]]:
    """A process that keeps data in its folder, and that folder."""
    command = [sys.executable, "-c", _OTHER, str(tmp_path / "tmp")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process, Path(process.stdout.readline().strip())
        process.kill()


def test_a_live_process_keeps_its_folder_and_a_killed_one_leaves_none(
    other: tuple["subprocess.Popen[str]", Path], tmp_path: Path
) -> None:
    process, folder = other
    assert (folder.parent, (folder / "data").read_text()) == (tmp_path / "tmp", "secret")
    assert sweep(tmp_path / "tmp") == []
    assert folder.is_dir()
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert sweep(tmp_path / "tmp", dry_run=True) == [folder]
    assert folder.is_dir()
    own = Scratch(tmp_path / "tmp")
    assert own.folder != folder, "which sweeps when it begins"
    assert not folder.exists()
    assert len(list((tmp_path / "tmp").iterdir())) == 2, "the folder and its lock"
    own.close()
    assert list((tmp_path / "tmp").iterdir()) == []


def test_nothing_is_made_before_it_is_asked_for(tmp_path: Path) -> None:
    Scratch(tmp_path / "tmp").close()
    assert sweep(tmp_path / "tmp") == []
    assert list(tmp_path.iterdir()) == []


def test_only_its_owner_reads_it(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path / "a" / "tmp")
    for folder in (scratch.folder, scratch.folder.parent):
        assert folder.stat().st_mode & 0o077 == 0
    scratch.close()


def test_a_folder_that_somebody_removed_is_made_again(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path)
    scratch.folder.rmdir()
    assert scratch.folder.is_dir()
    scratch.close()


def test_many_that_begin_at_once_do_not_sweep_one_another(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        scratches = [Scratch(tmp_path) for _ in range(64)]
        folders = set(pool.map(lambda scratch: scratch.folder, scratches))
    assert len(folders) == 64
    assert all(folder.is_dir() for folder in folders)
    assert sweep(tmp_path) == []
    for scratch in scratches:
        scratch.close()
    assert list(tmp_path.iterdir()) == []


def test_whatever_was_dug_in_it_goes(other: tuple["subprocess.Popen[str]", Path], tmp_path: Path) -> None:
    """Deeper than any path is long, and without permissions."""
    process, folder = other
    process.kill()
    process.wait()
    here = Path.cwd()
    try:
        os.chdir(folder)
        for _ in range(60):
            Path("d" * 200).mkdir()
            os.chdir("d" * 200)
        Path("file").write_text("secret")
    finally:
        os.chdir(here)
    (folder / "shut").mkdir(mode=0o000)
    (folder / "link").symlink_to(tmp_path)
    assert sweep(tmp_path / "tmp") == [folder]
    assert not folder.exists()
    assert tmp_path.is_dir()
