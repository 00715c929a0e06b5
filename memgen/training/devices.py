"""One job on several devices: a process for each, started here, with sums over all of them by `accelerate`.

What is trained is factors and queries that the base's forward pass reads, not a module whose own forward is called. So
DistributedDataParallel has nothing to hook into; after the backward pass each process sums the gradients itself
(`memgen.training.optimizing`), in one message, weighted as the loss is. Everything runs on one machine.

The processes are started as plain subprocesses, not by `multiprocessing`: Celery's workers are daemonic and may have
no such children, and a fork after CUDA was used is broken. They end when the process that started them does.
"""

import contextlib
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, TypeVar, TypeVarTuple

import torch
from torch import Tensor

from memgen.errors import ConfigError, DeviceFailed, MemgenError

ItemT = TypeVar("ItemT")

_POLL_SECONDS = 0.2
"""Time between two calls of `should_stop`."""
_END_SECONDS = 10.0
"""Time that processes have to end once there is a result or an error."""


class Devices:
    """The processes that train one job together, as one of them sees it. `Devices()` is a process alone."""

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def total(self, tensor: Tensor) -> Tensor:
        """Sum over all processes, bit for bit the same in each. Every process must call it."""
        return tensor

    def any(self, flag: bool) -> bool:
        """Whether the flag is true in any process. Every process must call it."""
        return flag

    def gathered(self, own: Sequence[ItemT]) -> list[ItemT]:
        """What all processes have, that of the first in front; it can be pickled. Every process must call it."""
        return list(own)

    def share(self, count: int) -> range:
        """Which of `count` things in a row are this process's. Shares follow one another and differ by one at most."""
        return range(count * self.rank // self.count, count * (self.rank + 1) // self.count)


ALONE = Devices()


class _Together(Devices):
    """Processes that `accelerate` has joined.

    It is imported in functions, for it takes seconds, and only processes of a job on several devices need it.
    """

    def __init__(self) -> None:
        from accelerate import PartialState  # at the start of such a process, as below

        self._state = PartialState()
        self.rank, self.count = self._state.process_index, self._state.num_processes

    def total(self, tensor: Tensor) -> Tensor:
        from accelerate.utils import reduce  # known by now

        summed: Tensor = reduce(tensor.to(self._state.device), reduction="sum")
        return summed.to(tensor.device)

    def any(self, flag: bool) -> bool:
        return bool(self.total(torch.tensor(float(flag))))

    def gathered(self, own: Sequence[ItemT]) -> list[ItemT]:
        from accelerate.utils import gather_object  # known by now

        everyone: list[ItemT] = gather_object(list(own))
        return everyone


class ParentLink:
    """A process's connection to the one that started it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stop = threading.Event()
        threading.Thread(target=self._listen, daemon=True, name="parent link").start()

    def send(self, event: Any) -> None:
        """Call the other end's `on_event` with something that can be pickled."""
        self._connection.send(("event", event))

    def should_stop(self) -> bool:
        """Whether the other end wants the run to stop. Processes may differ for a moment: see `Devices.any`."""
        return self._stop.is_set()

    def _listen(self) -> None:
        try:
            self._connection.recv()
        except (EOFError, OSError):
            os._exit(1)  # nobody waits for the result any more
        self._stop.set()


@dataclass(frozen=True)
class _Assignment:
    """What a process must know to join the others."""

    kind: str
    rank: int
    count: int
    meeting: str
    """A file that does not exist yet, where they find one another."""
    threads: int


ArgsT = TypeVarTuple("ArgsT")
ResultT = TypeVar("ResultT")


def check_count(devices: Devices, expected: int) -> None:
    """Raise ConfigError unless a run has as many devices as its config asks for."""
    if devices.count != expected:
        raise ConfigError(
            f"the config asks for {expected} devices, the run has {devices.count}; start it with "
            "memgen.training.several_devices"
        )


def check_devices(kind: str, count: int) -> None:
    """Whether this machine has `count` devices of a kind, `cuda` or `cpu`. A processor core is one.

    Raises:
        ConfigError: it has fewer, or the kind is another.
    """
    if kind not in ("cpu", "cuda"):
        raise ConfigError(f"several devices of kind {kind!r} can't train together; expected 'cpu' or 'cuda'")
    found = torch.cuda.device_count() if kind == "cuda" else os.cpu_count() or 1
    if count > found:
        raise ConfigError(
            f"the job asks for {count} {kind} devices, this machine has {found}; lower `devices`, or run it elsewhere"
        )


def run_distributed(
    work: Callable[[Devices, torch.device, ParentLink, *ArgsT], ResultT],
    *args: *ArgsT,
    kind: str,
    count: int,
    on_event: Callable[[Any], None] = lambda event: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> ResultT:
    """Call `work(devices, device, link, *args)` in `count` new processes; returns what the first one returns.

    Args:
        work: a function of a module; `args` and what it returns can be pickled.
        kind: kind of device, `cuda` (process n has device n) or `cpu` (they share the cores of this process).
        on_event: called here with everything that a process passes to `link.send`, in order for each process.
        should_stop: called here now and then; once true, `link.should_stop` is true in every process.

    Raises:
        ConfigError: there are fewer devices.
        DeviceFailed: a process died; the others were ended.
        MemgenError: whichever `work` raised.
    """
    check_devices(kind, count)
    threads = max(1, torch.get_num_threads() // count)
    with tempfile.TemporaryDirectory(prefix="memgen-devices-") as folder, contextlib.ExitStack() as stack:
        assignments = [_Assignment(kind, rank, count, str(Path(folder) / "meeting"), threads) for rank in range(count)]
        connections = [stack.enter_context(_started()) for _ in assignments]
        try:
            for connection, assignment in zip(connections, assignments, strict=True):
                connection.send((assignment, work, args))
        except OSError as error:
            raise DeviceFailed(f"a process on {kind} ended before it began; its output says why") from error
        except Exception as error:  # of several kinds: whatever of it can't be sent
            raise ConfigError(
                f"what is trained on can't be sent to other processes: {error}; let its functions and classes be those "
                "of a module, or train on one device"
            ) from error
        result: ResultT = _attend(connections, on_event, should_stop)
        return result


def _attend(connections: list[Connection], on_event: Callable[[Any], None], should_stop: Callable[[], bool]) -> Any:
    """Listen until every process has given its result; the first one's is returned.

    An error of ours is most often raised by all. So the others may finish what they do about it, such as saving.
    """
    waiting = dict(enumerate(connections))
    first_result: Any = None
    raised: MemgenError | None = None
    deadline = math.inf
    stopping = False
    while waiting and time.monotonic() < deadline:
        if not stopping and should_stop():
            stopping = True
            for connection in waiting.values():
                with contextlib.suppress(OSError):  # it has just ended, as is seen below
                    connection.send("stop")
        ready = wait(list(waiting.values()), _POLL_SECONDS)
        for rank, connection in [(rank, one) for rank, one in waiting.items() if one in ready]:
            what, value = _received(connection)
            if what == "event":
                on_event(value)
                continue
            del waiting[rank]
            if what == "error":
                raised = raised or value
                deadline = min(deadline, time.monotonic() + _END_SECONDS)
            elif what == "failure" and raised is None:
                raise DeviceFailed(f"process {rank} of {len(connections)}: {value}")
            elif rank == 0:
                first_result = value
    if raised is not None:
        raise raised
    return first_result


def _received(connection: Connection) -> tuple[str, Any]:
    try:
        what, value = connection.recv()
        return what, value
    except (EOFError, OSError):
        return "failure", "it ended without a word, perhaps killed for lack of memory"


@contextlib.contextmanager
def _started() -> Iterator[Connection]:
    """A process that waits for its assignment, and the connection to it. It is ended if it does not end by itself."""
    ours, theirs = Pipe()
    code = (
        f"import sys, tempfile; sys.path[:] = {sys.path!r}; tempfile.tempdir = {tempfile.gettempdir()!r}; "
        f"from memgen.training.devices import serve; serve({theirs.fileno()})"
    )
    process = subprocess.Popen([sys.executable, "-c", code], pass_fds=[theirs.fileno()])  # noqa: S603 - our own code
    theirs.close()
    finished = False
    try:
        yield ours
        finished = True
    finally:
        try:
            process.wait(_END_SECONDS if finished else 0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        ours.close()


def serve(descriptor: int) -> None:
    """The life of a process started by `run_distributed`: it receives its assignment, works, and sends the result."""
    connection = Connection(descriptor)
    assignment, work, args = connection.recv()
    link = ParentLink(connection)
    with _joined(assignment) as (devices, device):
        try:
            connection.send(("result", work(devices, device, link, *args)))
        except MemgenError as error:
            connection.send(("error", error))
        except Exception:
            connection.send(("failure", traceback.format_exc()))


@contextlib.contextmanager
def _joined(assignment: _Assignment) -> Iterator[tuple[Devices, torch.device]]:
    """Meet the other processes; accelerate reads its rank from variables of this process's environment."""
    from accelerate import PartialState  # at the start of such a process: see `_Together`
    from accelerate.utils import patch_environment

    torch.set_num_threads(assignment.threads)
    variables: dict[str, int | str] = {
        "rank": assignment.rank,
        "local_rank": assignment.rank,
        "world_size": assignment.count,
        "local_world_size": assignment.count,
        "omp_num_threads": assignment.threads,
    }
    if sys.platform == "linux":
        variables["gloo_socket_ifname"] = "lo"  # gloo would look up the host's name, which need not resolve
    with patch_environment(**variables):
        state = PartialState(
            cpu=assignment.kind == "cpu",
            init_method=f"file://{assignment.meeting}",
            rank=assignment.rank,
            world_size=assignment.count,
        )
        try:
            yield _Together(), torch.device("cpu") if assignment.kind == "cpu" else state.device
        finally:
            state.destroy_process_group()
