"""A base described for people and programs: which it is, how it reads conversations, or why it is refused."""

from typing import Any

from memgen.backbone.loading import Backbone, BaseFiles
from memgen.errors import BaseRefused
from memgen.text.profile_summary import example, summarize


def describe(base: Backbone | BaseFiles) -> dict[str, Any]:
    """As JSON; where the base is refused, `refused` says why, and there is no profile."""
    described: dict[str, Any] = {
        "name": base.name,
        "revision": base.revision,
        "identity": base.identity.to_mapping(),
        "context_tokens": base.max_tokens,
    }
    try:
        profile = base.profile
    except BaseRefused as error:
        return described | {"accepted": False, "refused": str(error), "profile": None, "example": None}
    return described | {
        "accepted": True,
        "refused": None,
        "profile": summarize(profile),
        "example": example(profile),
    }
