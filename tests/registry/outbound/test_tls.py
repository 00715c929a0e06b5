"""TLS verifies the name that was asked for, though the connection goes to an address; whom it trusts can be named."""

import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from registry.outbound import transports
from tests.registry.outbound.test_clients import PRIVATE, _get, _Hello

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Of `ours.example`, signed by itself, with its key."""
    made = tmp_path / "ours.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=ours.example"
    extensions = "-addext subjectAltName=DNS:ours.example -addext keyUsage=critical,digitalSignature,keyCertSign"
    files = ["-keyout", str(made), "-out", str(tmp_path / "certificate.pem")]
    subprocess.run([*command.split(), *extensions.split(), *files], check=True, capture_output=True)
    made.write_text(made.read_text() + (tmp_path / "certificate.pem").read_text())
    return made


@pytest.fixture
def port(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Of a server with the certificate, which every name leads to."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hello)
    server.seen = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()

    def find(_host: Any, port: Any, *_args: Any, **_named: Any) -> Any:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", find)
    transports._authorities.cache_clear()
    yield server.server_port
    transports._authorities.cache_clear()
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_certificate_that_nobody_trusted_signed_is_refused(port: int) -> None:
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        _get(PRIVATE, f"https://ours.example:{port}/")


def test_one_that_is_named_is_trusted_for_its_own_name_alone(
    port: int, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert _get(PRIVATE, f"https://ours.example:{port}/").status_code == 200
    for other in ("other.example", "127.0.0.1"):
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            _get(PRIVATE, f"https://{other}:{port}/")
