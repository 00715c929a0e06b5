"""What `memgen doctor` sees of torch, the base's files and vLLM servers."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from api.cli.diagnosis.findings import Diagnosis, Installation
from api.cli.diagnosis.model import CHECKS
from api.local.ports import LOOPBACK
from memgen.backbone.loading import BaseFiles, fastest_dtype, read_base
from registry.settings import Settings, load_settings
from tests.api.inference.vllm.test_strange_servers import Strange

WHEEL_BASE = "smollm2-135m-instruct"
Look = Callable[..., dict[str, Diagnosis]]


@pytest.fixture
def settings(tiny_base: Path, tmp_path: Path) -> Settings:
    return load_settings(
        service_env=False, home=tmp_path, base_model=str(tiny_base), model_cache=tmp_path / "models", engine="local"
    )


@pytest.fixture
def look(settings: Settings) -> Look:
    def look(**overrides: object) -> dict[str, Diagnosis]:
        changed = settings.model_copy(update=overrides)
        [check] = CHECKS
        return {each.check: each for each in check.look(Installation(changed, changed))}

    return look


def test_what_is_right(look: Look) -> None:
    found = look(torch_threads=1)
    assert {name: each.state for name, each in found.items() if name != "torch"} == {
        "threads": "ok",
        "base model": "ok",
    }
    assert found["torch"].found.startswith(f"torch {torch.__version__}, built for ")


def test_a_device_that_is_not_there(look: Look) -> None:
    assert look(device="toaster")["torch"].state == "fail"
    if not torch.cuda.is_available():
        found = look(device="cuda")["torch"]
        assert (found.state, "torch sees no GPU" in found.found) == ("fail", True)


def test_a_type_that_the_cpu_does_not_multiply(look: Look) -> None:
    slow = fastest_dtype("cpu") == torch.float32
    assert look(base_dtype="bfloat16")["torch"].state == ("warn" if slow else "ok")


def test_more_threads_than_cores(look: Look) -> None:
    found = look(torch_threads=4096)["threads"]
    assert (found.state, found.advice.startswith("MEMGEN_TORCH_THREADS=")) == ("warn", True)


def test_bases_that_are_not_ready(look: Look, settings: Settings, tmp_path: Path) -> None:
    unpacked = look(base_model=WHEEL_BASE)["base model"]
    assert (unpacked.state, "not unpacked" in unpacked.found) == ("warn", True)
    assert not settings.models_dir.exists(), "it only looks"
    (settings.models_dir / f"{WHEEL_BASE}x7ab").mkdir(parents=True)
    assert f"{WHEEL_BASE}x7ab" in look(base_model=WHEEL_BASE)["base model"].found
    (tmp_path / "empty").mkdir()
    for name, state, says in (
        (str(tmp_path / "empty"), "fail", "has no config.json"),
        (str(tmp_path / "nowhere"), "fail", "can't be a model of the hub"),
        ("owner/nobody-has-it", "warn", "not in the hub's cache"),
    ):
        found = look(base_model=name)["base model"]
        assert (found.state, says in found.found) == (state, True), found


@pytest.fixture
def base(settings: Settings) -> BaseFiles:
    return read_base(settings.base_model, cache_dir=settings.models_dir)


@pytest.fixture
def serve() -> Iterator[Callable[[Strange], str]]:
    """Starts servers in a thread's event loop; returns their addresses."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="vllm-stand-in")
    thread.start()
    running: list[asyncio.Server] = []

    def start(server: Strange) -> str:
        listening = asyncio.run_coroutine_threadsafe(asyncio.start_server(server.answer, LOOPBACK, 0), loop).result()
        running.append(listening)
        return f"http://{LOOPBACK}:{listening.sockets[0].getsockname()[1]}"

    yield start
    for each in running:
        loop.call_soon_threadsafe(each.close)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(timeout=10)
    loop.close()


def test_vllm_servers(look: Look, base: BaseFiles, serve: Callable[[Strange], str]) -> None:
    right, other = serve(Strange(base)), serve(Strange(replace(base, revision="sha256:other")))
    assert look(engine="vllm", vllm_url=right)["vLLM"].state == "ok"
    for url, says in ((other, "it has loaded"), (f"http://{LOOPBACK}:1", "ConnectError")):
        found = look(engine="vllm", vllm_url=url)["vLLM"]
        assert (found.state, says in found.found) == ("fail", True), found
    assert look(engine="vllm", vllm_url=right, base_model="owner/nobody-has-it")["vLLM"].state == "skip"
    missing = look(engine="vllm", vllm_python=Path("/nowhere/python"))["vLLM"]
    assert (missing.state, "make vllm" in missing.found) == ("fail", True)
