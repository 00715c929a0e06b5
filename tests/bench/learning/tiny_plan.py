"""A plan that a tiny model runs through in seconds."""

from bench.learning.plan import LearningPlan, TaskChoice

TASKS = tuple(
    TaskChoice(label, "words", "tests.bench.learning.tiny_tasks:Echo", {"words": words}, training_items=24)
    for label, words in (("yes-no", ["yes", "no"]), ("left-right", ["left", "right"]))
)
PLAN = LearningPlan(
    tasks=TASKS,
    model="tiny",
    dtype="float32",
    items=4,
    steps=2,
    batch_size=4,
    lora_rates=(1e-3, 2e-3),
    validation_items=4,
    demonstrations=2,
    router_prompts=20,
    grpo_steps=1,
    grpo_items=2,
    group_size=2,
    trigger_steps=1,
    trigger_items=2,
    outside=None,
    texts=3,
    text_tokens=48,
    memory={"latents": 2, "rank": 2, "alpha": 4},
)
