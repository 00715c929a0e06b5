"""`version.json`, an archive's description of its version, read strictly. Knows neither bytes nor rows.

It comes from outside, ends up in rows, object keys and answers, and is stored as it was read: so everything that later
readers rely on is checked here. Fields that newer releases may add are left out.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from registry.errors import InvalidArchive, InvalidJson
from registry.gates.verdict import Verdict
from registry.json_text import canonical_json, parse_json, show
from registry.names import NAME_PATTERN
from registry.tasks import MAX_SHARED_TURNS

FORMAT = 1
DESCRIPTION = "version.json"
MAX_JSON_BYTES = 8_000_000
"""Longest JSON file of an archive: read whole, it may take some twenty times as much memory."""

Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Number = Annotated[int, Field(ge=1, lt=2**31)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


class _Ancestor(_Strict):
    number: Number
    task: Name
    dataset_hash: Sha256
    dataset: dict[str, Any]
    """The dataset's manifest."""
    artifact_hash: Sha256
    code_version: str


class _Grader(_Strict):
    model_config = ConfigDict(strict=True, extra="allow")
    kind: str


class _Task(_Strict):
    name: Name
    grader: _Grader
    holdout_share: Annotated[float, Field(gt=0, lt=1)]
    # Archives that are older than this field have none.
    shared_turns: Annotated[int, Field(ge=0, le=MAX_SHARED_TURNS)] = 0
    description: str


class _Description(_Strict):
    format: int
    adapter: Name
    number: Number
    verdict: Verdict
    reasons: list[str] = []
    strategy: Literal["sequential", "replay", "isolated"] | None = None
    memory: dict[str, Any]
    """Settings of the origin's adapter."""
    form: Literal["cache", "embedding", "lora"] | None = None
    """The version's own; archives that are older than this field are of the form that `memory` says."""
    base_model: str
    base_revision: str
    base_identity: dict[str, str] | None = None
    """Archives of releases that knew only the revision have none."""
    code_version: str
    artifact_hash: Sha256
    created_at: str | None = None
    lineage: Annotated[list[_Ancestor], Field(min_length=1)]
    """The versions from the first ancestor to the version itself."""
    tasks: Annotated[list[_Task], Field(min_length=1)]
    parts: dict[Name, Sha256] = {}


class _Report(_Strict):
    model_config = ConfigDict(strict=True, extra="allow")
    flags: list[str]
    losses: list[float] = []


def read_description(data: bytes) -> dict[str, Any]:
    """The description, its optional fields filled in. Raises InvalidArchive at the first fault, by its field."""
    found = read_object(data, DESCRIPTION)
    if found.get("format") != FORMAT:
        raise InvalidArchive(f"the archive has format {show(found.get('format'))}; this service reads {FORMAT}")
    description = _checked(_Description, found, DESCRIPTION)
    names = [task["name"] for task in description["tasks"]]
    for place, name in enumerate(names):
        if name in names[:place]:
            raise InvalidArchive(f"{DESCRIPTION}: tasks.{place}.name is {show(name)} again; expected each task once")
    for place, ancestor in enumerate(description["lineage"]):
        if ancestor["task"] not in names:
            raise InvalidArchive(
                f"{DESCRIPTION}: lineage.{place}.task is {show(ancestor['task'])}; expected one of its `tasks`: "
                f"{', '.join(names[:5])}"
            )
    if (own := description["lineage"][-1]["artifact_hash"]) != description["artifact_hash"]:
        raise InvalidArchive(
            f"{DESCRIPTION}: the lineage ends with artifact_hash {own}; expected {description['artifact_hash']}, that "
            "of the version itself"
        )
    return description


def read_report(data: bytes, name: str) -> dict[str, Any]:
    """A training report, as later readers expect it. Raises InvalidArchive."""
    return _checked(_Report, read_object(data, name), name)


def check_json_size(size: int, name: str) -> None:
    """Raises InvalidArchive."""
    if size > MAX_JSON_BYTES:
        raise InvalidArchive(f"{name} has {size} bytes; expected at most {MAX_JSON_BYTES}")


def read_object(data: bytes, name: str) -> dict[str, Any]:
    """A JSON object that the database can store; `name` is the file's. Raises InvalidArchive."""
    try:
        found = parse_json(data)
        canonical_json(found)
    except InvalidJson as error:
        raise InvalidArchive(f"{name}: {error}") from error
    if not isinstance(found, dict):
        raise InvalidArchive(f"{name} is {show(found)}; expected an object")
    return found


def _checked(model: type[BaseModel], found: dict[str, Any], name: str) -> dict[str, Any]:
    try:
        return model.model_validate(found).model_dump()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))[:200]
        if first["type"] == "missing":
            raise InvalidArchive(f"{name}: {place} is missing; expected the file as it was exported") from error
        rule = first["msg"]
        expected = rule.replace("Input should be", "expected") if rule.startswith("Input") else f"expected: {rule}"
        raise InvalidArchive(f"{name}: {place} is {show(first['input'])}; {expected}") from error
