"""API keys of the caller's project."""

import uuid
from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, Field

from api.http.deps import Admin, ServicesDep
from api.http.schemas import KeyOut, Strict
from registry.database import transaction
from registry.keys import create_key, list_keys, revoke_key

router = APIRouter(prefix="/v1/keys", tags=["keys"])


class KeyIn(Strict):
    name: Annotated[str, Field(min_length=1, max_length=100)]
    scopes: Annotated[list[str], Field(description="Of read, write, train, promote, admin")]


class NewKeyOut(KeyOut):
    key: str
    """Shown this once."""


class KeyList(BaseModel):
    data: list[KeyOut]


@router.post("", status_code=201)
def create(body: KeyIn, services: ServicesDep, caller: Admin) -> NewKeyOut:
    with transaction(services.sessions) as session:
        row, key = create_key(session, caller.project_id, body.name, body.scopes)
        return NewKeyOut(**KeyOut.of(row).model_dump(), key=key)


@router.get("")
def index(services: ServicesDep, caller: Admin) -> KeyList:
    with transaction(services.sessions) as session:
        return KeyList(data=[KeyOut.of(row) for row in list_keys(session, caller.project_id)])


@router.delete("/{key_id}")
def revoke(key_id: uuid.UUID, services: ServicesDep, caller: Admin) -> KeyOut:
    with transaction(services.sessions) as session:
        return KeyOut.of(revoke_key(session, caller.project_id, key_id))
