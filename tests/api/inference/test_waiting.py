"""Who is answered next, without a model: first come, first served, with ageing."""

from hypothesis import given
from hypothesis import strategies as st

from api.inference.local.waiting import WaitingLine


def line_of(*needs: int, most_passed: int = 3) -> WaitingLine[str]:
    line: WaitingLine[str] = WaitingLine(most_passed)
    for order, need in enumerate(needs):
        line.join(f"{order}:{need}", order=order, need=need)
    return line


def admitted(line: WaitingLine[str], free: int, places: int = 100) -> list[str]:
    return [waiter.item for waiter in line.admit(free, places)]


def test_first_come_first_served() -> None:
    line = line_of(3, 2, 4, 1)
    assert admitted(line, 9) == ["0:3", "1:2", "2:4"]
    assert admitted(line, 9) == ["3:1"]
    assert len(line) == 0


def test_no_more_than_there_are_places() -> None:
    line = line_of(1, 1, 1)
    assert admitted(line, 9, places=2) == ["0:1", "1:1"]
    assert admitted(line, 9, places=0) == []


def test_who_comes_back_stands_where_it_stood() -> None:
    line = line_of(1, 1, 1)
    assert admitted(line, 1) == ["0:1"]
    line.join("back", order=0, need=1)
    assert admitted(line, 1) == ["back"]


def test_one_that_finds_no_room_is_passed_so_often_and_then_never() -> None:
    line = line_of(10, 1, 1, 1, 1, 1)
    assert admitted(line, 2) == ["1:1", "2:1"]
    assert admitted(line, 2) == ["3:1"]  # the third to pass is the last
    assert admitted(line, 9) == []
    assert admitted(line, 10) == ["0:10"]
    assert admitted(line, 10) == ["4:1", "5:1"]


def test_who_leaves_holds_nobody_up() -> None:
    line = line_of(10, 1, 1, 1, 1)
    assert admitted(line, 3) == ["1:1", "2:1", "3:1"]
    assert admitted(line, 3) == []
    assert line.drop(lambda item: item == "0:10") == ["0:10"]
    assert admitted(line, 3) == ["4:1"]


@given(st.lists(st.integers(1, 20), min_size=1, max_size=40), st.integers(1, 5), st.data())
def test_everybody_is_let_in_within_a_bound(needs: list[int], most_passed: int, data: st.DataObject) -> None:
    """Room comes and goes, newcomers come for ever: nobody is passed more often than allowed, and all are let in once
    there is room for them."""
    line: WaitingLine[int] = WaitingLine(most_passed)
    for order, need in enumerate(needs):
        line.join(order, order=order, need=need)
    passed = dict.fromkeys(range(len(needs)), 0)
    waiting, newest = dict(enumerate(needs)), len(needs)
    for _ in range(30):
        free = data.draw(st.integers(0, 25))
        let_in = [waiter.item for waiter in line.admit(free, 100)]
        assert sum(waiting[item] for item in let_in) <= free
        assert let_in == sorted(let_in)
        for item in let_in:
            del waiting[item]
            for earlier in [other for other in waiting if other < item]:
                passed[earlier] = passed.get(earlier, 0) + 1
                assert passed[earlier] <= most_passed
        line.join(newest, order=newest, need=1)
        waiting[newest] = 1
        newest += 1
    while waiting:
        for item in [waiter.item for waiter in line.admit(20, 100)]:
            del waiting[item]
