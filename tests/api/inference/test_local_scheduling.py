"""How the engine in this process lets requests in, gives way, loads versions and refuses."""

import asyncio
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from api.inference.local.engine import LocalEngine
from api.inference.local.tickets import Ticket
from api.inference.requests import ChatRequest, Finished, MemorySource, Piece
from api.inference.unavailable import NotBegunInTime, NotFinishedInTime, Preempted, QueueFull
from memgen.artifacts.artifact import save_artifact
from memgen.artifacts.report import TrainingReport
from memgen.backbone.loading import Backbone, load_backbone
from memgen.config import MemoryConfig
from memgen.errors import ArtifactCorrupt, PromptTooLong
from memgen.generation.sampling import Sampling
from memgen.memory.host import AdapterHost
from memgen.routing.isolated import Isolated, with_task
from memgen.training.examples import build_examples
from registry.settings import load_settings
from tests.api.watched import Watch, watch
from tests.memgen.conftest import conversations, randomise

__all__ = ["watch"]

Start = Callable[..., LocalEngine]
REPORT = TrainingReport(1, 0, 0, 1, 1, 1.0, (1.0,), ())


@pytest.fixture
def start(tiny_base: Path, tmp_path: Path) -> Iterator[Start]:
    started: list[LocalEngine] = []

    def make(**overrides: object) -> LocalEngine:
        given: dict[str, Any] = {"home": tmp_path, "base_model": str(tiny_base), "torch_threads": 1, **overrides}
        inference = LocalEngine(load_settings(service_env=False, **given))
        inference.start()
        started.append(inference)
        return inference

    yield make
    for inference in started:
        inference.stop()


@pytest.fixture(scope="module")
def backbone(tiny_base: Path) -> Backbone:
    return load_backbone(str(tiny_base), cache_dir=tiny_base.parent, dtype=torch.float32)


@pytest.fixture(scope="module")
def stored(backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> "Callable[..., Stored]":
    """Makes the artifact of a random memory."""

    def make(seed: int = 0, isolated: Isolated | None = None) -> Stored:
        folder = tmp_path_factory.mktemp("stored")
        host = AdapterHost(backbone)
        randomise(host.create("m", MemoryConfig(latents=4, max_insertions=0, rank=4, alpha=8), seed=seed), seed)
        if isolated is not None:
            isolated.save(folder)
        return Stored(folder, save_artifact(host, "m", folder, REPORT))

    return make


class Stored:
    """An artifact; its fetches are counted, and can be held or broken."""

    def __init__(self, folder: Path, manifest: str) -> None:
        self.folder, self.manifest = folder, manifest
        self.fetches = 0
        self.beside: dict[str, Stored] = {}
        self.go = threading.Event()
        self.go.set()
        self.broken = False

    def fetch(self, target: Path) -> None:
        self.fetches += 1
        assert self.go.wait(timeout=60), "nobody let the load go on"
        shutil.copytree(self.folder, target, dirs_exist_ok=True)
        if self.broken:
            (target / "memory.json").write_text("{}")

    def source(self, name: str) -> MemorySource:
        return MemorySource(name, self.manifest, self.fetch, lambda other, folder: self.beside[other].fetch(folder))


def asking(*samplings: Sampling, text: str = "hi", **more: Any) -> ChatRequest:
    messages = [{"role": "user", "content": text}]
    return ChatRequest(**{"messages": messages, "tools": None, "samplings": samplings, "memory": None, **more})


def _come(inference: LocalEngine) -> list[Ticket]:
    """Requests that wait for the model's thread."""
    return [each for each in inference._inbox.waiting() if isinstance(each, Ticket)]


async def eventually(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.001)


def test_a_version_that_is_loaded_delays_nobody_else(start: Start, stored: Callable[..., Stored]) -> None:
    """A whole answer is given, and others begin, while the version's bytes are held; its requests share one load."""
    inference, cold = start(), stored()
    cold.go.clear()

    async def run() -> None:
        waiting = [
            asyncio.create_task(inference.answer(asking(Sampling(3), memory=cold.source("v")))) for _ in range(3)
        ]
        await eventually(lambda: cold.fetches)
        for _ in range(2):
            [other] = await inference.answer(asking(Sampling(40)))
            assert len(other.generation.token_ids) == 40
        assert not any(task.done() for task in waiting)
        assert inference.figures.loading == 1
        cold.go.set()
        for [answer] in await asyncio.gather(*waiting):
            assert answer.generation.insertions
        await inference.answer(asking(Sampling(1), memory=cold.source("v")))

    asyncio.run(run())
    assert cold.fetches == 1


def test_a_version_that_cannot_be_loaded_fails_its_requests_alone(start: Start, stored: Callable[..., Stored]) -> None:
    inference, broken, good = start(), stored(), stored(seed=1)
    broken.broken = True
    broken.go.clear()

    async def run() -> None:
        waiting = asyncio.gather(
            *(inference.answer(asking(Sampling(2), memory=broken.source("v"))) for _ in range(2)),
            inference.answer(asking(Sampling(2), memory=good.source("w"))),
            inference.answer(asking(Sampling(2))),
            return_exceptions=True,
        )
        await eventually(lambda: broken.fetches)
        broken.go.set()
        *failed, woven, bare = await waiting
        assert [type(error) for error in failed] == [ArtifactCorrupt] * 2
        assert woven[0].generation.insertions  # type: ignore[index]  # it is no error
        assert bare[0].generation.token_ids
        broken.broken = False
        assert await inference.answer(asking(Sampling(1), memory=broken.source("v")))

    asyncio.run(run())
    assert broken.fetches == 2, "what failed is tried again by the next request"


def test_a_version_in_use_is_not_dropped(start: Start, stored: Callable[..., Stored], watch: Watch) -> None:
    """More versions are answered at once than are kept."""
    inference, versions = start(cached_versions=1), [stored(seed=n) for n in range(3)]
    watch.hold(after=1)

    async def run() -> None:
        tasks = [
            asyncio.create_task(inference.answer(asking(Sampling(6), memory=each.source(f"v{n}"))))
            for n, each in enumerate(versions)
        ]
        await eventually(lambda: all(each.fetches for each in versions))
        watch.go()
        answers = [answer.generation for [answer] in await asyncio.gather(*tasks)]
        assert all(len(answer.token_ids) == 6 and answer.insertions for answer in answers)
        for n, each in enumerate(versions):
            [again] = await inference.answer(asking(Sampling(6), memory=each.source(f"v{n}")))
            assert again.generation.decisions == answers[n].decisions

    asyncio.run(run())
    assert sum(each.fetches for each in versions) > 3


def test_another_tasks_memory_is_loaded_beside_the_others_answers(
    start: Start, stored: Callable[..., Stored], backbone: Backbone
) -> None:
    """A routed prompt is read once, waits for the memory of its task, and nobody waits with it."""
    examples = {
        word: build_examples(backbone.profile, conversations(40, word), max_tokens=500).examples
        for word in ("yes", "nnnnnnnnnnnnnnn")
    }
    first = with_task(None, None, backbone, "yes", examples["yes"])
    other = stored(seed=1, isolated=first)
    second = with_task(first, other.manifest, backbone, "no", examples["nnnnnnnnnnnnnnn"])
    own = stored(seed=2, isolated=second)
    own.beside[other.manifest] = other
    other.go.clear()
    inference = start(base_dtype="float32", prompt_cache_bytes=0)

    async def run() -> None:
        routed = [
            asyncio.create_task(inference.answer(asking(Sampling(4), text=f"say {word} 7", memory=own.source("v"))))
            for word in ("yes", "nnnnnnnnnnnnnnn")
        ]
        await eventually(lambda: other.fetches)
        [to_own] = await routed[1]
        assert (to_own.task, len(to_own.generation.insertions)) == ("no", 1)
        [beside] = await inference.answer(asking(Sampling(30)))
        assert len(beside.generation.token_ids) == 30
        assert not routed[0].done()
        read = inference.figures.read_tokens
        other.go.set()
        [to_other] = await routed[0]
        assert (to_other.task, len(to_other.generation.insertions)) == ("yes", 1)
        assert inference.figures.read_tokens == read, "its prompt was read before"

    asyncio.run(run())


def test_answers_begin_as_the_cache_has_room_for_them(start: Start, watch: Watch) -> None:
    """By what each may need at most, whatever the number of rows; all are answered, and nothing is over the budget."""
    shape = 2 * 2 * 2 * 16 * 2  # bytes a token of the tiny base in bfloat16: layers, keys and values, heads, size
    inference = start(cache_bytes=4 * 64 * shape, base_dtype="bfloat16")

    async def run() -> None:
        await inference.answer(asking(Sampling(1)))
        need = inference.figures.cache_budget_bytes
        requests = [asking(Sampling(20 + 5 * (n % 3)), text="hi" + "!" * (n % 7)) for n in range(12)]
        answers = await asyncio.gather(*(inference.answer(request) for request in requests))
        assert [len(answer.generation.token_ids) for [answer] in answers] == [20 + 5 * (n % 3) for n in range(12)]
        with pytest.raises(
            PromptTooLong, match=f"may need .* bytes of the cache; this process has {need}.*MEMGEN_CACHE"
        ):
            await inference.answer(asking(Sampling(900)))
        await eventually(lambda: inference.figures.cache_bytes == 0)

    asyncio.run(run())
    assert 1 < max(watch.rows) <= 4


def test_the_background_runs_alone_and_gives_way_within_a_step(start: Start, watch: Watch) -> None:
    inference = start()
    watch.hold(after=5)

    async def run() -> None:
        shadow = asyncio.create_task(inference.answer(asking(Sampling(900)), background=True))
        await eventually(lambda: watch.joined == 1)
        second = asyncio.create_task(inference.answer(asking(Sampling(2)), background=True))
        assert await asyncio.to_thread(watch.is_held.wait, 60)
        asked = asyncio.create_task(inference.answer(asking(Sampling(3))))
        await eventually(lambda: any(not ticket.background for ticket in _come(inference)))
        watch.go()
        with pytest.raises(Preempted):
            await shadow
        assert len((await asked)[0].generation.token_ids) == 3
        assert len((await second)[0].generation.token_ids) == 2

    asyncio.run(run())
    # Five steps and the one that was held, then the three of the answer, then the other shadow's two.
    assert watch.rows == [1] * (6 + 3 + 2)


def test_a_full_queue_refuses_before_any_work(start: Start, watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    inference = start(queue_requests=3, inference_batch=1)
    watch.hold(after=1)
    rendered: list[int] = []
    real = LocalEngine._read_prompt
    monkeypatch.setattr(LocalEngine, "_read_prompt", lambda *given: (rendered.append(1), real(*given))[1])

    async def run() -> None:
        async with aclosing(inference.stream(asking(Sampling(4)))) as events:
            assert isinstance(await anext(events), Piece)
            assert await asyncio.to_thread(watch.is_held.wait, 60)
            waiting = [asyncio.create_task(inference.answer(asking(Sampling(2)))) for _ in range(3)]
            await eventually(lambda: inference.figures.waiting >= 0 and len(rendered) == 4)
            with pytest.raises(QueueFull, match="3 requests wait") as refused:
                await inference.answer(asking(Sampling(2)))
            assert refused.value.retry_seconds >= 1
            with pytest.raises(QueueFull):
                await anext(inference.stream(asking(Sampling(2))))
            with pytest.raises(QueueFull):
                await inference.count_tokens(asking(Sampling(2)))
            assert len(rendered) == 4
            waiting[0].cancel()
            await eventually(waiting[0].done)
            last = asyncio.create_task(inference.answer(asking(Sampling(2))))
            watch.go()
            answers = await asyncio.gather(*waiting[1:], last)
            assert [len(answer.generation.token_ids) for [answer] in answers] == [2] * 3

    asyncio.run(run())


def test_of_a_thousand_requests_at_once_each_is_answered_or_refused(start: Start) -> None:
    inference = start(queue_requests=60)

    async def run() -> list[Any]:
        await inference.answer(asking(Sampling(1)))
        requests = [asking(Sampling(1 + n % 3), text="hi" * (1 + n % 4)) for n in range(1000)]
        return await asyncio.gather(*map(inference.answer, requests), return_exceptions=True)

    outcomes = asyncio.run(run())
    answered = [outcome for outcome in outcomes if isinstance(outcome, list)]
    refused = [outcome for outcome in outcomes if isinstance(outcome, QueueFull)]
    assert len(answered) >= 60
    assert len(answered) + len(refused) == 1000
    assert refused
    assert (inference._backlog.requests, inference._backlog.tokens) == (0, 0)


def test_a_request_may_wait_less_long_than_the_service_lets_it(start: Start, watch: Watch) -> None:
    """What waited too long is not computed; what runs too long is ended, and costs no more steps."""
    inference = start(inference_batch=1)

    async def run() -> None:
        await inference.answer(asking(Sampling(1)))
        watch.joined = 0
        watch.step_seconds = 0.01
        long = asyncio.create_task(inference.answer(replace(asking(Sampling(900)), timeout_seconds=1.0)))
        await eventually(lambda: watch.joined == 1)
        with pytest.raises(NotBegunInTime, match=r"not begun within 0\.2 s, for others came first"):
            await inference.answer(replace(asking(Sampling(5)), timeout_seconds=0.2))
        with pytest.raises(NotFinishedInTime, match="no answer within 1 s"):
            await long
        steps = watch.steps
        await inference.answer(asking(Sampling(2)))
        assert watch.steps <= steps + 4
        assert watch.joined == 2, "nothing was computed for what waited too long"

    asyncio.run(run())


def test_what_it_is_doing_can_be_seen(start: Start, watch: Watch) -> None:
    inference = start(inference_batch=1)
    watch.hold(after=3)

    async def run() -> None:
        async with aclosing(inference.stream(asking(Sampling(6)))) as events:
            await anext(events)
            assert await asyncio.to_thread(watch.is_held.wait, 60)
            waiting = asyncio.create_task(inference.answer(asking(Sampling(2))))
            await eventually(lambda: len(inference._inbox))
            during = inference.figures
            assert (during.running, during.generated_tokens) == (1, 3)
            assert 0 < during.cache_bytes <= during.cache_need_bytes <= during.cache_budget_bytes
            watch.go()
            await waiting
            assert [event async for event in events if isinstance(event, Finished)]
            await eventually(lambda: not inference.figures.running)
            after = inference.figures
        assert (after.waiting, after.cache_bytes, after.generated_tokens) == (0, 0, 8)
        assert after.read_tokens > 0

    asyncio.run(run())
