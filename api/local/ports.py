"""TCP ports on loopback: free ones, taken ones, and those that a server keeps from one start to the next.

Knows no server. Picked ports lie below the range from which the kernel takes ports of outgoing connections:
there, a kept port may be in use by some client at the next start. A port that is handed out is claimed until its
server listens, so that neither another server of this stack nor a stack that starts beside it picks it meanwhile.
"""

import json
import os
import random
import socket
import sys
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from api.local.errors import PortTaken, ServerFailed
from api.local.files import set_aside, write_private

LOOPBACK = "127.0.0.1"
PICKED = range(20_000, 22_700)  # SeaweedFS adds 10,000 to one of them, and stays below that range too
_CLAIM_SECONDS = 300.0  # longer than any server needs until it listens


@dataclass(frozen=True)
class _Claim:
    file: Path
    """Where the port is kept; of two servers that kept one port, the second picks anew."""
    since: float
    holder: int | None
    """The file descriptor of a bound socket; the end of the process closes it."""


_claims: dict[int, _Claim] = {}
"""Ports that this process handed out."""


@dataclass(frozen=True)
class PortRequest:
    """A port by name. `configured` 0 leaves the choice to us; `variable` is the setting behind it."""

    name: str
    configured: int = 0
    variable: str = ""


def port_is_free(port: int) -> bool:
    """Whether a server could listen there. What another stack has only claimed counts as free."""
    probe = _bound(port, as_servers_do=True)
    if probe is not None:
        probe.close()
    return probe is not None


def pick_free_port(avoid: Collection[int] = ()) -> int:
    """A port where nothing listens and that no stack on this machine has claimed."""
    for port in random.sample(PICKED, len(PICKED)):
        if port in avoid or port in _claims:
            continue
        probe = _bound(port, as_servers_do=False)
        if probe is not None:
            probe.close()
            return port
    raise ServerFailed(f"No free TCP port from {PICKED.start} to {PICKED.stop - 1} on {LOOPBACK}. Stop some listener.")


def pin_ports(file: Path, requests: Sequence[PortRequest]) -> dict[str, int]:
    """A port for each request: the configured one, else the one that `file` kept, else a free one; kept in `file`.

    Raises PortTaken where a configured port is in use.
    """
    kept = _read(file)
    ports: dict[str, int] = {}
    for request in requests:
        if request.configured:
            if not port_is_free(request.configured):
                raise PortTaken(
                    f"Port {request.configured} on {LOOPBACK}, wanted for {request.name}, is taken by "
                    f"another process. Stop it, or set {request.variable} to another port (0 picks a free one)."
                )
            ports[request.name] = request.configured
            continue
        port = kept.get(request.name, 0)
        claim = _claims.get(port)
        if not port or port in ports.values() or (claim and claim.file != file) or not port_is_free(port):
            port = pick_free_port(avoid=[*ports.values(), *kept.values()])
        ports[request.name] = port
    _claim(file, ports.values())
    if ports != kept:
        write_private(file, json.dumps(ports, indent=2) + "\n")
    return ports


def _bound(port: int, *, as_servers_do: bool) -> socket.socket | None:
    """A socket bound there, or None. With `as_servers_do`, a connection that lingers in TIME_WAIT does not matter."""
    bound = socket.socket()
    if as_servers_do:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((LOOPBACK, port))
    except OSError:
        bound.close()
        return None
    return bound


def _claim(file: Path, ports: Collection[int]) -> None:
    """Take the ports off the market for a while; claims that have served are given up.

    On Linux a server may listen at a port that is bound here and does not listen, as both set SO_REUSEADDR; who picks
    a port binds without it and sees that it is taken. Elsewhere only this process knows of the claim.
    """
    now = time.monotonic()
    for port, claim in list(_claims.items()):
        if port in ports or now - claim.since > _CLAIM_SECONDS:
            if claim.holder is not None:
                os.close(claim.holder)
            del _claims[port]
    for port in ports:
        bound = _bound(port, as_servers_do=True) if sys.platform == "linux" else None
        _claims[port] = _Claim(file, now, bound.detach() if bound is not None else None)


def _read(file: Path) -> dict[str, int]:
    """What was kept; nothing from a file that can't be understood, which is moved aside: ports are picked anew."""
    try:
        stored = json.loads(file.read_bytes())
        if all(type(port) is int and 0 < port < 65_536 for port in stored.values()):
            return dict(stored)
        why = f"it holds {str(stored)[:100]}; expected port numbers"
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        why = f"{type(error).__name__}: {error}"
    set_aside(file, why)
    return {}
