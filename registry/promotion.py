"""What follows from a gate: promotion, a person's decision, a canary, or one more training with a larger replay share.

The gate's row records what was found; a decision on it is a row of its own, made once, with an actor and a reason.
"""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from registry import jobs
from registry.datasets.manifest import manifest_of
from registry.errors import JobStateConflict, NothingToDecide, RouteRunning, UnreadableRow
from registry.gates.baseline import baseline_of, is_imported
from registry.gates.gate import Comparison, emit_verdict, forgot
from registry.gates.verdict import gate_of, verdict
from registry.job_requests import AnyTraining, CheckImport, Evaluate, TrainWeaver
from registry.models import Adapter, AliasMove, Gate, GateDecision, Job, Version
from registry.names import CHAMPION
from registry.serving.aliases import promote
from registry.serving.canaries import start_by_policy
from registry.serving.routes import live_route
from registry.versions.state import check_servable


def follow_up(session: Session, adapter: Adapter, version: Version, gate: Gate, job: Job) -> str:
    """Do what the policy says, in the gate's own transaction; returns what was done, in plain words.

    The caller holds the adapter's lock.
    """
    if not gate.passed:
        return "rejected; every alias stays where it is"
    if gate.policy == "manual":
        return "passed; waits for somebody to approve or reject it"
    request = jobs.request_of(job)
    if isinstance(request, AnyTraining | CheckImport) and not request.promote:
        return "passed; the job was made with `promote` false, so that no alias moves"
    actor = f"job {job.id}"
    if gate.policy == "canary" and baseline_of(session, adapter).version is not None:
        return _start_canary(session, adapter, version, actor)
    promote(session, adapter, CHAMPION, version, actor=actor, reason="passed its gate")
    return "passed; it is the champion now"


def retry_of(
    session: Session, adapter: Adapter, version: Version, job: Job, comparisons: Sequence[Comparison]
) -> Job | None:
    """Create the one training with a larger replay share that follows a version which forgot.

    It takes the place of `job` for all that waits for `job` (`registry.jobs.replace_job`).

    Returns:
        None if the adapter does not ask for a retry, forgetting was not the reason, the share is no larger, or `job` is
        a retry itself: there is never a second one.
    """
    share = adapter.retry_replay_share
    if not adapter.gate_gain:  # the task itself is among those that may not drop then, and replay mends none of it
        comparisons = [each for each in comparisons if each.task != version.dataset.task.name]
    if share is None or adapter.strategy != "replay" or not forgot(comparisons):
        return None
    request = jobs.request_of(job)
    if not isinstance(request, TrainWeaver) or request.retry_of is not None:
        return None
    if share <= manifest_of(version.dataset).replay_share:
        return None
    return jobs.replace_job(session, job, request.changed(retry_of=version.number, replay_share=share))


def run_gate(session: Session, adapter: Adapter, version: Version) -> Job:
    """Create the job that judges a version whose own job failed before its gate had run.

    Args:
        adapter: its row is locked by the caller.

    Raises:
        NothingToDecide: the gate has judged it.
        JobStateConflict: a job that is to judge it has not ended.
        VersionNotServable: it was archived or withdrawn, or its bytes are gone.
    """
    name = f"{adapter.name}@{version.number}"
    if gate_of(session, version) is not None:
        raise NothingToDecide(f"the gate of {name} has run; its verdict never changes. `memgen gate show` has it")
    check_servable(session, version)
    candidates = session.scalars(select(Job).where(Job.adapter_id == adapter.id, Job.state.in_(jobs.LIVE)))
    judging = next((job for job in candidates if job.id == version.job_id or _judges(job, version)), None)
    if judging is not None:
        raise JobStateConflict(f"job {judging.id} is to judge {name} and has not ended; wait for it, or cancel it")
    request = CheckImport(version.number) if is_imported(session, version) else Evaluate(version.number, judge=True)
    return jobs.create_job(session, version.adapter.project_id, request, adapter)


def _judges(job: Job, version: Version) -> bool:
    try:
        request = jobs.request_of(job)
    except UnreadableRow:
        return False
    judges = isinstance(request, CheckImport) or (isinstance(request, Evaluate) and request.judge)
    return judges and version.number in request.versions_needed


def decide(
    session: Session,
    adapter: Adapter,
    version: Version,
    *,
    approved: bool,
    actor: str,
    reason: str,
    expected: int | None = None,
) -> tuple[GateDecision, AliasMove | None]:
    """Approve a version that waits, which makes it the champion, or reject it for good.

    Args:
        adapter: its row is locked by the caller.
        expected: number of the version that the caller believes is the champion, 0 for none; None expects the one
            that the gate compared with, because what it found holds for no other. After one with the bare base, that
            is none, or one that may not serve.

    Raises:
        NothingToDecide: the version does not wait.
        StaleAlias: the champion is another.
    """
    gate = gate_of(session, version)
    if gate is None or verdict(gate) != "waiting":
        raise NothingToDecide(
            f"{adapter.name}@{version.number} is {verdict(gate)}; only a version that passed its gate under policy "
            "'manual' waits for a decision, and that is made once"
        )
    gate.decision = GateDecision(gate_id=gate.id, approved=approved, actor=actor, reason=reason)
    session.flush()
    emit_verdict(session, version, gate)
    if not approved:
        return gate.decision, None
    if expected is None:
        compared = gate.champion or baseline_of(session, adapter).unservable
        expected = compared.number if compared else 0
    why = f"approved: {reason}" if reason else "approved"
    return gate.decision, promote(session, adapter, CHAMPION, version, actor=actor, reason=why, expected=expected)


def _start_canary(session: Session, adapter: Adapter, version: Version, actor: str) -> str:
    live = live_route(session, adapter)
    try:
        route = start_by_policy(session, adapter, version, actor=actor, reason="passed its gate")
    except RouteRunning as running:
        waits = live is not None and live.kind == "canary"
        following = "This version is tried next if that one is stopped" if waits else "Then start its canary by hand"
        return f"passed; no canary was started: {running}. {following}"
    return f"passed; route {route.number} gives it {100 * adapter.canary_share:g}% of the sessions"
