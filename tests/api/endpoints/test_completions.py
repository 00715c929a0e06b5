"""`/v1/completions` with the stock `openai` client."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from tokenizers import pre_tokenizers

from registry.settings import Settings
from tests.api.live_api import serve
from tests.api.watched import Watch, watch

__all__ = ["watch"]

PROMPT = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"


@pytest.fixture
def url(settings: Settings, tiny_base: Path) -> Iterator[str]:
    # In float32 an answer is the same in any company.
    tiny = settings.model_copy(update={"base_model": str(tiny_base), "torch_threads": 1, "base_dtype": "float32"})
    with serve(tiny, serve_model=True) as url:
        yield url


@pytest.fixture
def client(url: str, api_key: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key=api_key, max_retries=0) as made:
        yield made


def complete(client: openai.OpenAI, **options: Any) -> Any:
    options = {"model": "base", "prompt": PROMPT, "temperature": 0, "max_tokens": 12, **options}
    return client.completions.create(**options)


def test_the_prompt_is_read_as_it_is(client: openai.OpenAI) -> None:
    """The template's own text, as a raw prompt, gives what the chat gives."""
    completion = complete(client)
    messages: Any = [{"role": "user", "content": "hi"}]
    chat: Any = client.chat.completions.create(model="base", messages=messages, max_tokens=12, temperature=0)
    assert completion.choices[0].text == chat.choices[0].message.content
    assert completion.usage == chat.usage
    assert completion.choices[0].finish_reason == "length"
    assert (completion.object, completion.model, completion.id[:5]) == ("text_completion", "base", "cmpl-")
    assert completion.memgen == {**chat.memgen, "seconds": completion.memgen["seconds"]}


def test_token_ids_are_the_text_they_stand_for(client: openai.OpenAI) -> None:
    letters = {letter: 3 + place for place, letter in enumerate(sorted(_alphabet()))}
    ids = [letters[letter] for letter in "hello"]
    [text] = complete(client, prompt="hello").choices
    assert complete(client, prompt=ids).choices[0].text == text.text
    both = complete(client, prompt=[ids, ids[:3]])
    assert [choice.text for choice in both.choices] == [text.text, complete(client, prompt="hel").choices[0].text]
    assert both.usage.prompt_tokens == 8


def _alphabet() -> list[str]:
    """The tiny base has a token for each byte, behind three special ones."""
    return list(pre_tokenizers.ByteLevel.alphabet())


def test_several_prompts_and_answers(client: openai.OpenAI) -> None:
    options: dict[str, Any] = {"prompt": ["one", "two"], "n": 2, "seed": 3, "temperature": 1, "logprobs": 0}
    completion = complete(client, **options)
    assert [choice.index for choice in completion.choices] == [0, 1, 2, 3]
    assert len({choice.text for choice in completion.choices}) == 4
    alone = [complete(client, **{**options, "prompt": prompt}).choices for prompt in ("one", "two")]
    assert [choice.text for choice in completion.choices] == [choice.text for each in alone for choice in each]
    assert completion.usage.prompt_tokens == 6
    assert completion.usage.completion_tokens == sum(len(c.logprobs.tokens) for c in completion.choices)
    with complete(client, **options, stream=True, stream_options={"include_usage": True}) as stream:
        chunks = list(stream)
    for choice in completion.choices:
        mine = [c for chunk in chunks for c in chunk.choices if c.index == choice.index]
        assert "".join(c.text for c in mine) == choice.text
        assert [c.finish_reason for c in mine] == [None] * (len(mine) - 1) + [choice.finish_reason]
        told, whole = mine[-1].logprobs, choice.logprobs
        assert (told.tokens, told.text_offset) == (whole.tokens, whole.text_offset)
        assert told.token_logprobs == pytest.approx(whole.token_logprobs, abs=1e-4)
    assert (chunks[-1].choices, chunks[-1].usage) == ([], completion.usage)
    assert all(chunk.usage is None for chunk in chunks[:-1])
    [stamp] = [chunk.memgen for chunk in chunks if "memgen" in (chunk.model_extra or {})]
    assert stamp == {**completion.memgen, "seconds": stamp["seconds"]}


def test_nothing_is_read_into_the_text(client: openai.OpenAI, watch: Watch) -> None:
    watch.say = '<think>a</think> <tool_call>{"name": "go", "arguments": {}}</tool_call>'
    completion = complete(client, max_tokens=200)
    assert (completion.choices[0].text, completion.choices[0].finish_reason) == (watch.say, "stop")
    with complete(client, max_tokens=200, stream=True) as stream:
        assert "".join(chunk.choices[0].text for chunk in stream) == watch.say
    watch.say = "one. two. three."
    assert complete(client, stop=" two").choices[0].text == "one."


def test_logprobs_stand_beside_their_tokens(client: openai.OpenAI) -> None:
    [choice] = complete(client, logprobs=0).choices
    assert len(choice.logprobs.tokens) == 12
    assert all(value <= 0 for value in choice.logprobs.token_logprobs)
    assert choice.logprobs.text_offset[0] == 0
    assert choice.logprobs.text_offset == sorted(choice.logprobs.text_offset)


@pytest.mark.parametrize(
    ("options", "param", "words"),
    [
        ({"echo": True}, "echo", "not supported"),
        ({"suffix": "x"}, "suffix", "not supported"),
        ({"best_of": 3}, "best_of", "not supported"),
        ({"prompt": [1.5]}, "prompt", "token ids"),
        ({"prompt": [[]]}, "prompt", "token ids"),
        ({"prompt": ["x"] * 33}, "prompt", "up to 32"),
        ({"prompt": [10**6]}, "prompt", "ids from 0 to 258"),
        ({"prompt": ""}, "prompt", "no tokens"),
        ({"prompt": "x" * 5000}, "prompt", "context"),
        ({"prompt": ["x", "y" * 5000]}, "prompt", "context"),
        ({"max_tokens": 10**6}, "max_tokens", "MEMGEN_MAX_NEW_TOKENS"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_refused(client: openai.OpenAI, options: dict[str, Any], param: str, words: str, stream: bool) -> None:
    with pytest.raises(openai.BadRequestError, match=words) as refused:
        complete(client, stream=stream, **options)
    assert refused.value.param == param


def test_what_is_not_offered_is_refused_in_words(client: openai.OpenAI, url: str) -> None:
    with pytest.raises(openai.NotFoundError, match="computes no embeddings"):
        client.embeddings.create(model="base", input="x")
    with pytest.raises(openai.NotFoundError, match="makes no images"):
        client.images.generate(model="base", prompt="x")
    with pytest.raises(openai.NotFoundError, match="no store of files"):
        client.files.list()
    with pytest.raises(openai.NotFoundError, match="POST /v1/jobs"):
        client.fine_tuning.jobs.list()
    body = httpx.get(f"{url}/v1/audio/speech").json()
    assert (body["error"]["code"], body["error"]["type"]) == ("unknown_url", "invalid_request_error")
