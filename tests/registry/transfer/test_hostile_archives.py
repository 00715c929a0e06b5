"""Archives that promise more than they hold: refused in words, within the memory and disk that an honest one takes."""

import bz2
import gzip
import hashlib
import io
import json
import lzma
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from registry.errors import InvalidArchive
from registry.transfer import description, tar_members
from registry.transfer.archive import read_archive
from tests.registry.conftest import Rows, chats
from tests.registry.stored_versions import export_version, make_stored_version

LIMIT = 4_000_000_000
PEAK = 20_000_000
"""Far below what any of these claims, far above what reading small files takes."""
GIGABYTE = 1 << 30


def header(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0, link: str = "") -> bytes:
    member = tarfile.TarInfo(name)
    member.type, member.size, member.linkname = kind, size, link
    return member.tobuf(tarfile.GNU_FORMAT)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def record(key: str, value: str) -> bytes:
    text = f" {key}={value}\n".encode()
    length = len(text) + 1
    while len(str(length)) + len(text) != length:
        length += 1
    return str(length).encode() + text


def pax(records: bytes, kind: bytes = tarfile.XHDTYPE) -> bytes:
    return header("extended", kind, len(records)) + padded(records)


def old_sparse(size: int) -> bytes:
    """As GNU tar writes a file of nothing: one block of header, and its real size in a field of its own."""
    block = bytearray(header("artifact/memory.safetensors", tarfile.GNUTYPE_SPARSE))
    block[386:398], block[398:410] = b"%011o\0" % size, b"%011o\0" % 0
    block[483:495] = b"%011o\0" % size
    block[148:156] = b"        "
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "folders within folders": (
        lambda: b"".join(
            pax(record("path", f"artifact/{number:04}/{'a/' * 490}f")) + header("artifact/x") for number in range(300)
        ),
        "a file within 492 folders",
    ),
    "sparse of GNU's old form": (lambda: old_sparse(GIGABYTE), "a sparse file"),
    "sparse 0.0": (
        lambda: (
            pax(record("GNU.sparse.size", str(GIGABYTE)) + record("GNU.sparse.numblocks", "0")) + header("artifact/x")
        ),
        "GNU.sparse.size",
    ),
    "sparse 0.1": (
        lambda: pax(record("GNU.sparse.map", "0,0") + record("GNU.sparse.size", str(GIGABYTE))) + header("artifact/x"),
        "GNU.sparse.map",
    ),
    "sparse 1.0": (
        lambda: (
            pax(record("GNU.sparse.major", "1") + record("GNU.sparse.realsize", str(GIGABYTE)))
            + header("artifact/x", size=512)
            + padded(b"0\n")
        ),
        "GNU.sparse.major",
    ),
    "a size in the extended header": (
        lambda: pax(record("size", str(GIGABYTE))) + header("artifact/x"),
        "extended header with 'size'",
    ),
    "a size beyond the file": (lambda: header("artifact/x", size=GIGABYTE), "1073741824 bytes long by its header"),
    "a size in base 256": (lambda: header("artifact/x", size=1 << 60), "bytes long by its header"),
    "a huge description": (
        lambda: header("version.json", size=description.MAX_JSON_BYTES + 1) + bytes(description.MAX_JSON_BYTES + 512),
        "version.json has 8000001 bytes; expected at most 8000000",
    ),
    "a huge extended header": (
        lambda: pax(record("comment", "x" * 5_000_000)) + header("artifact/x"),
        "an extended header of",
    ),
    "an extended header beyond the file": (lambda: header("x", tarfile.XHDTYPE, GIGABYTE), "by its header"),
    "a huge header for all": (
        lambda: pax(record("comment", "x" * 5_000_000), tarfile.XGLTYPE) + header("artifact/x"),
        "an extended header of",
    ),
    "a huge long name": (
        lambda: header("x", tarfile.GNUTYPE_LONGNAME, 5_000_000) + padded(b"a" * 5_000_000) + header("artifact/x"),
        "an extended header of",
    ),
    "many extended headers": (
        lambda: pax(record("mtime", "1")) * (tar_members.MAX_MEMBERS + 1) + header("artifact/x"),
        "more than 20000 members",
    ),
    "many members": (
        lambda: b"".join(header(f"artifact/{number}") for number in range(tar_members.MAX_MEMBERS + 1)),
        "more than 20000 members",
    ),
    "a long name": (
        lambda: pax(record("path", "artifact/" + "/".join(["d" * 200] * 10))) + header("artifact/x"),
        "a name that is too long",
    ),
    "a long part of a name": (
        lambda: pax(record("path", f"artifact/{'d' * 300}")) + header("x"),
        "a name that is too long",
    ),
    "damaged records": (lambda: pax(b"99 path=artifact/y\n") + header("artifact/x"), "extended header is damaged"),
    "records without an end": (lambda: pax(b"0 path=a\n") + header("artifact/x"), "extended header is damaged"),
    "records that are no numbers": (
        lambda: pax("²³ path=a\n".encode()) + header("artifact/x"),
        "extended header is damaged",
    ),
    "a symbolic link": (lambda: header("artifact/l", tarfile.SYMTYPE, link="/etc/passwd"), "a symbolic link"),
    "a hard link": (lambda: header("artifact/l", tarfile.LNKTYPE, link="version.json"), "a hard link"),
    "a device": (lambda: header("artifact/d", tarfile.CHRTYPE), "a device"),
    "a pipe": (lambda: header("artifact/p", tarfile.FIFOTYPE), "a pipe"),
    "a folder": (lambda: header("artifact/f", tarfile.DIRTYPE), "a folder"),
    "an unknown type": (lambda: header("artifact/u", b"Z"), "a member of type b'Z'"),
    "an absolute path": (lambda: header("/etc/x"), "'/etc/x'"),
    "a path upwards": (lambda: header("artifact/../../x"), "'artifact/../../x'"),
    "a path upwards by the extended header": (lambda: pax(record("path", "../x")) + header("artifact/x"), "'../x'"),
    "a path with half a character": (
        lambda: header("x", tarfile.GNUTYPE_LONGNAME, 11) + padded(b"artifact/\xff\0") + header("artifact/x"),
        "expected files version.json",
    ),
    "a file twice": (lambda: header("artifact/x") + header("artifact//x"), "'artifact/x' twice"),
    "a file that is a folder": (lambda: header("artifact/x") + header("artifact/x/y"), "'artifact/x/y' twice"),
    "a folder that is a file": (lambda: header("artifact/x/y") + header("artifact/x"), "'artifact/x' twice"),
    "a damaged header": (lambda: header("artifact/x")[:100] + bytes([1]) + header("artifact/x")[101:], "bad checksum"),
    "a header cut short": (lambda: header("artifact/x")[:300], "not an archive of a version"),
    "nothing": (lambda: b"", "it has no member"),
    "zeros": (lambda: bytes(1 << 16), "it has no member"),
    "gzip": (lambda: gzip.compress(bytes(1 << 24)), r"compressed (gzip)"),
    "bzip2": (lambda: bz2.compress(bytes(1 << 20)), r"compressed (bzip2)"),
    "xz": (lambda: lzma.compress(bytes(1 << 20)), r"compressed (xz)"),
    "zstd": (lambda: b"\x28\xb5\x2f\xfd" + bytes(100), r"compressed (zstd)"),
    "zip": (lambda: b"PK\x03\x04" + bytes(100), r"compressed (zip)"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_archive_is_refused_within_bounds(tmp_path: Path, name: str) -> None:
    make, message = HOSTILE[name]
    path, folder = tmp_path / "sent.tar", tmp_path / "read"
    data = make()
    path.write_bytes(data)
    tracemalloc.start()
    with pytest.raises(InvalidArchive) as refused:
        read_archive(path, folder, max_bytes=LIMIT)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert message in str(refused.value)
    assert peak < PEAK
    written = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    assert written <= len(data)
    assert not (tmp_path / "x").exists()
    assert not (tmp_path.parent / "x").exists()


@pytest.mark.parametrize("file", ["manifest.json", "memory.json", "report.json", "isolated.json"])
def test_huge_json_inside_an_archive_is_refused_by_its_size(rows: Rows, tmp_path: Path, file: str) -> None:
    """An archive that is whole by its own hashes."""
    rows.task("a", chats(40))
    huge = b'{"base_revision":"r1","others":{},"flags":[],"x":[' + b"[]," * 4_000_000 + b"[]]}"
    path = export_version(rows, make_stored_version(rows, "a"), tmp_path / "one.tar")
    forged = tmp_path / "forged.tar"
    _forge(path, forged, file, huge)
    tracemalloc.start()
    with pytest.raises(InvalidArchive, match=rf"{file} has \d+ bytes; expected at most 8000000"):
        read_archive(forged, tmp_path / "read", max_bytes=LIMIT)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < PEAK


def _forge(source: Path, target: Path, file: str, data: bytes) -> None:
    with tarfile.open(source) as tar:
        files = {m.name: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]  # all regular
    files[f"artifact/{file}"] = data
    if file != "manifest.json":
        names = [n.removeprefix("artifact/") for n in files if n.startswith("artifact/") and "manifest" not in n]
        digests = {n: hashlib.sha256(files[f"artifact/{n}"]).hexdigest() for n in names}
        files["artifact/manifest.json"] = json.dumps(digests).encode()
    described = json.loads(files["version.json"])
    described["artifact_hash"] = hashlib.sha256(files["artifact/manifest.json"]).hexdigest()
    described["lineage"][-1]["artifact_hash"] = described["artifact_hash"]
    files["version.json"] = json.dumps(described).encode()
    with tarfile.open(target, "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_an_honest_archive_comes_through_in_every_form(rows: Rows, tmp_path: Path, form: int) -> None:
    """As other programs pack it: with times and owners, and names too long for a plain header."""
    rows.task("a", chats(40))
    path = export_version(rows, make_stored_version(rows, "a"), tmp_path / "one.tar")
    again = tmp_path / "again.tar"
    with tarfile.open(path) as tar, tarfile.open(again, "w", format=form, pax_headers={"comment": "x"}) as packed:
        for member in tar:
            member.mtime, member.uname = 1234567890.25 if form == tarfile.PAX_FORMAT else 1234567890, "anna"
            packed.addfile(member, tar.extractfile(member))
    archive = read_archive(again, tmp_path / "read", max_bytes=LIMIT)
    assert archive.report["losses"] == [2.0, 1.0, 0.5]


def test_an_export_holds_one_piece_of_a_large_file_at_a_time(rows: Rows, tmp_path: Path) -> None:
    rows.task("a", chats(40))
    version = make_stored_version(rows, "a", text="weights " * 4_000_000)
    tracemalloc.start()
    path = export_version(rows, version, tmp_path / "one.tar")
    read_archive(path, tmp_path / "read", max_bytes=LIMIT)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert path.stat().st_size > 32_000_000
    assert peak < PEAK
