"""Each server alone, real: it starts, keeps its data, and says clearly why it cannot."""

import io
import os
import shutil
import signal
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis
from minio.error import S3Error

from api.local import postgres
from api.local.errors import BinaryMissing, PortTaken, ServerFailed
from api.local.health import check_broker, check_database, check_s3, libpq_url, s3_client, without_password
from api.local.ports import pick_free_port
from api.local.postgres import start_postgres
from api.local.processes import stop
from api.local.seaweed import start_seaweed
from api.local.secrets import generate_secrets
from api.local.valkey import find_valkey, start_valkey
from tests.services import Servers

SECRETS = generate_secrets()


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder that any account may enter, unlike pytest's."""
    path = Path(tempfile.mkdtemp(prefix="memgen-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


def sql(url: str, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(libpq_url(url), autocommit=True) as connection:
        cursor = connection.execute(statement)
        return list(cursor.fetchall()) if cursor.description else []


def test_postgres_keeps_rows_over_a_kill_and_a_change_of_port(home: Path) -> None:
    folder, log = home / "pg", home / "log"
    first = start_postgres(folder, log, "pw", durable=False)
    sql(first.url, "SET synchronous_commit TO on; CREATE TABLE kept AS SELECT 7 AS value")
    first.child.process.send_signal(signal.SIGKILL)
    first.child.process.wait()
    stop([first.child])
    assert (folder / "data" / "postmaster.pid").exists()
    # The number of the dead server now belongs to somebody else, as after a reboot.
    lock = folder / "data" / "postmaster.pid"
    lock.write_text("\n".join([str(os.getpid()), *lock.read_text().split("\n")[1:]]))
    second = start_postgres(folder, log, "pw", port=pick_free_port(avoid=[first.port or 0]), durable=False)
    try:
        assert second.port != first.port
        assert sql(second.url, "SELECT value FROM kept") == [(7,)]
        with pytest.raises(ServerFailed, match="refuses the password"):
            postgres._ensure_database(second.url.replace(":pw@", ":other@"))
    finally:
        stop([second.child])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become somebody else")
@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare")
def test_postgres_runs_below_a_folder_that_only_root_may_enter(home: Path) -> None:
    home.chmod(0o711)
    first = start_postgres(home / "pg", home / "log", "pw", durable=False)
    sql(first.url, "CREATE TABLE kept AS SELECT 7 AS value")
    stop([first.child])
    home.chmod(0o700)
    second = start_postgres(home / "pg", home / "log", "pw", durable=False)
    assert sql(second.url, "SELECT value FROM kept") == [(7,)]
    stop([second.child])
    home.chmod(0o711)
    third = start_postgres(home / "pg", home / "log", "pw", durable=False)
    assert sql(third.url, "SELECT value FROM kept") == [(7,)]
    stop([third.child])


def test_postgres_is_durable_unless_told_otherwise(home: Path) -> None:
    server = start_postgres(home / "pg", home / "log", "pw")
    try:
        assert sql(server.url, "SHOW fsync") == [("on",)]
        assert sql(server.url, "SHOW synchronous_commit") == [("on",)]
    finally:
        stop([server.child])


def test_valkey_keeps_keys_on_a_path_too_long_for_a_socket(tmp_path: Path) -> None:
    folder, log = tmp_path / ("x" * 100), tmp_path / "log"
    for expected in (None, b"kept"):
        server = start_valkey(folder, log)
        path = server.url.removeprefix("redis+socket://").partition("?")[0]
        client = redis.Redis(unix_socket_path=path)
        try:
            assert client.get("key") == expected
            client.set("key", "kept")
        finally:
            client.close()
            stop([server.child])
    shutil.rmtree(Path(path).parent)


def test_a_missing_valkey_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BinaryMissing, match="MEMGEN_BROKER_URL"):
        find_valkey(in_wheel=lambda: None)
    (tmp_path / "redis-server").touch(mode=0o755)
    assert find_valkey(in_wheel=lambda: None) == tmp_path / "redis-server"


def test_missing_postgres_and_weed_say_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    with pytest.raises(BinaryMissing, match="MEMGEN_DATABASE_URL"):
        start_postgres(tmp_path / "pg", tmp_path / "log", "pw")
    with pytest.raises(BinaryMissing, match="MEMGEN_S3_URL"):
        start_seaweed(tmp_path / "s3", tmp_path / "log", SECRETS, bucket="b")


def test_a_taken_port_names_its_setting(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(PortTaken, match=f"{port}.*MEMGEN_S3_PORT"):
            start_seaweed(tmp_path / "s3", tmp_path / "log", SECRETS, bucket="b", port=port)


def test_a_bad_bucket_name_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ServerFailed, match="MEMGEN_S3_BUCKET is 'x'"):
        start_seaweed(tmp_path / "s3", tmp_path / "log", SECRETS, bucket="x")


def test_seaweed_keeps_objects_and_even_survives_new_ports(tmp_path: Path) -> None:
    folder, log = tmp_path / "s3", tmp_path / "log"
    first = start_seaweed(folder, log, SECRETS, bucket="bucket")
    with s3_client(first.url, "us-east-1") as client:
        client.put_object("bucket", "kept", io.BytesIO(b"bytes"), 5)
    stop([first.child])
    credentials = folder / "credentials.json"
    assert stat.S_IMODE(credentials.stat().st_mode) == 0o600
    (folder / "ports.json").unlink()
    second = start_seaweed(folder, log, SECRETS, bucket="bucket")
    try:
        assert second.port != first.port
        with s3_client(second.url, "us-east-1") as client:
            response = client.get_object("bucket", "kept")
            assert response.read() == b"bytes"
            response.release_conn()
            assert [found.object_name for found in client.list_objects("bucket")] == ["kept"]
        wrong = second.url.replace(SECRETS.s3_secret_key, "wrong")
        with s3_client(wrong, "us-east-1") as client, pytest.raises(S3Error):
            client.bucket_exists("bucket")
    finally:
        stop([second.child])


def test_checks_pass_on_servers_that_answer(servers: Servers) -> None:
    check_database(servers.database_url)
    check_broker(servers.broker_url)
    check_s3(servers.s3_url, "another-bucket", "us-east-1")


def test_checks_name_the_setting_and_hide_the_password() -> None:
    port = pick_free_port()
    with pytest.raises(ServerFailed, match="MEMGEN_DATABASE_URL") as database:
        check_database(f"postgresql+psycopg://u:hidden@127.0.0.1:{port}/d")
    with pytest.raises(ServerFailed, match="MEMGEN_BROKER_URL") as broker:
        check_broker(f"redis://:hidden@127.0.0.1:{port}/0")
    with pytest.raises(ServerFailed, match="MEMGEN_S3_URL") as store:
        check_s3(f"http://u:hidden@127.0.0.1:{port}", "bucket", "us-east-1")
    assert not any("hidden" in str(caught.value) for caught in (database, broker, store))


def test_a_url_is_shown_without_its_password() -> None:
    assert without_password("redis+socket:///tmp/x?virtual_host=0") == "redis+socket:///tmp/x?virtual_host=0"
    assert without_password("http://user:pass@host:1") == "http://user:***@host:1"
