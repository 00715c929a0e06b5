"""MemGen's memories of form `cache` on vLLM: an adapter that is on for a span of the context alone.

`register` is the entry point `vllm.general_plugins`, which vLLM calls in each of its processes. A request names an
artifact by its hash. The front fetches and checks it, the engine core writes the insertion into the prompt as virtual
ids (`memgen_vllm.virtual_ids`), and the worker turns the adapter on for those ids and embeds them.
"""

from memgen_vllm.registration import register

__all__ = ["register"]
