"""Each engine on the same base and the same memories, whose answers are known from `memgen.generation` itself.

`MEMGEN_TEST_ENGINE=vllm` lets the tests try that engine on a real server, as `make test-vllm` does.
"""

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import SecretStr

from api.inference.choose import make_engine
from api.inference.engine import InferenceEngine
from api.inference.requests import ChatRequest, MemorySource
from memgen.artifacts.artifact import save_artifact
from memgen.artifacts.report import TrainingReport
from memgen.backbone.loading import load_backbone
from memgen.config import MemoryConfig
from memgen.generation.engine import generate
from memgen.generation.requests import Generation, GenerationRequest
from memgen.generation.sampling import Sampling
from memgen.memory.host import AdapterHost
from registry.object_store import ObjectStore
from registry.settings import Settings, load_settings
from tests.fixtures_model import save_tiny_base
from tests.services import BUCKET, Servers
from tests.vllm_server import ENGINE, VllmProcess, run_vllm, why_no_vllm

LETTERS = tuple("abcdefghijklmnop,.\n")
"""Delimiters that a random model writes often."""
SHAPES: dict[str, dict[str, Any]] = {
    "plain": {"latents": 8, "max_insertions": 0},
    "again": {"latents": 8, "reread_tokens": 32, "max_insertions": 0},
    "many": {"latents": 8, "reread_tokens": 16, "inference_latents": 4, "max_insertions": 3, "delimiters": LETTERS},
    "undecided": {"latents": 4, "inference_latents": 2, "max_insertions": 1, "trigger": "head", "delimiters": LETTERS},
    "never": {"latents": 4, "trigger": "never"},
    "embedding": {"latents": 4, "form": "embedding"},
    "decided": {"latents": 4, "trigger": "head"},
    "lora": {"form": "lora"},
}
SERVED = ("plain", "again", "many", "undecided", "never", "lora")
"""What every engine serves."""


@dataclass
class World:
    """What engines answer with, and what they must answer."""

    settings: Settings
    host: AdapterHost
    store: ObjectStore
    prefix: str
    hashes: dict[str, str]
    server: VllmProcess | None = None
    sent: list[ChatRequest] = field(default_factory=list)

    def source(self, memory: str, **changes: Any) -> MemorySource:
        key = f"{self.prefix}/{self.hashes[memory]}"
        found: dict[str, Any] = {
            "name": uuid.uuid5(uuid.NAMESPACE_OID, memory).hex,
            "manifest_sha256": self.hashes[memory],
            "fetch": lambda folder: self.store.get_folder(key, folder),
            "read_file": lambda file: self.store.get(f"{key}/{file}"),
            "artifact_key": key,
            "label": f"{memory}@1",
        }
        return MemorySource(**{**found, **changes})

    def request(self, *samplings: Sampling, memory: str | None = None, text: str = "hi", **more: Any) -> ChatRequest:
        messages = [{"role": "user", "content": text}]
        found = {"messages": messages, "tools": None, "samplings": samplings or (Sampling(24),)}
        return ChatRequest(**{**found, "memory": self.source(memory) if memory else None, **more})

    def expected(self, request: ChatRequest, memory: str | None = None) -> list[Generation]:
        """What the method answers, each alone."""
        prompt = self.host.backbone.profile.prompt_ids(request.messages, request.tools)
        wanted = [GenerationRequest(tuple(prompt), sampling, memory) for sampling in request.samplings]
        return [generate(self.host, [each])[0] for each in wanted]


@pytest.fixture(scope="session")
def world(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    if ENGINE == "vllm" and (reason := why_no_vllm()):
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("conformance")
    torch.set_num_threads(1)
    base = save_tiny_base(folder / "base", hidden_size=128)
    host = AdapterHost(load_backbone(str(base), cache_dir=folder, dtype=torch.float32))
    store = ObjectStore(servers.s3_url, BUCKET, "us-east-1")
    store.ensure_bucket()
    prefix = f"projects/{uuid.uuid4()}/artifacts"
    hashes = {name: _stored(host, store, prefix, folder / name, shape) for name, shape in SHAPES.items()}
    settings = load_settings(
        service_env=False,
        home=folder / "home",
        base_model=str(base),
        base_dtype="float32",
        torch_threads=1,
        s3_url=SecretStr(servers.s3_url),
        s3_bucket=BUCKET,
        engine=ENGINE,
    )
    with ExitStack() as stack:
        server = stack.enter_context(run_vllm(settings, base, folder)) if ENGINE == "vllm" else None
        settings = settings.model_copy(update={"vllm_url": server.url if server else ""})
        yield World(settings, host, store, prefix, hashes, server)
    store.close()


def _stored(host: AdapterHost, store: ObjectStore, prefix: str, folder: Path, shape: dict[str, Any]) -> str:
    """The hash of a memory whose random weights turn each answer; it is in the host too, under its folder's name."""
    name = folder.name
    seed = list(SHAPES).index(name)
    memory = host.create(name, MemoryConfig(**{"rank": 8, **shape}), seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, b in memory.weaver.factors.values():
            b.normal_(0, 0.15, generator=generator)
        if name == "decided":
            memory.trigger_head.weight.normal_(generator=generator)
    report = TrainingReport(1, 0, 0, 1, 1, 1.0, (1.0,), ())
    sha256 = save_artifact(host, name, folder, report)
    memory.weave_until_trigger_is_trained()
    store.put_folder(f"{prefix}/{sha256}", folder)
    return sha256


Start = Callable[..., InferenceEngine]


@pytest.fixture(scope="session")
def engine(world: World) -> Iterator[InferenceEngine]:
    """One for all tests that change nothing of it."""
    found = make_engine(world.settings)
    found.start()
    yield found
    found.stop()


@pytest.fixture
def start(world: World) -> Iterator[Start]:
    """Starts another, with other settings."""
    started: list[InferenceEngine] = []

    def make(**changes: Any) -> InferenceEngine:
        found = make_engine(world.settings.model_copy(update=changes))
        found.start()
        started.append(found)
        return found

    yield make
    for each in started:
        each.stop()


def texts(generations: Sequence[Generation]) -> list[str]:
    return [generation.text for generation in generations]
