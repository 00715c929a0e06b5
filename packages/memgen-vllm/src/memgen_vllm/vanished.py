"""In the engine core: a request whose version is gone from this machine, and does not come back, is refused alone.

The front has checked that it is here; then a request may wait for long, and a disk be tidied up meanwhile. What can't
be loaded in the midst of a step ends the engine, and every other answer with it.
"""

import logging
from typing import Any

from memgen_vllm.memory import held_artifact, is_here

_log = logging.getLogger(__name__)


def without_vanished(original: Any, self: Any, *args: Any, **kwargs: Any) -> Any:
    """`Scheduler.schedule`: it finds no request whose version can't be had. Each ends as one of which the grammar can't
    be compiled does: with an error, once this step is over."""
    queues = self.waiting, self.kv_holding_waiting
    versions = {
        each.lora_request.lora_path: each.lora_request for queue in queues for each in queue if each.lora_request
    }
    if lost := {path for path, lora_request in versions.items() if not _is_had(lora_request)}:
        refused = [
            each for queue in queues for each in queue if each.lora_request and each.lora_request.lora_path in lost
        ]
        for queue in queues:
            queue.remove_requests(refused)
        self.grammar_compile_error_reqs.update(each.request_id for each in refused)
    return original(self, *args, **kwargs)


def _is_had(lora_request: Any) -> bool:
    """Whether the version is here, or is now."""
    if is_here(lora_request):
        return True
    try:
        with held_artifact(lora_request):
            return True
    except Exception as error:  # whatever the store and the disk do
        _log.error("requests are refused: artifact %s has vanished, and %s", lora_request.lora_name, error)
        return False
