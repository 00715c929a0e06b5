"""The worker's own base as a judge, with a memory or none. It is held to the question's schema while it writes, so that
its answer is a verdict or was cut off."""

from collections.abc import Callable, Sequence

from sqlalchemy.orm import Session

from memgen.backbone.prompt_cache import TokenIds
from memgen.errors import ChatTemplateError
from memgen.generation.engine import generate_all
from memgen.generation.requests import GenerationRequest, most_new_tokens
from memgen.generation.sampling import Sampling
from memgen.memory.host import AdapterHost
from memgen.text.answer_grammars import Constraint
from memgen.text.json_schemas import grammar_schema
from registry import jobs
from registry.errors import Invalid
from registry.job_requests import JudgeTrajectories
from registry.judging.judges import JudgeSettings
from registry.judging.prompts import JudgePrompt
from registry.models import Job
from registry.versions.records import get_version
from workers.judge_models import BATCH, Ask, Build, Heard
from workers.model import Model

Choose = Callable[[Sequence[TokenIds]], Sequence[str | None]]
"""Names of the memories that answer prompts; None is the bare base."""

_LEAST_CHARACTERS = 400
_FITTINGS = 12
_SECOND_TEMPERATURE = 0.7
"""A second try at temperature 0 would say the same again."""


def own_judge(
    session: Session, job: Job, request: JudgeTrajectories, settings: JudgeSettings, model: Model
) -> "LocalJudge":
    """The judge of a job whose model is the base, or a version of the job's adapter."""
    version = None
    if request.version is not None:
        adapter = jobs.adapter_of(job)
        model.check_base(adapter)
        version = get_version(session, adapter, request.version)
    return LocalJudge(model.host, lambda prompts: [each.memory for each in model.choices(version, prompts)], settings)


class LocalJudge:
    """The process's own base, with a memory or none."""

    def __init__(self, host: AdapterHost, choose: Choose, settings: JudgeSettings) -> None:
        self._host, self._choose, self._settings = host, choose, settings

    def fit(self, build: Build) -> tuple[JudgePrompt, int] | None:
        characters = self._settings.max_characters
        for _ in range(_FITTINGS):
            prompt = build(characters)
            if prompt is None:
                return None
            tokens = self._prompt_ids(prompt)
            room = self._host.backbone.max_tokens - len(tokens)
            if room >= self._settings.max_answer_tokens:  # what a memory weaves needs room, too
                room = most_new_tokens(self._host, self._request(prompt, tokens, self._choose([tokens])[0]))
            if room >= self._settings.max_answer_tokens:
                return prompt, len(tokens)
            if characters <= _LEAST_CHARACTERS:
                return None
            shown = min(characters, prompt.characters)
            # By the tokens that a character of this prompt takes, and a little less.
            spare = (self._settings.max_answer_tokens - room) * prompt.characters / len(tokens)
            characters = max(_LEAST_CHARACTERS, min(int(shown - 1.05 * spare), characters * 9 // 10))
        return None

    def ask(self, questions: Sequence[Ask], check: Callable[[], None]) -> list[Heard]:
        ids = [self._prompt_ids(question.prompt) for question in questions]
        requests = [
            self._request(question.prompt, tokens, memory, second=question.second)
            for question, tokens, memory in zip(questions, ids, self._choose(ids), strict=True)
        ]
        answers = generate_all(self._host, requests, batch_size=BATCH, on_done=lambda _: check())
        return [Heard(each.text, "", each.prompt_tokens, len(each.token_ids)) for each in answers]

    def _prompt_ids(self, prompt: JudgePrompt) -> tuple[int, ...]:
        try:
            return self._host.backbone.profile.prompt_ids(list(prompt.messages))
        except ChatTemplateError as error:
            raise Invalid(f"the base's chat template can't write a judge's question: {error}") from error

    def _request(
        self, prompt: JudgePrompt, ids: tuple[int, ...], memory: str | None = None, *, second: bool = False
    ) -> GenerationRequest:
        temperature = self._settings.temperature or (_SECOND_TEMPERATURE if second else 0.0)
        constraint = Constraint(grammar_schema(prompt.schema, strict=True), origin="a judge's verdict")
        sampling = Sampling(
            max_new_tokens=self._settings.max_answer_tokens,
            temperature=temperature,
            # The same question gets the same answer again, but for a second try.
            seed=int(prompt.hash[:12], 16) + second if temperature else None,
            constraint=constraint,
        )
        return GenerationRequest(ids, sampling, memory)
