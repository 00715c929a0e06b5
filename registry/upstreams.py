"""Upstreams: other OpenAI-compatible endpoints that the operator names in a file, `MEMGEN_UPSTREAMS`.

The file is the list of all hosts that the service sends prompts to: no request can name another. A key stands in the
environment or in a file of its own, never in this one, and leaves this module only inside a client's header.

    [strong]
    base_url = "https://api.openai.com/v1"
    api_key_env = "OPENAI_API_KEY"          # or api_key_file = "/run/secrets/openai"
    models = ["gpt-5", "gpt-5-mini"]        # served as strong/gpt-5, strong/gpt-5-mini
"""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import httpx
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator

from registry.errors import AddressRefused, NotConfigured, UpstreamNotFound
from registry.json_text import show
from registry.names import BASE, is_valid_name
from registry.outbound.addresses import AddressPolicy, check_literal
from registry.outbound.clients import make_client
from registry.settings import Settings, secret_variable

ANY_MODEL = "*"
_OWN_HEADERS = ("authorization", "host", "content-length", "transfer-encoding", "connection", "accept-encoding")
_MOST_KEY_CHARACTERS = 4096
_HIDDEN = "[key]"
_HTML_SIGNS = re.compile(r"[&<>'+]")

Seconds = Annotated[float, Field(gt=0, le=3600)]


class Upstream(BaseModel):
    """One endpoint. What bounds a request is for each of them, so that a slow upstream is no other's trouble."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    """What stands before the slash of `upstream/model`."""
    base_url: str
    """With the path that OpenAI's client is given too, as `https://api.openai.com/v1`."""
    models: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=300)], ...], Field(min_length=1)]
    """Models that may be requested, as the upstream calls them; `*` for any."""
    api_key_env: Annotated[str | None, Field(pattern=r"^[A-Z_][A-Z0-9_]{0,99}$")] = None
    """Variable of the environment that has the key."""
    api_key_file: Path | None = None
    """Or a file that has it."""
    headers: dict[str, str] = Field(default_factory=dict)
    """Further headers, such as `OpenAI-Organization`; no secrets."""
    private: bool = False
    """Whether it is on this machine or in a private network."""
    projects: tuple[str, ...] = ()
    """Names of the projects that may use it; empty for all."""
    max_concurrent: Annotated[int, Field(ge=1, le=10_000)] = 32
    """Requests that are with it at once, of one API process; what comes beyond gets 429."""
    connect_seconds: Seconds = 5.0
    first_byte_seconds: Seconds = 120.0
    """Time until an answer begins."""
    idle_seconds: Seconds = 60.0
    """Longest silence within an answer."""
    total_seconds: Seconds = 900.0
    retries: Annotated[int, Field(ge=0, le=5)] = 2
    """How often a request is sent again that was not taken: no connection, 429, 503."""
    retry_seconds: Annotated[float, Field(ge=0, le=120)] = 10.0
    """Longest wait before it is; an upstream that wants a longer one has its answer passed on."""
    max_response_bytes: Annotated[int, Field(ge=1)] = 32_000_000
    api_key: SecretStr | None = Field(default=None, exclude=True)
    """The key, once it was read."""

    @field_validator("name")
    @classmethod
    def _is_a_name(cls, value: str) -> str:
        if not is_valid_name(value) or value == BASE:
            raise ValueError(f"{show(value)} is no name of an upstream; expected such as `strong`, and not `{BASE}`")
        return value

    @field_validator("base_url")
    @classmethod
    def _is_a_url(cls, value: str) -> str:
        try:
            url = httpx.URL(value)
        except (httpx.InvalidURL, ValueError) as error:
            raise ValueError(f"no URL: {error}") from error
        if url.scheme not in ("http", "https") or not url.host:
            raise ValueError("expected a URL such as https://api.openai.com/v1")
        if url.userinfo or url.query or url.fragment:
            raise ValueError("expected a URL without user, password, query and fragment; a key goes to api_key_env")
        return value.rstrip("/")

    @field_validator("headers")
    @classmethod
    def _are_headers(cls, value: dict[str, str]) -> dict[str, str]:
        for name, text in value.items():
            if not name.replace("-", "").isalnum() or not name.isascii() or name.lower() in _OWN_HEADERS:
                raise ValueError(f"{show(name)} can't be set; a key goes to api_key_env or api_key_file")
            if not (text.isascii() and text.isprintable()):
                raise ValueError(f"the value of {name} has characters that no header may have")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> "Upstream":
        if self.api_key_env and self.api_key_file:
            raise ValueError("api_key_env and api_key_file: expected one of them")
        if self.has_key and not self.private and httpx.URL(self.base_url).scheme != "https":
            raise ValueError("base_url is http://, which would show the key to the network; expected https://")
        return self

    @property
    def has_key(self) -> bool:
        return self.api_key_env is not None or self.api_key_file is not None

    @property
    def host(self) -> str:
        return httpx.URL(self.base_url).host

    @property
    def policy(self) -> AddressPolicy:
        return AddressPolicy(private=self.private)

    @property
    def listed_models(self) -> list[str]:
        """`strong/gpt-5`, ...: what can be listed of what may be requested."""
        return [f"{self.name}/{model}" for model in self.models if model != ANY_MODEL]

    def allows(self, model: str) -> bool:
        return model in self.models or (ANY_MODEL in self.models and 0 < len(model) <= 300 and model.isprintable())

    @property
    def timeout(self) -> httpx.Timeout:
        """Between two bytes; what bounds the whole is for the caller to hold."""
        return httpx.Timeout(self.idle_seconds, connect=self.connect_seconds, read=self.first_byte_seconds)

    @property
    def sent_headers(self) -> dict[str, str]:
        """The headers of each request, the key among them."""
        key = {"Authorization": f"Bearer {self.api_key.get_secret_value()}"} if self.api_key else {}
        return {**self.headers, **key}

    def without_key(self, text: str) -> str:
        """The text without the key, should it stand there: servers quote the key that they did not like."""
        for key in self._spelled_key:
            text = text.replace(key, _HIDDEN)
        return text

    def without_key_bytes(self, data: bytes) -> bytes:
        """As `without_key`, of what is passed through: it costs a search."""
        for key in self._spelled_key:
            if key.encode() in data:
                data = data.replace(key.encode(), _HIDDEN.encode())
        return data

    @property
    def _spelled_key(self) -> set[str]:
        """The key as it stands in a text and in JSON, where some servers write a slash as `\\/`, and others the signs
        that mean something in HTML as `\\u002b`."""
        key = self.api_key.get_secret_value() if self.api_key else ""
        escaped = _escape(key, "\\u{:04x}"), _escape(key, "\\u{:04X}")
        return {key, key.replace("/", "\\/"), *escaped} if key else set()


def _escape(key: str, form: str) -> str:
    return _HTML_SIGNS.sub(lambda sign: form.format(ord(sign[0])), key)


Upstreams = Mapping[str, Upstream]
"""The upstreams by name, in the order of the file."""


def load_upstreams(settings: Settings) -> Upstreams:
    """What the file says, keys included; empty where no file is set.

    Raises:
        NotConfigured: the file or a key can't be read, or what stands in it is wrong. Never shows a key.
    """
    path = settings.upstreams
    if path is None:
        return {}
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise NotConfigured(f"MEMGEN_UPSTREAMS: {path} can't be read as TOML: {error}") from error
    return {name: _read(path, name, table) for name, table in tables.items()}


def find_upstream(upstreams: Upstreams, model: str) -> tuple[Upstream, str]:
    """The upstream of `strong/gpt-5`, and `gpt-5`.

    Raises:
        UpstreamNotFound: there is none of that name, or it may not be asked for that model.
    """
    name, _, wanted = model.partition("/")
    upstream = upstreams.get(name)
    if upstream is None:
        known = ", ".join(upstreams) or "none; MEMGEN_UPSTREAMS names a file of them"
        raise UpstreamNotFound(f"model {show(model)}: no upstream {show(name)}; there are: {known}")
    if not upstream.allows(wanted):
        raise UpstreamNotFound(
            f"model {show(model)}: upstream {name!r} may be asked for {', '.join(upstream.models)}, not {show(wanted)}"
        )
    return upstream, wanted


def is_upstream_model(model: str) -> bool:
    """Whether it is written as an upstream's; no adapter's name has a slash."""
    return "/" in model


def open_upstream(upstream: Upstream) -> httpx.AsyncClient:
    """A client of it, to be closed by the caller, with a connection for each request that may be with it at once.

    Paths are relative, such as `chat/completions`.
    """
    limits = httpx.Limits(
        max_connections=upstream.max_concurrent,
        max_keepalive_connections=min(upstream.max_concurrent, 20),
        keepalive_expiry=30.0,
    )
    return make_client(
        upstream.policy,
        base_url=upstream.base_url,
        headers=upstream.sent_headers,
        timeout=upstream.timeout,
        limits=limits,
    )


def _read(path: Path, name: str, table: object) -> Upstream:
    place = f"MEMGEN_UPSTREAMS: {path}: {name}"
    if not isinstance(table, dict):
        raise NotConfigured(f"{place}: expected a table, such as [strong], with base_url and models")
    if "api_key" in table:
        raise NotConfigured(f"{place}: a key does not stand in this file; name it with api_key_env or api_key_file")
    try:
        upstream = Upstream(**{**table, "name": name})
        check_literal(upstream.policy, upstream.host)
    except AddressRefused as error:
        raise NotConfigured(f"{place}: base_url: {error}") from error
    except ValidationError as error:
        found = error.errors(include_input=False, include_url=False)
        says = "; ".join(f"{'.'.join(map(str, each['loc'])) or 'table'}: {each['msg']}" for each in found[:5])
        raise NotConfigured(f"{place}: {says}") from None  # what was written may be a key in the wrong place
    return upstream.model_copy(update={"api_key": _key(place, upstream)})


def _key(place: str, upstream: Upstream) -> SecretStr | None:
    if upstream.api_key_env is not None:
        key = secret_variable(upstream.api_key_env)
        if key is None:
            raise NotConfigured(f"{place}: the variable {upstream.api_key_env} is not set, which has its key")
    elif upstream.api_key_file is not None:
        try:
            key = SecretStr(upstream.api_key_file.expanduser().read_text(encoding="utf-8").strip())
        except (OSError, UnicodeDecodeError) as error:
            raise NotConfigured(f"{place}: api_key_file can't be read: {type(error).__name__}") from error
    else:
        return None
    text = key.get_secret_value()
    if not (0 < len(text) <= _MOST_KEY_CHARACTERS and text.isascii() and text.isprintable() and " " not in text):
        raise NotConfigured(f"{place}: its key is empty, or has characters that no key has")
    return key
