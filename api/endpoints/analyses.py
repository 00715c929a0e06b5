"""Analyses: what a job of kind `analyze` has found out about the memory of a version."""

import os
import tempfile
import uuid
from datetime import datetime
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import FileResponse
from pydantic import BaseModel, Field, ValidationError

from api.http.deps import IsHead, Reader, ServicesDep
from api.http.file_once import FileOnce
from api.http.values import Number
from registry import jobs
from registry.adapters import get_adapter
from registry.database import transaction
from registry.errors import UnreadableRow
from registry.models import Job
from registry.versions.analyses import folder_of_job, newest_analysis, pack_analysis, read_analysis
from registry.versions.records import get_version
from registry.wiring import Services

_TAR = "application/x-tar"
router = APIRouter(prefix="/v1", tags=["analyses"])


class AnalyzedTaskOut(BaseModel):
    task: str
    suite: int = Field(description="Number of the suite that the items are of")
    items: int
    left_out: int = Field(description="Items that nobody could be judged on")
    right: int
    latents: int
    failures: dict[str, int] = Field(description="Wrong answers by kind")


class KindsByOut(BaseModel):
    """Who named the kinds of the wrong answers."""

    judge: str | None = Field(description="Null: the rules, of all of them")
    model: str | None
    by_judge: int
    by_rules: int = Field(description="Those that the judge gave no readable answer to; 0 without a judge")


class ClusterChoiceOut(BaseModel):
    """One number of clusters that was tried."""

    clusters: int
    silhouette: float
    reference_silhouette: float = Field(description="The highest of clouds of the same spread without clusters")
    stability: float = Field(description="Mean adjusted Rand index over pairs of subsamples")
    overlap: float = Field(
        description="Latents midway between two centres over those at the emptier centre, at most: 0 is a gap"
    )
    items: int = Field(description="Items that the cluster with the fewest has latents of")
    accepted: bool


class LatentClusterOut(BaseModel):
    number: int
    latents: int
    share: float
    tasks: dict[str, int]
    insertions: dict[str, int] = Field(description="Latents by where they were woven: `prompt` or `answer`")
    right_share: float = Field(description="Share of its latents that are of right answers")


class ClustersOut(BaseModel):
    verdict: str = Field(description="`clusters` or `no clusters`")
    reason: str
    choices: list[ClusterChoiceOut]
    clusters: list[LatentClusterOut]
    explained_by: dict[str, float] = Field(
        description="Share of the clusters that is known with something simpler: `task`, `query`, ..."
    )


class LatentPointOut(BaseModel):
    row: int = Field(description="Row of `latents.safetensors`")
    item: str
    task: str
    insertion: int = Field(description="0 is the prompt's end")
    position: int = Field(description="Tokens of prompt and answer in front of it")
    right: bool
    cluster: int | None
    pca: tuple[float, float]
    tsne: tuple[float, float]


class LatentMapOut(BaseModel):
    points: list[LatentPointOut]
    explained_variance: tuple[float, float] = Field(description="Shares of the two axes of PCA")
    perplexity: float


class TokenNeighbourOut(BaseModel):
    token_id: int
    token: str
    cosine: float


class NeighboursOut(BaseModel):
    name: str = Field(description="`cluster 0`, or `latent 17` by its row")
    tokens: list[TokenNeighbourOut]


class NearestTokensOut(BaseModel):
    directions: list[NeighboursOut]
    chance_cosine: float = Field(
        description="What the nearest token of a random direction exceeds once in twenty times"
    )


class TaskDriftOut(BaseModel):
    task: str
    items: int
    cosine: float
    least_cosine: float


class DriftOut(BaseModel):
    against: int = Field(description="The version that was compared with")
    items: int
    cosine: float
    other_items_cosine: float | None = Field(description="The same between each item's latents and other items'")
    cka: float | None
    tasks: list[TaskDriftOut]
    meaning: str


class FailureMoveOut(BaseModel):
    failure: str = Field(description="A kind of failure, or a role for its group of kinds")
    untouched: float = Field(description="Share of the items that are answered wrong in this way, with all latents")
    dropped: float = Field(description="Without the cluster's")
    random: float = Field(description="Without as many at random; mean of the draws")
    random_interval: tuple[float, float] = Field(
        description="Where `dropped` would be if the cluster's latents were like any"
    )
    rises: bool


class ClusterEffectOut(BaseModel):
    cluster: int
    dropped_latents: int
    random_latents: float
    accuracy: float
    random_accuracy: float
    moves: list[FailureMoveOut]
    role: str
    reason: str


class InterventionsOut(BaseModel):
    items: int
    accuracy: float
    effects: list[ClusterEffectOut]
    confidence: float | None = Field(description="Of each interval; null if there are no clusters")
    rule: str = Field(description="What a role is given by")


class AblationOut(BaseModel):
    name: str
    accuracy: float
    interval: tuple[float, float]
    difference: float = Field(description="From the version as it was trained, on the same items")
    difference_interval: tuple[float, float]
    insertions_per_answer: float
    latents_per_answer: float
    tasks: dict[str, float] = Field(description="Accuracy by task")
    runs: int = Field(description="Runs whose mean this is")


class AblationsOut(BaseModel):
    items: int
    rows: list[AblationOut]
    skipped: dict[str, str] = Field(description="What makes no sense for this version, and why")


class StoredAnalysis(BaseModel):
    """As the job has written it."""

    adapter: str
    version: int
    artifact_hash: str
    base_model: str
    base_revision: str
    settings: dict[str, Any] = Field(description="What was wanted: items, clusters, seed, ...")
    items: int
    latents: int
    hidden: int = Field(description="Size of a latent")
    tasks: list[AnalyzedTaskOut]
    kinds_by: KindsByOut
    clusters: ClustersOut
    map: LatentMapOut
    tokens: NearestTokensOut
    drift: DriftOut | None = Field(description="Null where no version to compare with was named")
    interventions: InterventionsOut | None
    ablations: AblationsOut | None


class AnalysisOut(StoredAnalysis):
    job_id: uuid.UUID
    analyzed_at: datetime | None


@router.get("/jobs/{job_id}/analysis")
def of_job(job_id: uuid.UUID, services: ServicesDep, caller: Reader) -> AnalysisOut:
    """What a job of kind `analyze` has found."""
    with transaction(services.sessions) as session:
        job = jobs.get_job(session, caller.project_id, job_id)
        folder = folder_of_job(job)
    return _read(services, job, folder)


@router.get("/jobs/{job_id}/analysis/files", response_class=FileResponse)
def files(job_id: uuid.UUID, services: ServicesDep, caller: Reader, is_head: IsHead) -> Response:
    """A tar: `analysis.json`, `latents.safetensors` with a line for each row in `latents.jsonl`, `items.jsonl`, the
    tokens nearest to each latent in `nearest.safetensors` with their texts in `nearest_tokens.json`,
    `clusters.safetensors` if there are clusters, and `manifest.json`."""
    with transaction(services.sessions) as session:
        folder = folder_of_job(jobs.get_job(session, caller.project_id, job_id))
    filename = f"analysis-{job_id}.tar"
    if is_head:
        return Response(media_type=_TAR, headers={"Content-Disposition": f'attachment; filename="{filename}"'})
    descriptor, made = tempfile.mkstemp(prefix="analysis-", suffix=".tar", dir=services.scratch.folder)
    os.close(descriptor)
    path = Path(made)
    try:
        pack_analysis(services.store, folder, path)
    except BaseException:
        path.unlink()
        raise
    return FileOnce(path, media_type=_TAR, filename=filename)


@router.get("/adapters/{name}/versions/{number}/analysis")
def newest(name: str, number: Number, services: ServicesDep, caller: Reader) -> AnalysisOut:
    """What the last job that analyzed the version has found."""
    with transaction(services.sessions) as session:
        version = get_version(session, get_adapter(session, caller.project_id, name), number)
        job = newest_analysis(session, version)
        folder = folder_of_job(job)
    return _read(services, job, folder)


def _read(services: Services, job: Job, folder: str) -> AnalysisOut:
    try:
        found = StoredAnalysis.model_validate_json(read_analysis(services.store, folder))
    except ValidationError as error:
        raise UnreadableRow(
            f"the analysis of job {job.id} is of another release: {error.errors()[0]['msg']}"
        ) from error
    return AnalysisOut(job_id=job.id, analyzed_at=job.finished_at, **dict(found))
