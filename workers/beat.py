"""The beat's tick: it looks at loops, starts schedules that are due, advances retrainings, finishes deletions, sweeps
what expired, indexes the words of new trajectories.

It may run twice at once, or not for a day: each piece of work is taken under a lock and done once. A fault in one
piece, even an unforeseen one, must not keep the others from running: a deletion would wait for an unrelated row.
"""

import time
import uuid
from datetime import timedelta
from functools import partial

import structlog

from registry.clock import utc_now
from registry.database import transaction
from registry.deletion.erasure import finish_erasure, unfinished_erasures
from registry.deletion.retraining import advance_chain, chains_to_advance
from registry.errors import RegistryError
from registry.judging.ticks import tasks_to_judge, tick_judge
from registry.loops.disks import full_disks
from registry.loops.findings import Surroundings
from registry.loops.states import BEAT, check_loop, looped_adapters, loops_to_check, why_held
from registry.retention.applying import adapters_over_their_policy, apply_policy
from registry.schedules.ticks import bring_back, schedules_to_ask, tick
from registry.scratch import sweep
from registry.serving.stored_responses import sweep_responses
from registry.trajectories.words import index_words, projects_to_index
from registry.webhooks.deliveries import sweep_events
from registry.wiring import Services
from workers.queue import Send

log = structlog.get_logger()

_INDEXING_SECONDS = 4.0
"""Less than half of the time between two ticks: others wait in the queue."""


def tick_all(services: Services, send: Send) -> list[uuid.UUID]:
    """Run one tick. Returns the jobs that it created and sent."""
    around = Surroundings(utc_now(), full_disks(services.settings))
    _check_loops(services, around)
    created = [*_tick_schedules(services, around), *_tick_judges(services), *_advance_retrainings(services)]
    for job_id in created:
        send(job_id)
    _sweep(services)
    _sweep_responses(services)
    _sweep_events(services)
    _finish_erasures(services)
    _apply_retention(services)
    _index_words(services)
    return created


def _check_loops(services: Services, around: Surroundings) -> None:
    """Find the state of each loop, and let its change be told."""
    with transaction(services.sessions) as session:
        waiting = loops_to_check(session)
    for loop_id in waiting:
        try:
            with transaction(services.sessions) as session:
                check_loop(session, loop_id, around)
        except Exception:
            log.exception("a loop could not be looked at", loop=str(loop_id))


def _index_words(services: Services) -> None:
    """Let new trajectories be searched by their words, of each project some at a time. What a tick has no time for, as
    after an upgrade, the next ones do."""
    ends_at = time.monotonic() + _INDEXING_SECONDS
    failed: set[uuid.UUID] = set()
    while time.monotonic() < ends_at:
        with transaction(services.sessions) as session:
            waiting = [each for each in projects_to_index(session) if each not in failed]
        if not waiting:
            return
        for project_id in waiting:
            try:
                with transaction(services.sessions) as session:
                    index_words(session, project_id)
            except Exception:
                log.exception("the words of trajectories could not be indexed", project=str(project_id))
                failed.add(project_id)


def _apply_retention(services: Services) -> None:
    """Remove the bytes of versions that a loop has left behind: it makes one a night, and disks are finite."""
    with transaction(services.sessions) as session:
        waiting = adapters_over_their_policy(session, looped_adapters(session))
    for adapter_id in waiting:
        try:
            numbers = apply_policy(services.sessions, services.store, adapter_id, actor=BEAT, reason="retention")
        except Exception:
            log.exception("an adapter's retention could not be applied", adapter=str(adapter_id))
            continue
        if numbers:
            log.info("old versions have lost their bytes", adapter=str(adapter_id), versions=numbers)


def _tick_schedules(services: Services, around: Surroundings) -> list[uuid.UUID]:
    with transaction(services.sessions) as session:
        late = bring_back(session, around.now)
        waiting = schedules_to_ask(session, around.now)
    if late:
        log.warning("schedules were due by a clock that has been set back", schedules=late)
    created = []
    for schedule_id in waiting:
        try:
            with transaction(services.sessions) as session:
                job_id = tick(session, schedule_id, around.now, partial(why_held, around=around))
        except RegistryError as error:
            log.error("a schedule could not run", schedule=str(schedule_id), error=str(error))
            continue
        except Exception:
            log.exception("a schedule could not run", schedule=str(schedule_id))
            continue
        if job_id is not None:
            log.info("a schedule started a job", schedule=str(schedule_id), job=str(job_id))
            created.append(job_id)
    return created


def _tick_judges(services: Services) -> list[uuid.UUID]:
    """Let judges score what has come since for the tasks that name one."""
    with transaction(services.sessions) as session:
        waiting = tasks_to_judge(session)
    created = []
    for task_id in waiting:
        try:
            with transaction(services.sessions) as session:
                job_id = tick_judge(session, task_id)
        except Exception:
            log.exception("a task could not be judged", task=str(task_id))
            continue
        if job_id is not None:
            log.info("a judge has something to judge", task=str(task_id), job=str(job_id))
            created.append(job_id)
    return created


def _advance_retrainings(services: Services) -> list[uuid.UUID]:
    with transaction(services.sessions) as session:
        waiting = chains_to_advance(session)
    created = []
    for chain in waiting:
        try:
            with transaction(services.sessions) as session:
                created += advance_chain(session, chain)
        except Exception:
            log.exception("a retraining could not go on", deletion=str(chain[0]), chain=chain[1])
    return created


def _sweep(services: Services) -> None:
    """Remove what processes of this machine left behind that were killed: it may hold data that is to be deleted."""
    try:
        swept = sweep(services.settings.scratch_dir)
    except OSError as error:
        log.error("folders of dead processes could not be removed", error=str(error))
        return
    if swept:
        log.info("folders of dead processes are gone", folders=[folder.name for folder in swept])


def _sweep_responses(services: Services) -> None:
    """Remove stored responses that have expired, some in each transaction."""
    try:
        while True:
            with transaction(services.sessions) as session:
                swept = sweep_responses(session, utc_now())
            if not swept:
                return
            log.info("stored responses have expired", responses=swept)
    except Exception:
        log.exception("expired responses could not be removed")


def _sweep_events(services: Services) -> None:
    """Remove old events and their deliveries, some in each transaction."""
    older_than = utc_now() - timedelta(days=services.settings.webhook_days)
    try:
        swept = 1
        while swept:
            with transaction(services.sessions) as session:
                swept = sweep_events(session, older_than)
    except Exception:
        log.exception("old events could not be removed")


def _finish_erasures(services: Services) -> None:
    with transaction(services.sessions) as session:
        waiting = unfinished_erasures(session)
    for deletion_id in waiting:
        try:
            finished = finish_erasure(services.sessions, services.store, deletion_id)
        except RegistryError as error:
            log.warning("a deletion's bytes are not all gone yet", deletion=str(deletion_id), error=str(error))
            continue
        except Exception:
            log.exception("a deletion's bytes could not be removed", deletion=str(deletion_id))
            continue
        if finished:
            log.info("a deletion's bytes are gone", deletion=str(deletion_id))
