"""The commands of the service's own processes, run for real."""

import dbm.dumb
import shelve
import time
from pathlib import Path

import pytest
import redis

from api.local.apps import AppPorts, service_apps
from api.local.processes import log_tail, spawn, stop
from registry.settings import Settings, child_environment


@pytest.mark.parametrize("damaged", [b"", b"\xffgarbage"])
def test_beat_sends_whatever_stands_in_its_old_file(settings: Settings, tmp_path: Path, damaged: bytes) -> None:
    (tmp_path / "run").mkdir()
    schedule = tmp_path / "run" / "beat-schedule"
    with shelve.Shelf(dbm.dumb.open(str(schedule), "c")) as kept:
        kept.update({"entries": {}, "__version__": "5.7.0", "tz": "UTC", "utc_enabled": True})
    for path in (schedule, schedule.with_suffix(".dat")):
        path.write_bytes(damaged)
    [beat] = [spec for spec in service_apps(settings, AppPorts(1)) if spec.name == "beat"]
    broker = settings.broker_url.get_secret_value() if settings.broker_url else ""
    client = redis.Redis(unix_socket_path=broker.removeprefix("redis+socket://").partition("?")[0])
    quick = {"MEMGEN_TICK_INTERVAL_SECONDS": "0.1", "MEMGEN_REAPER_INTERVAL_SECONDS": "0.1"}
    environment = child_environment(settings) | quick
    before = int(client.llen("default"))  # type: ignore[arg-type]  # the client's types allow for its async form
    child = spawn("beat", beat.command, tmp_path / "beat.log", environment=environment, folder=tmp_path)
    try:
        deadline = time.monotonic() + 60
        while int(client.llen("default")) < before + 3:  # type: ignore[arg-type]  # as above
            assert child.process.poll() is None, log_tail(child.log)
            assert time.monotonic() < deadline, log_tail(child.log)
            time.sleep(0.05)
    finally:
        stop([child])
        client.delete("default")
        client.close()
