"""`GET /memgen/base`: the base that this server has loaded, so that a caller can refuse another one than its own.

An endpoint plugin of vLLM, which loads it only where `VLLM_PLUGINS` names it.
"""

from importlib.metadata import version
from typing import Any

import vllm
from fastapi import FastAPI, HTTPException, Request

from memgen_vllm.errors import PluginError
from memgen_vllm.front_models import adapters_of


class BaseEndpoint:
    """What vLLM's `EndpointPlugin` asks for."""

    name = "memgen"
    required_tasks = ("generate",)

    def attach_router(self, app: FastAPI) -> None:
        app.add_api_route("/memgen/base", describe_base, methods=["GET"])

    async def init_state(self, engine_client: Any, state: Any, args: Any) -> None:
        """Nothing: the first request makes what it needs (`adapters_of`)."""


async def describe_base(request: Request) -> dict[str, Any]:
    try:
        base = await adapters_of(request.app.state.openai_serving_models).base()
    except PluginError as error:
        raise HTTPException(503, str(error)) from error
    return {**base.to_mapping(), "vllm": vllm.__version__, "plugin": version("memgen-vllm")}
