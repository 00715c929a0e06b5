"""The object store against a real S3 server."""

from pathlib import Path

import pytest

from registry.errors import NotConfigured, ObjectNotFound, StoreUnavailable
from registry.object_store import ObjectStore
from registry.settings import Settings
from registry.wiring import Services


def test_bytes_and_files_go_and_come_back(services: Services, tmp_path: Path) -> None:
    store = services.store
    store.put("t/a", b"one")
    store.put("t/a", b"two")
    assert store.get("t/a") == b"two"
    store.get_file("t/a", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"two"
    store.delete("t/a")
    store.delete("t/a")
    with pytest.raises(ObjectNotFound, match="'t/a' is not in bucket 'memgen'"):
        store.get("t/a")
    with pytest.raises(ObjectNotFound):
        store.get_file("t/a", tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_folders(services: Services, tmp_path: Path) -> None:
    (tmp_path / "in/sub").mkdir(parents=True)
    (tmp_path / "in/x.json").write_text("x")
    (tmp_path / "in/sub/y.bin").write_bytes(b"y" * 100_000)
    services.store.put_folder("folders/1", tmp_path / "in")
    services.store.put("folders/10/other", b"not ours")
    services.store.get_folder("folders/1", tmp_path / "out")
    found = {p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert found == {"x.json", "sub/y.bin"}
    with pytest.raises(ObjectNotFound, match="nothing is stored under 'folders/2'"):
        services.store.get_folder("folders/2", tmp_path / "none")


def test_a_store_that_is_not_there_is_named(settings: Settings) -> None:
    store = ObjectStore("http://a:b@127.0.0.1:9", "memgen", "us-east-1")
    with pytest.raises(StoreUnavailable, match="did not answer for 'x'"):
        store.get("x")
    store.close()


def test_wrong_credentials_are_refused(services: Services, settings: Settings) -> None:
    assert settings.s3_url is not None
    host = settings.s3_url.get_secret_value().rpartition("@")[2]
    store = ObjectStore(f"http://nobody:wrong@{host}", settings.s3_bucket, "us-east-1")
    with pytest.raises(StoreUnavailable, match="refused"):
        store.put("x", b"")
    store.close()


def test_a_url_without_keys_is_refused() -> None:
    with pytest.raises(NotConfigured, match="MEMGEN_S3_URL must look like"):
        ObjectStore("http://127.0.0.1:9000", "memgen", "us-east-1")
