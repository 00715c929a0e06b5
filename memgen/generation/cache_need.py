"""What an answer may need of the caches at most: whoever lets it begin knows that it will never fail for room."""

from memgen.backbone.kv_cache import KVShape
from memgen.backbone.row_caches import capacity_for
from memgen.generation.requests import GenerationRequest
from memgen.memory.host import AdapterHost


def cache_need(host: AdapterHost, request: GenerationRequest) -> int:
    """Bytes for prompt, all that may be woven, and an answer of the greatest length; for the weaver's and trigger's own
    streams where the memory has such; and for a cue."""
    shape = host.backbone.decoder.kv_shape
    tokens = len(request.prompt_ids) + request.sampling.max_new_tokens
    if request.memory is None:
        return _bytes(shape, tokens)
    config = host.memories[request.memory].config
    context = tokens + config.most_latents + len(config.tokens_to_reread(request.prompt_ids))
    need = _bytes(shape, context)
    if config.form == "embedding":
        # The queries stand behind the context for a moment.
        queries = max(config.latents, config.inference_latents)
        weaver = host.weaver_base(config).decoder.kv_shape
        need += _bytes(weaver, len(request.cue_ids) + context + queries)
        need += _bytes(shape, tokens) if config.trigger == "lora" else 0
    elif request.cue_ids:
        # While it is read, and then beside the row.
        need += 2 * _bytes(shape, len(request.cue_ids))
    return need


def _bytes(shape: KVShape, tokens: int) -> int:
    return capacity_for(tokens) * shape.bytes_per_token
