"""The process behind `memgen up`: starts servers and apps, looks after them, stops everything. One per home.

The first start may fail: then all is stopped, and `memgen up` says why. From then on only a signal stops the stack;
what ends is launched again (`restarts.py`).

It knows no database schema and no key: migrating and preparing are arguments. A SIGKILL cannot be caught; then
`watchdog.py` ends what is left.
"""

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import structlog
from pydantic import SecretStr

from api.local.apps import AppPorts, AppSpec, service_apps
from api.local.errors import LocalStackError, ServerFailed
from api.local.files import make_home
from api.local.health import without_password
from api.local.ports import LOOPBACK, PortRequest, pin_ports
from api.local.processes import Ending, Server, spawn, start_server, stop
from api.local.restarts import DEFAULT_RESTARTS, RestartPolicy, launch, look_after, note_running
from api.local.secrets import load_or_create_secrets
from api.local.servers import ServerPlan, plan_servers, write_service_env
from api.local.stack import Managed, Stack, record, report
from api.local.state import Event, hold_lock
from api.local.vllm_command import vllm_python
from api.local.watchdog import start_watchdog
from registry.settings import Settings, child_environment, load_settings

_POLL_SECONDS = 0.2
_REWRITE_SECONDS = 10.0


def migrate_database(database_url: str) -> Sequence[str]:
    from registry.database import upgrade  # imported late: the servers are up before SQLAlchemy is needed

    return upgrade(database_url)


def prepare_nothing(settings: Settings) -> None:
    """The default `prepare`: nothing is done on the migrated database, such as making the API key known."""


def ignore_event(event: Event) -> None:
    """The default `on_event`: events are dropped."""


def run_supervisor(
    settings: Settings,
    *,
    apps: Callable[[Settings, AppPorts], Sequence[AppSpec]] = service_apps,
    migrate: Callable[[str], Sequence[str]] = migrate_database,
    prepare: Callable[[Settings], None] = prepare_nothing,
    on_event: Callable[[Event], None] = ignore_event,
    restarts: RestartPolicy = DEFAULT_RESTARTS,
) -> None:
    """Runs the stack in the foreground until SIGTERM or SIGINT. Call it in the main thread.

    `settings` come from `load_settings(service_env=False)`; `prepare` gets them with all URLs and the key
    filled in. Raises AlreadyRunning, or after stopping everything the LocalStackError that made going on
    impossible.
    """
    home = make_home(settings.home)
    with ExitStack() as resources:
        lock = resources.enter_context(hold_lock(home))
        stop_requested = resources.enter_context(_stop_signals())
        watchdog = resources.enter_context(start_watchdog(lock, home / "logs" / "watchdog.log"))
        stack = Stack(home, watchdog, on_event, stop_requested)
        try:
            try:
                _start_all(stack, settings, apps, migrate, prepare)
                _supervise(stack, restarts)
            except OSError as error:
                raise LocalStackError(f"The stack in {home} can't be started: {error}") from error
        except LocalStackError as error:
            stack.error = error
            raise
        finally:
            _stop_all(stack)


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    stop_requested = threading.Event()
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.signal(number, lambda *_: stop_requested.set()) for number in numbers}
    try:
        yield stop_requested
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _start_all(
    stack: Stack,
    settings: Settings,
    apps: Callable[[Settings, AppPorts], Sequence[AppSpec]],
    migrate: Callable[[str], Sequence[str]],
    prepare: Callable[[Settings], None],
) -> None:
    record(stack)
    secrets = load_or_create_secrets(stack.home)
    # Checked first: a taken port is the commonest mistake, and found at once.
    ports = _app_ports(stack.home, settings)
    stack.api_url = f"http://{LOOPBACK}:{ports.api}"
    urls: dict[str, SecretStr] = {}
    for plan in plan_servers(settings, stack.home, secrets):
        if stack.stop_requested.is_set():
            return
        urls[plan.setting] = SecretStr(_start_or_check(stack, plan))
    api_key = settings.api_key or SecretStr(secrets.api_key)
    complete = settings.model_copy(
        update={
            **urls,
            "home": stack.home,
            "api_url": stack.api_url,
            "api_key": api_key,
            "api_port": ports.api,
            **({"vllm_url": f"http://{LOOPBACK}:{ports.vllm}"} if ports.vllm is not None else {}),
        }
    )
    write_service_env(complete)
    for name, step in (
        ("migrations", lambda: stack.notes.extend(migrate(urls["database_url"].get_secret_value()))),
        ("preparation", lambda: prepare(complete)),
    ):
        if stack.stop_requested.is_set():
            return
        _do_once(stack, name, step)
    environment = child_environment(settings)
    for spec in apps(complete, ports):
        if stack.stop_requested.is_set():
            return
        launch(stack, Managed(spec.name, _launcher(stack.home, spec, environment), spec=spec))


def _app_ports(home: Path, settings: Settings) -> AppPorts:
    """Raises PortTaken, or ServerFailed where a vLLM server is to run and there is no vLLM."""
    request = PortRequest("the API", settings.api_port, "MEMGEN_API_PORT")
    api = pin_ports(home / "api.ports.json", [request])["the API"]
    if settings.engine != "vllm" or settings.vllm_urls:
        return AppPorts(api)
    vllm_python(settings)  # missed now, and not when everything else runs
    request = PortRequest("vLLM", settings.vllm_port, "MEMGEN_VLLM_PORT")
    return AppPorts(api, pin_ports(home / "vllm.ports.json", [request])["vLLM"])


def _start_or_check(stack: Stack, plan: ServerPlan) -> str:
    """The server's URL, once it answers there."""
    if plan.url is not None:
        plan.check(plan.url)
        shown = without_password(plan.url)
        stack.processes.append(Managed(plan.name, None, url=shown, state="external"))
        record(stack, Event(plan.name, "external", shown))
        return plan.url
    return _start(stack, Managed(plan.name, plan.launch))


def _do_once(stack: Stack, name: str, step: Callable[[], None]) -> None:
    report(stack, Event(name, "running"))
    try:
        step()
    except LocalStackError:
        raise
    except Exception as error:
        raise ServerFailed(f"The {name} of the database failed: {type(error).__name__}: {error}") from error
    report(stack, Event(name, "done", "; ".join(stack.notes)))


def _launcher(home: Path, spec: AppSpec, environment: dict[str, str]) -> Callable[[int | None], Server]:
    def launch_app(_port: int | None) -> Server:
        log = home / "logs" / f"{spec.name}.log"
        child = spawn(
            spec.name,
            spec.command,
            log,
            environment=environment,
            folder=home,
            ending=Ending(grace_seconds=spec.grace_seconds),
        )
        return Server(child, f"http://{LOOPBACK}:{spec.port}" if spec.port else "", spec.port)

    return launch_app


def _start(stack: Stack, managed: Managed) -> str:
    """The URL of a server of ours, once it answers there. Raises ServerFailed, or as `launch`."""
    began = time.monotonic()

    def is_ready_or_unwanted(server: Server) -> Server:
        return replace(server, is_ready=lambda: stack.stop_requested.is_set() or server.is_ready())

    server = start_server(lambda: is_ready_or_unwanted(launch(stack, managed)))
    note_running(stack, managed, f"{time.monotonic() - began:.1f} s")
    return server.url


def _supervise(stack: Stack, policy: RestartPolicy) -> None:
    while not stack.stop_requested.wait(_POLL_SECONDS):
        for managed in stack.processes:
            look_after(stack, managed, policy)
        if stack.phase == "starting":
            _look_whether_ready(stack, policy)
        if time.monotonic() - stack.written_at > _REWRITE_SECONDS:
            record(stack)  # it may have found no room, or been damaged meanwhile


def _look_whether_ready(stack: Stack, policy: RestartPolicy) -> None:
    """Ready is a stack whose needed processes run, and whose others run or have shown that they won't.

    Raises ServerFailed when a needed process keeps failing.
    """
    hopeless = [each for each in stack.processes if each.failures >= policy.failures_at_first_start]
    for managed in hopeless:
        if managed.is_needed:
            raise ServerFailed(f"Gave up after {managed.failures} failures in a row: {managed.reason}")
    if all(each.is_up or each in hopeless for each in stack.processes):
        stack.phase = "ready"
        record(stack, Event("stack", "ready", stack.api_url or ""))


def _stop_all(stack: Stack) -> None:
    """Apps first, then the servers that they use; in each group the last started is stopped first."""
    failed = stack.error is not None
    stack.phase = "stopping"
    record(stack, Event("stack", "stopping"))
    running = [each for each in reversed(stack.processes) if each.server is not None and each.state != "restarting"]
    apps = [each for each in running if each.spec is not None and not each.spec.is_used_by_others]
    for group in (apps, [each for each in running if each not in apps]):
        children = [managed.server.child for managed in group if managed.server is not None]
        stop(children)
        for managed, child in zip(group, children, strict=True):
            stack.watchdog.forget(child)
            managed.state = "stopped"
    stack.phase = "failed" if failed else "stopped"
    record(stack, Event("stack", stack.phase, str(stack.error or "")))


def main() -> None:
    """The detached supervisor with nothing to prepare; the CLI runs its own foreground form instead."""
    log = structlog.get_logger("api.local")
    try:
        run_supervisor(
            load_settings(service_env=False),
            on_event=lambda event: log.info(event.state, name=event.name, detail=event.detail),
        )
    except LocalStackError as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
