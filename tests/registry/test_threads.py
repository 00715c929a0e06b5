"""Torch's threads let go of their cores while they wait: processes side by side do not stop each other."""

import os
import subprocess
import sys

import pytest

_SHOWN = "OMP_DISPLAY_ENV"


@pytest.mark.parametrize("module", ["api.server", "workers.main"])
@pytest.mark.parametrize(("chosen", "used"), [(None, "1000"), ("300000", "300000")])
def test_a_process_of_the_service_hardly_spins(module: str, chosen: str | None, used: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    environment |= {_SHOWN: "VERBOSE", "MEMGEN_BROKER_URL": "redis://127.0.0.1:1/0"}
    if chosen:
        environment["GOMP_SPINCOUNT"] = chosen
    command = [sys.executable, "-c", f"import {module}, torch"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    shown = [line.split("=")[1].strip() for line in done.stderr.splitlines() if "GOMP_SPINCOUNT" in line]
    if not shown:
        pytest.skip("this torch has another OpenMP than libgomp")
    assert shown == [f"'{used}'"]
