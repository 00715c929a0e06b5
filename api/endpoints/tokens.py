"""The token counter of imports: the length of a conversation for the base model. Knows no row.

Only the tokenizer is loaded, once per process and at the first import: the API holds no weights for it.
"""

import threading
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends
from transformers import PreTrainedTokenizerBase

from api.http.deps import ServicesDep
from memgen.backbone.loading import load_tokenizer
from memgen.text.chat import render_answer, tokenize
from registry.trajectories.imports import TokenLimit

_loading = threading.Lock()


def make_token_limit(tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> TokenLimit:
    tokenize(tokenizer, "")  # the first call may set the tokenizer up, which threads must not do at once

    def count(messages: list[Any], tools: list[Any] | None) -> int:
        try:
            return count_tokens(tokenizer, messages, tools)
        except Exception as error:  # a chat template is foreign code: whatever it raises concerns this line only
            raise ValueError(str(error)) from error

    return TokenLimit(count, max_tokens)


def count_tokens(tokenizer: PreTrainedTokenizerBase, messages: list[Any], tools: list[Any] | None) -> int:
    """Tokens of the longest supervised prompt plus answer, as training will see them.

    Raises:
        ChatTemplateError: the model's template refuses the conversation, or one of its supervised turns.
    """
    longest = 0
    previous: tuple[str, str] | None = None
    for number, message in enumerate(messages):
        if message["role"] != "assistant" or message.get("weight") == 0:
            continue
        prompt, answer = render_answer(tokenizer, messages[: number + 1], tools)
        # Where a turn only continues the one before, as nearly always, the later one is longer:
        # don't tokenize both.
        if previous is not None and not prompt.startswith("".join(previous)):
            longest = max(longest, _length(tokenizer, previous))
        previous = prompt, answer
    return max(longest, _length(tokenizer, previous)) if previous else longest


def token_limit(services: ServicesDep) -> TokenLimit:
    """Dependency; raises ModelNotFound. Tests override it."""
    settings = services.settings
    with _loading:
        return _load(settings.base_model, settings.base_revision, settings.models_dir)


Tokens = Annotated[TokenLimit, Depends(token_limit)]


@cache
def _load(base_model: str, revision: str, models_dir: Path) -> TokenLimit:
    return make_token_limit(*load_tokenizer(base_model, cache_dir=models_dir, revision=revision))


def _length(tokenizer: PreTrainedTokenizerBase, texts: tuple[str, str]) -> int:
    return sum(len(tokenize(tokenizer, text)) for text in texts)
