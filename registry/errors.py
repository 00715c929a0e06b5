"""Every error of the registry. They know no HTTP status: `api/http/problems.py` maps each class to one.

RegistryError
├── NotFound
│   ├── TaskNotFound
│   ├── TrajectoryNotFound
│   ├── AdapterNotFound
│   ├── VersionNotFound
│   ├── AliasNotFound
│   ├── GateNotFound          the version's gate has not run
│   ├── AnalysisNotFound      no job has analyzed the version, or what it found was removed
│   ├── RouteNotFound
│   ├── CompletionNotFound    no exposure to attribute feedback to
│   ├── RunNotFound
│   ├── ResponseNotFound      not recorded, expired or deleted
│   ├── JobNotFound
│   ├── DeletionNotFound
│   ├── KeyNotFound
│   ├── ScheduleNotFound
│   ├── WebhookNotFound
│   ├── DeliveryNotFound      an event's delivery to a webhook
│   ├── LoopNotFound
│   ├── UpstreamNotFound      no upstream of that name, or one that may not be asked for that model
│   ├── JudgeNotFound
│   └── ObjectNotFound
├── Conflict
│   ├── NameTaken
│   ├── BaseChanged           an adapter is bound to another base than the one that is loaded
│   ├── StaleAlias            the caller's idea of the current version is out of date
│   ├── NothingToRollBackTo
│   ├── DeletionChanged       another number of trajectories would be deleted than in the dry run
│   ├── PolicyKeepsWords      versions hold the data word for word, and the policy would leave them
│   ├── SnapshotOutdated      trajectories of it were deleted before it was recorded
│   ├── NothingToDecide       the version's gate does not wait for a person
│   ├── VersionNeeded         an alias, a route, a child or a job holds the version
│   ├── RouteRunning          an adapter has one live route at most
│   ├── RouteEnded
│   ├── FeedbackDiffers       the same source has reported another reward already
│   ├── RewardDiffers         the same source has given the trajectory another reward already
│   ├── WebhookDisabled       nothing is sent to it
│   ├── TooManyWebhooks       as many as a project may have
│   ├── IdempotencyMismatch   the same key with another body
│   ├── JudgeBusy             a job of the judge on this task is queued or runs
│   └── JobStateConflict      a move that the job's state does not allow
├── Invalid
│   ├── InvalidName
│   ├── InvalidArchive        an exported version that is broken, or made for another base
│   ├── InvalidSchedule
│   ├── InvalidJson           a text or value that can't be stored as JSON; carries a machine-readable code
│   ├── InvalidTrajectory     one refused line; carries a machine-readable code
│   ├── InvalidCursor
│   ├── InvalidRoute
│   ├── InvalidWebhook
│   ├── NotForUpstreams       the path does not serve the models of upstreams
│   ├── AddressRefused        the service does not connect to that address
│   └── EmptyDataset
├── Forbidden
│   ├── UnknownKey
│   ├── SignInEnded           nobody is signed in to the dashboard, or no longer
│   ├── ForgedForm            a form that no page of the dashboard has sent
│   ├── MissingScope
│   ├── VersionNotServable    archived, withdrawn, or its bytes were purged
│   ├── LearnedDeleted        an archive of what learned data that was deleted here
│   └── GateNotPassed         only a version that passed its gate may be promoted
├── UnreadableRow             stored JSON of a job or a dataset that this release can't read
├── Busy                      too much waits already; carries when to come again
│   └── UpstreamBusy          as many requests as the upstream's setting allows are with it
├── TimedOut                  it was begun, and not done in the time that the caller or the service gives it
│   └── OutboundTimedOut      a server that the service asked did not answer in time
├── OutboundFailed            a server that the service asked could not be reached, broke off, or sent no sense
└── Unavailable
    ├── NotConfigured         a server URL is missing from the settings
    ├── DatabaseUnavailable   PostgreSQL is away, or gave a transaction up
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


class GateNotFound(NotFound): ...


class AnalysisNotFound(NotFound): ...


class RouteNotFound(NotFound): ...


class CompletionNotFound(NotFound): ...


class RunNotFound(NotFound): ...


class ResponseNotFound(NotFound): ...


class JobNotFound(NotFound): ...


class DeletionNotFound(NotFound): ...


class KeyNotFound(NotFound): ...


class ScheduleNotFound(NotFound): ...


class WebhookNotFound(NotFound): ...


class DeliveryNotFound(NotFound): ...


class LoopNotFound(NotFound): ...


class UpstreamNotFound(NotFound): ...


class JudgeNotFound(NotFound): ...


class ObjectNotFound(NotFound): ...


class Conflict(RegistryError): ...


class NameTaken(Conflict): ...


class BaseChanged(Conflict): ...


class StaleAlias(Conflict): ...


class NothingToRollBackTo(Conflict): ...


class DeletionChanged(Conflict): ...


class PolicyKeepsWords(Conflict): ...


class SnapshotOutdated(Conflict): ...


class NothingToDecide(Conflict): ...


class VersionNeeded(Conflict): ...


class RouteRunning(Conflict): ...


class RouteEnded(Conflict): ...


class FeedbackDiffers(Conflict): ...


class RewardDiffers(Conflict): ...


class WebhookDisabled(Conflict): ...


class TooManyWebhooks(Conflict): ...


class IdempotencyMismatch(Conflict): ...


class JudgeBusy(Conflict): ...


class JobStateConflict(Conflict): ...


class Invalid(RegistryError): ...


class InvalidName(Invalid): ...


class InvalidArchive(Invalid): ...


class InvalidSchedule(Invalid): ...


class InvalidJson(Invalid):
    """A text or value that can't be stored as JSON. `code` is stable for programs; the message is for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class InvalidTrajectory(Invalid):
    """A trajectory that is refused. `code` is stable for programs; the message is for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class InvalidCursor(Invalid): ...


class InvalidRoute(Invalid): ...


class InvalidWebhook(Invalid): ...


class NotForUpstreams(Invalid): ...


class AddressRefused(Invalid): ...


class EmptyDataset(Invalid): ...


class Forbidden(RegistryError): ...


class UnknownKey(Forbidden): ...


class SignInEnded(Forbidden): ...


class ForgedForm(Forbidden): ...


class MissingScope(Forbidden): ...


class VersionNotServable(Forbidden): ...


class LearnedDeleted(Forbidden): ...


class GateNotPassed(Forbidden): ...


class UnreadableRow(RegistryError): ...


class Busy(RegistryError):
    def __init__(self, message: str, retry_seconds: int) -> None:
        super().__init__(message)
        self.retry_seconds = retry_seconds


class UpstreamBusy(Busy): ...


class TimedOut(RegistryError): ...


class OutboundTimedOut(TimedOut): ...


class OutboundFailed(RegistryError): ...


class Unavailable(RegistryError): ...


class NotConfigured(Unavailable): ...


class DatabaseUnavailable(Unavailable): ...


class StoreUnavailable(Unavailable): ...
