"""Every `MEMGEN_*` of the pages is read by something, with the default that stands beside it."""

import re

import pytest

from registry.settings import Settings
from tests.docs.pages import PAGES, ROOT, page_name

UNITS = {"": 1, "MB": 10**6, "GB": 10**9, "GiB": 2**30}
NAMED = sorted(
    {(page_name(page), name) for page in PAGES for name in re.findall(r"\bMEMGEN_(\w+)", page.read_text("utf-8"))}
)
DEFAULTS = sorted(
    {
        (page_name(page), name, float(number.replace(",", "")) * UNITS[unit])
        for page in PAGES
        for name, number, unit in re.findall(
            r"`MEMGEN_(\w+)`\s\((\d[\d,.]*\d|\d)(?: (MB|GB|GiB))?[,;) ]", page.read_text("utf-8")
        )
    }
)


def _elsewhere() -> set[str]:
    """Variables that are no settings of the service: of vLLM's plugin, of compose and of the Makefile."""
    files = [
        *(ROOT / "packages" / "memgen-vllm" / "src").rglob("*.py"),
        *ROOT.glob("docker-compose*.yml"),
        ROOT / "Makefile",
    ]
    return {name for file in files for name in re.findall(r"\bMEMGEN_(\w+)", file.read_text(encoding="utf-8"))}


@pytest.mark.parametrize(("page", "name"), NAMED)
def test_a_variable_is_read(page: str, name: str) -> None:
    assert name.lower() in Settings.model_fields or name in _elsewhere(), page


@pytest.mark.parametrize(("page", "name", "value"), DEFAULTS)
def test_a_default_is_the_setting_s_own(page: str, name: str, value: float) -> None:
    assert Settings.model_fields[name.lower()].default == value, page


def test_the_scan_finds_them() -> None:
    assert len({name for _, name in NAMED}) > 40
    assert len(DEFAULTS) > 25
