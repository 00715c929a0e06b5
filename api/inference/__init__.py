"""How an answer is made, from the endpoint of chat down to an engine and back.

1. `endpoints/chat.py` resolves the model's name to a version, once; `source.py` knows where its bytes are.
2. An engine (`engine.py` is what any of them can) takes the `ChatRequest` and answers with each piece of text, each
   whole answer (`Finished`, with its tokens' bytes from `token_texts.py`), or an error (`requests.py`).
   `local/` decodes in this process; `vllm/` asks a vLLM server that has the project's plugin.
3. `shadows.py` may then ask the shadow of a route the same, in the background, and record how the two answers compare.

The rest of the service knows of the model what `engine.py` says, and nothing more.
"""
