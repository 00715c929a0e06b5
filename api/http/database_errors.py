"""What PostgreSQL's refusals mean for a request: the server is away, or a value was sent that it can't take.

The second is a net: what can be checked before, is. Whatever a client finds that is not, costs it a 422.
"""

from sqlalchemy import exc

from registry.database import is_beyond_limits, may_pass
from registry.errors import DatabaseUnavailable, Invalid, RegistryError


def domain_error(error: exc.SQLAlchemyError) -> RegistryError | None:
    """The registry's error that this is; None for a bug."""
    found: RegistryError
    if may_pass(error):
        found = DatabaseUnavailable("the database does not answer, or gave up this transaction; send the request again")
    elif is_beyond_limits(error):
        found = Invalid("a value is larger, or nested more deeply, than can be stored; send less")
    elif isinstance(error, exc.DataError):
        found = Invalid("a value is out of the range that can be stored: a number too large, a date too far, or a text")
    else:
        return None
    # The driver's own text may name hosts and users: it is for the log, through the cause.
    found.__cause__ = error
    return found
