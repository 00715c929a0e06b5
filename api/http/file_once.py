"""A reply that is a file made for it alone."""

from pathlib import Path

from fastapi.responses import FileResponse
from starlette.types import Receive, Scope, Send


class FileOnce(FileResponse):
    """A file that is gone once it was sent, or the client went away."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            Path(self.path).unlink(missing_ok=True)
