"""Analyses as a worker would have made them: a job that has ended, and its files in the store."""

import hashlib
import json
import uuid
from collections.abc import Sequence
from typing import Any

from registry import jobs
from registry.adapters import get_adapter
from registry.database import transaction
from registry.job_requests import AnalyzeVersion
from registry.versions.analyses import ANALYSIS_FILE, ITEMS_FILE, analysis_folder
from registry.wiring import Services

_MOVE = {"failure": "planning", "untouched": 0.25, "dropped": 0.5, "random": 0.25}


def found(**more: Any) -> dict[str, Any]:
    """What an analysis of `bot@1` has found: 3 clusters, of which one has a role."""
    points = [
        {
            **{"row": row, "item": str(uuid.UUID(int=row // 3 + 1)), "task": "ab"[row % 2], "insertion": row % 3},
            **{"position": 10 + row, "right": row % 4 > 0, "cluster": row % 3, "pca": [float(row), row / 2]},
            "tsne": [float(-row), row * row / 5],
        }
        for row in range(30)
    ]
    clusters = [
        {
            **{"number": number, "latents": 10, "share": 1 / 3, "tasks": {"a": 5, "b": 5}},
            **{"insertions": {"prompt": 10 * (number == 0), "answer": 10 * (number > 0)}, "right_share": 0.75},
        }
        for number in range(3)
    ]
    effects = [
        {
            **{
                "cluster": number,
                "dropped_latents": 10,
                "random_latents": 9.8,
                "accuracy": 0.5,
                "random_accuracy": 0.7,
            },
            "moves": [{**_MOVE, "random_interval": [0.1, 0.4 + number / 5], "rises": number == 0}],
            "role": "planning memory" if number == 0 else "no clear role",
            "reason": "planning failures rise" if number == 0 else "no failure rises beyond chance",
        }
        for number in range(3)
    ]
    return {
        **{"adapter": "bot", "version": 1, "artifact_hash": "ab" * 32, "base_model": "tiny", "base_revision": "r1"},
        "settings": {"items": 10, "least_clusters": 2, "most_clusters": 4, "seed": 0},
        **{"items": 10, "latents": 30, "hidden": 64},
        "tasks": [
            {"task": task, "suite": 1, "items": 5, "left_out": 0, "right": 3, "latents": 15, "failures": {"other": 2}}
            for task in "ab"
        ],
        "kinds_by": {"judge": None, "model": None, "by_judge": 0, "by_rules": 0},
        "clusters": {
            "verdict": "clusters",
            "reason": "3 clusters repeat themselves",
            "choices": [
                {
                    "clusters": 3,
                    "silhouette": 0.4,
                    "reference_silhouette": 0.1,
                    "stability": 0.9,
                    "overlap": 0.1,
                    "items": 9,
                    "accepted": True,
                }
            ],
            "clusters": clusters,
            "explained_by": {"task": 0.1, "insertion": 0.8},
        },
        "map": {"points": points, "explained_variance": [0.5, 0.25], "perplexity": 9.0},
        "tokens": {
            "directions": [
                {"name": f"cluster {number}", "tokens": [{"token_id": 7, "token": " <plan>", "cosine": 0.5}]}
                for number in range(3)
            ],
            "chance_cosine": 0.31,
        },
        "drift": {
            **{
                "against": 2,
                "items": 10,
                "cosine": 0.9,
                "other_items_cosine": 0.4,
                "cka": None,
                "meaning": "they are much alike",
            },
            "tasks": [{"task": "a", "items": 5, "cosine": 0.9, "least_cosine": 0.8}],
        },
        "interventions": {
            **{"items": 10, "accuracy": 0.75, "effects": effects, "confidence": 0.99, "rule": "A role needs a rise."}
        },
        "ablations": {
            "items": 10,
            "rows": [
                {
                    **{"name": "as trained", "accuracy": 0.75, "interval": [0.5, 0.9], "difference": 0.0},
                    **{"difference_interval": [0.0, 0.0], "insertions_per_answer": 2.0, "latents_per_answer": 3.0},
                    **{"tasks": {"a": 0.5, "b": 1.0}, "runs": 1},
                }
            ],
            "skipped": {"without cues": "it reads none"},
        },
        **more,
    }


def analyze(
    services: Services, project_id: uuid.UUID, *, version: int = 1, items: Sequence[uuid.UUID] = (), **more: Any
) -> uuid.UUID:
    """The id of a job that has analyzed a version of `bot`; `items` are the trajectories that it has read."""
    document = json.dumps(found(version=version, **more)).encode()
    name = hashlib.sha256(document).hexdigest()
    folder = analysis_folder(project_id, name)
    lines = "".join(json.dumps({"item": str(item), "task": "a"}) + "\n" for item in items)
    for file, data in ((ANALYSIS_FILE, document), (ITEMS_FILE, lines.encode()), ("latents.safetensors", b"latents")):
        services.store.put(f"{folder}/{file}", data)
    with transaction(services.sessions) as session:
        adapter = get_adapter(session, project_id, "bot")
        job = jobs.create_job(session, project_id, AnalyzeVersion(version, ("a",)), adapter)
        attempt = jobs.claim(session, job.id, "test", 60)
        assert attempt == 1
        jobs.finish(session, job.id, attempt, "succeeded", result={"version": version, "analysis": name})
        return job.id
