"""The clients: an object for each noun of the API, with its calls as methods.

    from memgen_client import Client

    with Client("http://127.0.0.1:8000", api_key) as client:
        client.tasks.create("support")
        client.trajectories.upload("trajectories.jsonl", task="support")
        client.adapters.create("support-bot")
        job = client.jobs.train("support-bot", "support")
        print(client.jobs.wait(job.id).version)

`AsyncClient` has the same methods, awaited; `JsonClient` returns what the service said as JSON. Whatever fails raises a
ClientError, see `errors.py`.
"""

from types import TracebackType
from typing import Generic, Self

from memgen_client.async_transport import AsyncTransport
from memgen_client.calls import AsJson, Async, ModeT, Sync, Transport
from memgen_client.nouns.adapters import Adapters, Aliases, Retention
from memgen_client.nouns.answers import Chat, Completions, Messages, Responses, ServedModels
from memgen_client.nouns.data import (
    Deletions,
    FeedbackNoun,
    GarbageNoun,
    RecordingNoun,
    Tasks,
    TrajectoryNoun,
)
from memgen_client.nouns.jobs import Jobs
from memgen_client.nouns.loops import Loops, Schedules
from memgen_client.nouns.routes import Routes
from memgen_client.nouns.service import Bases, Health, Judges, Keys, Upstreams, Webhooks
from memgen_client.nouns.versions import Gates, Versions
from memgen_client.retries import Retries
from memgen_client.transport import SyncTransport
from memgen_client.wire import Terms

DEFAULT_RETRIES = 2
TIMEOUT_SECONDS = 30.0


class Nouns(Generic[ModeT]):
    """What every client has."""

    def __init__(self, transport: Transport) -> None:
        self.tasks: Tasks[ModeT] = Tasks(transport)
        self.trajectories: TrajectoryNoun[ModeT] = TrajectoryNoun(transport)
        self.recordings: RecordingNoun[ModeT] = RecordingNoun(transport)
        self.feedback: FeedbackNoun[ModeT] = FeedbackNoun(transport)
        self.adapters: Adapters[ModeT] = Adapters(transport)
        self.versions: Versions[ModeT] = Versions(transport)
        self.aliases: Aliases[ModeT] = Aliases(transport)
        self.gates: Gates[ModeT] = Gates(transport)
        self.routes: Routes[ModeT] = Routes(transport)
        self.jobs: Jobs[ModeT] = Jobs(transport)
        self.judges: Judges[ModeT] = Judges(transport)
        self.schedules: Schedules[ModeT] = Schedules(transport)
        self.loops: Loops[ModeT] = Loops(transport)
        self.webhooks: Webhooks[ModeT] = Webhooks(transport)
        self.retention: Retention[ModeT] = Retention(transport)
        self.deletions: Deletions[ModeT] = Deletions(transport)
        self.garbage: GarbageNoun[ModeT] = GarbageNoun(transport)
        self.keys: Keys[ModeT] = Keys(transport)
        self.upstreams: Upstreams[ModeT] = Upstreams(transport)
        self.base: Bases[ModeT] = Bases(transport)
        self.models: ServedModels[ModeT] = ServedModels(transport)
        self.chat: Chat[ModeT] = Chat(transport)
        self.completions: Completions[ModeT] = Completions(transport)
        self.responses: Responses[ModeT] = Responses(transport)
        self.messages: Messages[ModeT] = Messages(transport)
        self.health: Health[ModeT] = Health(transport)


class _SyncClient(Nouns[ModeT]):
    """What the two clients have in common that wait for each call."""

    def __init__(self, base_url: str, api_key: str, timeout: float, retries: int, *, as_json: bool) -> None:
        terms = Terms(base_url.rstrip("/"), api_key, timeout, Retries(retries))
        self._transport = transport = SyncTransport(terms, as_json=as_json)
        super().__init__(transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._transport.close()


class Client(_SyncClient[Sync]):
    """One connection pool to one service. Close it, or use it as a context manager. It may be shared by threads."""

    def __init__(
        self, base_url: str, api_key: str, *, timeout: float = TIMEOUT_SECONDS, retries: int = DEFAULT_RETRIES
    ) -> None:
        """
        Args:
            api_key: may be empty for `health`, which asks for none.
            timeout: seconds, of ordinary requests; uploads and answers have longer.
            retries: how often a request that failed is sent again, where that can't do a thing twice.
        """
        super().__init__(base_url, api_key, timeout, retries, as_json=False)


class JsonClient(_SyncClient[AsJson]):
    """The same, but what it returns is the service's JSON as it came, for programs that pass it on."""

    def __init__(
        self, base_url: str, api_key: str, *, timeout: float = TIMEOUT_SECONDS, retries: int = DEFAULT_RETRIES
    ) -> None:
        """As `Client`."""
        super().__init__(base_url, api_key, timeout, retries, as_json=True)


class AsyncClient(Nouns[Async]):
    """The same methods, awaited; what iterates is iterated by `async for`."""

    def __init__(
        self, base_url: str, api_key: str, *, timeout: float = TIMEOUT_SECONDS, retries: int = DEFAULT_RETRIES
    ) -> None:
        """As `Client`."""
        self._transport = AsyncTransport(Terms(base_url.rstrip("/"), api_key, timeout, Retries(retries)))
        super().__init__(self._transport)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._transport.close()
