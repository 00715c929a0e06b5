"""The entry point: puts the hooks in place, in each of vLLM's processes.

Imports late, all of it: what fails while a plugin is imported vLLM only logs, and goes on without it; what `register`
raises ends the process.
"""

import importlib

from memgen_vllm.errors import WrongVllm

TESTED = "0.32."
"""The minor of vLLM that this was tested with, and serves."""
_NEEDED = ("memgen.text.delimiters", "memgen.config", "memgen.checked_files", "registry.object_store")
_registered = False


def register() -> None:
    """Called by vLLM, more than once in some processes. Raises WrongVllm."""
    global _registered
    if _registered:
        return
    check_surroundings()
    from memgen_vllm.hook_table import all_hooks, install_worker_methods
    from memgen_vllm.hooks import install

    install(all_hooks())
    install_worker_methods()
    _registered = True


def check_surroundings() -> None:
    """Raise WrongVllm unless the tested vLLM and the service's own modules are installed."""
    import vllm

    if not vllm.__version__.startswith(TESTED):
        raise WrongVllm(
            f"vLLM is {vllm.__version__}; memgen-vllm hooks functions of {TESTED}x and was tested with no other. "
            "Install that, or take the plugin out (VLLM_PLUGINS)"
        )
    for name in _NEEDED:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise WrongVllm(
                f"{name} cannot be imported ({error}); install the service beside the plugin: pip install --no-deps "
                "<the repository>"
            ) from error
