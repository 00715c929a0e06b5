import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.local.errors import PortTaken
from api.local.ports import PICKED, PortRequest, pick_free_port, pin_ports, port_is_free


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_a_configured_port_that_is_taken_names_port_and_setting(tmp_path: Path, taken_port: int) -> None:
    with pytest.raises(PortTaken, match=rf"{taken_port}.*MEMGEN_API_PORT"):
        pin_ports(tmp_path / "ports.json", [PortRequest("the API", taken_port, "MEMGEN_API_PORT")])


def test_picked_ports_are_kept(tmp_path: Path) -> None:
    requests = [PortRequest("a"), PortRequest("b")]
    first = pin_ports(tmp_path / "ports.json", requests)
    assert first["a"] != first["b"]
    assert all(port in PICKED for port in first.values())
    assert pin_ports(tmp_path / "ports.json", requests) == first


def test_a_kept_port_that_is_taken_gives_way(tmp_path: Path, taken_port: int) -> None:
    (tmp_path / "ports.json").write_text(f'{{"a": {taken_port}}}')
    assert pin_ports(tmp_path / "ports.json", [PortRequest("a")])["a"] != taken_port


def test_a_listener_is_seen(taken_port: int) -> None:
    assert not port_is_free(taken_port)
    assert port_is_free(pick_free_port())


def test_a_port_handed_out_is_not_picked_again_though_nothing_listens_there_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.local.ports.PICKED", range(22_690, 22_700))
    first = pin_ports(tmp_path / "a.json", [PortRequest(str(number)) for number in range(5)])
    second = pin_ports(tmp_path / "b.json", [PortRequest(str(number)) for number in range(3)])
    assert not set(first.values()) & set(second.values())
    with socket.create_server(("127.0.0.1", first["0"])):  # its own server may listen
        pass


def test_of_two_servers_that_kept_one_port_the_second_picks_anew(tmp_path: Path) -> None:
    kept = pin_ports(tmp_path / "a.json", [PortRequest("a")])["a"]
    (tmp_path / "b.json").write_text(f'{{"b": {kept}}}')
    assert pin_ports(tmp_path / "b.json", [PortRequest("b")])["b"] != kept
    assert pin_ports(tmp_path / "a.json", [PortRequest("a")])["a"] == kept


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a claim is known to its own process only")
def test_another_process_sees_a_claim(tmp_path: Path) -> None:
    port = pin_ports(tmp_path / "a.json", [PortRequest("a")])["a"]
    code = (
        "import sys, api.local.ports as ports\n"
        f"ports.PICKED = range({port}, {port} + 1)\n"
        "try: ports.pick_free_port()\n"
        "except ports.ServerFailed: sys.exit(7)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 7
