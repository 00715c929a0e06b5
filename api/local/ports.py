"""TCP ports on loopback: free ones, taken ones, and those that a server keeps from one start to the next.

Knows no server. Picked ports lie below the range from which the kernel takes ports of outgoing connections:
there, a kept port may be in use by some client at the next start.
"""

import json
import random
import socket
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from api.local.errors import PortTaken, ServerFailed
from api.local.files import set_aside, write_private

LOOPBACK = "127.0.0.1"
PICKED = range(20_000, 22_700)  # SeaweedFS adds 10,000 to one of them, and stays below that range too


@dataclass(frozen=True)
class PortRequest:
    """A port by name. `configured` 0 leaves the choice to us; `variable` is the setting behind it."""

    name: str
    configured: int = 0
    variable: str = ""


def port_is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As servers do: a connection of the last run that lingers in TIME_WAIT does not count as taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def pick_free_port(avoid: Collection[int] = ()) -> int:
    for port in random.sample(PICKED, len(PICKED)):
        if port not in avoid and port_is_free(port):
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
        if not port or port in ports.values() or not port_is_free(port):
            port = pick_free_port(avoid=[*ports.values(), *kept.values()])
        ports[request.name] = port
    if ports != kept:
        write_private(file, json.dumps(ports, indent=2) + "\n")
    return ports


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
