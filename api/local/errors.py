"""Every error of the local stack. They know no exit status: the CLI prints the message and ends with 1.

LocalStackError
├── BinaryMissing    a server's program is neither in a wheel nor on PATH
├── PortTaken        another process listens where one of ours must
├── AlreadyRunning   another supervisor holds this home's lock
├── NotRunning       nothing runs in this home
└── ServerFailed     a process did not start, does not answer, or keeps dying
"""


class LocalStackError(Exception):
    """Root of the tree. The message says what was got, what was expected and what to do."""


class BinaryMissing(LocalStackError): ...


class PortTaken(LocalStackError): ...


class AlreadyRunning(LocalStackError): ...


class NotRunning(LocalStackError): ...


class ServerFailed(LocalStackError):
    def __init__(self, found: str, advice: str = "") -> None:
        super().__init__(f"{found}. {advice}" if advice else found)
        self.found, self.advice = found, advice
