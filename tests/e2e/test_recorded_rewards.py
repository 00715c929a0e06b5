"""Runs recorded over the API and rewarded by feedback are what `grpo_recorded` learns from, as they were drawn."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import openai
import pytest
import torch
from sqlalchemy import select
from transformers import AutoModelForCausalLM

from memgen.training.reward.recorded_groups import groups_of_trajectories
from memgen.training.reward.rollouts import RolledTurn
from memgen.training.reward.sampled_turns import TrainedPolicy
from registry.database import transaction
from registry.models import Dataset, Trajectory
from registry.settings import Settings
from tests.e2e.test_recording import LETTERS
from tests.e2e.test_serving import api_url, client
from tests.workers.conftest import Workshop, workshop
from workers.model import Model

__all__ = ["api_url", "client", "workshop"]

DRAWN: list[dict[str, Any]] = [
    {"temperature": 0.0},
    {"temperature": 0.7, "top_p": 0.9},
    {"temperature": 1.0, "presence_penalty": 1.0},
    {"temperature": 1.5},
]
BIAS = {"2": 100} | {str(token): 50 for token in LETTERS}
"""An answer is two letters and the end, whatever the tiny base would say: other tokens of its need not be text."""
QUESTIONS = 12


@pytest.fixture
def settings(settings: Settings, tiny_base: Path) -> Settings:
    return settings.model_copy(update={"base_model": str(tiny_base), "base_dtype": "float32", "torch_threads": 1})


def play(client: openai.OpenAI, question: int, drawn: dict[str, Any], reward: float) -> None:
    """One run of two turns, and what it was worth."""
    messages: list[Any] = []
    for text in (f"question {question}", "and then?"):
        messages.append({"role": "user", "content": text})
        reply: Any = client.chat.completions.create(
            model="base",
            messages=messages,
            max_tokens=8,
            logit_bias=BIAS,
            seed=question,
            extra_body={"min_tokens": 2},
            extra_headers={"X-Memgen-Task": "yes", "X-Session-Id": f"{question} {drawn}"},
            **drawn,
        )
        messages.append({"role": "assistant", "content": reply.choices[0].message.content})
    run = reply.memgen["recorded"]["run"]
    client.post("/feedback", cast_to=object, body={"run_id": run, "reward": reward, "source": "environment"})


def recorded(workshop: Workshop, count: int) -> list[Trajectory]:
    """The trajectories of that many runs, once they stand."""
    query = select(Trajectory).where(Trajectory.sampled.is_not(None), Trajectory.reward.is_not(None))
    deadline = time.monotonic() + 60
    while True:
        with transaction(workshop.services.sessions) as session:
            found = list(session.scalars(query))
        if len(found) == count:
            return found
        assert time.monotonic() < deadline, f"{len(found)} of {count} runs"
        time.sleep(0.1)


def lines_of(workshop: Workshop) -> list[dict[str, Any]]:
    """The newest version's dataset."""
    with transaction(workshop.services.sessions) as session:
        dataset = session.get_one(Dataset, workshop.versions()[-1].dataset_id)
        lines = workshop.services.store.get(dataset.object_key).decode().split("\n")
    return [json.loads(line) for line in lines if line]


@torch.no_grad()
def own_logprobs(base: torch.nn.Module, turn: RolledTurn) -> Sequence[float]:
    """What transformers itself gives each token of an answer."""
    ids = torch.tensor([[*turn.prompt_ids, *turn.token_ids]])
    rows = base(ids).logits[0].log_softmax(-1)[len(turn.prompt_ids) - 1 : -1]
    found: list[float] = rows.gather(1, ids[0, len(turn.prompt_ids) :, None])[:, 0].tolist()
    return found


def test_what_was_drawn_is_what_training_reads(workshop: Workshop, client: openai.OpenAI, tiny_base: Path) -> None:
    workshop.add_task("yes")
    for question in range(QUESTIONS):
        better, worse = DRAWN[question % 4], DRAWN[(question + 1) % 4]
        play(client, question, better, 1.0)
        play(client, question, worse, 0.0)
    runs = recorded(workshop, 2 * QUESTIONS)
    groups = sum(not run.held_out for run in runs) // 2
    assert 0 < groups < QUESTIONS, "both of a question on one side of the split"

    params = {"task": "yes", "method": "grpo_recorded", "training": {"steps": 2, "items_per_step": 4}}
    job = workshop.work(workshop.queue_job("train_weaver", params))
    assert (job.state, job.error) == ("succeeded", None)
    events = workshop.events(job.id)
    [compared] = [event for event in events if event.message.startswith("comparing the answers")]
    assert compared.message == f"comparing the answers of {groups} groups"
    left_out = {key: value for key, value in compared.data.items() if key.startswith(("skipped", "unfit"))}
    assert set(left_out.values()) == {0}, left_out
    assert not [event.message for event in events if "logprobs" in event.message]

    host = Model(workshop.services).host
    policy = TrainedPolicy(host.backbone.revision, host.backbone.vocab_size)
    read = groups_of_trajectories(host.backbone.profile, lines_of(workshop), max_tokens=500, policy=policy)
    turns = [turn for group in read.groups for rollout in group.rollouts for turn in rollout.turns]
    assert len(turns) == 4 * groups
    base = AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.float32)
    for turn in turns:
        assert (len(turn.token_ids), turn.token_ids[-1]) == (3, 2), "two letters, and the token that ends an answer"
        assert turn.logprobs == pytest.approx(own_logprobs(base, turn), abs=2e-3)
