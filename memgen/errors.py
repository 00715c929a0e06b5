"""Every error of the method.

MemgenError
├── ModelError
│   ├── ModelNotFound         no such folder, wheel or hub id
│   ├── BaseRefused           the base has no chat template, or none that can be worked with
│   └── ChatTemplateError     the template refuses a conversation
├── ConfigError               a value outside its range, or two that don't fit together
├── SchemaRefused             a JSON schema that no answer can be held to
├── ConstraintUnsupported     the base's tokenizer can't be held to anything
├── ArtifactError
│   ├── ArtifactMissing       a file of the folder is not there
│   ├── ArtifactCorrupt       a file's bytes are not the manifest's
│   └── ArtifactMismatch      made for another base, form or number of latents
├── PromptTooLong             prompt and answer exceed the model's context
├── TrainingError
│   ├── NothingToTrain        no supervised token in the examples
│   ├── TrainingDiverged      the loss is not finite
│   └── DeviceFailed          a process of a job on several devices died
├── Cancelled                 the caller stopped the work
├── SandboxUnavailable        this system can't isolate the code that was to be run
└── UnknownGrader
"""


class MemgenError(Exception):
    """Root of the tree. The message says what was got, what was expected and what to do."""


def in_one_line(error: Exception) -> str:
    """The first line of an error's message, or its class where it has none: short, and printable whatever it holds."""
    line = str(error).partition("\n")[0][:500] or type(error).__name__
    return "".join(character if character.isprintable() else "\ufffd" for character in line)


class ModelError(MemgenError): ...


class ModelNotFound(ModelError): ...


class BaseRefused(ModelError): ...


class ChatTemplateError(ModelError): ...


class ConfigError(MemgenError): ...


class SchemaRefused(MemgenError): ...


class ConstraintUnsupported(MemgenError): ...


class ArtifactError(MemgenError): ...


class ArtifactMissing(ArtifactError): ...


class ArtifactCorrupt(ArtifactError): ...


class ArtifactMismatch(ArtifactError): ...


class PromptTooLong(MemgenError): ...


class TrainingError(MemgenError): ...


class NothingToTrain(TrainingError): ...


class TrainingDiverged(TrainingError): ...


class DeviceFailed(TrainingError): ...


class Cancelled(MemgenError): ...


class SandboxUnavailable(MemgenError): ...


class UnknownGrader(MemgenError): ...
