"""What the vLLM plugin makes of artifacts and requests without vLLM: virtual ids, queries, refusals in words."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from memgen.artifacts.artifact import save_artifact, save_lora
from memgen.artifacts.report import TrainingReport
from memgen.backbone.loading import Backbone, load_backbone
from memgen.checked_files import write_json, write_manifest
from memgen.config import MemoryConfig
from memgen.memory.host import AdapterHost
from memgen_vllm.errors import NotServed, WrongVllm
from memgen_vllm.hooks import Hook, install
from memgen_vllm.memory import ServedMemory, adapter_path, is_memory, memory_of, read_queries
from memgen_vllm.refusals import check_artifact, check_request, check_server
from memgen_vllm.served_base import LoadedBase
from memgen_vllm.virtual_ids import AGAIN, MAX_QUERIES, QUERY, plain, woven_inside, woven_prompt
from tests.fixtures_model import save_tiny_base

REPORT = TrainingReport(1, 0, 0, 1, 1, 1.0, (1.0,), ())


@pytest.fixture(scope="module")
def backbone(tiny_base: Path) -> Backbone:
    return load_backbone(str(tiny_base), cache_dir=tiny_base.parent, dtype=torch.float32)


@pytest.fixture(scope="module")
def base(tiny_base: Path, backbone: Backbone) -> LoadedBase:
    """As the plugin reads it from what vLLM was started with."""
    model = SimpleNamespace(
        model=str(tiny_base),
        revision=None,
        tokenizer=str(tiny_base),
        hf_config=backbone.model.config,
        max_model_len=512,
    )
    return LoadedBase.of_model(model)


def made(backbone: Backbone, folder: Path, report: TrainingReport = REPORT, **config: Any) -> Path:
    host = AdapterHost(backbone)
    memory = host.create("made", MemoryConfig(latents=4, inference_latents=3, rank=4, **config))
    if config.get("trigger") == "head" and report.flags:
        torch.nn.init.normal_(memory.trigger_head.weight)
    save_artifact(host, "made", folder, report)
    return folder


def test_the_base_is_the_one_that_the_engine_loads(base: LoadedBase, backbone: Backbone) -> None:
    assert (base.revision, base.identity) == (backbone.revision, backbone.identity)


def test_an_insertion_in_ids() -> None:
    config = MemoryConfig(latents=2, reread_tokens=3, inference_latents=1)
    assert woven_prompt(config, [5, 6, 7, 8]) == [5, 6, 7, AGAIN + 5, AGAIN + 6, AGAIN + 7, QUERY, QUERY + 1, 8]
    assert woven_prompt(config, [5]) == [QUERY, QUERY + 1, 5]
    assert woven_inside(config) == [QUERY + MAX_QUERIES]
    assert list(plain(woven_prompt(config, [5, 6, 7, 8]))) == [5, 6, 7, 8]


def test_queries_are_those_of_the_memory(backbone: Backbone, tmp_path: Path) -> None:
    host = AdapterHost(backbone)
    memory = host.create("made", MemoryConfig(latents=4, inference_latents=3, rank=4))
    save_artifact(host, "made", tmp_path / "m", REPORT)
    table = read_queries(tmp_path / "m")
    torch.testing.assert_close(table[:4], memory.queries(at_prompt_end=True)())
    torch.testing.assert_close(table[MAX_QUERIES:], memory.queries(at_prompt_end=False)())
    assert len(table) == MAX_QUERIES + 3


@pytest.mark.parametrize("trigger", ["always", "never", "head", "lora"])
def test_memories_that_are_served(base: LoadedBase, backbone: Backbone, tmp_path: Path, trigger: str) -> None:
    """A learned trigger that was never trained lets `always` stand in for it, as in our engine."""
    folder = made(backbone, tmp_path / "m", trigger=trigger)
    check_artifact(folder, base, 16)
    lora = SimpleNamespace(lora_path=str(adapter_path(folder)))
    memory = memory_of(lora)
    assert memory is not None
    assert is_memory(lora)
    assert memory.weaves == (trigger != "never")


def test_a_plain_lora_is_served(base: LoadedBase, backbone: Backbone, tmp_path: Path) -> None:
    memory = AdapterHost(backbone).create("made", MemoryConfig(rank=4))
    save_lora(memory.weaver, memory.config, "any", tmp_path / "plain")
    write_manifest(tmp_path / "plain")
    check_artifact(tmp_path / "plain", base, 16)
    lora = SimpleNamespace(lora_path=str(adapter_path(tmp_path / "plain")))
    assert memory_of(lora) is None
    described = json.loads((tmp_path / "plain" / "adapter_config.json").read_text())
    write_json(tmp_path / "plain" / "adapter_config.json", {**described, "target_modules": ["embed_tokens"]})
    with pytest.raises(NotServed, match="adapts embeddings"):
        check_artifact(tmp_path / "plain", base, 16)


def test_a_version_of_form_lora_is_a_plain_lora_that_knows_its_base(
    base: LoadedBase, backbone: Backbone, tmp_path: Path
) -> None:
    host, folder = AdapterHost(backbone), tmp_path / "m"
    host.create("made", MemoryConfig(form="lora", rank=4))
    save_artifact(host, "made", folder, REPORT)
    check_artifact(folder, base, 16)
    assert adapter_path(folder) == folder
    assert memory_of(SimpleNamespace(lora_path=str(folder))) is None
    described = json.loads((folder / "memory.json").read_text())
    write_json(folder / "memory.json", {**described, "base_revision": "another"})
    with pytest.raises(NotServed, match="another"):
        check_artifact(folder, base, 16)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"form": "embedding"}, "form is 'embedding'"),
        ({"trigger": "head"}, "trigger 'head' is trained"),
        ({"cue_tokens": 16}, "cued from past experience"),
    ],
)
def test_memories_that_are_refused(
    base: LoadedBase, backbone: Backbone, tmp_path: Path, config: dict[str, Any], words: str
) -> None:
    decided = TrainingReport(1, 0, 0, 1, 1, 1.0, (1.0,), ("decided",))
    folder = made(backbone, tmp_path / "m", decided, **config)
    with pytest.raises(NotServed, match=words):
        check_artifact(folder, base, 16)


def test_folders_that_are_refused(base: LoadedBase, backbone: Backbone, tmp_path: Path) -> None:
    folder = made(backbone, tmp_path / "m")
    with pytest.raises(NotServed, match="rank is 4; start the server with --max-lora-rank"):
        check_artifact(folder, base, 2)
    write_json(folder / "isolated.json", {})
    with pytest.raises(NotServed, match="a router chooses"):
        check_artifact(folder, base, 16)
    with pytest.raises(NotServed, match="never trained"):
        check_artifact(made(backbone, tmp_path / "u", TrainingReport(1, 0, 0, 0, 1, 1.0, (1.0,), ())), base, 16)
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotServed, match="neither memory"):
        check_artifact(tmp_path / "empty", base, 16)


def test_another_base_is_refused_in_words(
    base: LoadedBase, backbone: Backbone, tiny_base: Path, tmp_path: Path
) -> None:
    other = load_backbone(str(save_tiny_base(tmp_path / "other", seed=1)), cache_dir=tmp_path, dtype=torch.float32)
    with pytest.raises(NotServed, match="serve the base that it was trained on"):
        check_artifact(made(other, tmp_path / "m"), base, 16)
    edited = tmp_path / "edited"
    shutil.copytree(tiny_base, edited)
    template = edited / "chat_template.jinja"
    template.write_text(template.read_text() + "!")
    rewritten = load_backbone(str(edited), cache_dir=tmp_path, dtype=torch.float32)
    with pytest.raises(NotServed, match="another chat template"):
        check_artifact(made(rewritten, tmp_path / "n"), base, 16)


def request(tokens: int, **params: Any) -> Any:
    settings = {"prompt_logprobs": None, "bad_words": [], "repetition_detection": None, "max_tokens": 10, **params}
    return SimpleNamespace(
        sampling_params=SimpleNamespace(**settings), prompt_token_ids=[5] * tokens, prompt_embeds=None, mm_features=[]
    )


def test_requests_that_do_not_fit_are_refused() -> None:
    memory = ServedMemory(MemoryConfig(latents=4, inference_latents=3, max_insertions=2), weaves=True)
    check_request(memory, request(80), 100)
    with pytest.raises(NotServed, match="81 tokens; with up to 10 of the memory and 10 new tokens"):
        check_request(memory, request(81), 100)
    filled_in = request(81, max_tokens=19)
    check_request(memory, filled_in, 100)
    assert filled_in.sampling_params.max_tokens == 9, "vLLM fills in the whole context where the client says nothing"
    for params in ({"prompt_logprobs": 1}, {"bad_words": ["a b"]}):
        with pytest.raises(NotServed, match=next(iter(params))):
            check_request(memory, request(5, **params), 100)


def test_servers_that_cannot_weave_are_named() -> None:
    def server(**changes: Any) -> Any:
        settings = {"speculative_config": None, "kv_transfer_config": None, **changes}
        quantization = settings.pop("quantization", None)
        return SimpleNamespace(**settings, model_config=SimpleNamespace(quantization=quantization))

    check_server(server())
    for name, words in (
        ("speculative_config", "speculative decoding"),
        ("quantization", "quantised"),
        ("kv_transfer_config", "KV connector"),
    ):
        with pytest.raises(NotServed, match=words):
            check_server(server(**{name: "ngram"}))


def test_a_hook_whose_name_is_gone_stops_all_of_them() -> None:
    class Hooked:
        @classmethod
        def made(cls, value: int) -> int:
            return value

        def there(self) -> int:
            return 1

    hook = Hook(Hooked, "there", lambda original, self: original(self) + 1)
    with pytest.raises(WrongVllm, match=r"has no .*Hooked\.gone"):
        install([hook, Hook(Hooked, "gone", lambda original: original())])
    assert Hooked().there() == 1
    install([hook, Hook(Hooked, "made", lambda original, value: original(value) * 2)])
    assert (Hooked().there(), Hooked.made(3)) == (2, 6)


def test_the_plugin_needs_of_the_service_only_what_is_light() -> None:
    """Beside vLLM the service is installed without its dependencies."""
    absent = ("peft", "accelerate", "pydantic_settings", "fastapi", "sqlalchemy", "celery")
    modules = "memgen_vllm.artifacts, memgen_vllm.refusals"
    program = f"import sys; sys.modules.update(dict.fromkeys({absent})); import {modules}"
    done = subprocess.run([sys.executable, "-c", program], env={"PYTHONPATH": ":".join(sys.path)}, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


def test_delimiters_need_no_transformers() -> None:
    program = "import sys; sys.modules['transformers'] = None; import memgen.text.delimiters, memgen.config"
    done = subprocess.run([sys.executable, "-c", program], env={"PYTHONPATH": ":".join(sys.path)}, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
