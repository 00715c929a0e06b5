"""What a body says of an analysis, and the request of the job that it becomes."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field
from sqlalchemy.orm import Session

from api.http.schemas import Strict
from api.http.values import Number
from memgen.tasks.graders import LIKELIHOOD
from registry.errors import Invalid
from registry.job_requests import AnalyzeVersion
from registry.judging.judges import check_upstream, find_model, get_judge
from registry.models import Adapter
from registry.settings import Settings
from registry.tasks import get_task
from registry.versions.ancestry import learned_tasks
from registry.versions.records import get_version
from registry.versions.state import check_analyzable

MOST_CLUSTERS = 32


class AnalysisIn(Strict):
    items: Annotated[int, Field(ge=1, le=10_000, description="Held-out items at most, of all tasks together")] = (
        AnalyzeVersion.items
    )
    least_clusters: Annotated[
        int, Field(ge=2, le=MOST_CLUSTERS, description="Least number of clusters that is tried")
    ] = AnalyzeVersion.least_clusters
    most_clusters: Annotated[int, Field(ge=2, le=MOST_CLUSTERS, description="Most clusters that are tried")] = (
        AnalyzeVersion.most_clusters
    )
    interventions: Annotated[
        bool, Field(description="Answer the items again without each cluster's latents, and without as many at random")
    ] = AnalyzeVersion.interventions
    ablations: Annotated[
        bool, Field(description="Answer them again with fewer latents, a smaller budget, another trigger, without cues")
    ] = AnalyzeVersion.ablations
    against: Annotated[
        Number | None, Field(description="Version of the same adapter whose latents are compared with this one's")
    ] = None
    seed: Annotated[int, Field(ge=0, le=2**31 - 1, description="Decides every draw")] = AnalyzeVersion.seed


def analyze_request(
    session: Session,
    adapter: Adapter,
    version: int | None,
    tasks: Sequence[str] | None,
    sent: AnalysisIn | None,
) -> AnalyzeVersion:
    """
    Raises:
        Invalid, NotFound: something is missing, or not there, or a version weaves no latents.
        VersionNotServable: a version was withdrawn, or its bytes are gone.
    """
    if version is None:
        raise Invalid("an analyze job needs `version`, the number of the version to analyze")
    terms = sent or AnalysisIn()
    if terms.least_clusters > terms.most_clusters:
        raise Invalid(
            f"least_clusters is {terms.least_clusters} and most_clusters {terms.most_clusters}; expected a least that "
            "is no larger"
        )
    if terms.against == version:
        raise Invalid(f"`against` is {version}, as `version` is; name another version to compare with")
    analyzed = get_version(session, adapter, version)
    check_analyzable(session, analyzed)
    if terms.against is not None:
        check_analyzable(session, get_version(session, adapter, terms.against))
    if tasks is None:
        found = learned_tasks(session, analyzed)
    else:
        found = [get_task(session, adapter.project_id, name) for name in dict.fromkeys(tasks)]
    names = tuple(task.name for task in found if task.grader.get("kind") != LIKELIHOOD)
    if not names:
        raise Invalid(
            f"no task of the analysis of {adapter.name}@{version} has a grader that judges new answers; name others "
            "in `tasks`"
        )
    return AnalyzeVersion(version=version, tasks=names, **terms.model_dump())


def with_judge(
    session: Session, adapter: Adapter, settings: Settings, request: AnalyzeVersion, judge: str, max_calls: int
) -> AnalyzeVersion:
    """The request with a judge that names the kinds of wrong answers; its model is that of this moment.

    Raises:
        JudgeNotFound, UpstreamNotFound, AdapterNotFound, AliasNotFound, VersionNotFound, VersionNotServable: the judge,
            or its model.
        Invalid: no call is allowed.
    """
    if max_calls < 1:
        raise Invalid(f"max_calls is {max_calls}; expected at least 1")
    found = find_model(session, adapter.project_id, get_judge(session, adapter.project_id, judge).model)
    check_upstream(session, settings, adapter.project_id, found.label)
    return request.changed(judge=judge, judge_model=found.label, max_calls=max_calls)
