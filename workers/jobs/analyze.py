"""The job `analyze`: look into the memory of a version, on held-out items of tasks.

Answers are what costs: those with all latents, those of a version to compare with, those without each cluster, those of
the ablations. Each of the four is a part that is kept as soon as it is whole, so that a killed job goes on behind the
last one. What is made of latents alone is made anew.
"""

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from memgen.analysis.ablations import AblationSettings, ablate
from memgen.analysis.cluster_evidence import ClusterSettings
from memgen.analysis.clusters import Clustering, find_clusters
from memgen.analysis.drift import drift
from memgen.analysis.intervention import intervene
from memgen.analysis.items import ReadAnalysisItem, read_analysis_items
from memgen.analysis.latents import Latents, collect_latents, open_latents
from memgen.analysis.neighbours import nearest_tokens, write_nearest_tokens
from memgen.analysis.projection import MapSettings, map_latents
from memgen.analysis.runs import AnalysisRun
from memgen.checked_files import write_json, write_manifest
from registry import jobs
from registry.database import transaction
from registry.errors import EmptyDataset
from registry.job_requests import AnalyzeVersion
from registry.models import Adapter, Job, Task, Version
from registry.tasks import get_task
from registry.versions.analyses import ANALYSIS_FILE, analysis_folder
from registry.versions.records import get_version
from registry.versions.state import check_analyzable
from registry.wording import counted
from workers.analysis_items import DrawnItems, drawn_items
from workers.analysis_parts import AnalysisParts
from workers.failure_judge import FailureJudge, failure_judge
from workers.model import Model
from workers.runner import Running

_RESULT = "result.json"
"""File of a part that says what came of it."""
_CLUSTERS_FILE = "clusters.safetensors"


@dataclass(frozen=True)
class _Analyzed:
    request: AnalyzeVersion
    adapter: Adapter
    version: Version
    against: Version | None
    tasks: tuple[Task, ...]
    judge: FailureJudge | None


@dataclass(frozen=True)
class _Collected:
    """Latents of one version on the items."""

    folder: Path
    report: Mapping[str, Any]

    @property
    def latents(self) -> Latents:
        return open_latents(self.folder)


def run(running: Running, model: Model) -> dict[str, Any]:
    """Returns `{"version", "analysis", "items", "latents", "verdict", "clusters", "roles"}`.

    `analysis` names the folder that has the whole of it (`registry.versions.analyses`).
    """
    work = _begin(running, model)
    with tempfile.TemporaryDirectory(prefix=f"job-{running.job_id}-", dir=running.services.scratch.folder) as scratch:
        folder = Path(scratch)
        parts = AnalysisParts(running, work.adapter.project_id, folder / "parts")
        drawn = drawn_items(running, work.tasks, parts, most=work.request.items, seed=work.request.seed)
        items = read_analysis_items(model.host, drawn.items)
        kept = folder / "analysis"
        document = _document(work, drawn, _analyze(running, model, work, items, parts, kept))
        name = _store(running, work, document, kept)
        parts.clear()
    return _summary(work, document, name)


def _begin(running: Running, model: Model) -> _Analyzed:
    with transaction(running.services.sessions) as session:
        job = session.get_one(Job, running.job_id)
        adapter, request = jobs.adapter_of(job), jobs.request_as(job, AnalyzeVersion)
        version = get_version(session, adapter, request.version)
        against = get_version(session, adapter, request.against) if request.against else None
        for each in (version, against):
            if each is not None:
                check_analyzable(session, each)
        tasks = tuple(get_task(session, job.project_id, name) for name in request.tasks)
        judge = failure_judge(running, session, request, model)
    model.check_base(adapter)
    return _Analyzed(request, adapter, version, against, tasks, judge)


def _analyze(
    running: Running,
    model: Model,
    work: _Analyzed,
    items: Sequence[ReadAnalysisItem],
    parts: AnalysisParts,
    kept: Path,
) -> dict[str, Any]:
    """What was found, by its name in the document. Files that stay with it are put into the folder `kept`."""
    request, found = work.request, dict[str, Any]()
    memories = _memories(model, work.version, items)
    with model.keeping(memories):
        own = _collect(running, model, work, items, memories, parts)
        shutil.copytree(own.folder, kept, ignore=shutil.ignore_patterns(_RESULT))
        latents, found["collected"] = own.latents, own.report
        if all(each["left_out"] == each["items"] for each in own.report["tasks"]):
            raise EmptyDataset(
                f"none of {counted(len(items), 'item')} can be judged, so there is nothing to learn from them"
            )
        running.event(f"{counted(len(latents), 'latent')} of {counted(len(items), 'answer')}")
        clustering = _cluster(running, work, latents, kept)
        found["clusters"] = asdict(clustering.report)
        found["map"] = asdict(map_latents(latents, clustering, MapSettings(seed=request.seed)))
        found["tokens"] = asdict(nearest_tokens(model.host.backbone, latents, clustering, seed=request.seed))
        write_nearest_tokens(model.host.backbone, latents, kept, on_block=running.check)
        if work.against is not None:
            before = _collect_against(running, model, work.against, items, request.seed, parts)
            found["drift"] = _drift(running, work.against, before, own)
        answering = _answering(running, request.seed)
        if request.interventions:
            found["interventions"] = _result(
                parts,
                "interventions",
                lambda: asdict(intervene(model.host, memories, items, clustering, run=answering)),
            )
        if request.ablations:
            found["ablations"] = _result(
                parts,
                "ablations",
                lambda: asdict(ablate(model.host, memories, items, AblationSettings(), run=answering)),
            )
    return found


def _cluster(running: Running, work: _Analyzed, latents: Latents, kept: Path) -> Clustering:
    request = work.request
    settings = ClusterSettings(least=request.least_clusters, most=request.most_clusters, seed=request.seed)
    clustering = find_clusters(latents, settings, on_number=running.check)
    if clustering.model is not None:
        clustering.model.save(kept / _CLUSTERS_FILE)
    running.event(f"{clustering.report.verdict}: {clustering.report.reason}")
    return clustering


def _drift(running: Running, against: Version, before: _Collected, after: _Collected) -> dict[str, Any] | None:
    old, new = before.latents, after.latents
    if {place.item for place in old.places}.isdisjoint(place.item for place in new.places):
        running.event(f"version {against.number} is not compared: no item has latents of both", level="warning")
        return None
    forms = before.report["form"], after.report["form"]
    return {"against": against.number, **asdict(drift(old, new, forms=forms))}


def _memories(model: Model, version: Version, items: Sequence[ReadAnalysisItem]) -> list[str | None]:
    """The memory that answers each item; none for one that the base can't read."""
    readable = [place for place, item in enumerate(items) if not item.read.trouble]
    choices = model.choices(version, [items[place].read.prompt_ids for place in readable]) if readable else []
    chosen = {place: choice.memory for place, choice in zip(readable, choices, strict=True)}
    return [chosen.get(place) for place in range(len(items))]


def _collect(
    running: Running,
    model: Model,
    work: _Analyzed,
    items: Sequence[ReadAnalysisItem],
    memories: Sequence[str | None],
    parts: AnalysisParts,
) -> _Collected:
    def make(folder: Path) -> None:
        answering = _answering(running, work.request.seed, judge=work.judge)
        report = asdict(collect_latents(model.host, memories, items, folder, run=answering))
        kinds_by = work.judge.report() if work.judge else {"judge": None, "model": None, "by_judge": 0, "by_rules": 0}
        write_json(folder / _RESULT, {**report, "kinds_by": kinds_by})

    folder = parts.part("latents", make)
    return _Collected(folder, _read(folder))


def _collect_against(
    running: Running,
    model: Model,
    version: Version,
    items: Sequence[ReadAnalysisItem],
    seed: int,
    parts: AnalysisParts,
) -> _Collected:
    def make(folder: Path) -> None:
        memories = _memories(model, version, items)
        with model.keeping(memories):
            report = collect_latents(model.host, memories, items, folder, run=_answering(running, seed))
        write_json(folder / _RESULT, asdict(report))

    folder = parts.part("against", make)
    return _Collected(folder, _read(folder))


def _result(parts: AnalysisParts, name: str, make: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
    return _read(parts.part(name, lambda folder: write_json(folder / _RESULT, make())))


def _answering(running: Running, seed: int, *, judge: FailureJudge | None = None) -> AnalysisRun:
    """The judge names the kinds of the answers with all latents only: where answers are compared, the same rules name
    those of both sides."""
    return AnalysisRun(seed=seed, on_progress=_PhaseProgress(running), judge=judge)


class _PhaseProgress:
    """Reports how far a phase is, each state of it once."""

    def __init__(self, running: Running) -> None:
        self._running, self._reported = running, ("", 0)

    def __call__(self, phase: str, done: int, of: int) -> None:
        self._running.check()
        if (phase, done) != self._reported:
            self._reported = phase, done
            self._running.progress(phase, {"done": done, "of": of}, last=done == of)


def _document(work: _Analyzed, drawn: DrawnItems, found: Mapping[str, Any]) -> dict[str, Any]:
    collected, request, version = found["collected"], work.request, work.version
    tasks = [{**each, "suite": drawn.suites[each["task"]]} for each in collected["tasks"]]
    return {
        "adapter": work.adapter.name,
        "version": version.number,
        "artifact_hash": version.artifact_hash,
        "base_model": version.base_model,
        "base_revision": version.base_revision,
        "settings": {
            name: value
            for name, value in request.to_json().items()
            if name in ("items", "least_clusters", "most_clusters", "seed", "interventions", "ablations")
        },
        "items": len(drawn.items),
        "latents": collected["latents"],
        "hidden": collected["hidden"],
        "tasks": tasks,
        "kinds_by": collected["kinds_by"],
        "clusters": found["clusters"],
        "map": found["map"],
        "tokens": found["tokens"],
        "drift": found.get("drift"),
        "interventions": found.get("interventions"),
        "ablations": found.get("ablations"),
    }


def _store(running: Running, work: _Analyzed, document: Mapping[str, Any], kept: Path) -> str:
    """Put the analysis into the store. Returns the hash of its manifest, by which the job's result names it."""
    write_json(kept / ANALYSIS_FILE, document)
    name = write_manifest(kept)
    running.check()
    running.services.store.put_folder(analysis_folder(work.adapter.project_id, name), kept)
    return name


def _read(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / _RESULT).read_text())
    return found


def _summary(work: _Analyzed, document: Mapping[str, Any], name: str) -> dict[str, Any]:
    effects = (document["interventions"] or {"effects": ()})["effects"]
    return {
        "version": work.version.number,
        "analysis": name,
        "items": document["items"],
        "latents": document["latents"],
        "verdict": document["clusters"]["verdict"],
        "clusters": len(document["clusters"]["clusters"]),
        "roles": {str(effect["cluster"]): effect["role"] for effect in effects},
    }
