"""In the front: a request with a memory that could not be woven is refused like any other bad request."""

from typing import Any

from vllm.exceptions import VLLMValidationError

from memgen_vllm.errors import NotServed
from memgen_vllm.memory import memory_of
from memgen_vllm.refusals import check_request, check_server


def checked_inputs(original: Any, self: Any, *args: Any, **kwargs: Any) -> Any:
    """`InputProcessor.process_inputs`, which checks ids against the vocabulary: no user can send virtual ones."""
    core_request = original(self, *args, **kwargs)
    memory = memory_of(core_request.lora_request)
    if memory is not None:
        try:
            check_server(self.vllm_config)
            check_request(memory, core_request, self.model_config.max_model_len)
        except NotServed as error:
            raise VLLMValidationError(str(error)) from error
    return core_request
