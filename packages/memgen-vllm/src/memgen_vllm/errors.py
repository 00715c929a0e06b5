"""What a request is refused for. The front answers each with a status of its own (`memgen_vllm.front_models`).

PluginError
├── WrongVllm            another minor of vLLM than the tested one, or a name in it that is hooked is gone
├── NoSuchArtifact       404: the object store has none of that hash
├── NotServed            400: the artifact, or the server's settings with it, ask for what this plugin does not do
├── StoreDown            503: the object store does not answer
└── NotKept              503: the folder of artifacts takes no more, or cannot be used at all
"""


class PluginError(Exception):
    """Root of the tree. The message says what was got, what was expected and what to do."""


class WrongVllm(PluginError): ...


class NoSuchArtifact(PluginError): ...


class NotServed(PluginError): ...


class StoreDown(PluginError): ...


class NotKept(PluginError): ...
