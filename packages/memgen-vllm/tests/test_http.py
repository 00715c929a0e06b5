"""The wire contract of the README, end to end: vLLM's server in its processes, artifacts in a real object store."""

import json
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import torch
from answering import CLOSE, NEW_TOKENS
from conftest import ROOT, Reference, service_python
from gate import Gate
from safetensors.torch import load_file, save_file
from server import Server

from memgen.checked_files import write_manifest

STORES: list[subprocess.Popen[str]] = []


@pytest.fixture(scope="module")
def store(reference: Reference, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    home = tmp_path_factory.mktemp("store")
    command = [service_python(), Path(__file__).with_name("object_store.py"), reference.folder, home]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        STORES.append(process)
        yield json.loads(process.stdout.readline())
        process.stdin.close()


@pytest.fixture(scope="module")
def gate(store: dict[str, str]) -> Gate:
    """Between the server and the store."""
    return Gate(store["url"])


@pytest.fixture(scope="module")
def server(reference: Reference, gate: Gate, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(reference.base, gate.url, tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def client(server: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", timeout=300, max_retries=0)


class Asking:
    """Completions of a case, as the API sends them."""

    def __init__(self, client: openai.OpenAI, reference: Reference, project: str) -> None:
        self.client, self._reference, self._project = client, reference, project

    def model(self, name: str | None) -> str:
        if name is None:
            return "base"
        return f"projects/{self._project}/artifacts/{self._reference.artifacts[name]}"

    def __call__(self, case: dict[str, Any], **changes: Any) -> Any:
        return self.client.completions.create(
            **{
                "model": self.model(case["memory"]),
                "prompt": case["prompt"],
                "max_tokens": NEW_TOKENS,
                "temperature": 0,
                "logprobs": 1,
                "extra_body": {"return_token_ids": True},
                **changes,
            }
        )


@pytest.fixture
def ask(client: openai.OpenAI, reference: Reference, store: dict[str, str]) -> Asking:
    return Asking(client, reference, store["project"])


def check(case: dict[str, Any], choice: Any) -> None:
    assert choice.token_ids == case["tokens"], case["memory"]
    pairs = zip(choice.logprobs.token_logprobs, case["logprobs"], strict=True)
    assert max(abs(given - wanted) for given, wanted in pairs) < CLOSE


def test_all_versions_at_once(ask: Asking, reference: Reference) -> None:
    """More versions than slots, all at once; the usage counts what was sent and answered."""
    with ThreadPoolExecutor(32) as threads:
        replies = list(threads.map(ask, reference.cases))
    for reply, case in zip(replies, reference.cases, strict=True):
        check(case, reply.choices[0])
        assert reply.usage.prompt_tokens == len(case["prompt"])
        assert reply.usage.completion_tokens == len(case["tokens"])


def test_insertions_can_be_computed_from_the_reply(ask: Asking, reference: Reference) -> None:
    from transformers import AutoTokenizer

    from memgen.config import MemoryConfig
    from memgen.text.delimiters import DelimiterMatcher

    tokenizer = AutoTokenizer.from_pretrained(reference.base)
    counted = 0
    for case in reference.cases:
        if case["memory"] in (None, "plain", "never"):
            continue
        config = MemoryConfig.from_mapping(reference.described(case["memory"])["config"])
        prompt, tokens = case["prompt"], ask(case).choices[0].token_ids
        matcher = DelimiterMatcher.of(tokenizer, config.delimiters)
        inside = matcher.insertion_points([*prompt, *tokens], len(prompt), config.max_insertions)
        assert [len(prompt) - 1, *inside] == case["positions"]
        counted += len(inside)
    assert counted >= 8


def test_a_hash_alone_is_found_too(ask: Asking, reference: Reference) -> None:
    case = next(case for case in reference.cases if case["memory"] == "many")
    check(case, ask(case, model=reference.artifacts["many"]).choices[0])


def test_a_stream_carries_the_same_tokens(ask: Asking, reference: Reference) -> None:
    case = max((case for case in reference.cases if case["memory"] == "many"), key=lambda case: len(case["positions"]))
    chunks = list(ask(case, stream=True))
    tokens = [token for chunk in chunks for choice in chunk.choices for token in choice.token_ids or ()]
    assert tokens == case["tokens"]
    assert len(chunks) > len(tokens) / 2, "as they came, not at once"


def test_stop_strings_and_limits_across_insertions(ask: Asking, reference: Reference) -> None:
    case = max((case for case in reference.cases if case["memory"] == "many"), key=lambda case: len(case["positions"]))
    limit = case["positions"][-1] - len(case["prompt"]) + 3
    [choice] = ask(case, max_tokens=limit).choices
    assert choice.token_ids == case["tokens"][:limit]
    assert choice.finish_reason == "length"
    last = ask(case).choices[0].text[-1]
    [stopped] = ask(case, stop=[last]).choices
    assert stopped.finish_reason == "stop"
    assert last not in stopped.text


def test_chats_work_where_vllm_renders_them(client: openai.OpenAI, ask: Asking) -> None:
    reply = client.chat.completions.create(
        model=ask.model("upper"), messages=[{"role": "user", "content": "Hi"}], max_tokens=8, temperature=0
    )
    assert reply.usage.completion_tokens == 8


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("embedding", "form is 'embedding'"),
        ("decided", "trigger 'head' is trained"),
        ("cued", "cued from past experience"),
        ("isolated", "a router chooses"),
        ("foreign", "serve the base that it was trained on"),
        ("untrained", "never trained"),
        ("wide", "--max-lora-rank"),
        ("broken", "corrupt in the object store"),
    ],
)
def test_artifacts_that_are_refused(ask: Asking, reference: Reference, name: str, words: str) -> None:
    with pytest.raises(openai.BadRequestError, match=words):
        ask({"memory": name, "prompt": reference.cases[0]["prompt"]})


def test_unknown_names_are_not_found(ask: Asking, reference: Reference, store: dict[str, str]) -> None:
    for model in ("0" * 64, f"projects/{store['project']}/artifacts/{'0' * 64}"):
        with pytest.raises(openai.NotFoundError, match="does not|not in|nothing is stored|no project"):
            ask(reference.cases[0], model=model)
    for model in ("support-bot@champion", "many"):
        with pytest.raises(openai.NotFoundError, match="does not exist"):
            ask(reference.cases[0], model=model)


def test_requests_that_are_refused(ask: Asking, reference: Reference) -> None:
    case = {"memory": "many", "prompt": [5] * 490}
    with pytest.raises(openai.BadRequestError, match="490 tokens; with up to 36 of the memory"):
        ask(case)
    for changes, words in (
        ({"prompt": [5, 1 << 24]}, "vocab"),
        ({"echo": True, "logprobs": 1}, "prompt_logprobs"),
        ({"extra_body": {"use_beam_search": True}, "logprobs": None}, "beam search"),
    ):
        with pytest.raises(openai.BadRequestError, match=words):
            ask({"memory": "many", "prompt": reference.cases[0]["prompt"]}, **changes)


def test_no_adapter_is_bound_to_a_name(server: Server, reference: Reference) -> None:
    """vLLM's own calls for that are shut: a name that could move would leave stale blocks in the cache."""
    path = str(reference.folder / "artifacts" / reference.artifacts["plain"])
    reply = httpx.post(f"{server.url}/v1/load_lora_adapter", json={"lora_name": "mine", "lora_path": path}, timeout=60)
    assert reply.status_code == 404
    assert [card["id"] for card in httpx.get(f"{server.url}/v1/models", timeout=60).json()["data"]] == ["base"]


def test_names_that_are_none_are_not_looked_for(ask: Asking, reference: Reference, store: dict[str, str]) -> None:
    """Of a known artifact: in capitals, with more behind it, or by another way to its folder."""
    sha256, project = reference.artifacts["many"], store["project"]
    for model in (
        *(sha256.upper(), f"{sha256}\n", f"{sha256}/", f"{sha256}/weaver", f"./{sha256}", f" {sha256}"),
        *(f"projects/{project.upper()}/artifacts/{sha256}", f"projects/{project}/../{project}/artifacts/{sha256}"),
        *(f"/projects/{project}/artifacts/{sha256}", f"projects/{'.' * 36}/artifacts/{sha256}", "../" * 12 + "etc"),
    ):
        with pytest.raises(openai.NotFoundError, match="does not exist"):
            ask(reference.cases[0], model=model)


def test_an_adapter_that_does_not_fit_is_refused_each_time(server: Server, ask: Asking, reference: Reference) -> None:
    """It fills a slot by half; who asks again must not be answered with that."""
    artifact = server.artifacts / "new"
    shutil.copytree(reference.folder / "artifacts" / reference.artifacts["plain"], artifact)
    file = artifact / "adapter_model.safetensors"
    wide = {name: torch.cat([t, t], dim=-1) if ".lora_A" in name else t for name, t in load_file(file).items()}
    save_file(wide, file)
    sha256 = write_manifest(artifact)
    artifact.rename(artifact.with_name(sha256))
    for _ in range(2):
        with pytest.raises(openai.BadRequestError, match="vLLM cannot load its adapter"):
            ask(reference.cases[0], model=sha256)
    for name in ("plain", "many", None):
        case = next(case for case in reference.cases if case["memory"] == name)
        check(case, ask(case).choices[0])


def test_a_store_that_hangs_holds_up_only_who_wants_what_it_has(ask: Asking, reference: Reference, gate: Gate) -> None:
    case = next(case for case in reference.cases if case["memory"] == "short")
    check(case, ask(case).choices[0])
    gate.shut()
    try:
        with ThreadPoolExecutor(40) as threads:
            waiting = [threads.submit(ask, case, model=f"{number:064x}") for number in range(40)]
            try:
                while sum(each.running() for each in waiting) < 40:
                    time.sleep(0.05)
                time.sleep(1)
                check(case, ask(case, timeout=30).choices[0])
                assert not any(each.done() for each in waiting)
            finally:
                gate.open()
            assert all(isinstance(each.exception(), openai.NotFoundError) for each in waiting)
    finally:
        gate.open()


def test_a_hash_that_moved_to_another_project_is_found(
    server: Server, ask: Asking, reference: Reference, tmp_path: Path
) -> None:
    """The key that is kept from the last time is no longer true."""
    sha256 = reference.artifacts["again"]
    case = next(case for case in reference.cases if case["memory"] == "again")
    check(case, ask(case).choices[0])
    (server.artifacts / sha256).rename(tmp_path / sha256)
    (server.artifacts / f"{sha256}.lock").write_text(f"projects/{uuid.uuid4()}/artifacts/{sha256}")
    check(case, ask(case, model=sha256).choices[0])


def test_the_base_is_described(server: Server, reference: Reference) -> None:
    described = httpx.get(f"{server.url}/memgen/base", timeout=60).json()
    memory = reference.described("many")
    assert described["revision"] == memory["base_revision"]
    assert described["identity"] == memory["base_identity"]
    assert described["vllm"].startswith("0.32.")


def test_a_killed_server_answers_the_same_when_it_is_back(server: Server, ask: Asking, reference: Reference) -> None:
    case = next(case for case in reference.cases if case["memory"] == "short")
    check(case, ask(case).choices[0])
    server.kill()
    server.start()
    check(case, ask(case).choices[0])


def test_without_the_object_store_what_is_here_is_answered(
    server: Server, store: dict[str, str], ask: Asking, reference: Reference
) -> None:
    """The last test of this module: it stops the store."""
    STORES[-1].communicate()
    case = next(case for case in reference.cases if case["memory"] == "short")
    check(case, ask(case).choices[0])
    with pytest.raises(openai.InternalServerError, match="did not answer") as refused:
        ask(case, model="0" * 64)
    assert refused.value.status_code == 503
