"""The process that runs an answer: gives up its rights, then executes source and tests.

A script for `python -I`, started by `memgen.tasks.sandbox` with a job on stdin and a pipe for its verdict. Standard
library only: nothing of memgen can be imported here. Linux only: elsewhere its status is that nothing is isolated.
"""

import ctypes
import json
import os
import platform
import resource
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

_SYSCALL_NUMBERS = {
    # machine: (audit architecture, {name: number}), from the kernel's uapi headers
    "x86_64": (
        0xC000003E,
        {
            # reaching other machines and other processes' sockets
            "socket": 41, "connect": 42, "socketpair": 53, "bind": 49,
            "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427,
            # new processes, and leaving the process group
            "clone": 56, "fork": 57, "vfork": 58, "clone3": 435, "execve": 59, "execveat": 322,
            "setsid": 112, "setpgid": 109, "unshare": 272, "setns": 308,
            # acting on other processes; fcntl and ioctl can have them signalled
            "kill": 62, "tkill": 200, "tgkill": 234, "rt_sigqueueinfo": 129, "rt_tgsigqueueinfo": 297,
            "pidfd_open": 434, "pidfd_send_signal": 424, "pidfd_getfd": 438, "ptrace": 101,
            "process_vm_readv": 310, "process_vm_writev": 311, "process_madvise": 440, "prlimit64": 302,
            "fcntl": 72, "ioctl": 16, "setpriority": 141, "sched_setaffinity": 203, "sched_setscheduler": 144,
            "sched_setparam": 142, "sched_setattr": 314, "ioprio_set": 251, "migrate_pages": 256, "move_pages": 279,
            # memory that no limit counts, or that outlives the process
            "memfd_create": 319, "memfd_secret": 447, "shmget": 29, "shmat": 30, "shmctl": 31,
            "msgget": 68, "msgsnd": 69, "msgrcv": 70, "msgctl": 71, "semget": 64, "semop": 65, "semctl": 66,
            "semtimedop": 220, "mq_open": 240,
            # files: what Landlock does not govern, truncate not before Linux 6.2
            "truncate": 76, "utime": 132, "utimes": 235, "futimesat": 261, "utimensat": 280,
            "chmod": 90, "fchmod": 91, "fchmodat": 268, "fchmodat2": 452, "chown": 92, "fchown": 93, "lchown": 94,
            "fchownat": 260, "setxattr": 188, "lsetxattr": 189, "fsetxattr": 190, "setxattrat": 463,
            "removexattr": 197, "lremovexattr": 198, "fremovexattr": 199, "removexattrat": 466,
            "open_by_handle_at": 304,
            # the kernel itself
            "bpf": 321, "perf_event_open": 298, "userfaultfd": 323, "add_key": 248, "request_key": 249, "keyctl": 250,
            "mount": 165, "umount2": 166, "chroot": 161, "pivot_root": 155,
        },
    ),
    "aarch64": (
        0xC00000B7,
        {
            "socket": 198, "connect": 203, "socketpair": 199, "bind": 200,
            "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427,
            "clone": 220, "clone3": 435, "execve": 221, "execveat": 281,
            "setsid": 157, "setpgid": 154, "unshare": 97, "setns": 268,
            "kill": 129, "tkill": 130, "tgkill": 131, "rt_sigqueueinfo": 138, "rt_tgsigqueueinfo": 240,
            "pidfd_open": 434, "pidfd_send_signal": 424, "pidfd_getfd": 438, "ptrace": 117,
            "process_vm_readv": 270, "process_vm_writev": 271, "process_madvise": 440, "prlimit64": 261,
            "fcntl": 25, "ioctl": 29, "setpriority": 140, "sched_setaffinity": 122, "sched_setscheduler": 119,
            "sched_setparam": 118, "sched_setattr": 274, "ioprio_set": 30, "migrate_pages": 238, "move_pages": 239,
            "memfd_create": 279, "memfd_secret": 447, "shmget": 194, "shmat": 196, "shmctl": 195,
            "msgget": 186, "msgsnd": 189, "msgrcv": 188, "msgctl": 187, "semget": 190, "semop": 193, "semctl": 191,
            "semtimedop": 192, "mq_open": 180, "truncate": 45, "utimensat": 88,
            "fchmod": 52, "fchmodat": 53, "fchmodat2": 452, "fchown": 55, "fchownat": 54,
            "setxattr": 5, "lsetxattr": 6, "fsetxattr": 7, "setxattrat": 463,
            "removexattr": 14, "lremovexattr": 15, "fremovexattr": 16, "removexattrat": 466,
            "open_by_handle_at": 265,
            "bpf": 280, "perf_event_open": 241, "userfaultfd": 282, "add_key": 217, "request_key": 218, "keyctl": 219,
            "mount": 40, "umount2": 39, "chroot": 51, "pivot_root": 41,
        },
    ),
}  # fmt: skip

_READABLE = (
    "/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/localtime", "/etc/passwd", "/etc/mime.types",
    "/dev/null", "/dev/zero", "/dev/urandom", "/dev/random",
)  # fmt: skip
"""Beside the Python installation and the working folder. Not `/proc`: it shows the caller's environment."""


def isolate() -> dict[str, bool]:
    """Give up network, other processes and foreign files for good; what of that the kernel granted.

    Network: a network namespace of its own where user namespaces are allowed, and in any case a seccomp filter without
    sockets; either will do. Processes: the filter has no fork, no exec, and no signal to others. Files: Landlock;
    readable is the Python installation, writable the working folder.
    """
    if sys.platform != "linux":
        return {"network": False, "processes": False, "files": False}
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(1, 9, 0, 0, 0)  # PR_SET_PDEATHSIG, SIGKILL: nothing runs on without its caller
    new_user, new_net = 0x10000000, 0x40000000
    own_network = libc.unshare(new_user | new_net) == 0 or libc.unshare(new_net) == 0
    _drop_capabilities(libc)
    libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS: Landlock and seccomp ask for it
    files = _restrict_files(libc)
    filtered = _filter_syscalls(libc)
    return {"network": own_network or filtered, "processes": filtered, "files": files and filtered}


def _drop_capabilities(libc: ctypes.CDLL) -> None:
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this process
    libc.capset(header, (ctypes.c_uint32 * 6)())


def _restrict_files(libc: ctypes.CDLL) -> bool:
    libc.syscall.restype = ctypes.c_long
    create_ruleset, add_rule, restrict_self = 444, 445, 446
    version = libc.syscall(create_ruleset, None, ctypes.c_long(0), ctypes.c_long(1))
    if version < 1:
        return False
    handled = (1 << 13) - 1 | (1 << 13 if version >= 2 else 0) | (1 << 14 if version >= 3 else 0)
    ruleset = libc.syscall(create_ruleset, ctypes.byref(ctypes.c_uint64(handled)), ctypes.c_long(8), ctypes.c_long(0))
    if ruleset < 0:
        return False
    read, of_files = 1 << 2 | 1 << 3, 1 << 1 | 1 << 2 | 1 << 14
    rights = dict.fromkeys([*_READABLE, sys.prefix, sys.base_prefix], read)
    rights["/dev/null"] = read | 1 << 1
    rights[str(Path.cwd())] = handled & ~1  # all but execute
    for path, right in rights.items():
        if not Path(path).exists():
            continue
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
        allowed = right if Path(path).is_dir() else right & of_files
        rule = allowed.to_bytes(8, "little") + handle.to_bytes(4, "little")  # struct landlock_path_beneath_attr, packed
        added = libc.syscall(add_rule, ctypes.c_long(ruleset), ctypes.c_long(1), rule, ctypes.c_long(0))
        os.close(handle)
        if added != 0:
            return False
    restricted = bool(libc.syscall(restrict_self, ctypes.c_long(ruleset), ctypes.c_long(0)) == 0)
    os.close(ruleset)
    return restricted


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_char_p))


def _filter_syscalls(libc: ctypes.CDLL) -> bool:
    machine = _SYSCALL_NUMBERS.get(platform.machine())
    if machine is None or sys.maxsize < 2**32:
        return False
    code = _filter_code(*machine, pid=os.getpid())
    program = _Program(len(code) // 8, code)
    return bool(libc.prctl(22, 2, ctypes.byref(program), 0, 0) == 0)  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER


def _filter_code(architecture: int, numbers: Mapping[str, int], *, pid: int) -> bytes:
    """Classic BPF over `struct seccomp_data`: number at byte 0, architecture at 4, arguments from 16, 8 bytes each."""
    load, mask, equal, greater_equal, any_bit, ret = 0x20, 0x54, 0x15, 0x35, 0x45, 0x06
    allow, kill, not_permitted, not_implemented = 0x7FFF0000, 0x80000000, 0x00050000 | 1, 0x00050000 | 38

    def step(operation: int, value: int, then: int = 0, otherwise: int = 0) -> bytes:
        return operation.to_bytes(2, sys.byteorder) + bytes((then, otherwise)) + value.to_bytes(4, sys.byteorder)

    def only_if(name: str, *test: bytes) -> bytes:
        """The call is allowed where `test` holds; its last step skips one step then."""
        body = b"".join(test) + step(ret, not_permitted) + step(ret, allow)
        return step(equal, numbers[name], 0, len(body) // 8) + body

    first, second = step(load, 16), step(load, 24)
    code = [
        step(load, 4), step(equal, architecture, 1, 0), step(ret, kill),
        step(load, 0),
        # the 32-bit-pointer calls of x86-64 have numbers of their own
        step(greater_equal, 0x40000000, 0, 1), step(ret, not_permitted),
        # glibc then falls back to clone, whose flags can be seen
        step(equal, numbers["clone3"], 0, 1), step(ret, not_implemented),
        only_if("clone", first, step(any_bit, 0x00010000, 1, 0)),  # CLONE_THREAD
        only_if("kill", first, step(equal, pid, 1, 0)),
        only_if("tgkill", first, step(equal, pid, 1, 0)),
        only_if("prlimit64", first, step(equal, 0, 1, 0)),
        only_if("sched_setaffinity", first, step(equal, 0, 1, 0)),
        # all but F_SETOWN, F_SETSIG, F_SETOWN_EX and FIOSETOWN, SIOCSPGRP: whom a file signals
        only_if("fcntl", second, step(equal, 8, 2), step(equal, 10, 1), step(equal, 15, 0, 1)),
        only_if("ioctl", second, step(equal, 0x8901, 1), step(equal, 0x8902, 0, 1)),
        # a stream pair reaches no other process; a datagram pair could be sent elsewhere
        only_if("socketpair", second, step(mask, 0xF), step(equal, 1, 1, 0)),
    ]  # fmt: skip
    tested = {"clone3", "clone", "kill", "tgkill", "prlimit64", "sched_setaffinity", "fcntl", "ioctl", "socketpair"}
    for name, number in numbers.items():
        if name not in tested:
            code += [step(equal, number, 0, 1), step(ret, not_permitted)]
    return b"".join([*code, step(ret, allow)])


def _limit_resources(limits: Mapping[str, int]) -> None:
    for name, value in limits.items():
        kind = getattr(resource, name)
        ceiling = resource.getrlimit(kind)[1]
        value = value if ceiling == resource.RLIM_INFINITY else min(value, ceiling)
        resource.setrlimit(kind, (value, value))


def run_script(source: str, tests: str) -> str:
    """Execute the tests behind the source, in one namespace; the verdict."""
    # Not "__main__": an answer's own main part must not run. Among the modules, where dataclasses look it up.
    sys.modules["answer"] = ModuleType("answer")
    namespace = vars(sys.modules["answer"])
    try:
        exec(compile(source, "answer.py", "exec"), namespace)  # noqa: S102  # what this process is for
        exec(compile(tests, "tests.py", "exec"), namespace)  # noqa: S102
    except MemoryError:
        return "memory"
    except BaseException:
        traceback.print_exc()
        return "failed"
    return "passed"


class _Counted:
    """pytest's own exit code can be chosen by the answer (`pytest.exit`, `pytest.skip`); counts can't so easily."""

    def __init__(self) -> None:
        self.collected = self.passed = 0
        self.out_of_memory = False

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        self.collected = len(items)

    def pytest_runtest_makereport(self, call: Any) -> None:
        self.out_of_memory |= call.excinfo is not None and call.excinfo.errisinstance(MemoryError)

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.passed += report.when == "call" and report.outcome == "passed"


def run_pytest(source: str, tests: str) -> str:
    """Run the tests with pytest, the source importable as `solution`; the verdict."""
    import pytest  # optional: only tests of this form need it

    Path("solution.py").write_text(source, encoding="utf-8")
    Path("test_solution.py").write_text(tests, encoding="utf-8")
    sys.path.insert(0, str(Path.cwd()))
    counted = _Counted()
    options = ["-q", "-x", "--disable-plugin-autoload", "-p", "no:cacheprovider", "-p", "no:faulthandler"]
    # Folders above this one can't be read.
    here = ["-c", os.devnull, "--rootdir", ".", "--confcutdir", "."]
    try:
        code = pytest.main([*options, *here, "test_solution.py"], plugins=[counted])
    except BaseException:
        traceback.print_exc()
        return "failed"
    if counted.out_of_memory:
        return "memory"
    return "passed" if code == 0 and 0 < counted.passed == counted.collected else "failed"


RUNNERS: dict[str, Callable[[str, str], str]] = {"script": run_script, "pytest": run_pytest}


def main() -> None:
    job = json.load(sys.stdin)
    # stdin held the token; from here on it is empty.
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    token, pipe, write, leave = job.pop("token"), job["status_pipe"], os.write, os._exit
    isolation = isolate()
    write(pipe, json.dumps({"isolation": isolation}).encode() + b"\n")
    if not all(isolation[name] for name in job["required"]):
        leave(0)
    _limit_resources(job["rlimits"])
    verdict = RUNNERS[job["form"]](job["source"], job["tests"])
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:  # noqa: S110  # the answer may have closed or replaced them
        pass
    status = f'{{"verdict": "{verdict}", "token": "{token if verdict == "passed" else ""}"}}\n'
    write(pipe, status.encode())
    # Not sys.exit: exit handlers and threads of the answer have no more to say.
    leave(0)


if __name__ == "__main__":
    main()
