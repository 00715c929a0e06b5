"""Kinds of values in requests, as narrow as the columns that they are looked up in. Knows no noun."""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, Field

Number = Annotated[int, Field(ge=0, le=2**31 - 1)]
"""A version's or a route's number, or a count: an integer of four bytes, and never negative."""
SequenceNumber = Annotated[int, Field(ge=0, le=2**63 - 1)]
"""A place in a sequence of rows: an integer of eight bytes."""

_FIRST, _LAST = datetime(1970, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)


def _is_storable(moment: datetime) -> datetime:
    # Compared in UTC, where a zone's offset can lead beyond what a datetime holds.
    try:
        possible = _FIRST <= moment.astimezone(UTC) < _LAST
    except OverflowError:
        possible = False
    if not possible:
        raise ValueError(f"expected a time from {_FIRST.year} on and before {_LAST.year}")
    return moment


Moment = Annotated[AwareDatetime, AfterValidator(_is_storable)]
"""A time with its zone."""
