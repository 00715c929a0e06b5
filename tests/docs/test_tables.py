"""Tables and examples that show what the code has: fields of requests and replies, keys of a file, states, reasons."""

import json
import re
import tomllib
from dataclasses import fields
from typing import Any

import pytest
from pydantic import BaseModel

from api.endpoints.chat_models import ChatIn
from api.endpoints.completion_models import CompletionIn
from api.endpoints.feedback import FeedbackOut
from api.endpoints.message_models import MessageIn
from api.endpoints.response_models import ResponseIn
from api.recording.answers import RAW_PROMPT
from api.recording.moving import UNREADABLE
from api.recording.recorder import DISK, SPOOL_FULL
from registry.models import RECORDING_MODES
from registry.models.judging import JUDGEMENT_STATES
from registry.models.loops import LOOP_STATES
from registry.recordings import policies
from registry.recordings.call import SampledAnswer
from registry.recordings.joining import DELETED, TOO_LARGE
from registry.recordings.recorders import LOST
from registry.trajectories.formats.envelope import ENVELOPE
from registry.upstreams import Upstream
from tests.docs.pages import ROOT, blocks, spans, table

OPENAI = " ".join(spans(ROOT / "docs" / "openai.md"))
REASONS = {
    *(policies.NOT_REQUESTED, policies.OFF, policies.STORE_FALSE, policies.NOT_SAMPLED),
    *(policies.NO_TASK, policies.TASK_UNKNOWN, RAW_PROMPT, SPOOL_FULL, DISK, TOO_LARGE, DELETED, UNREADABLE, LOST),
}
"""Why an answer is not recorded."""
DEFAULTS: dict[str, Any] = {"none": None, "all": (), "false": False}


@pytest.mark.parametrize("body", [ChatIn, CompletionIn, MessageIn, ResponseIn])
def test_every_field_of_a_request_is_on_the_page(body: type[BaseModel]) -> None:
    assert {name for name in body.model_fields if not re.search(rf"\b{name}\b", OPENAI)} == set()


def test_every_key_of_the_file_of_upstreams_has_its_default() -> None:
    _, rows = table("docs/gateway.md", "key")
    shown: dict[str, Any] = {}
    for keys, defaults, _ in rows:
        names = re.findall(r"`(\w+)`", keys)
        values = [value.strip("` ") for value in defaults.split(",")]
        shown |= dict(zip(names, values if len(values) == len(names) else values * len(names), strict=True))
    keys_of_the_file = {key: field for key, field in Upstream.model_fields.items() if key not in ("name", "api_key")}
    assert set(shown) == set(keys_of_the_file)
    for name, field in keys_of_the_file.items():
        if field.is_required():
            assert shown[name] == "", name
        else:
            default = field.get_default(call_default_factory=True)
            value = DEFAULTS[shown[name]] if shown[name] in DEFAULTS else float(shown[name])
            assert (value or None) == (default or None), name


def test_the_shown_file_of_upstreams_is_one() -> None:
    [shown] = [block for block in blocks(ROOT / "docs" / "gateway.md") if "base_url = " in block]
    for name, keys in tomllib.loads(shown).items():
        assert Upstream(name=name, **keys).has_key


def test_the_shown_reply_to_feedback_has_all_its_fields() -> None:
    [shown] = [block for block in blocks(ROOT / "docs" / "feedback.md") if block.startswith('{"id"')]
    FeedbackOut.model_validate_json(shown)
    assert json.loads(shown).keys() == FeedbackOut.model_fields.keys()


def test_the_shown_line_of_an_upload_has_the_whole_envelope() -> None:
    [shown] = [block for block in blocks(ROOT / "README.md") if block.startswith('{"messages"')]
    assert re.findall(r'"(\w+)": ', shown) == ["messages", "tools", *(field.name for field in ENVELOPE)]


def test_every_reason_and_mode_of_recording_has_its_row() -> None:
    _, rows = table("docs/recording.md", "reason")
    assert sorted(code for row in rows for code in re.findall(r"`(\w+)`", row[0])) == sorted(REASONS)
    _, rows = table("docs/recording.md", "mode")
    assert sorted(re.findall(r"`(\w+)`", row[0])[0] for row in rows) == sorted(RECORDING_MODES)


def test_every_field_of_what_was_sampled_has_its_row() -> None:
    _, rows = table("docs/recording.md", "field")
    kept = {field.name for field in fields(SampledAnswer)} | {"model", "prompt_kept"}
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row[0])} == kept


def test_every_state_of_a_loop_has_its_row() -> None:
    _, rows = table("docs/loop.md", "state")
    assert sorted(row[0].strip("`") for row in rows) == sorted(set(LOOP_STATES) - {"running"})


def test_every_state_of_a_judgement_has_its_row() -> None:
    _, rows = table("docs/judges.md", "state of a judgement")
    assert sorted(row[0].strip("`") for row in rows) == sorted(JUDGEMENT_STATES)
