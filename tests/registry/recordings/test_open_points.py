"""What an answer is told of its run is what becomes of it: one rule says which requests go on in which runs."""

import uuid

import pytest

from registry.database import transaction
from registry.recordings.call import RecordedCall
from registry.recordings.joining import kind_of
from registry.recordings.open_points import find_open_point
from registry.trajectories.continuation import turn_points
from registry.wiring import Services
from tests.registry.recordings.test_joining import TOOLS, Agent, agent, said, user

__all__ = ["agent"]

TOOL_SETS = {"none": None, "one": TOOLS, "two": [*TOOLS, *TOOLS]}


def fits(asks: str, has: str) -> bool:
    return asks == "none" or has in ("none", asks)


def told_and_done(agent: Agent, services: Services, call: RecordedCall) -> tuple[tuple[uuid.UUID, ...], uuid.UUID]:
    """The runs that its answer may name, and the one that it then stands in."""
    hashes = [point.hash for point in turn_points(call.messages)]
    with transaction(services.sessions) as session:
        point = find_open_point(session, kind_of(call), hashes)
    [joined] = agent.record(call)
    assert joined.run_id is not None
    return point.run_ids if point is not None else (), joined.run_id


@pytest.mark.parametrize("has", TOOL_SETS)
@pytest.mark.parametrize("asks", TOOL_SETS)
def test_a_request_goes_on_where_its_tools_may(agent: Agent, services: Services, asks: str, has: str) -> None:
    run = agent.send([user("a")], "1", tools=TOOL_SETS[has])
    call = agent.call([user("a"), said("1"), user("b")], "2", tools=TOOL_SETS[asks])
    told, stands = told_and_done(agent, services, call)
    assert (told, stands == run) == (((run,), True) if fits(asks, has) else ((), False))


@pytest.mark.parametrize("has", TOOL_SETS)
@pytest.mark.parametrize("asks", TOOL_SETS)
def test_what_a_run_has_gone_on_from_is_a_branch_where_its_tools_may(
    agent: Agent, services: Services, asks: str, has: str
) -> None:
    """An equal run, which any request may go on in, ends at an earlier point of the same conversation."""
    begun = [user("a")]
    equal, gone_on = agent.send(begun, "1"), agent.send(begun, "1", tools=TOOL_SETS[has])
    for asked, answer in (("b", "2"), ("c", "3")):
        begun += [said(str(int(answer) - 1)), user(asked)]
        assert agent.send(begun, answer, tools=TOOL_SETS[has], run_id=gone_on) == gone_on
    call = agent.call([*begun[:-1], user("d")], "4", tools=TOOL_SETS[asks])
    told, stands = told_and_done(agent, services, call)
    assert told == (() if fits(asks, has) else (equal,))
    assert (stands == equal) is not fits(asks, has)
    assert stands != gone_on
