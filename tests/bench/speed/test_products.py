"""The count of a training step's products: what it counts must be what runs."""

from bench.speed.products import measure
from bench.tool_calls import tool_calls
from memgen.backbone.loading import Backbone
from memgen.training.examples import build_examples


def test_a_step_is_counted_with_what_it_needs(base: Backbone) -> None:
    # A prompt long enough that reading it costs more than a LoRA on a tiny base.
    system = {"role": "system", "content": "Answer with one call. " * 8}
    conversations = [{"messages": [system, *item.messages]} for item in tool_calls(2, seed=0)]
    batch = build_examples(base.profile, conversations, max_tokens=1000).examples
    found = measure(base, batch)
    counts = found["millions_a_token"]
    assert counts["reference"] > counts["ours"] > counts["ours_cached"] > 0
    assert counts["lora"] > counts["ours_cached"]
    assert found["batch"]["rows"] == 2
