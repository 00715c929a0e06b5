"""Keys: hashed, scoped, revocable, and bound to one project."""

import uuid

import pytest

from registry.database import transaction
from registry.errors import Invalid, KeyNotFound, MissingScope, UnknownKey
from registry.keys import authenticate, create_key, ensure_bootstrap_key, list_keys, revoke_key
from registry.models import ApiKey
from registry.wiring import Services


def test_a_key_is_stored_as_a_hash_and_authenticates(services: Services, project_id: uuid.UUID) -> None:
    with transaction(services.sessions) as session:
        row, key = create_key(session, project_id, "ci", ["write", "read", "read"])
        assert key not in (row.key_hash, row.hint)
        found = authenticate(session, key)
    assert (found.project_id, found.scopes) == (project_id, {"read", "write"})
    found.check("write")
    with pytest.raises(MissingScope, match="'ci' lacks the scope 'promote'; it has \\['read', 'write'\\]"):
        found.check("promote")


def test_a_revoked_key_is_unknown(services: Services, project_id: uuid.UUID) -> None:
    with transaction(services.sessions) as session:
        row, key = create_key(session, project_id, "ci", ["read"])
        revoke_key(session, project_id, row.id)
        with pytest.raises(UnknownKey, match="not known or was revoked"):
            authenticate(session, key)
        with pytest.raises(KeyNotFound, match="this project has no key"):
            revoke_key(session, uuid.uuid4(), row.id)


def test_scopes_are_checked(services: Services, project_id: uuid.UUID) -> None:
    with transaction(services.sessions) as session:
        for scopes in (["read", "fly"], []):
            with pytest.raises(Invalid, match="expected one or more of"):
                create_key(session, project_id, "x", scopes)


def test_the_bootstrap_key_is_made_once(services: Services, api_key: str, project_id: uuid.UUID) -> None:
    with transaction(services.sessions) as session:
        ensure_bootstrap_key(session, api_key)
        assert [k.name for k in list_keys(session, project_id)] == ["bootstrap"]
        assert authenticate(session, api_key).scopes == {"admin"}
        assert session.query(ApiKey).count() == 1
