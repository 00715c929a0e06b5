"""The plugin refuses to run where it was not tested, instead of running wrong."""

import pytest
import vllm

from memgen_vllm import registration
from memgen_vllm.errors import WrongVllm


@pytest.mark.parametrize("version", ["0.31.9", "0.33.0", "1.0.0"])
def test_another_minor_is_refused(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr(vllm, "__version__", version)
    with pytest.raises(WrongVllm, match=rf"vLLM is {version}; memgen-vllm hooks functions of 0\.32\."):
        registration.check_surroundings()


def test_a_missing_service_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registration, "_NEEDED", ("memgen.nowhere",))
    with pytest.raises(WrongVllm, match=r"memgen\.nowhere cannot be imported.*pip install --no-deps"):
        registration.check_surroundings()


def test_all_hooks_find_their_functions() -> None:
    registration.check_surroundings()
    registration.register()
    registration.register()
