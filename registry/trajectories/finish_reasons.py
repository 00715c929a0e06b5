"""Why answers ended, in the words of many servers: whether they are whole. Pure."""

_UNFINISHED = frozenset(
    {
        # at a limit of tokens: OpenAI and most others; Anthropic; Google; Mistral
        *("length", "max_tokens", "max_output_tokens", "max_length", "token_limit", "incomplete"),
        *("model_length", "model_context_window_exceeded"),
        # by a filter: OpenAI, Azure, the AI SDK; Google; Bedrock
        *("content_filter", "content_filtered", "safety", "recitation", "blocklist", "prohibited_content", "spii"),
        "guardrail_intervened",
        # by a fault, or by who did not wait: the GenAI conventions, the AI SDK; Google; vLLM and SGLang
        *("error", "malformed_function_call", "abort", "cancelled", "timeout"),
    }
)


def is_unfinished(reason: str | None) -> bool:
    """Whether an answer that ended so was cut off: learned from, it would teach to stop there.

    `length`, `MAX_TOKENS`, `FinishReason.MAX_TOKENS` and `content-filter` are; `stop`, `tool_calls`, a word that is not
    known and None are not.
    """
    return reason is not None and reason.rpartition(".")[2].strip().lower().replace("-", "_") in _UNFINISHED
