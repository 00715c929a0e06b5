"""Checks of the servers: PostgreSQL, broker with workers and beat, object store. With this service's own clients."""

import uuid
from collections.abc import Iterator, Sequence
from datetime import timedelta

from sqlalchemy import Engine, func, select, text

from api.cli.diagnosis.findings import Check, Diagnosis, Installation, fail, ok, skip, warn
from api.local.errors import ServerFailed
from api.local.health import check_broker, check_database, check_s3, without_password
from registry.clock import FARTHEST_AHEAD, utc_now
from registry.database import make_engine, make_sessions, reading, schema_revision
from registry.errors import StoreUnavailable
from registry.object_store import ObjectStore
from registry.recordings.recorders import seconds_behind
from registry.settings import Settings
from workers.code_version import worker_code
from workers.queue import DEFAULT_QUEUE, GPU_QUEUE, UPSTREAM_QUEUE, WorkerAnswer, ask_workers, make_queue

_MIGRATE = "`memgen up` migrates it; with a server of your own, `memgen init`"
_RESTART = "Start them again with this code: `memgen down`, then `memgen up`"
_STATEMENT_SECONDS = 10
_CLOCKS_DIFFER = timedelta(seconds=2)
"""Further apart, runs may end before answers of theirs are in, and other orders by time be wrong."""
_BEHIND_SECONDS = 60.0
_WORKERS_SECONDS = 3.0
"""How long workers have to answer: their main process does, whatever its children work on."""
_LEAST_TICK_SECONDS = 60.0


def _not_set(variable: str) -> str:
    return f"{variable} is not set, and `memgen up` has not started one"


def _database(installation: Installation) -> Iterator[Diagnosis]:
    settings = installation.settings
    if settings.database_url is None:
        yield skip("database", _not_set("MEMGEN_DATABASE_URL"))
        return
    url = settings.database_url.get_secret_value()
    try:
        check_database(url)
    except ServerFailed as error:
        yield fail("database", error.found, installation.mend_server("database_url", error.advice))
        return
    engine = make_engine(url, pool_size=1)
    try:
        yield from _inside(engine, url)
    finally:
        engine.dispose()


def _inside(engine: Engine, url: str) -> Iterator[Diagnosis]:
    with reading(make_sessions(engine)) as session:
        session.execute(text(f"set statement_timeout = '{_STATEMENT_SECONDS}s'"))
        version = session.scalar(text("show server_version"))
        yield ok("database", f"PostgreSQL {version} at {without_password(url)}")
        before = utc_now()
        theirs = session.scalars(select(func.clock_timestamp())).one()
        after = utc_now()
        yield _clock(theirs - (before + (after - before) / 2), slack=(after - before) / 2)
        yield (migrated := _migrated(engine))
        if migrated.state == "ok":
            yield _recording(seconds_behind(session))


def _clock(ahead: timedelta, *, slack: timedelta) -> Diagnosis:
    """How far the database's clock is ahead of this machine's; what `slack` explains is no fault."""
    apart, way = abs(ahead) - slack, "behind" if ahead > timedelta(0) else "ahead of"
    found = f"this machine's is {abs(ahead).total_seconds():.1f} s {way} the database's"
    if apart > FARTHEST_AHEAD:
        return fail("clock", found, "Set both by NTP: leases and schedules go wrong by that")
    if apart > _CLOCKS_DIFFER:
        return warn("clock", found, "Set both by NTP: runs may end too soon or too late by that")
    return ok("clock", found)


def _migrated(engine: Engine) -> Diagnosis:
    schema = schema_revision(engine)
    if schema.found is None:
        return fail("migrations", "the database was never migrated", _MIGRATE)
    if not schema.is_known:
        found = f"the database is at {schema.found}, which this code does not know; its newest is {schema.newest}"
        return fail("migrations", found, "A later release has migrated it: run that one, or go on from a backup")
    if schema.found != schema.newest:
        return fail("migrations", f"the database is at {schema.found}, this code at {schema.newest}", _MIGRATE)
    return ok("migrations", f"at {schema.found}, the newest")


def _recording(behind_seconds: float) -> Diagnosis:
    found = f"answers are in the database after {behind_seconds:.0f} s"
    if behind_seconds > _BEHIND_SECONDS:
        return warn("recording", found, "An API process is overloaded, or was killed and not started again here")
    return ok("recording", found)


def _broker(installation: Installation) -> Iterator[Diagnosis]:
    settings = installation.settings
    if settings.broker_url is None:
        yield skip("broker", _not_set("MEMGEN_BROKER_URL"))
        return
    url = settings.broker_url.get_secret_value()
    try:
        check_broker(url)
    except ServerFailed as error:
        yield fail("broker", error.found, installation.mend_server("broker_url", error.advice))
        return
    yield ok("broker", without_password(url))
    with make_queue(settings) as queue:
        workers = ask_workers(queue, wait_seconds=_WORKERS_SECONDS)
    yield from diagnose_workers(workers, settings, code=worker_code())


def diagnose_workers(workers: Sequence[WorkerAnswer], settings: Settings, *, code: str) -> Iterator[Diagnosis]:
    """What is to be said of the workers that answered, and of the beat that they saw."""
    taken = {queue for worker in workers for queue in worker.queues}
    know_queues = all(worker.code is not None for worker in workers)  # older ones do not say their queues either
    missing = [queue for queue in (GPU_QUEUE, DEFAULT_QUEUE, UPSTREAM_QUEUE) if queue not in taken]
    if not workers or (missing and know_queues):
        found = f"none takes jobs of queue {', '.join(missing)}" if workers else "none answers"
        yield fail("workers", found, "`memgen up` starts them; elsewhere, the commands of docker-compose.yml")
    else:
        names = (f"{worker.name} ({', '.join(worker.queues) or '?'})" for worker in workers)
        yield ok("workers", ", ".join(names))
    if others := [worker for worker in workers if worker.code != code]:
        run = ", ".join(f"{worker.name} runs {worker.code or 'an older release'}" for worker in others)
        yield fail("code", f"{run}; here is {code}", _RESTART)
    elif workers:
        yield ok("code", f"{code}, here and in all workers")
    if DEFAULT_QUEUE in taken:
        yield _beat([worker for worker in workers if DEFAULT_QUEUE in worker.queues], settings)


def _beat(workers: Sequence[WorkerAnswer], settings: Settings) -> Diagnosis:
    longest = max(_LEAST_TICK_SECONDS, 3 * settings.tick_interval_seconds)
    ticks = [worker.seconds_since_tick for worker in workers if worker.seconds_since_tick is not None]
    up_seconds = max(worker.seconds_up for worker in workers)
    if ticks and min(ticks) <= longest:
        return ok("beat", f"ticked {min(ticks):.0f} s ago")
    if up_seconds <= longest:
        return warn("beat", f"no tick yet; the worker started {up_seconds:.0f} s ago", "Wait, and look again")
    since = f"for {min(ticks):.0f} s" if ticks else f"since the worker started, {up_seconds:.0f} s ago"
    return fail("beat", f"no tick {since}", "`memgen status` says whether beat runs; elsewhere, start `celery beat`")


def _store(installation: Installation) -> Iterator[Diagnosis]:
    settings = installation.settings
    if settings.s3_url is None:
        yield skip("object store", _not_set("MEMGEN_S3_URL"))
        return
    url, bucket, region = settings.s3_url.get_secret_value(), settings.s3_bucket, settings.s3_region
    try:
        check_s3(url, bucket, region, make_bucket=False)
    except ServerFailed as error:
        yield fail("object store", error.found, installation.mend_server("s3_url", error.advice))
        return
    yield ok("object store", f"bucket {bucket!r} at {without_password(url)}")
    store, key, data = ObjectStore(url, bucket, region), f"doctor/{uuid.uuid4()}", uuid.uuid4().bytes
    try:
        store.put(key, data)
        is_same = store.get(key) == data
        store.delete(key)
    except StoreUnavailable as error:
        yield fail("objects", str(error), "Look at the store's log, its disk, and what this access key may do")
    else:
        if is_same:
            yield ok("objects", "one was written, read and deleted")
        else:
            yield fail("objects", "one that was written read differently", "Look at the store, and what is before it")
    finally:
        store.close()


CHECKS = (Check("database", _database), Check("broker", _broker), Check("object store", _store))
