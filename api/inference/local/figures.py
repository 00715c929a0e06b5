"""What an engine in this process is doing, for whoever observes it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class EngineFigures:
    """As of the last step; a new one is put in its place after each."""

    running: int = 0
    """Answers that are decoded, or whose prompts are being read."""
    waiting: int = 0
    """Requests that wait, those whose prompts are being rendered and whose versions are being loaded included."""
    waiting_tokens: int = 0
    """About how many tokens those are to read and write."""
    loading: int = 0
    """Versions that are being loaded."""
    cache_bytes: int = 0
    """What the caches of running answers hold."""
    cache_need_bytes: int = 0
    """What running answers may need of it at most."""
    cache_budget_bytes: int = 0
    generated_tokens: int = 0
    """Tokens of all answers since the process began."""
    read_tokens: int = 0
    """Prompt tokens that were read since the process began, those that were known left out."""
