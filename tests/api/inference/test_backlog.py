"""How much may wait."""

import pytest

from api.inference.backlog import Backlog, rough_tokens
from api.inference.requests import ChatRequest
from api.inference.unavailable import QueueFull
from memgen.generation.sampling import Sampling


def test_so_many_requests_wait_and_no_more() -> None:
    backlog = Backlog(most_requests=2, most_tokens=1000)
    first, _ = backlog.enter(10), backlog.enter(10)
    with pytest.raises(QueueFull, match=r"2 requests wait.*of 20 tokens.*MEMGEN_QUEUE_REQUESTS") as refused:
        backlog.enter(10)
    assert refused.value.retry_seconds == 1, "nothing is known of the speed"
    backlog.leave(first)
    backlog.leave(first)
    backlog.enter(10)
    assert (backlog.requests, backlog.tokens) == (2, 20)


def test_a_prompt_counts_with_the_calls_of_its_history() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "go", "arguments": "x" * 40_000}}
    parts = [{"type": "text", "text": "y" * 4_000}]
    messages = [{"role": "user", "content": parts}, {"role": "assistant", "content": None, "tool_calls": [call]}]
    request = ChatRequest(messages=messages, tools=None, samplings=(Sampling(10),), memory=None)
    assert 11_000 <= rough_tokens(request, 10**6) <= 11_100
    assert rough_tokens(request, 500) == 510


def test_so_many_tokens_wait_but_whatever_comes_first_is_taken() -> None:
    backlog = Backlog(most_requests=9, most_tokens=100)
    long = backlog.enter(5000)
    with pytest.raises(QueueFull):
        backlog.enter(1)
    backlog.leave(long)
    backlog.enter(60)
    backlog.enter(40)
    with pytest.raises(QueueFull):
        backlog.enter(1)


def test_when_to_come_again_follows_from_the_measured_speed() -> None:
    backlog = Backlog(most_requests=1, most_tokens=10**9)
    backlog.note(tokens=50, seconds=0.5)
    for tokens, expected in ((6000, 30), (10, 1), (10**8, 600)):
        number = backlog.enter(tokens)
        with pytest.raises(QueueFull) as refused:
            backlog.enter(1)
        assert refused.value.retry_seconds == expected
        backlog.leave(number)
    for _ in range(100):
        backlog.note(tokens=10, seconds=1.0)
    backlog.enter(100)
    with pytest.raises(QueueFull) as refused:
        backlog.enter(1)
    assert refused.value.retry_seconds == 5


def test_a_request_counts_for_its_characters_and_its_longest_answers() -> None:
    messages = [{"role": "user", "content": "x" * 400}, {"role": "assistant", "tool_calls": []}]
    request = ChatRequest(messages, None, (Sampling(30), Sampling(12)), None)
    assert rough_tokens(request, most=1000) == 100 + 2 + 42
    assert rough_tokens(request, most=50) == 50 + 42


def test_half_of_it_is_for_those_that_wait_for_no_version() -> None:
    backlog = Backlog(4, 1000)
    numbers = [backlog.enter(100) for _ in range(4)]
    for number in numbers[:2]:
        backlog.wait_for_version(number, 100)
    backlog.wait_for_version(numbers[0], 100)
    with pytest.raises(QueueFull, match="2 requests wait for versions"):
        backlog.wait_for_version(numbers[2], 100)
    backlog.has_version(numbers[0])
    backlog.wait_for_version(numbers[2], 100)
    backlog.leave(numbers[2])
    with pytest.raises(QueueFull, match="of 100 tokens"):
        backlog.wait_for_version(numbers[3], 450)
    backlog.leave(numbers[3])
    backlog.wait_for_version(numbers[3], 200)  # its row had begun, and waits again
    assert (backlog.requests, backlog.tokens) == (3, 400)
    for number in (*numbers, *numbers):
        backlog.leave(number)
    assert (backlog.requests, backlog.tokens) == (0, 0)
