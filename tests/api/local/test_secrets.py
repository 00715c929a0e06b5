import json
import stat
from pathlib import Path

import pytest

from api.local.errors import LocalStackError
from api.local.secrets import FILE, load_or_create_secrets


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_secrets_are_made_once_and_private(tmp_path: Path) -> None:
    first = load_or_create_secrets(tmp_path)
    assert mode(tmp_path / FILE) == 0o600
    assert first.api_key.startswith("mg_")
    assert len(first.api_key) > 40
    assert load_or_create_secrets(tmp_path) == first
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_secrets_differ_between_homes(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert load_or_create_secrets(tmp_path / "a") != load_or_create_secrets(tmp_path / "b")


def test_a_readable_file_is_made_private_again(tmp_path: Path) -> None:
    first = load_or_create_secrets(tmp_path)
    (tmp_path / FILE).chmod(0o644)
    assert load_or_create_secrets(tmp_path) == first
    assert mode(tmp_path / FILE) == 0o600


@pytest.mark.parametrize("text", ["{", "[]", json.dumps({"api_key": "mg_x"})])
def test_a_damaged_file_is_refused_and_kept(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(LocalStackError, match="damaged"):
        load_or_create_secrets(tmp_path)
    assert (tmp_path / FILE).read_text() == text


def test_secrets_do_not_show_in_repr(tmp_path: Path) -> None:
    secrets = load_or_create_secrets(tmp_path)
    assert secrets.api_key not in repr(secrets)
