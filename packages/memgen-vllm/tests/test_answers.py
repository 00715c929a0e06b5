"""An insertion into an answer whose request was preempted while its newest token was on its way (a GPU's scheduler)."""

from typing import Any

from vllm import SamplingParams
from vllm.v1.request import Request

from memgen_vllm import answers
from memgen_vllm.virtual_ids import QUERY


def test_an_insertion_stands_in_front_of_the_newest_token(reference: Any) -> None:
    params = SamplingParams(max_tokens=10, min_tokens=4)
    hashed: list[list[int]] = []

    def hasher(request: Request) -> list[Any]:
        hashed.append(list(request.all_token_ids))
        return []

    request = Request("r", [5, 6, 7], params, None, lora_request=reference.lora("many"), block_hasher=hasher)
    request.append_output_token_ids([8, 9])
    answers._put_in_place(request, [QUERY, QUERY + 1])
    assert list(request.all_token_ids) == [5, 6, 7, 8, QUERY, QUERY + 1, 9]
    assert list(request.output_token_ids) == [8, QUERY, QUERY + 1, 9]
    assert hashed[-1] == list(request.all_token_ids), "blocks are hashed anew"
    assert (request.max_tokens, request.sampling_params.max_tokens, request.sampling_params.min_tokens) == (12, 12, 6)
    assert (params.max_tokens, params.min_tokens) == (10, 4), "other choices of the same request have theirs"
