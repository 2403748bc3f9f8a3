"""What is done again and again ends with its context, goes on after what is forgiven, and stops at what is not."""

from __future__ import annotations

import itertools
import threading

import pytest

from ovos_ray.repeating import repeating


@pytest.mark.parametrize(("until", "calls"), [((KeyError,), 2), ((), 4)])
def test_it_goes_on_after_a_forgiven_error_and_stops_at_the_one_that_ends_it(
    until: tuple[type[Exception], ...], calls: int
) -> None:
    outcomes = itertools.chain([OSError("away"), KeyError("gone")], itertools.repeat(None))
    threads, over = list[threading.Thread](), threading.Event()

    def action() -> None:
        threads.append(threading.current_thread())
        if len(threads) == calls:
            over.set()
        if outcome := next(outcomes):
            raise outcome

    with repeating(action, 0.01, "here", forgiving=Exception, until=until):
        assert over.wait(20)
        if until:
            threads[0].join(20)
            assert not threads[0].is_alive()
            assert len(threads) == calls
    assert threads[0].name == "here"
    assert threads[0] is not threading.main_thread()


@pytest.mark.parametrize("waits", [True, False])
def test_a_call_under_way_is_waited_for_only_where_that_is_asked(waits: bool) -> None:
    begun, may_end, ended = threading.Event(), threading.Event(), threading.Event()

    def action() -> None:
        begun.set()
        may_end.wait(20)
        ended.set()

    with repeating(action, 0.0, "here", forgiving=OSError, waits=waits):
        assert begun.wait(20)
        if waits:
            threading.Timer(0.05, may_end.set).start()
    assert ended.is_set() == waits
    may_end.set()


def test_nothing_is_done_once_it_is_over() -> None:
    called: list[int] = []
    with repeating(lambda: called.append(1), 60.0, "here", forgiving=OSError):
        pass
    assert not [thread for thread in threading.enumerate() if thread.name == "here" and thread.is_alive()]
    assert not called
