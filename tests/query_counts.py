"""How many queries a block sends: lists must not ask once for each of their rows."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa


@contextmanager
def record_queries(engine: sa.Engine) -> Iterator[list[str]]:
    """The statements, in order, as they are sent; those of the recorder's threads come when they come."""
    sent: list[str] = []

    def record(connection: object, cursor: object, statement: str, *_: object) -> None:
        if not threading.current_thread().name.startswith("recorder"):
            sent.append(statement)

    sa.event.listen(engine, "before_cursor_execute", record)
    try:
        yield sent
    finally:
        sa.event.remove(engine, "before_cursor_execute", record)
