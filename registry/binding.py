"""What a memory answers to: one base, by its weights (`base_revision`) and by how it reads (`base_identity`).

The identity holds a hash each of the base's tokenizer, chat template and generation config (`memgen.backbone.identity`
makes them; here they are compared). Rows of releases that knew only the revision have none, and get that of the first
process that loads a base of their revision.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import structlog
from sqlalchemy import exists, update
from sqlalchemy.orm import Session, aliased

from registry.errors import BaseChanged
from registry.models import Adapter, Evaluation

log = structlog.get_logger()

PARTS = {
    "tokenizer": "tokenizer (tokenizer.json, tokenizer_config.json, special_tokens_map.json, added_tokens.json)",
    "chat_template": "chat template (chat_template.jinja, or `chat_template` of tokenizer_config.json)",
    "generation_config": "generation config (generation_config.json)",
}
"""The parts of an identity in words, with their files."""

_WAYS_OUT = (
    "A memory answers only to the very prompts that it was trained on: bring the files back as they were and start the "
    "process again, or create a new adapter for the base as it is now"
)


@dataclass(frozen=True)
class ServedBase:
    """The base that a process has loaded."""

    name: str
    revision: str
    identity: Mapping[str, str]


def check_bound(adapter: Adapter, base: ServedBase, *, holder: str = "this service") -> None:
    """Raises BaseChanged, which names what changed, unless the adapter is bound to the base; `holder` has loaded it."""
    if adapter.base_revision != base.revision:
        raise BaseChanged(
            f"adapter {adapter.name!r} is bound to {adapter.base_model} at {adapter.base_revision}; {holder} has "
            f"{base.name} at {base.revision}, so the weights or config.json differ. Start it with that base "
            "(MEMGEN_BASE_MODEL), or create a new adapter"
        )
    if changed := changed_parts(adapter.base_identity, base.identity):
        raise BaseChanged(
            f"adapter {adapter.name!r} is bound to {adapter.base_model} with another {' and another '.join(changed)} "
            f"than {holder} has. {_WAYS_OUT}"
        )


def changed_parts(one: Mapping[str, Any] | None, other: Mapping[str, Any] | None) -> list[str]:
    """In words, the parts in which two identities differ. One that isn't known, or lacks a part, differs in nothing."""
    one, other = one or {}, other or {}
    names = [name for name in (*PARTS, *sorted(one.keys() - PARTS.keys())) if name in one and name in other]
    return [PARTS.get(name, name) for name in names if one[name] != other[name]]


def bind_unbound(session: Session, base: ServedBase) -> list[str]:
    """Bind what has the base's revision and no identity, of all projects, to the base's identity.

    Adapters, and scores of the bare base and of versions, that stem from a release which knew only the revision.
    Returns the names of the adapters.
    """
    identity = dict(base.identity)
    of_adapters = Adapter.base_revision == base.revision, Adapter.base_identity.is_(None)
    names = session.scalars(update(Adapter).where(*of_adapters).values(base_identity=identity).returning(Adapter.name))
    bound = sorted(names)
    known = aliased(Evaluation)
    same_place = [
        getattr(known, name).is_not_distinct_from(getattr(Evaluation, name))
        for name in ("suite_id", "base_model", "base_revision", "version_id")
    ]
    # A score that an older process recorded beside one of this release stays as it is, and is read by no one.
    session.execute(
        update(Evaluation)
        .where(Evaluation.base_revision == base.revision, Evaluation.base_identity.is_(None))
        .where(~exists().where(*same_place, known.base_identity == identity))
        .values(base_identity=identity)
        .execution_options(synchronize_session=False)
    )
    if bound:
        log.info("adapters of an earlier release are bound to the base as it is now", adapters=bound, base=base.name)
    return bound
