"""Every route of the application, as it tells them itself, with a whole body for each and rows that it finds."""

import re
import uuid
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI

from api.app import create_app
from registry import jobs
from registry.database import transaction
from registry.job_requests import TrainWeaver
from registry.keys import create_key
from registry.serving.aliases import promote
from registry.serving.exposures import record_exposure
from registry.serving.resolution import Resolution
from registry.settings import Settings
from registry.wiring import Services
from tests.api.stored import make_adapter, make_gate, make_scores, make_task, make_version

BODIES: dict[str, Any] = {
    "POST /v1/keys": {"name": "k", "scopes": ["read"]},
    "POST /v1/tasks": {
        **{"name": "u", "description": "d", "grader": {"kind": "exact"}, "holdout_share": 0.2},
        "shared_turns": 0,
    },
    "POST /v1/trajectories": {
        **{"task": "t", "reward": 1.0, "session_id": "s", "metadata": {"user": "u"}, "trajectory_id": "x"},
        "messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}],
        "tools": [{"type": "function", "function": {"name": "go", "parameters": {"type": "object"}}}],
    },
    "POST /v1/trajectories/import": {
        "messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]
    },
    "POST /v1/traces": {
        "resourceSpans": [
            {
                "resource": {"attributes": []},
                "scopeSpans": [{"spans": [{"traceId": "aa", "spanId": "bb", "name": "n"}]}],
            }
        ]
    },
    "POST /v1/adapters": {
        **{"name": "b", "description": "", "strategy": "replay", "memory": {"latents": 4}, "replay_share": 0.25},
        **{"gate_margin": 0.05, "gate_rule": "point", "gate_level": 0.05, "gate_policy": "automatic"},
        **{"canary_share": 0.05, "canary_promotion": "non_inferior", "canary_margin": 0.05, "retry_replay_share": None},
    },
    "PATCH /v1/adapters/{name}": {"replay_share": 0.25, "gate_margin": 0.05, "gate_level": 0.05, "reason": ""},
    "POST /v1/adapters/{name}/aliases/{alias}/promote": {"version": 9, "expected_version": 1, "reason": ""},
    "POST /v1/adapters/{name}/aliases/{alias}/rollback": {
        **{"to_version": 9, "to_time": "2026-01-01T00:00:00Z", "expected_version": 7, "reason": ""}
    },
    "POST /v1/jobs": {
        **{"kind": "train_weaver", "adapter": "bot", "task": "t", "tasks": None, "method": "sft", "version": None},
        **{"environment": {"name": "reasoning-gym:spell_backward", "options": {}, "items": 4}, "parent": 1},
        **{"training": {"steps": 1}, "min_reward": 0.5, "insights": ["x"], "promote": True, "analysis": None},
    },
    "POST /v1/chat/completions": {
        **{"model": "base", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1, "temperature": 0.0},
        **{"tools": [{"type": "function", "function": {"name": "go", "parameters": {"type": "object"}}}]},
        **{"top_p": 1.0, "stop": ["x"], "seed": 1, "n": 1, "user": "u", "metadata": {"a": "b"}, "top_k": 0},
    },
    "POST /v1/completions": {
        **{"model": "base", "prompt": ["hi", "ho"], "max_tokens": 1, "temperature": 0.0, "top_p": 1.0, "stop": ["x"]},
        **{"seed": 1, "n": 1, "logprobs": 0, "user": "u", "echo": False},
    },
    "POST /v1/messages": {
        **{
            "model": "base",
            "max_tokens": 1,
            "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
        },
        **{"system": "s", "tools": [{"name": "go", "input_schema": {"type": "object"}}], "temperature": 0.0},
        **{"tool_choice": {"type": "auto"}, "stop_sequences": ["x"], "metadata": {"user_id": "u"}, "top_k": 0},
    },
    "POST /v1/messages/count_tokens": {
        **{"model": "base", "messages": [{"role": "user", "content": "hi"}], "system": [{"type": "text", "text": "s"}]},
    },
    "POST /v1/responses": {
        **{"model": "base", "input": [{"role": "user", "content": [{"type": "input_text", "text": "hi"}]}]},
        **{"max_output_tokens": 1, "store": True, "tools": [{"type": "function", "name": "go", "parameters": {}}]},
        **{"text": {"format": {"type": "text"}}, "include": [], "reasoning": {"effort": "none"}, "user": "u"},
    },
    "POST /v1/adapters/{name}/routes": {
        **{"kind": "ab", "arms": [{"version": 1, "weight": 0.5}, {"version": 9, "weight": 0.5}], "version": None},
        **{"share": None, "level": 0.05, "smallest_effect": 0.05, "reward_source": "user", "promotion": "never"},
        **{"margin": None, "replace": False, "reason": ""},
    },
    "PATCH /v1/adapters/{name}/routes/{number}": {"state": "ended", "reason": ""},
    "POST /v1/feedback": {"completion_id": "chatcmpl-1", "reward": 0.5, "source": "user", "comment": ""},
    "POST /v1/adapters/{name}/versions/{number}/gate/approve": {"reason": "", "expected_version": 7},
    "POST /v1/adapters/{name}/versions/{number}/gate/reject": {"reason": ""},
    "POST /v1/schedules": {
        **{"name": "n", "adapter": "bot", "task": "t", "training": {"steps": 1}, "min_reward": 0.5, "promote": True},
        **{"cron": "0 3 * * *", "time_zone": "UTC", "new_trajectories": 5, "idle_hours": 1.0},
    },
    "PATCH /v1/schedules/{name}": {"cron": "0 3 * * *", "time_zone": "UTC", "min_reward": 0.5, "paused": False},
    "POST /v1/loops": {
        **{"adapter": "bot", "task": "t", "create": True, "every": "night", "time_zone": "UTC", "after": 5},
        **{"training": {"steps": 1}, "min_reward": 0.5, "canary_share": 0.2, "canary_promotion": "better"},
        **{
            "gate_margin": 0.05,
            "judge": "strict",
            "canary_margin": 0.05,
            "keep_last": 5,
            "quiet_hours": 24.0,
            "most_failures": 3,
            "holdout_share": 0.2,
        },
        **{"grader": {"kind": "exact"}, "memory": {"latents": 4}},
    },
    "POST /v1/adapters/{name}/versions/{number}/archive": {"reason": ""},
    "POST /v1/adapters/{name}/versions/{number}/unarchive": {"reason": ""},
    "PUT /v1/adapters/{name}/retention": {"keep_last": 5},
    "POST /v1/adapters/{name}/retention/runs": {"keep_last": 5, "dry_run": True, "reason": ""},
    "POST /v1/deletions": {
        **{"scope": "user", "id": "u", "policy": "keep", "reason": "", "dry_run": True, "expected": 1}
    },
    "POST /v1/judges": {"name": "n", "kind": "pointwise", "model": "base", "rubric": "Polite."},
    "PATCH /v1/judges/{name}": {"daily_calls": 5},
    "PATCH /v1/tasks/{name}": {"judge": None, "judge_rewards": "apart"},
    "POST /v1/webhooks": {"name": "n", "url": "https://example.com/hook", "events": ["job.failed"]},
    "PATCH /v1/webhooks/{name}": {"url": "https://example.com/hook", "events": [], "enabled": True},
    "POST /v1/webhooks/{name}/rotate": {"overlap_hours": 1.0},
    "POST /v1/garbage": {"dry_run": True},
    "PUT /v1/recordings/policy": {"mode": "asked", "share": 1.0, "task": "t", "idle_seconds": 60.0},
    "PUT /v1/recordings/policies/{name}": {"mode": "asked", "share": 1.0, "task": "t", "idle_seconds": 60.0},
}
"""A whole body for each route that takes one."""


PARAMETER = r"\{(\w+)(?::\w+)?\}"
"""A parameter in a path's template, with its kind where it names one."""


class Stored:
    """What is there for hostile values to be tried beside."""

    def __init__(self, services: Services, project_id: uuid.UUID) -> None:
        with transaction(services.sessions) as session:
            task, adapter = make_task(session, project_id, "t"), make_adapter(session, project_id)
            versions = [make_version(session, adapter, task) for _ in range(2)]
            for version in versions:
                make_gate(session, version, task, before=0.1, after=0.9)
            make_scores(session, adapter, task, {None: 0.1, versions[0]: 0.5, versions[1]: 0.6})
            promote(session, adapter, "champion", versions[0], actor="test", reason="")
            job = jobs.create_job(session, project_id, TrainWeaver.from_json({"task": "t"}), adapter)
            jobs.request_cancel(session, project_id, job.id)
            key, _ = create_key(session, project_id, "other", ["read"])
            record_exposure(session, project_id, "chatcmpl-1", Resolution(adapter, versions[0]), "s")
            self.path_values = {
                **{"number": "1", "label": "x", "alias": "champion", "job_id": str(job.id), "key_id": str(key.id)},
                **{"model": "base", "deletion_id": str(uuid.uuid4()), "trajectory": str(uuid.uuid4())},
                **{"text": str(job.id), "path": "x"},
                **{"response_id": "resp_1", "delivery_id": str(uuid.uuid4()), "run": str(uuid.uuid4())},
            }

    def path(self, template: str, **hostile: str) -> str:
        name = {"/v1/tasks": "t", "/v1/schedules": "s", "/ui/schedules": "s"}.get(
            "/".join(template.split("/")[:3]), "bot"
        )
        values = {"name": name, **self.path_values, **hostile}
        return re.sub(PARAMETER, lambda found: quote(values[found[1]], safe=""), template)


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(method, path, OpenAPI's operation) of every route; those that are in no document have an empty one."""
    app: FastAPI = create_app(Settings(database_url=None), serve_model=False)
    documented = app.openapi()["paths"]
    for path, methods in documented.items():
        for method, operation in methods.items():
            yield method.upper(), path, operation
    for route in app.routes:
        path = getattr(route, "path", None)
        if path is not None and getattr(route, "path_format", path) not in documented:
            for method in (getattr(route, "methods", None) or {"GET"}) - {"HEAD"}:
                yield method, path, {}


OPERATIONS = list(operations())


def takes_json(operation: dict[str, Any]) -> bool:
    return "application/json" in operation.get("requestBody", {}).get("content", ())
