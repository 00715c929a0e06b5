"""What a type checker makes of the clients: `make lint` reads this, and nothing runs it.

An `ignore` that is not needed is an error there, so each of them says that a wrong argument is found.
"""

from typing import assert_type

from memgen_client import AsyncClient, Client, Job, JobEvent, Page, Rows
from memgen_client.models.adapters import Adapter, Scores
from memgen_client.models.analyses import Analysis
from memgen_client.models.completions import Completion, CompletionChunk
from memgen_client.models.data import ImportReport
from memgen_client.models.routes import Route, RouteResults
from memgen_client.models.versions import Version


def synchronous(client: Client) -> None:
    assert_type(client.adapters.get("bot"), Adapter)
    assert_type(client.adapters.list(), Rows[Adapter])
    assert_type(client.adapters.scores("bot"), Scores)
    assert_type(client.versions.list("bot", limit=5), Page[Version])
    assert_type(client.trajectories.upload("runs.jsonl", task="t"), ImportReport)
    assert_type(client.routes.create("bot", "canary", version=7, share=0.1), Route)
    assert_type(client.routes.results("bot", 1), RouteResults)
    assert_type(client.jobs.wait("job", timeout=3.0), Job)
    assert_type(client.versions.export_file("bot", 1, "bot.tar"), int)
    assert_type(client.versions.analysis("bot", 1), Analysis)
    assert_type(client.jobs.analyze("bot", 1, tasks=["t"], analysis={"items": 9, "against": None}), Job)
    assert_type(client.chat.create("bot", [{"role": "user", "content": "hi"}], temperature=0.0), Completion)
    for version in client.versions.all("bot"):
        assert_type(version, Version)
    for update in client.jobs.follow("job"):
        assert_type(update, Job | JobEvent)
    client.jobs.follow("job").close()
    for chunk in client.chat.stream("bot", []):
        assert_type(chunk, CompletionChunk)


async def asynchronous(client: AsyncClient) -> None:
    assert_type(await client.adapters.get("bot"), Adapter)
    assert_type(await client.jobs.wait("job"), Job)
    assert_type(await client.versions.list("bot"), Page[Version])
    async for version in client.versions.all("bot"):
        assert_type(version, Version)
    async for update in client.jobs.follow("job"):
        assert_type(update, Job | JobEvent)
    await client.jobs.follow("job").aclose()


def wrong(client: Client) -> None:
    client.adapters.get(7)  # type: ignore[arg-type]
    client.adapters.get()  # type: ignore[call-arg]
    client.adapters.create("bot", gate_marge=0.1)  # type: ignore[call-arg]
    client.routes.create("bot", "best")  # type: ignore[arg-type]
    client.tasks.create("t", holdout_share="half")  # type: ignore[arg-type]
