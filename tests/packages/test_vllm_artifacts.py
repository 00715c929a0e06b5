"""How the vLLM plugin finds, fetches, checks and drops artifacts: without vLLM, with a real object store."""

import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from memgen.checked_files import write_manifest
from memgen_vllm.artifacts import ArtifactFolder
from memgen_vllm.errors import NoSuchArtifact, NotServed, StoreDown
from memgen_vllm.names import ArtifactName
from memgen_vllm.settings import PluginSettings
from registry.object_store import ObjectStore
from registry.versions.artifacts import artifact_key
from tests.services import BUCKET, Servers

REGION = "us-east-1"
PROJECT = uuid.uuid4()


@pytest.fixture
def store(servers: Servers) -> ObjectStore:
    return ObjectStore(servers.s3_url, BUCKET, REGION)


@pytest.fixture
def settings(servers: Servers, tmp_path: Path) -> PluginSettings:
    return PluginSettings(servers.s3_url, BUCKET, REGION, tmp_path / "here", 10_000, tmp_path)


Put = Callable[..., ArtifactName]


@pytest.fixture
def put(store: ObjectStore, tmp_path: Path) -> Put:
    """Stores an artifact of some bytes and returns its name with its key."""

    def put(size: int = 10, *, text: str = "x") -> ArtifactName:
        folder = tmp_path / uuid.uuid4().hex
        (folder / "weaver").mkdir(parents=True)
        (folder / "weaver" / "adapter_model.safetensors").write_text(text * size)
        (folder / "optimizer.safetensors").write_text("moments " + folder.name)
        sha256 = write_manifest(folder)
        key = artifact_key(PROJECT, sha256)
        store.put_folder(key, folder)
        return ArtifactName(sha256, key)

    return put


def test_names_are_hashes_alone_or_with_their_folder() -> None:
    sha256, project = "ab" * 32, uuid.uuid4()
    assert ArtifactName.parse(sha256) == ArtifactName(sha256, None)
    key = artifact_key(project, sha256)
    assert ArtifactName.parse(key) == ArtifactName(sha256, key)
    for other in ("support-bot@champion", sha256[:-1], sha256.upper(), f"x/{key}", f"{key}/", "", None):
        assert ArtifactName.parse(other) is None
    assert ArtifactName(sha256, None).lora_id == ArtifactName(sha256, key).lora_id
    assert 1 <= ArtifactName(sha256, None).lora_id < 2**31


def test_an_artifact_is_fetched_by_its_key_or_by_its_hash_alone(settings: PluginSettings, put: Put) -> None:
    by_key, by_hash = put(text="a"), put(text="b")
    artifacts = ArtifactFolder(settings)
    for name in (by_key, ArtifactName(by_hash.sha256, None)):
        folder = artifacts.ensure(name)
        assert folder == settings.folder / name.sha256
        files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        assert files == ["manifest.json", "weaver/adapter_model.safetensors"], "serving needs no moments"


def test_what_is_here_needs_no_store(settings: PluginSettings, put: Put) -> None:
    name = put()
    folder = ArtifactFolder(settings).ensure(name)
    alone = PluginSettings(None, BUCKET, REGION, settings.folder, 10_000, settings.models)
    assert ArtifactFolder(alone).ensure(ArtifactName(name.sha256, None)) == folder
    with pytest.raises(NoSuchArtifact, match="MEMGEN_S3_URL"):
        ArtifactFolder(alone).ensure(ArtifactName("0" * 64, None))


def test_what_is_left_of_a_folder_is_replaced(settings: PluginSettings, put: Put) -> None:
    """What tidies a disk up removes old files, and may leave their folders."""
    name = put()
    artifacts = ArtifactFolder(settings)
    file = artifacts.ensure(name) / "weaver" / "adapter_model.safetensors"
    file.unlink()
    assert artifacts.here(name) is None
    assert artifacts.ensure(name).is_dir()
    assert file.is_file()
    assert artifacts.here(name) is not None


def test_an_unknown_hash_is_not_found_and_leaves_nothing(settings: PluginSettings, put: Put) -> None:
    put()
    for name in (ArtifactName("0" * 64, None), ArtifactName("0" * 64, artifact_key(PROJECT, "0" * 64))):
        with pytest.raises(NoSuchArtifact):
            ArtifactFolder(settings).ensure(name)
    assert list(settings.folder.iterdir()) == []


def test_names_of_nothing_leave_no_file_and_break_no_lock(tmp_path: Path) -> None:
    """Many threads ask for one name that is not here; whoever has its lock alone does so truly."""
    inside, most = [0], [0]

    class SlowFolder(ArtifactFolder):
        def _fetch(self, name: ArtifactName, lock: int) -> None:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            time.sleep(0.001)
            inside[0] -= 1
            super()._fetch(name, lock)

    settings = PluginSettings(None, BUCKET, REGION, tmp_path, 0, tmp_path)

    def ask(_: int) -> None:
        with pytest.raises(NoSuchArtifact):
            SlowFolder(settings).ensure(ArtifactName("0" * 64, None))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(ask, range(200)))
    assert most == [1]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("broken", ["weaver/adapter_model.safetensors", "manifest.json"])
def test_corrupt_bytes_are_refused_and_never_visible(
    settings: PluginSettings, put: Put, store: ObjectStore, broken: str
) -> None:
    name = put()
    whole = store.get(f"{name.key}/{broken}")
    store.put(f"{name.key}/{broken}", whole.replace(b"x", b"y") if b"x" in whole else whole + b" ")
    artifacts = ArtifactFolder(settings)
    with pytest.raises(NotServed, match=f"{name.sha256} is corrupt"):
        artifacts.ensure(name)
    assert [path.name for path in settings.folder.iterdir() if path.suffix != ".lock"] == []
    store.put(f"{name.key}/{broken}", whole)
    assert artifacts.ensure(name).is_dir(), "mended in the store, it is served"


def test_what_no_hash_covers_is_not_kept(settings: PluginSettings, put: Put, store: ObjectStore) -> None:
    name = put()
    store.put(f"{name.key}/weaver/adapter_model.bin", b"pickled")
    assert not (ArtifactFolder(settings).ensure(name) / "weaver" / "adapter_model.bin").exists()


def test_a_store_that_is_down_says_so(put: Put, tmp_path: Path, unused_port: int) -> None:
    url = f"http://a:b@127.0.0.1:{unused_port}"
    settings = PluginSettings(url, BUCKET, REGION, tmp_path / "here", 10_000, tmp_path)
    with pytest.raises(StoreDown, match="did not answer"):
        ArtifactFolder(settings).ensure(ArtifactName("0" * 64, None))


@pytest.fixture
def unused_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_the_least_recently_used_goes_first_and_what_is_held_stays(settings: PluginSettings, put: Put) -> None:
    first, second, third = put(3000, text="a"), put(3000, text="b"), put(3000, text="c")
    artifacts = ArtifactFolder(settings)
    with artifacts.held(first) as held:
        artifacts.ensure(second)
        artifacts.ensure(third)
        artifacts.ensure(put(3000, text="d"))
        assert held.is_dir(), "the oldest, but it is held"
        here = {path.name for path in settings.folder.iterdir() if path.is_dir()}
        assert first.sha256 in here
        assert second.sha256 not in here
        assert third.sha256 in here
    artifacts.ensure(put(3000, text="e"))
    assert artifacts.ensure(ArtifactName(second.sha256, None)).is_dir(), "what was dropped comes back by its kept key"


def test_many_that_need_one_artifact_fetch_it_once(
    settings: PluginSettings, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, fetched, found = put(), [], []
    original = ObjectStore.get_folder

    def count(self: ObjectStore, prefix: str, folder: Path, *, without: tuple[str, ...] = ()) -> None:
        fetched.append(prefix)
        original(self, prefix, folder, without=without)

    monkeypatch.setattr(ObjectStore, "get_folder", count)
    threads = [threading.Thread(target=lambda: found.append(ArtifactFolder(settings).ensure(name))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert fetched == [name.key]
