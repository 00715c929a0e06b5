"""The file of upstreams: what it may say, and that no key leaves it."""

from pathlib import Path

import pytest

from registry.errors import NotConfigured, UpstreamNotFound
from registry.settings import Settings, child_environment, load_settings
from registry.upstreams import find_upstream, is_upstream_model, load_upstreams, open_upstream

KEY = "sk-very-secret-1234567890"
STRONG = """
[strong]
base_url = "https://api.example.com/v1/"
api_key_env = "STRONG_KEY"
models = ["gpt-5", "Qwen/Qwen3-8B"]
"""


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRONG_KEY", KEY)


def _settings(tmp_path: Path, text: str) -> Settings:
    path = tmp_path / "upstreams.toml"
    path.write_text(text)
    return load_settings(home=tmp_path, upstreams=path)


def test_without_a_file_there_are_none(tmp_path: Path) -> None:
    assert load_upstreams(load_settings(home=tmp_path, upstreams=None)) == {}
    with pytest.raises(UpstreamNotFound, match="MEMGEN_UPSTREAMS"):
        find_upstream({}, "strong/gpt-5")


def test_an_upstream_is_found_by_what_stands_before_the_first_slash(tmp_path: Path) -> None:
    upstreams = load_upstreams(_settings(tmp_path, STRONG))
    upstream, model = find_upstream(upstreams, "strong/Qwen/Qwen3-8B")
    assert (upstream.name, model) == ("strong", "Qwen/Qwen3-8B")
    assert upstream.base_url == "https://api.example.com/v1"
    assert upstream.listed_models == ["strong/gpt-5", "strong/Qwen/Qwen3-8B"]
    assert is_upstream_model("strong/gpt-5")
    assert not is_upstream_model("support-bot@champion")


@pytest.mark.parametrize("model", ["weak/gpt-5", "strong/gpt-4", "strong/", "/gpt-5", "strong", "strong/*"])
def test_what_the_file_does_not_name_is_not_found(tmp_path: Path, model: str) -> None:
    upstreams = load_upstreams(_settings(tmp_path, STRONG))
    with pytest.raises(UpstreamNotFound):
        find_upstream(upstreams, model)


def test_any_model_can_be_allowed(tmp_path: Path) -> None:
    upstreams = load_upstreams(_settings(tmp_path, STRONG.replace('["gpt-5", "Qwen/Qwen3-8B"]', '["gpt-5", "*"]')))
    assert find_upstream(upstreams, "strong/what/ever")[1] == "what/ever"
    assert upstreams["strong"].listed_models == ["strong/gpt-5"]
    for model in ("x" * 301, "", "a\0", "\ud83d", "a\nb"):
        with pytest.raises(UpstreamNotFound):
            find_upstream(upstreams, f"strong/{model}")


def test_a_key_is_nowhere_but_in_the_header(tmp_path: Path) -> None:
    upstreams = load_upstreams(_settings(tmp_path, STRONG))
    upstream = upstreams["strong"]
    shown = f"{upstream} {upstream!r} {upstreams!r} {upstream.model_dump()} {upstream.model_dump_json()}"
    assert KEY not in shown
    client = open_upstream(upstream)  # it has not connected: there is nothing to close
    assert KEY not in repr(client.headers)
    request = client.build_request("POST", "chat/completions")
    assert str(request.url) == "https://api.example.com/v1/chat/completions"
    assert request.headers["Authorization"] == f"Bearer {KEY}"


def test_a_key_is_found_however_json_spells_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRONG_KEY", "a+b/c&d")
    [upstream] = load_upstreams(_settings(tmp_path, STRONG)).values()
    for spelled in ("a+b/c&d", "a+b\\/c&d", "a\\u002bb/c\\u0026d", "a\\u002Bb/c\\u0026d"):
        said = f'{{"content": "it is {spelled}."}}'
        assert upstream.without_key(said) == '{"content": "it is [key]."}'
        assert upstream.without_key_bytes(said.encode()) == b'{"content": "it is [key]."}'


def test_a_key_may_stand_in_a_file(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(f"{KEY}\n")
    text = STRONG.replace('api_key_env = "STRONG_KEY"', f'api_key_file = "{secret}"')
    [upstream] = load_upstreams(_settings(tmp_path, text)).values()
    assert upstream.sent_headers == {"Authorization": f"Bearer {KEY}"}
    for wrong in ("", "two words", "sk-\x00", "sk-ü", "a\nb"):
        secret.write_text(wrong)
        with pytest.raises(NotConfigured, match="its key is empty"):
            load_upstreams(_settings(tmp_path, text))


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("[strong]", "strong", "TOML"),
        ("[strong]", "[Strong]", "no name of an upstream"),
        ("[strong]", "[base]", "no name of an upstream"),
        ("https://", "ftp://", "expected a URL"),
        ("https://", "http://", "show the key to the network"),
        ("https://", "https://me:pass@", "without user"),
        ("https://api.example.com", "https://127.0.0.1", "private"),
        ("https://api.example.com", "https://169.254.169.254", "metadata"),
        ('["gpt-5", "Qwen/Qwen3-8B"]', "[]", "models"),
        ('["gpt-5", "Qwen/Qwen3-8B"]', '["x"]\nfoo = 1', "foo"),
        ('["gpt-5", "Qwen/Qwen3-8B"]', '["x"]\nmax_concurrent = 0', "max_concurrent"),
        ('["gpt-5", "Qwen/Qwen3-8B"]', '["x"]\nidle_seconds = 0', "idle_seconds"),
        ('["gpt-5", "Qwen/Qwen3-8B"]', '["x"]\nheaders = { Authorization = "x" }', "can't be set"),
        ('["gpt-5", "Qwen/Qwen3-8B"]', '["x"]\nheaders = { A = "x\\r\\nB: y" }', "no header may have"),
        ('"STRONG_KEY"', f'"{KEY}"', "api_key_env"),
        ('api_key_env = "STRONG_KEY"', f'api_key = "{KEY}"', "does not stand in this file"),
        ('"STRONG_KEY"', '"NOT_SET_ANYWHERE"', "NOT_SET_ANYWHERE is not set"),
        ('api_key_env = "STRONG_KEY"', 'api_key_file = "/no/such/file"', "can't be read"),
        ('"STRONG_KEY"', '"STRONG_KEY"\napi_key_file = "/x"', "expected one of them"),
    ],
)
def test_what_is_wrong_is_said_without_the_key(tmp_path: Path, old: str, new: str, says: str) -> None:
    text = STRONG.replace(old, new)
    assert text != STRONG
    with pytest.raises(NotConfigured) as caught:
        load_upstreams(_settings(tmp_path, text))
    assert says in str(caught.value)
    assert KEY not in str(caught.value)
    assert "me:pass" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotConfigured, match="none.toml"):
        load_upstreams(load_settings(home=tmp_path, upstreams=tmp_path / "none.toml"))


def test_what_is_started_from_here_finds_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`memgen up` may be given a path of the shell's folder; its processes run where they like."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MEMGEN_UPSTREAMS", "mine.toml")
    environment = child_environment(load_settings(home=tmp_path))
    assert environment["MEMGEN_UPSTREAMS"] == str(tmp_path / "mine.toml")
    assert environment["STRONG_KEY"] == KEY
    monkeypatch.setenv("MEMGEN_UPSTREAMS", "")
    assert load_upstreams(load_settings(home=tmp_path)) == {}


def test_an_upstream_of_this_machine_has_to_say_so(tmp_path: Path) -> None:
    text = STRONG.replace("https://api.example.com", "http://127.0.0.1:8001")
    [upstream] = load_upstreams(_settings(tmp_path, f"{text}private = true\n")).values()
    assert upstream.host == "127.0.0.1"
