"""Every error of the registry. They know no HTTP status: `api/problems.py` maps each class to one.

RegistryError
├── NotFound
│   ├── TaskNotFound
│   ├── TrajectoryNotFound
│   ├── AdapterNotFound
│   ├── VersionNotFound
│   ├── AliasNotFound
│   ├── JobNotFound
│   └── ObjectNotFound
├── Conflict
│   ├── NameTaken
│   ├── StaleAlias            the caller's idea of the current version is out of date
│   ├── NothingToRollBackTo
│   ├── IdempotencyMismatch   the same key with another body
│   └── JobStateConflict      a move that the job's state does not allow
├── Invalid
│   ├── InvalidName
│   ├── InvalidTrajectory     one refused line; carries a machine-readable code
│   ├── InvalidCursor
│   └── EmptyDataset
├── Forbidden
│   ├── UnknownKey
│   ├── MissingScope
│   └── GateNotPassed         only a version that passed its gate may be promoted
└── Unavailable
    ├── NotConfigured         a server URL is missing from the settings
    └── StoreUnavailable      the object store did not answer
"""


class RegistryError(Exception):
    """Root of the tree. The message says what was wrong, what was expected and what to do."""


class NotFound(RegistryError): ...


class TaskNotFound(NotFound): ...


class TrajectoryNotFound(NotFound): ...


class AdapterNotFound(NotFound): ...


class VersionNotFound(NotFound): ...


class AliasNotFound(NotFound): ...


class JobNotFound(NotFound): ...


class ObjectNotFound(NotFound): ...


class Conflict(RegistryError): ...


class NameTaken(Conflict): ...


class StaleAlias(Conflict): ...


class NothingToRollBackTo(Conflict): ...


class IdempotencyMismatch(Conflict): ...


class JobStateConflict(Conflict): ...


class Invalid(RegistryError): ...


class InvalidName(Invalid): ...


class InvalidTrajectory(Invalid):
    """A trajectory that is refused. `code` is stable for programs; the message is for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class InvalidCursor(Invalid): ...


class EmptyDataset(Invalid): ...


class Forbidden(RegistryError): ...


class UnknownKey(Forbidden): ...


class MissingScope(Forbidden): ...


class GateNotPassed(Forbidden): ...


class Unavailable(RegistryError): ...


class NotConfigured(Unavailable): ...


class StoreUnavailable(Unavailable): ...
