"""`memgen base check`: how a base reads conversations, or why it can't be worked with; no service runs."""

import json
import shutil
from pathlib import Path

import pytest

from memgen.backbone.loading import find_identity, find_revision
from memgen.text.profile_summary import SPELLED
from tests.api.cli.invoking import fail, memgen, succeed
from tests.memgen.template_samples import HERMES

REFUSED = "{{ raise_exception('only pictures') }}"


def test_the_base_that_is_set_is_described_in_words(
    tiny_base: Path, no_service: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMGEN_BASE_MODEL", str(tiny_base))
    shown = succeed("base", "check").out
    assert f"{tiny_base} can be worked with." in shown
    assert "spelled: a line with the expected call for each" in shown
    assert "generation stops at            <|im_end|> (2)" in shown
    assert '{"name": "get_weather", "arguments": {"city": <string: Its name>}}' in shown
    assert shown == succeed("base", "check", str(tiny_base)).out


def test_as_json_it_is_what_programs_need(tiny_base: Path, no_service: Path) -> None:
    found = succeed("base", "check", str(tiny_base), "--json").document
    place = {"cache_dir": no_service}
    assert found["revision"] == find_revision(str(tiny_base), **place)
    assert found["identity"] == find_identity(str(tiny_base), **place).to_mapping()
    assert (found["accepted"], found["refused"], found["context_tokens"]) == (True, None, 1024)
    profile = found["profile"]
    assert (profile["tools"], profile["calls"], profile["arguments"]) == (SPELLED, SPELLED, None)
    assert profile["stop_tokens"] == [{"id": 2, "text": "<|im_end|>"}]
    assert found["example"]["call"] == (
        '<tool_call>{"name": "get_weather", "arguments": {"city": "Bern"}}</tool_call><|im_end|>'
    )
    assert found["example"]["prompt"].endswith("<|im_start|>assistant\n")


def test_another_template_is_tried_with_the_models_tokenizer(tiny_base: Path, no_service: Path, tmp_path: Path) -> None:
    file = tmp_path / "hermes.jinja"
    file.write_text(HERMES)
    tried = succeed("base", "check", str(tiny_base), "--template", str(file), "--json").document
    own = succeed("base", "check", str(tiny_base), "--json").document
    assert (tried["profile"]["tools"], tried["profile"]["calls"]) == ("native", "native")
    differs = {part for part in own["identity"] if own["identity"][part] != tried["identity"][part]}
    assert differs == {"chat_template"}
    edited = Path(shutil.copytree(tiny_base, tmp_path / "edited"))
    (edited / "chat_template.jinja").write_text(HERMES)
    assert succeed("base", "check", str(edited), "--json").document["identity"] == tried["identity"]


def test_what_is_refused_ends_with_1_and_the_reason(tiny_base: Path, no_service: Path, tmp_path: Path) -> None:
    file = tmp_path / "pictures.jinja"
    file.write_text(REFUSED)
    assert "can't be worked with: a question and its answer" in fail(
        "base", "check", str(tiny_base), "--template", str(file)
    )
    done = memgen("base", "check", str(tiny_base), "--template", str(file), "--json")
    assert done.code == 1
    refused = json.loads(done.out)
    assert (refused["accepted"], refused["profile"], refused["example"]) == (False, None, None)
    assert "only pictures" in refused["refused"]
    file.write_bytes(b"\xff\xfe{")
    assert "is not UTF-8 text" in fail("base", "check", str(tiny_base), "--template", str(file))
    (tmp_path / "empty").mkdir()
    assert "expected config.json" in fail("base", "check", str(tmp_path / "empty"))


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json", "tokenizer_config.json", "generation_config.json"])
def test_a_file_that_is_broken_is_one_line(tiny_base: Path, no_service: Path, tmp_path: Path, name: str) -> None:
    for number, content in enumerate(("{", "[]", '{"a": 1}', "\x00")):
        broken = Path(shutil.copytree(tiny_base, tmp_path / f"{number}"))
        (broken / name).write_text(content)
        done = memgen("base", "check", str(broken))
        assert (done.code, len(done.err.splitlines())) in {(0, 0), (1, 1)}, done.err


def test_up_tells_a_refused_base_before_anything_starts(
    tiny_base: Path, no_service: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = Path(shutil.copytree(tiny_base, tmp_path / "refused"))
    (refused / "chat_template.jinja").write_text(REFUSED)
    for base, reason in ((refused, "only pictures"), (tmp_path / "nowhere", "nowhere")):
        monkeypatch.setenv("MEMGEN_BASE_MODEL", str(base))
        message = fail("up", "--port", "0")
        assert "The base is refused." in message
        assert reason in message
        assert succeed("status", "--json").document["phase"] == "stopped"
