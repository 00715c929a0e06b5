"""Everything that a call can fail with.

ClientError
├── ApiError              the service answered and refused: `status`, `code`, `detail`, `param`, `advice`
│   ├── BadRequest          400
│   ├── NotAuthenticated    401  no key, or none that the service knows
│   ├── NotAllowed          403  the key's scopes, or the state of what was asked for, do not allow it
│   ├── NotFound            404
│   ├── Conflict            409  not with what is there: the state has moved, or the name is taken
│   ├── TooLarge            413
│   ├── Invalid             422  what was sent is not valid; `param` names the place
│   ├── Busy                429  come again in `retry_after` seconds
│   └── ServiceFailed       5xx  the fault is not the caller's
│       └── Unavailable     502, 503, 504, 529  it may work later
├── ApiUnreachable        no answer: nothing listens there, it broke off, or it took too long
├── UnexpectedReply       an answer that is not this service's, or not of a form that this client knows
├── JobEnded              a job that was waited for failed or was cancelled
└── WaitTimedOut          a job that was waited for goes on
"""

from collections.abc import Callable, Mapping

from memgen_client.advice import ADVICE


class ClientError(Exception):
    """Root of the tree."""

    def __reduce__(self) -> tuple[Callable[..., "ClientError"], tuple[object, ...]]:
        """Errors travel between processes, whatever their class is made of."""
        return _again, (type(self), self.args, self.__dict__)


def _again(kind: type[ClientError], args: tuple[object, ...], state: Mapping[str, object]) -> ClientError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


class ApiError(ClientError):
    """The service refused. `code` is stable for programs (docs/errors.md); `detail` and `advice` are for people."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        param: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        """
        Args:
            param: place of the fault in what was sent, such as `training.steps`; None where it has none.
            request_id: what the service's log calls the request.
            retry_after: seconds after which the service asks to be tried again.
        """
        super().__init__(detail)
        self.status, self.code, self.detail, self.param = status, code, detail, param
        self.request_id, self.retry_after = request_id, retry_after

    def __str__(self) -> str:
        request = f", request {self.request_id}" if self.request_id else ""
        return f"{self.detail} ({self.status} {self.code}{request})"

    @property
    def advice(self) -> str:
        """What to do about it; empty for a code that this client does not know."""
        return ADVICE.get(self.code, "")


class BadRequest(ApiError): ...


class NotAuthenticated(ApiError): ...


class NotAllowed(ApiError): ...


class NotFound(ApiError): ...


class Conflict(ApiError): ...


class TooLarge(ApiError): ...


class Invalid(ApiError): ...


class Busy(ApiError): ...


class ServiceFailed(ApiError): ...


class Unavailable(ServiceFailed): ...


_KINDS: dict[int, type[ApiError]] = {
    400: BadRequest,
    401: NotAuthenticated,
    403: NotAllowed,
    404: NotFound,
    409: Conflict,
    413: TooLarge,
    422: Invalid,
    429: Busy,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
    529: Unavailable,
}


def error_class(status: int) -> type[ApiError]:
    """The class of a refusal with this status."""
    return _KINDS.get(status, ServiceFailed if status >= 500 else ApiError)


class ApiUnreachable(ClientError):
    """`was_sent`: the service may have got the request, so that a second one might do a thing twice."""

    def __init__(self, url: str, reason: str, *, was_sent: bool = True) -> None:
        super().__init__(
            f"No answer from the API at {url} ({reason}). Start it with `memgen up`, or set MEMGEN_API_URL to where "
            "it runs."
        )
        self.url, self.was_sent = url, was_sent


class UnexpectedReply(ClientError): ...


class JobEnded(ClientError):
    """`state` is `failed` or `cancelled`; `error` is what the job said of it."""

    def __init__(self, job_id: str, state: str, error: str | None) -> None:
        verb, reason = "has" if state == "failed" else "was", f": {error}" if error else ""
        super().__init__(f"job {job_id} {verb} {state}{reason}")
        self.job_id, self.state, self.error = job_id, state, error


class WaitTimedOut(ClientError):
    def __init__(self, job_id: str, seconds: float) -> None:
        super().__init__(f"job {job_id} has not ended within {seconds:g} s; it goes on, and may be waited for again")
        self.job_id = job_id
