"""A thread that does the same again and again."""

import time

from api.recording.repeating import Repeating


def test_it_works_a_last_time_when_it_is_to_stop_and_waits_for_nothing() -> None:
    worked: list[float] = []
    thread = Repeating("it", lambda: worked.append(time.monotonic()), seconds=3600.0, retry_seconds=3600.0)
    thread.start()
    while not worked:
        time.sleep(0.01)
    began = time.monotonic()
    thread.stop(60.0)
    assert time.monotonic() - began < 30.0
    assert worked[-1] >= began


def test_whatever_fails_is_tried_again_and_holds_up_no_end() -> None:
    tried: list[None] = []

    def fail() -> None:
        tried.append(None)
        raise RuntimeError("always")

    thread = Repeating("it", fail, seconds=0.0, retry_seconds=0.01)
    thread.start()
    while len(tried) < 3:
        time.sleep(0.01)
    thread.stop(60.0)
    assert not thread._thread.is_alive()
