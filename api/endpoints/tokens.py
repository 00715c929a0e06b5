"""The token counter of imports: the length of a conversation for the base model. Knows no row.

Only the base's profile is loaded, once per process and at the first import: the API holds no weights for it.
"""

import threading
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends

from api.http.deps import ServicesDep
from memgen.backbone.loading import load_profile
from memgen.errors import ChatTemplateError
from memgen.text.profile import BaseProfile
from registry.trajectories.imports import TokenLimit

_loading = threading.Lock()


def make_token_limit(profile: BaseProfile, max_tokens: int) -> TokenLimit:
    def count(messages: list[Any], tools: list[Any] | None) -> int:
        try:
            return count_tokens(profile, messages, tools)
        except ChatTemplateError as error:
            raise ValueError(str(error)) from error

    return TokenLimit(count, max_tokens)


def count_tokens(profile: BaseProfile, messages: list[Any], tools: list[Any] | None) -> int:
    """Tokens of the last supervised turn, prompt and answer, as training will see them.

    Every earlier turn is a part of that prompt, so none is longer, and the cost is linear in the conversation.

    Raises:
        ChatTemplateError: the model's template refuses the conversation.
    """
    turns = [n for n, message in enumerate(messages) if message["role"] == "assistant" and message.get("weight") != 0]
    if not turns:
        return 0
    prompt, answer = profile.turn_ids(messages[: turns[-1] + 1], tools)
    return len(prompt) + len(answer)


def token_limit(services: ServicesDep) -> TokenLimit:
    """Dependency; raises ModelNotFound or BaseRefused."""
    settings = services.settings
    with _loading:
        return _load(settings.base_model, settings.base_revision, settings.models_dir)


Tokens = Annotated[TokenLimit, Depends(token_limit)]


@cache
def _load(base_model: str, revision: str, models_dir: Path) -> TokenLimit:
    return make_token_limit(*load_profile(base_model, cache_dir=models_dir, revision=revision))
