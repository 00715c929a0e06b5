"""In the engine core: insertions inside an answer.

vLLM's streaming-input sessions drop the newest token, which no step has read yet, keep every block of the cache, and
append the next input. Appending `queries, newest token` is exactly an insertion in front of the newest token: K + 1
tokens to read, nothing again; the front sees an ordinary running request. A session also counts the answer so far as
prompt. Here it stays answer, the virtual ids in it too, as in a request that goes on after a preemption, and the limits
that count tokens (`max_tokens`, `min_tokens`) are raised by as many. So penalties, limits, stop tokens and a grammar
go on as if nothing stood between.
"""

import copy
import itertools
import time
from collections import deque
from typing import Any

from vllm.tokenizers.registry import cached_tokenizer_from_config
from vllm.v1.request import RequestStatus, StreamingUpdate

from memgen.config import MemoryConfig
from memgen.text.delimiters import DelimiterMatcher
from memgen_vllm.memory import memory_of
from memgen_vllm.virtual_ids import plain, woven_inside

_COUNT = "memgen_insertions"
_WEAVES = "memgen_weaves"


def after_output(original: Any, self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
    """`Scheduler._update_request_with_output`: a request stops at a decision point.

    Its status stays RUNNING, so that no reason to finish is reported.
    """
    new_token_ids, stopped = original(self, request, *args, **kwargs)
    memory = memory_of(request.lora_request)
    if stopped or not new_token_ids or memory is None or not memory.weaves:
        return new_token_ids, stopped
    done = getattr(request, _COUNT, 0)
    if done >= memory.config.max_insertions or not _ends_sentence(self, request, memory.config):
        return new_token_ids, False
    setattr(request, _COUNT, done + 1)
    if request.status != RequestStatus.RUNNING:
        # Preempted while its token was on its way: it is read anew from the start, with what is put into it here.
        _put_in_place(request, woven_inside(memory.config))
        return new_token_ids, False
    setattr(request, _WEAVES, True)
    return new_token_ids, True


def handle_stopped(original: Any, self: Any, request: Any) -> bool:
    """`Scheduler._handle_stopped_request`: False, as for a session that has its next input."""
    if not getattr(request, _WEAVES, False):
        return bool(original(self, request))
    setattr(request, _WEAVES, False)
    memory = memory_of(request.lora_request)
    if memory is None:
        raise RuntimeError("a request without a memory was to be woven")
    queries, prompt_length = woven_inside(memory.config), request.num_prompt_tokens
    _raise_limits(request, len(queries))
    update = StreamingUpdate(
        mm_features=None,
        prompt_token_ids=[*queries, request.all_token_ids[-1]],
        max_tokens=request.max_tokens,
        arrival_time=request.arrival_time,
        sampling_params=request.sampling_params,
    )
    request.resumable, request.streaming_queue = True, deque([update])
    finished = bool(original(self, request))
    request.resumable, request.streaming_queue = False, None
    del request.prompt_token_ids[prompt_length:]
    request.num_prompt_tokens = prompt_length
    request._output_token_ids.extend(request._all_token_ids[prompt_length:])
    return finished


def with_room(original: Any, self: Any, *args: Any, **kwargs: Any) -> Any:
    """`Scheduler.schedule`: where every answer stands at an insertion and the cache is full, one gives its room away.

    vLLM takes room only from requests that run. An insertion lets its request wait, with all of its blocks: if none
    runs any more, and those that wait find no block, they would wait forever.
    """
    output = original(self, *args, **kwargs)
    if output.total_num_scheduled_tokens or self.running:
        return output
    woven = [request for request in self.kv_holding_waiting if hasattr(request, _COUNT)]
    if len(woven) > 1:
        last = woven[-1]
        self.kv_holding_waiting.remove_request(last)
        last.status = RequestStatus.RUNNING
        self._preempt_request(last, time.monotonic())
        # Not PREEMPTED: the worker has not heard of its insertion yet.
        last.status = RequestStatus.WAITING
    return output


def with_answer(original: Any, request: Any, block_ids: Any, prefill_token_ids: Any = None, **kwargs: Any) -> Any:
    """`NewRequestData.from_request`: a request that goes on takes along its answer so far."""
    if prefill_token_ids is None and hasattr(request, _COUNT):
        prefill_token_ids = list(request.all_token_ids)
    return original(request, block_ids, prefill_token_ids, **kwargs)


def _put_in_place(request: Any, queries: list[int]) -> None:
    """Put an insertion in front of the newest token of a request of which nothing is read."""
    _raise_limits(request, len(queries))
    for tokens in (request._all_token_ids, request._output_token_ids):
        tokens[-1:-1] = queries
    request.block_hashes.clear()
    request.update_block_hashes()


def _raise_limits(request: Any, count: int) -> None:
    """Virtual ids stand among the answer's tokens, and are none of them."""
    params = copy.copy(request.sampling_params)
    params.max_tokens += count
    if params.min_tokens:
        params.min_tokens += count
    request.sampling_params = params
    request.max_tokens += count


def _ends_sentence(scheduler: Any, request: Any, config: MemoryConfig) -> bool:
    tokenizer = cached_tokenizer_from_config(scheduler.vllm_config.model_config)
    matcher = DelimiterMatcher.of(tokenizer, config.delimiters)
    tail = list(itertools.islice(plain(reversed(request.all_token_ids)), matcher.reach))[::-1]
    return matcher.ends_sentence(tail, len(tail) - 1)
