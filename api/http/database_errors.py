"""What PostgreSQL's refusals mean for a request: the server is away, or a value was sent that it can't take.

The second is a net: what can be checked before, is. Whatever a client finds that is not, costs it a 422.
"""

from sqlalchemy import exc

from registry.errors import DatabaseUnavailable, Invalid, RegistryError

_READ_ONLY = "25006"
"""The server takes no writes: a standby, in the middle of a failover."""


def domain_error(error: exc.SQLAlchemyError) -> RegistryError | None:
    """The registry's error that this is; None for a bug."""
    if isinstance(error, exc.OperationalError | exc.InterfaceError | exc.TimeoutError | exc.DisconnectionError):
        return _unavailable(error)
    if not isinstance(error, exc.DBAPIError):
        return None
    if error.connection_invalidated or getattr(error.orig, "sqlstate", None) == _READ_ONLY:
        return _unavailable(error)
    if isinstance(error, exc.DataError):
        found = Invalid("a value is out of the range that can be stored: a number too large, a date too far, or a text")
        found.__cause__ = error
        return found
    return None


def _unavailable(error: exc.SQLAlchemyError) -> DatabaseUnavailable:
    # The driver's own text may name hosts and users: it is for the log, through the cause.
    found = DatabaseUnavailable("the database does not answer, or gave up this transaction; send the request again")
    found.__cause__ = error
    return found
