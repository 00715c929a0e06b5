"""Answers of vLLM with the plugin against the repository's own engine: the same tokens and log probabilities."""

from typing import Any

import pytest
from answering import answers, differences

SETTINGS = {
    "room for all": {},
    "spans cut by chunks": {"max_num_batched_tokens": 64, "max_num_seqs": 16},
    "more versions than slots": {"max_loras": 2, "max_cpu_loras": 4},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_answers_are_those_of_our_engine(engine: Any, reference: Any, settings: dict[str, Any]) -> None:
    llm, cases = engine(**settings), reference.cases
    assert differences(answers(llm, reference, cases), cases) == [], "one batch, cold"
    assert differences(answers(llm, reference, cases), cases) == [], "one batch, prefix cache warm"
    assert differences(answers(llm, reference, cases, together=False), cases) == [], "one by one, warm"
    llm.reset_prefix_cache()
    assert differences(answers(llm, reference, cases, together=False), cases) == [], "one by one, cold"
