"""What an answer says of its own recording."""

import uuid
from dataclasses import dataclass
from typing import Any


@dataclass
class RecordingNote:
    """`memgen.recorded` of a reply. Filled when the answer was taken, before its end is sent."""

    run_id: uuid.UUID | None = None
    reason: str | None = None
    """Why it is not recorded."""

    def describe(self) -> dict[str, Any]:
        return {"run": str(self.run_id) if self.run_id and not self.reason else None, "reason": self.reason}
