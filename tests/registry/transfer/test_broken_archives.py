"""Archives that are broken or forged are refused, with the place of the fault."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from registry.errors import InvalidArchive
from registry.transfer.archive import read_archive
from tests.registry.conftest import Rows, chats
from tests.registry.stored_versions import export_version, make_stored_version, retar

LIMIT = 10_000_000


def _set_description(**fields: Any) -> Callable[[dict[str, bytes]], None]:
    def edit(files: dict[str, bytes]) -> None:
        files["version.json"] = json.dumps({**json.loads(files["version.json"]), **fields}).encode()

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda f: f.update({"artifact/memory.safetensors": b"forged"}), "memory.safetensors has sha256"),
        (lambda f: f.update({"artifact/more.bin": b""}), "unexpected ['more.bin']"),
        (lambda f: f.pop("artifact/report.json"), "missing ['report.json']"),
        (lambda f: f.pop("artifact/manifest.json"), "has no manifest.json"),
        (lambda f: f.pop("version.json"), "has no version.json"),
        (lambda f: f.update({"../outside": b"x"}), "'../outside'"),
        (lambda f: f.update({"artifact/../../outside": b"x"}), "outside'"),
        (lambda f: f.update({"/etc/x": b"x"}), "'/etc/x'"),
        (lambda f: f.update({"artifact/link": b""}), "'artifact/link'"),
        (lambda f: f.update({"version.json": b"{"}), "version.json: not JSON"),
        (_set_description(format=9), "has format 9"),
        (_set_description(artifact_hash="0" * 64), "; expected 0000"),
        (_set_description(base_revision="r9"), "made for base revision r1, version.json says r9"),
        (_set_description(base_identity="t1"), "version.json: base_identity is 't1'"),
        (_set_description(base_identity={"chat_template": "c2"}), "differ in their base_identity: chat template ("),
        (_set_description(lineage=[]), "version.json: lineage is []; expected: List should have at least 1 item"),
        (lambda f: f.update({"artifact/big": b"x" * LIMIT}), "unpacks to more than"),
    ],
)
def test_a_broken_archive_is_refused(
    rows: Rows, tmp_path: Path, edit: Callable[[dict[str, bytes]], None], message: str
) -> None:
    rows.task("a", chats(40))
    path = export_version(rows, make_stored_version(rows, "a"), tmp_path / "one.tar")
    broken = retar(path, tmp_path / "broken.tar", edit)
    with pytest.raises(InvalidArchive) as refused:
        read_archive(broken, tmp_path / "read", max_bytes=LIMIT)
    assert message in str(refused.value)
    assert not (tmp_path / "outside").exists()


def test_what_is_no_tar_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(b"not a tar")
    with pytest.raises(InvalidArchive, match="not an archive of a version"):
        read_archive(path, tmp_path / "read", max_bytes=LIMIT)
