"""A supervisor for tests: real servers, trivial apps, no migrations. `fake_stack.py [crash|limp]`.

Its last app ends at once: a needed one with `crash`, a helper with `limp`; the helper runs once `home/mended` exists.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from api.local.apps import AppPorts, AppSpec
from api.local.errors import LocalStackError
from api.local.supervisor import RestartPolicy, run_supervisor
from registry.settings import Settings, load_settings

FAKE_APP = str(Path(__file__).with_name("fake_app.py"))


def fake_apps(settings: Settings, ports: AppPorts) -> Sequence[AppSpec]:
    url = f"http://127.0.0.1:{ports.api}/readyz"
    api = AppSpec("api", (sys.executable, FAKE_APP, str(ports.api)), url, ports.api, grace_seconds=1.0)
    worker = AppSpec("worker", (sys.executable, FAKE_APP, "0"), grace_seconds=1.0, settle_seconds=0.3)
    crash = AppSpec("crash", (sys.executable, "-c", "import sys; sys.exit('no such teapot')"))
    code = "import os, sys, time; os.path.exists(sys.argv[1]) or sys.exit('no such teapot'); time.sleep(600)"
    command = (sys.executable, "-c", code, str(settings.home / "mended"))
    helper = AppSpec("limp", command, settle_seconds=0.3, needed=False)
    return (api, worker, *([crash] if "crash" in sys.argv else []), *([helper] if "limp" in sys.argv else []))


def prepare(settings: Settings) -> None:
    if settings.database_url is None or settings.api_key is None:
        raise SystemExit("prepare wants complete settings")
    (settings.home / "prepared").write_text(settings.api_key.get_secret_value())


if __name__ == "__main__":
    try:
        run_supervisor(
            load_settings(service_env=False),
            apps=fake_apps,
            migrate=lambda url: ["three rows were moved"],
            prepare=prepare,
            restarts=RestartPolicy(
                first_pause_seconds=0.05, longest_pause_seconds=0.4, well_seconds=1.0, failures_at_first_start=3
            ),
        )
    except LocalStackError as error:
        sys.exit(str(error))
