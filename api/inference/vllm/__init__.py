"""The engine `vllm`: answers come from a vLLM server with the plugin `memgen-vllm` (its README has the wire contract).

Everything but the forward pass stays here: prompts are rendered to token ids, text is made of the token ids that come
back, and so stop strings, half characters, thoughts and stamps are those of the engine `local`. The base's weights are
not loaded. A version is named to the server by its artifact, never by an alias, so moving one needs no message to it.

1. `engine.py` takes requests: admission, background answers, what happens when the engine stops.
2. `memories.py` knows what a version's memory is, from its artifact's description, and what the server can't serve.
3. `servers.py` looks after the servers: which are there, with which base, and which one answers next.
4. `wire.py` is the server's own form: bodies, chunks, refusals.
5. `answer.py` makes an answer of tokens.
"""
