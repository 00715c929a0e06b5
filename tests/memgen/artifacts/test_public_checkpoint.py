"""Checkpoints of the public MemGen code: what comes in is what they say, and what goes out is what came in.

The folders are made with PEFT and `torch.save` alone, as the public code's `save_pretrained` does.
"""

import copy
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from memgen.artifacts.artifact import load_artifact, save_artifact
from memgen.artifacts.public_checkpoint import export_public, import_public, import_report
from memgen.backbone.loading import Backbone, load_backbone
from memgen.config import MemoryConfig
from memgen.errors import ArtifactCorrupt, ArtifactMismatch, ArtifactMissing, ConfigError
from memgen.generation.engine import generate
from memgen.generation.requests import GenerationRequest
from memgen.generation.sampling import Sampling
from memgen.memory.host import AdapterHost
from memgen.memory.weights import Memory
from tests import reference
from tests.fixtures_model import save_tiny_base
from tests.memgen.conftest import randomise
from tests.reference_memory import ReferenceMemory

PROMPTS = ["a", "Tell me.", "one, two\n3.", "Which of the many rivers is the longest, and why?"]
BINS = ("projs.bin", "weaver.bin", "trigger.bin")
ADAPTERS = ("weaver/weaver/adapter_model.safetensors", "trigger/trigger/adapter_model.safetensors")
CONFIG = MemoryConfig(
    "embedding",
    "lora",
    latents=4,
    inference_latents=3,
    max_insertions=4,
    rank=4,
    alpha=8,
    target_modules=("q_proj", "v_proj"),
)

LORA = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], "lora_dropout": 0.1, "task_type": "CAUSAL_LM"}


@pytest.fixture(scope="module")
def talker(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """A base that likes to say the public code's delimiters, which a random one hardly does."""
    folder = save_tiny_base(tmp_path_factory.mktemp("talker") / "talker")
    backbone = load_backbone(str(folder), cache_dir=folder.parent, dtype=torch.float32)
    backbone.model.get_input_embeddings().weight[backbone.tokenizer(",.\n")["input_ids"]] *= 2
    return backbone


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """Another base for weavers, of another size."""
    folder = save_tiny_base(tmp_path_factory.mktemp("narrow") / "narrow", seed=7, hidden_size=48)
    return load_backbone(str(folder), cache_dir=folder.parent, dtype=torch.float32)


@pytest.fixture
def host(talker: Backbone, narrow: Backbone) -> AdapterHost:
    return AdapterHost(talker, narrow)


def save_public(
    folder: Path,
    base: Backbone,
    weaver_base: Backbone | None = None,
    *,
    active: bool = True,
    trigger_trained: bool = True,
    trigger_rank: int = 4,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """A checkpoint with random weights, as the public code writes it; it writes an unused trigger, too."""
    weaver_base = weaver_base or base
    torch.manual_seed(0)
    folder.mkdir()
    loras = {"weaver": LORA, "trigger": LORA | {"r": trigger_rank}}
    public = {
        "model_type": "memgen",
        "prompt_latents_len": 4,
        "inference_latents_len": 3,
        "max_prompt_aug_num": 1,
        "max_inference_aug_num": 4,
        "weaver_lora_config": loras["weaver"],
        "trigger_lora_config": loras["trigger"],
        "trigger_active": active,
    }
    (folder / "config.json").write_text(json.dumps(base.model.config.to_dict() | public))
    ours, theirs = base.hidden_size, weaver_base.hidden_size
    projections = {"reasoner_to_weaver": nn.Linear(ours, theirs), "weaver_to_reasoner": nn.Linear(theirs, ours)}
    torch.save({name: linear.to(dtype).state_dict() for name, linear in projections.items()}, folder / "projs.bin")
    weaver: dict[str, Any] = {}
    for kind, count in (("prompt", 4), ("inference", 3)):
        norm = nn.LayerNorm(theirs).to(dtype)
        for parameter in norm.parameters():
            nn.init.normal_(parameter)
        weaver[f"{kind}_query_latents"] = torch.randn(count, theirs).to(dtype)
        weaver[f"{kind}_latent_ln"] = norm.state_dict()
        weaver[f"{kind}_latent_scale"] = torch.rand(1).to(dtype)
    torch.save(weaver, folder / "weaver.bin")
    torch.save({"output_layer": nn.Linear(ours, 2).to(dtype).state_dict()}, folder / "trigger.bin")
    save_adapter(folder, "weaver", weaver_base.model, loras["weaver"], dtype)
    save_adapter(folder, "trigger", base.model, loras["trigger"], dtype, trained=trigger_trained)
    return folder


def save_adapter(
    folder: Path, name: str, base: PreTrainedModel, config: dict[str, Any], dtype: torch.dtype, *, trained: bool = True
) -> None:
    model = PeftModel(copy.deepcopy(base), LoraConfig(**config), adapter_name=name)
    for key, parameter in model.named_parameters():
        if "lora_" in key and trained:
            nn.init.normal_(parameter, std=0.2)
    model.to(dtype).save_pretrained(str(folder / name), save_embedding_layers=False)


@pytest.fixture
def folder(talker: Backbone, tmp_path: Path) -> Path:
    """One to damage."""
    return save_public(tmp_path / "public", talker)


def tensors_of(folder: Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint by file and name."""
    found = {f"{name} {key}": value for name in ADAPTERS for key, value in load_file(folder / name).items()}
    for name in BINS:
        for key, value in torch.load(folder / name, weights_only=True).items():
            parts = value if isinstance(value, dict) else {"": value}
            found |= {f"{name} {key} {part}": tensor for part, tensor in parts.items()}
    return found


def tensors_in(memory: Memory) -> list[Tensor]:
    loras = [lora for lora in (memory.weaver, memory.trigger) if lora is not None]
    return [*memory.state_dict().values(), *(tensor for lora in loras for tensor in lora.state_dict().values())]


def assert_same(ones: list[Tensor], others: list[Tensor]) -> None:
    for one, other in zip(ones, others, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_tensors(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    tensors = load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)
    change(tensors)
    (save_file if path.suffix == ".safetensors" else torch.save)(tensors, path)


# ---- What an imported memory does


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("weaver_on", ["talker", "narrow"])
@pytest.mark.parametrize("active", [True, False], ids=["trigger", "always"])
def test_it_generates_as_the_literal_reference(
    host: AdapterHost, narrow: Backbone, tmp_path: Path, active: bool, weaver_on: str, dtype: torch.dtype
) -> None:
    base = host.backbone
    weaver_base = narrow if weaver_on == "narrow" else base
    folder = save_public(tmp_path / "public", base, weaver_base, active=active, trigger_trained=active, dtype=dtype)
    import_public(host, "m", folder)
    prompts = [base.tokenizer(text)["input_ids"] for text in PROMPTS]
    answers = generate(host, [GenerationRequest(tuple(ids), Sampling(max_new_tokens=40), "m") for ids in prompts])

    literal = ReferenceMemory.from_public(base.model, folder, base.tokenizer, weaver_base.model)
    invoked = []
    for ids, answer in zip(prompts, answers, strict=True):
        expected = reference.generate(literal, base.model, ids, 40, base.stop_token_ids, base.tokenizer)
        assert list(answer.token_ids) == expected.tokens
        assert [(d.position, d.invoked) for d in answer.decisions] == [d[:2] for d in expected.decisions]
        probabilities = [d.probability for d in expected.decisions]
        assert [d.probability for d in answer.decisions] == pytest.approx(probabilities, abs=1e-4)
        assert [d.latents for d in answer.insertions[1:]] == [3] * len(answer.insertions[1:])
        invoked += [decision.invoked for decision in answer.decisions[1:]]
    assert len(invoked) >= 3 * len(prompts)
    assert set(invoked) == ({True, False} if active else {True})


def test_the_config_says_what_the_memory_is(host: AdapterHost, folder: Path, narrow: Backbone, tmp_path: Path) -> None:
    assert import_public(host, "m", folder).config == CONFIG
    other = save_public(tmp_path / "other", host.backbone, narrow, active=False, trigger_trained=False)
    expected = replace(CONFIG, trigger="always", weaver_base=narrow.name)
    assert import_public(host, "m", other).config == expected
    assert host.memories["m"].config == expected


def test_an_imported_memory_can_be_kept(host: AdapterHost, folder: Path, tmp_path: Path) -> None:
    memory = import_public(host, "m", folder)
    save_artifact(host, "m", tmp_path / "ours", import_report(trained_steps=200))
    assert json.loads((tmp_path / "ours/memory.json").read_text())["trained_steps"] == 200
    assert_same(tensors_in(load_artifact(host, "again", tmp_path / "ours")), tensors_in(memory))


# ---- Round trips


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("weaver_on", ["talker", "narrow"])
def test_public_to_ours_to_public(
    host: AdapterHost, narrow: Backbone, tmp_path: Path, weaver_on: str, dtype: torch.dtype
) -> None:
    weaver_base = narrow if weaver_on == "narrow" else host.backbone
    folder = save_public(tmp_path / "public", host.backbone, weaver_base, dtype=dtype)
    import_public(host, "m", folder)
    export_public(host, "m", tmp_path / "again", dtype=dtype)
    before, after = tensors_of(folder), tensors_of(tmp_path / "again")
    assert after.keys() == before.keys()
    assert_same([after[key] for key in before], list(before.values()))
    old, new = (json.loads((place / "config.json").read_text()) for place in (folder, tmp_path / "again"))
    for key in ("weaver_lora_config", "trigger_lora_config"):
        assert new.pop(key) == old.pop(key) | {"lora_dropout": 0.0, "bias": "none"}
    assert {key: new[key] for key in old} == old
    for part, base in (("weaver", weaver_base), ("trigger", host.backbone)):
        configs = [
            json.loads((f / part / part / "adapter_config.json").read_text()) for f in (folder, tmp_path / "again")
        ]
        for config in configs:
            config["target_modules"].sort()
            del config["lora_dropout"], config["inference_mode"]
        assert configs[0] == configs[1]
        assert configs[1]["base_model_name_or_path"] == base.name


def test_a_bfloat16_checkpoint_may_be_written_in_float32(host: AdapterHost, tmp_path: Path) -> None:
    folder = save_public(tmp_path / "public", host.backbone, dtype=torch.bfloat16)
    import_public(host, "m", folder)
    export_public(host, "m", tmp_path / "again")
    after = tensors_of(tmp_path / "again")
    assert {tensor.dtype for tensor in after.values()} == {torch.float32}
    assert_same([after[key].bfloat16() for key in tensors_of(folder)], list(tensors_of(folder).values()))


def test_a_trigger_that_is_not_active_survives_on_request(host: AdapterHost, tmp_path: Path) -> None:
    folder = save_public(tmp_path / "public", host.backbone, active=False, trigger_trained=False)
    import_public(host, "m", folder, trigger="lora", allow_untrained=True)
    export_public(host, "m", tmp_path / "again", trigger_active=False)
    before, after = tensors_of(folder), tensors_of(tmp_path / "again")
    assert_same([after[key] for key in before], list(before.values()))
    assert json.loads((tmp_path / "again/config.json").read_text())["trigger_active"] is False


@pytest.mark.parametrize("trigger", ["lora", "always"])
@pytest.mark.parametrize("weaver_on", ["talker", "narrow"])
def test_ours_to_public_to_ours(
    host: AdapterHost, narrow: Backbone, tmp_path: Path, weaver_on: str, trigger: str
) -> None:
    other = narrow.name if weaver_on == "narrow" else ""
    config = replace(CONFIG, trigger=trigger, weaver_base=other, target_modules=("v_proj", "o_proj", "up_proj"))
    memory = host.create("m", config)
    randomise(memory, seed=1)
    export_public(host, "m", tmp_path / "public")
    again = import_public(host, "again", tmp_path / "public")
    assert again.config == config
    assert_same(tensors_in(again), tensors_in(memory))


def test_peft_and_the_reference_read_what_is_written(host: AdapterHost, tmp_path: Path) -> None:
    memory, base = host.create("m", CONFIG), host.backbone
    randomise(memory, seed=1)
    export_public(host, "m", tmp_path / "public")
    for name, lora in (("weaver", memory.weaver), ("trigger", memory.trigger)):
        path = tmp_path / "public" / name / name
        model = PeftModel.from_pretrained(copy.deepcopy(base.model), path, adapter_name=name)
        assert lora is not None
        assert_same(
            [p.detach() for key, p in model.named_parameters() if "lora_" in key], list(lora.state_dict().values())
        )
        assert (model.peft_config[name].r, model.peft_config[name].lora_alpha) == (4, 8)
    ids = base.tokenizer(PROMPTS[1])["input_ids"]
    literal = ReferenceMemory.from_public(base.model, tmp_path / "public", base.tokenizer)
    expected = reference.generate(literal, base.model, ids, 24, base.stop_token_ids, base.tokenizer)
    [answer] = generate(host, [GenerationRequest(tuple(ids), Sampling(max_new_tokens=24), "m")])
    assert list(answer.token_ids) == expected.tokens


def test_a_memory_without_trigger_is_written_with_one_that_can_be_trained(host: AdapterHost, tmp_path: Path) -> None:
    host.create("m", replace(CONFIG, trigger="always"))
    export_public(host, "m", tmp_path / "public")
    factors = load_file(tmp_path / "public" / ADAPTERS[1])
    assert all(tensor.any() == (".lora_A." in key) for key, tensor in factors.items())
    head = torch.load(tmp_path / "public/trigger.bin", weights_only=True)["output_layer"]
    assert {key: tuple(tensor.shape) for key, tensor in head.items()} == {"weight": (2, 64), "bias": (2,)}
    assert json.loads((tmp_path / "public/config.json").read_text())["trigger_active"] is False


# ---- What PEFT writes in other ways


def test_the_older_file_of_peft_is_read(host: AdapterHost, folder: Path) -> None:
    expected = tensors_in(import_public(host, "m", folder))
    for name in ADAPTERS:
        torch.save(load_file(folder / name), (folder / name).with_suffix(".bin"))
        (folder / name).unlink()
    assert_same(tensors_in(import_public(host, "m", folder)), expected)


def test_an_adapter_saved_after_loading_is_read(host: AdapterHost, folder: Path) -> None:
    """The public code loads an adapter into a model that is wrapped already, and its names get another `model.`."""
    expected = tensors_in(import_public(host, "m", folder))
    wrapped = PeftModel(copy.deepcopy(host.backbone.model), LoraConfig(**LORA), adapter_name="weaver")
    with pytest.warns(UserWarning, match="multiple adapters|missing adapter keys"):
        twice = PeftModel.from_pretrained(wrapped.base_model, folder / "weaver/weaver", adapter_name="weaver")
    for key, tensor in load_file(folder / ADAPTERS[0]).items():
        name = key.replace("base_model.model.", "base_model.model.model.").replace(".weight", ".weaver.weight")
        twice.get_parameter(name).data.copy_(tensor)
    twice.save_pretrained(str(folder / "weaver"), save_embedding_layers=False)
    assert all(key.startswith("base_model.model.model.model.layers") for key in load_file(folder / ADAPTERS[0]))
    assert_same(tensors_in(import_public(host, "m", folder)), expected)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("use_rslora", True),
        ("use_dora", True),
        ("lora_bias", True),
        ("bias", "all"),
        ("fan_in_fan_out", True),
        ("modules_to_save", ["lm_head"]),
        ("rank_pattern", {"q_proj": 8}),
        ("alpha_pattern", {"q_proj": 8}),
        ("layers_to_transform", [0]),
        ("layer_replication", [[0, 2], [1, 2]]),
        ("trainable_token_indices", [1]),
        ("init_lora_weights", "pissa"),
        ("something_of_tomorrow", 1),
        ("peft_type", "LOHA"),
    ],
)
@pytest.mark.parametrize("part", ["weaver", "trigger"])
def test_more_than_plain_lora_is_refused(host: AdapterHost, folder: Path, part: str, field: str, value: object) -> None:
    edit_json(folder / part / part / "adapter_config.json", **{field: value})
    with pytest.raises(ArtifactMismatch, match=rf"{part}/{part}/adapter_config.json: {field}=.* more than plain LoRA"):
        import_public(host, "m", folder)


# ---- Trained, or not


def zero_b(tensors: dict[str, Tensor]) -> None:
    for key, tensor in tensors.items():
        if ".lora_B." in key:
            tensor.zero_()


@pytest.mark.parametrize("part", ["weaver", "trigger"])
def test_a_lora_that_was_never_trained_is_refused(host: AdapterHost, folder: Path, part: str) -> None:
    edit_tensors(folder / part / part / "adapter_model.safetensors", zero_b)
    with pytest.raises(ArtifactMismatch, match=rf"{part}/{part}/\S+: never trained, every lora_B is zero"):
        import_public(host, "m", folder)
    assert "m" not in host.memories
    memory = import_public(host, "m", folder, allow_untrained=True)
    lora = getattr(memory, part)
    assert not any(b.any() for _, b in lora.factors.values())


def test_a_trained_trigger_is_not_left_out_unless_told(host: AdapterHost, tmp_path: Path) -> None:
    folder = save_public(tmp_path / "public", host.backbone, active=False)
    with pytest.raises(
        ArtifactMismatch, match=r"a trained trigger, but config.json says trigger_active is false\. Pass"
    ):
        import_public(host, "m", folder)
    assert import_public(host, "m", folder, trigger="always").config.trigger == "always"
    assert import_public(host, "m", folder, trigger="lora").config == CONFIG


def test_an_active_trigger_may_be_left_out(host: AdapterHost, folder: Path) -> None:
    shutil.rmtree(folder / "trigger")
    (folder / "trigger.bin").unlink()
    assert import_public(host, "m", folder, trigger="always").config == replace(CONFIG, trigger="always")


def test_no_other_trigger_is_known(host: AdapterHost, folder: Path) -> None:
    with pytest.raises(ConfigError, match="trigger is 'head'; expected 'lora', 'always', or None"):
        import_public(host, "m", folder, trigger="head")


def test_weaver_and_trigger_of_different_shapes_are_refused(host: AdapterHost, tmp_path: Path) -> None:
    folder = save_public(tmp_path / "public", host.backbone, trigger_rank=2)
    with pytest.raises(ArtifactMismatch, match=r"the weaver's LoRA has r=4, .* the trigger's r=2, .*trigger='always'"):
        import_public(host, "m", folder)
    assert import_public(host, "m", folder, trigger="always").config.rank == 4


# ---- Which base


def test_sizes_decide_on_which_base_the_weaver_runs(
    host: AdapterHost, talker: Backbone, narrow: Backbone, tmp_path: Path
) -> None:
    folder = save_public(tmp_path / "public", talker, narrow, active=False, trigger_trained=False)
    edit_json(folder / "weaver/weaver/adapter_config.json", base_model_name_or_path="Hub/Narrow")
    assert import_public(host, "m", folder).config.weaver_base == narrow.name
    with pytest.raises(
        ArtifactMismatch, match=r"trained on 'Hub/Narrow' and fits no loaded base; .*/talker': .* needs"
    ):
        import_public(AdapterHost(talker), "m", folder)
    with pytest.raises(ArtifactMismatch, match=r"adapter_model.safetensors: \S+ is \(\d+, \d+\), the config needs"):
        import_public(host, "m", folder, weaver_base=talker.name)
    with pytest.raises(ConfigError, match="'elsewhere'"):
        import_public(host, "m", folder, weaver_base="elsewhere")


def test_names_decide_between_bases_of_one_size(talker: Backbone, tmp_path: Path) -> None:
    twin = replace(talker, name="twin")
    host = AdapterHost(talker, twin)
    folder = save_public(tmp_path / "public", talker, active=False, trigger_trained=False)
    assert import_public(host, "m", folder).config.weaver_base == ""
    path = folder / "weaver/weaver/adapter_config.json"
    edit_json(path, base_model_name_or_path="twin")
    assert import_public(host, "m", folder).config.weaver_base == "twin"
    edit_json(path, base_model_name_or_path="Hub/Twin")
    with pytest.raises(ArtifactMismatch, match=r"trained on 'Hub/Twin', .* fits \['.*/talker', 'twin'\]; name one"):
        import_public(host, "m", folder)
    assert import_public(host, "m", folder, weaver_base="twin").config.weaver_base == "twin"
    assert import_public(host, "m", folder, weaver_base=talker.name).config.weaver_base == ""


def test_weaver_and_trigger_of_different_bases_do_not_pass_for_one(talker: Backbone, folder: Path) -> None:
    edit_json(folder / "weaver/weaver/adapter_config.json", base_model_name_or_path="Hub/Coder")
    with pytest.raises(ArtifactMismatch, match=r"trained on 'Hub/Coder', the trigger on '.*/talker', but here both"):
        import_public(AdapterHost(talker), "m", folder)
    import_public(AdapterHost(talker), "m", folder, weaver_base=talker.name)


def test_another_reasoner_is_refused(narrow: Backbone, folder: Path) -> None:
    with pytest.raises(ArtifactMismatch, match=r"config.json: hidden_size is 64, but the loaded base .* has 48"):
        import_public(AdapterHost(narrow), "m", folder)


# ---- Damage


ALL_FILES = (
    "config.json",
    *BINS,
    "weaver/weaver/adapter_config.json",
    "trigger/trigger/adapter_config.json",
    *ADAPTERS,
)


@pytest.mark.parametrize("name", ALL_FILES)
def test_a_missing_file_is_named(host: AdapterHost, folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ArtifactMissing, match=rf"{folder}/{name} is missing"):
        import_public(host, "m", folder)


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: b"\x80" * 99])
@pytest.mark.parametrize("name", ALL_FILES)
def test_a_damaged_file_is_named(host: AdapterHost, folder: Path, name: str, damage: Callable[[bytes], bytes]) -> None:
    (folder / name).write_bytes(damage((folder / name).read_bytes()))
    with pytest.raises(ArtifactCorrupt, match=rf"{folder}/{name}: "):
        import_public(host, "m", folder)


def test_code_in_a_file_is_not_run(host: AdapterHost, folder: Path, tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return Path.touch, (tmp_path / "ran",)

    torch.save({"output_layer": Payload()}, folder / "trigger.bin")
    with pytest.raises(
        ArtifactCorrupt, match=r"trigger.bin: not a file of tensors alone .*: UnpicklingError: Weights only"
    ):
        import_public(host, "m", folder)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("name", "key", "value", "error", "message"),
    [
        ("projs.bin", "weaver_to_reasoner", None, ArtifactMismatch, r"missing \['weaver_to_reasoner.bias'"),
        ("projs.bin", "third", torch.ones(1), ArtifactMismatch, r"unexpected \['third'\]"),
        ("weaver.bin", "prompt_query_latents", torch.ones(5, 64), ArtifactMismatch, r"is \(5, 64\), .* \(4, 64\)"),
        ("weaver.bin", "prompt_latent_scale", torch.ones(2), ArtifactMismatch, r"is \(2,\), .* \(1,\)"),
        ("weaver.bin", "prompt_latent_scale", torch.tensor([float("nan")]), ArtifactCorrupt, "not finite"),
        ("weaver.bin", "prompt_latent_scale", torch.ones(1).double(), ArtifactMismatch, "float64; expected one of"),
        ("trigger.bin", "output_layer", [1.0], ArtifactCorrupt, "output_layer is a list; expected tensors"),
        ("trigger.bin", "output_layer", {"weight": torch.ones(2, 48)}, ArtifactMismatch, r"missing .*bias"),
        (ADAPTERS[0], "base_model.model.lm_head.lora_B.weight", torch.ones(1), ArtifactMismatch, "lm_head"),
        (ADAPTERS[1], "base_model.model.score.weight", torch.ones(1), ArtifactMismatch, "unexpected .*score"),
    ],
)
def test_other_tensors_than_expected_are_named(
    host: AdapterHost, folder: Path, name: str, key: str, value: Any, error: type[Exception], message: str
) -> None:
    edit_tensors(folder / name, lambda tensors: tensors.pop(key) if value is None else tensors.update({key: value}))
    with pytest.raises(error, match=rf"{name}: .*{message}"):
        import_public(host, "m", folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt_latents_len": None}, "prompt_latents_len is None; expected a whole number"),
        ({"inference_latents_len": 0}, "inference_latents is 0; expected 1 to 256"),
        ({"max_inference_aug_num": 1.5}, r"max_inference_aug_num is 1\.5; expected a whole number"),
        ({"trigger_active": "no"}, "trigger_active is 'no'; expected true or false"),
        ({"weaver_lora_config": {"r": 8}}, r"weaver_lora_config has r=8, but weaver/weaver/adapter_config.json 4"),
        ({"vocab_size": 999}, "vocab_size is 999, but the loaded base .* has 259"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(
    host: AdapterHost, folder: Path, changes: dict[str, Any], message: str
) -> None:
    edit_json(folder / "config.json", **changes)
    with pytest.raises(ArtifactMismatch, match=rf"config.json: {message}"):
        import_public(host, "m", folder)


def test_a_rank_that_is_not_the_tensors_is_refused(host: AdapterHost, folder: Path) -> None:
    edit_json(folder / "trigger/trigger/adapter_config.json", r=8)
    with pytest.raises(ArtifactMismatch, match=r"trigger/trigger/\S+: r is 8, but \S+ has factors of rank \[4\]"):
        import_public(host, "m", folder)


def test_an_import_that_fails_changes_nothing(host: AdapterHost, folder: Path) -> None:
    memory = import_public(host, "m", folder)
    before = [tensor.clone() for tensor in tensors_in(memory)]
    (folder / "trigger.bin").unlink()
    with pytest.raises(ArtifactMissing):
        import_public(host, "m", folder)
    assert host.memories == {"m": memory}
    assert_same(tensors_in(memory), before)


# ---- What the public code has not


@pytest.mark.parametrize(
    ("changes", "asked", "message"),
    [
        ({"form": "cache"}, {}, "form 'cache'; the public code knows latents as input embeddings only"),
        ({"trigger": "head"}, {}, "trigger is 'head'; the public code has only 'always' and 'lora'"),
        ({"trigger": "never"}, {}, "trigger is 'never'; the public code has only"),
        ({"delimiters": (".",)}, {}, r"delimiters are \('.',\); the public code has only"),
        ({"trigger": "always"}, {"trigger_active": True}, "trigger is 'always'; there is none that could be asked"),
        ({}, {"dtype": torch.float16}, r"dtype is torch.float16; expected torch.float32 or torch.bfloat16"),
    ],
)
def test_a_memory_that_the_public_code_has_not_is_refused(
    host: AdapterHost, tmp_path: Path, changes: dict[str, Any], asked: dict[str, Any], message: str
) -> None:
    host.create("m", replace(CONFIG, **changes))
    with pytest.raises(ConfigError, match=message):
        export_public(host, "m", tmp_path / "public", **asked)
    assert not (tmp_path / "public").exists()
