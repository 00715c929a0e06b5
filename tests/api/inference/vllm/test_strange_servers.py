"""Servers that answer what vLLM would not: gateways, broken ones, and an object store that hangs. Real sockets."""

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from api.inference.choose import make_engine
from api.inference.engine import InferenceEngine
from api.inference.requests import ChatRequest, MemorySource
from api.inference.unavailable import InferenceUnavailable
from api.local.ports import LOOPBACK
from memgen.backbone.loading import BaseFiles, read_base
from memgen.errors import ConfigError
from memgen.generation.sampling import Sampling
from registry.settings import Settings, load_settings

JSON = "Content-Type: application/json"
REQUEST = ChatRequest([{"role": "user", "content": "hi"}], None, (Sampling(4),), None)


def chunk(*token_ids: Any, **choice: Any) -> str:
    return json.dumps({"choices": [{"index": 0, "text": "", "token_ids": token_ids, "finish_reason": None, **choice}]})


ANSWER = f"data: {chunk(70, 71, 72, 73)}\n\ndata: [DONE]\n\n".encode()


@dataclass
class Strange:
    """What a server answers; it counts the completions that it was asked for."""

    base: BaseFiles
    status: int = 200
    body: bytes = ANSWER
    header: str = JSON
    models: bytes = b'{"data": [{"id": "base"}]}'
    asked: int = field(default=0)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        status, body, header = self._reply(head.split()[1])
        writer.write(
            f"HTTP/1.1 {status} .\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{header}\r\n\r\n".encode()
        )
        writer.write(body)
        await writer.drain()
        writer.close()

    def _reply(self, path: str) -> tuple[int, bytes, str]:
        if path == "/health":
            return 200, b"", JSON
        if path == "/memgen/base":
            base, identity = self.base, self.base.identity.to_mapping()
            described = {"name": base.name, "revision": base.revision, "identity": identity, "max_tokens": 1024}
            return 200, json.dumps(described).encode(), JSON
        if path == "/v1/models":
            return 200, self.models, JSON
        self.asked += 1
        return self.status, self.body, self.header


@pytest.fixture(scope="module")
def base(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> BaseFiles:
    return read_base(str(tiny_base), cache_dir=tmp_path_factory.mktemp("models"))


@pytest.fixture
def server(base: BaseFiles) -> Strange:
    return Strange(base)


@pytest.fixture
def settings(base: BaseFiles, tmp_path: Path) -> Settings:
    return load_settings(service_env=False, home=tmp_path, base_model=base.name, engine="vllm")


Run = Callable[[Callable[[InferenceEngine], Awaitable[None]]], None]


@pytest.fixture
def run(server: Strange, settings: Settings) -> Run:
    """Lets an engine ask the server."""

    def run(work: Callable[[InferenceEngine], Awaitable[None]]) -> None:
        asyncio.run(_with_engine(server, settings, work))

    return run


async def _with_engine(server: Strange, settings: Settings, work: Callable[[InferenceEngine], Awaitable[None]]) -> None:
    async with await asyncio.start_server(server.answer, LOOPBACK, 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        engine = make_engine(settings.model_copy(update={"vllm_url": f"http://{LOOPBACK}:{port}"}))
        engine.start()
        try:
            async with asyncio.timeout(60):
                await work(engine)
        finally:
            await asyncio.to_thread(engine.stop)


def test_an_ordinary_answer_comes_through(run: Run) -> None:
    """Else nothing below says anything."""

    async def work(engine: InferenceEngine) -> None:
        [finished] = await engine.answer(REQUEST)
        assert finished.generation.token_ids == (70, 71, 72, 73)

    run(work)


@pytest.mark.parametrize("status", [301, 401, 403, 404, 405, 408, 425, 429])
def test_what_is_not_the_requests_fault_is_not_said_to_be(run: Run, server: Strange, status: int) -> None:
    """A gateway that is busy, or that does not let this service in: the same request may be answered later."""
    server.status, server.body = status, b"<html>too many, or not you</html>"

    async def work(engine: InferenceEngine) -> None:
        with pytest.raises(InferenceUnavailable, match=f"{status}: <html>too many"):
            await engine.answer(REQUEST)
        engine.check_ready()

    run(work)


@pytest.mark.parametrize("status", [400, 413, 422])
def test_what_is_the_requests_fault_is(run: Run, server: Strange, status: int) -> None:
    server.status, server.body = status, b'{"error": {"message": "too many stop_token_ids", "param": null}}'

    async def work(engine: InferenceEngine) -> None:
        with pytest.raises(ConfigError, match="does not take the request: too many"):
            await engine.answer(REQUEST)

    run(work)


@pytest.mark.parametrize(
    ("body", "header"),
    [
        (b"<html>hello</html>", "Content-Type: text/html"),
        (b"", JSON),
        (b"\x00\xff" * 500, "Content-Encoding: gzip"),
        (b"data: \xff\xfe\n\n", JSON),
        (f"data: {chunk('a')}\n\n".encode(), JSON),
        (f"data: {chunk(-1)}\n\n".encode(), JSON),
        (f"data: {chunk(1 << 40)}\n\n".encode(), JSON),
        (f"data: {chunk(1.5)}\n\n".encode(), JSON),
        (f"data: {chunk(None)}\n\n".encode(), JSON),
        (f"data: {chunk()}\n\n".encode(), JSON),
        (b"data: " + b"[" * 100_000 + b"\n\n", JSON),
    ],
)
def test_garbage_is_a_server_that_went_away(run: Run, server: Strange, body: bytes, header: str) -> None:
    server.body, server.header = body, header

    async def work(engine: InferenceEngine) -> None:
        with pytest.raises(InferenceUnavailable, match="the vLLM server went away"):
            await engine.answer(REQUEST)
        assert server.asked == 2
        server.body, server.header = ANSWER, JSON
        [finished] = await engine.answer(REQUEST)
        assert finished.generation.token_ids == (70, 71, 72, 73)

    run(work)


@pytest.mark.parametrize(
    "models", [b"null", b'{"data": ["x"]}', b'{"data": []}', b'{"data": [{"id": null}]}', b"[" * 100_000]
)
def test_a_server_that_describes_itself_as_garbage_is_looked_at_again(run: Run, server: Strange, models: bytes) -> None:
    good, server.models = server.models, models

    async def work(engine: InferenceEngine) -> None:
        with pytest.raises(InferenceUnavailable, match="no vLLM server can be used"):
            await engine.answer(REQUEST)
        server.models = good
        await asyncio.sleep(1)
        assert len(await engine.answer(REQUEST)) == 1

    run(work)


def test_an_object_store_that_hangs_holds_up_only_who_asks_for_what_it_has(run: Run) -> None:
    go = threading.Event()

    def hang(name: str) -> bytes:
        go.wait(30)
        raise AssertionError(f"nobody waits for {name} any more")

    def unfetchable(folder: Path) -> None:
        raise AssertionError(f"{folder} is not filled")

    async def work(engine: InferenceEngine) -> None:
        await engine.answer(REQUEST)
        waiting = [
            asyncio.create_task(
                engine.answer(
                    replace(
                        REQUEST, memory=MemorySource(f"{n}", f"{n:064}", unfetchable, read_file=hang), timeout_seconds=5
                    )
                )
            )
            for n in range(20)
        ]
        await asyncio.sleep(0.2)
        try:
            async with asyncio.timeout(4):
                assert len(await engine.answer(REQUEST)) == 1
        finally:
            go.set()
            await asyncio.gather(*waiting, return_exceptions=True)

    run(work)
