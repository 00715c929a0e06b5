import socket
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
