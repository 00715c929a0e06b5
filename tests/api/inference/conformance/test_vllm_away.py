"""A vLLM server that dies, comes back, or is the wrong one."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from api.inference.engine import InferenceEngine
from api.inference.requests import Piece
from api.inference.unavailable import InferenceUnavailable
from api.inference.vllm.engine import VllmEngine
from memgen.generation.sampling import Sampling
from tests.api.inference.conformance.conftest import Start, World
from tests.fixtures_model import save_tiny_base
from tests.vllm_server import ENGINE, VllmProcess

pytestmark = pytest.mark.skipif(ENGINE != "vllm", reason="runs with MEMGEN_TEST_ENGINE=vllm")

LASTING: Any = {"logit_bias": ((2, -100.0),)}


def _server(world: World) -> VllmProcess:
    assert world.server is not None
    return world.server


async def _is_ready(engine: InferenceEngine) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                engine.check_ready()
            except InferenceUnavailable:
                await asyncio.sleep(0.05)
            else:
                return


def test_what_was_not_begun_is_answered_by_the_server_that_comes_back(world: World, start: Start) -> None:
    server, engine = _server(world), start(inference_timeout_seconds=900.0)
    request = world.request(Sampling(12), memory="many")

    async def run() -> None:
        await _is_ready(engine)
        begun = engine.stream(world.request(Sampling(900, **LASTING)))
        assert isinstance(await anext(begun), Piece)
        assert server.child is not None
        cores = psutil.Process(server.child.process.pid).children(recursive=True)
        for core in cores:
            os.kill(core.pid, signal.SIGSTOP)  # it takes requests and begins none
        waiting = [asyncio.create_task(engine.answer(request)) for _ in range(3)]
        while _answers(engine) < 4:
            await asyncio.sleep(0.02)
        server.kill()
        with pytest.raises(InferenceUnavailable, match="went away while it answered"):
            async for _ in begun:
                pass
        with pytest.raises(InferenceUnavailable, match="no vLLM server can be used"):
            await engine.answer(request)
        with pytest.raises(InferenceUnavailable, match=server.url):
            engine.check_ready()
        server.start()
        await asyncio.to_thread(server.wait)
        [expected] = world.expected(request, "many")
        for [finished] in await asyncio.gather(*waiting):
            assert finished.generation.token_ids == expected.token_ids

    asyncio.run(run())


def _answers(engine: InferenceEngine) -> int:
    """Answers that the server is to make for this engine."""
    assert isinstance(engine, VllmEngine)
    assert engine._dispatch is not None
    return sum(each.answers for each in engine._dispatch._servers)


def test_another_server_takes_over(world: World, start: Start) -> None:
    engine = start(vllm_url=f"http://127.0.0.1:9,{_server(world).url}")

    async def run() -> None:
        await _is_ready(engine)
        requests = [world.request(Sampling(3), text=f"{n}") for n in range(8)]
        assert len(await asyncio.gather(*map(engine.answer, requests))) == 8

    asyncio.run(run())


def test_a_server_with_another_base_is_not_used(world: World, start: Start, tmp_path: Path) -> None:
    other = save_tiny_base(tmp_path / "other", seed=1, hidden_size=128)
    engine = start(base_model=str(other))

    async def run() -> None:
        with pytest.raises(InferenceUnavailable, match="it has loaded .* this service is set to"):
            await engine.answer(world.request())

    asyncio.run(run())
    with pytest.raises(InferenceUnavailable, match="it has loaded"):
        engine.check_ready()
