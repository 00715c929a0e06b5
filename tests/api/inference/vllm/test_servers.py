"""Which server answers, of several; and servers that are none. Real sockets, no vLLM."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

import httpx
import pytest

from api.inference.unavailable import InferenceUnavailable
from api.inference.vllm.servers import FoundBase, VllmServer, choose
from api.local.ports import LOOPBACK, pick_free_port

BASE = FoundBase("base", "tiny", "sha256:1", {}, 1024)


def _with_client(work: Callable[[httpx.AsyncClient], Awaitable[None]]) -> None:
    async def run() -> None:
        async with httpx.AsyncClient() as client:
            await work(client)

    asyncio.run(run())


def test_a_beginning_has_its_server_unless_that_has_much_more_to_do() -> None:
    async def work(client: httpx.AsyncClient) -> None:
        servers = [VllmServer(f"http://{LOOPBACK}:{port}", client) for port in range(1, 4)]
        for server in servers:
            server.found = BASE
        prompts = [(n, *range(300)) for n in range(60)]
        chosen = {prompt: choose(servers, prompt)[0] for prompt in prompts}
        assert all(choose(servers, (*prompt[:256], 7, 8))[0] is server for prompt, server in chosen.items())
        shares = Counter(server.url for server in chosen.values())
        assert min(shares.values()) > 5
        first = chosen[prompts[0]]
        first.answers = 4
        assert choose(servers, prompts[0])[0] is first
        first.answers = 5
        assert choose(servers, prompts[0])[0] is not first
        first.answers, first.found = 0, None
        elsewhere = choose(servers, prompts[0])[0]
        assert elsewhere is not first
        kept = [prompt for prompt, server in chosen.items() if server is not first]
        assert all(choose(servers, prompt)[0] is chosen[prompt] for prompt in kept), "only its own prompts move"

    _with_client(work)


def test_without_a_server_it_is_said_why() -> None:
    async def work(client: httpx.AsyncClient) -> None:
        server = VllmServer(f"http://{LOOPBACK}:{pick_free_port()}", client)
        with pytest.raises(InferenceUnavailable, match="it was not looked at yet"):
            choose([server], ())
        await server.look(lambda found: None)
        with pytest.raises(InferenceUnavailable, match=f"{server.url}: ConnectError"):
            choose([server], ())

    _with_client(work)


def test_a_server_without_the_plugin_is_no_server() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        status = b"200 OK" if head.startswith(b"GET /health ") else b"404 Not Found"
        writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    async def work(client: httpx.AsyncClient) -> None:
        listener = await asyncio.start_server(answer, LOOPBACK, 0)
        async with listener:
            port = listener.sockets[0].getsockname()[1]
            server = VllmServer(f"http://{LOOPBACK}:{port}", client)
            await server.look(lambda found: None)
            with pytest.raises(InferenceUnavailable, match="/memgen/base answers 404; is it vLLM with the plugin"):
                choose([server], ())

    _with_client(work)
