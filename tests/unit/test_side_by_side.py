"""Reading many things at once."""

from __future__ import annotations

import threading
from itertools import count

import pytest

from etcdkeep.side_by_side import AT_ONCE, side_by_side


def test_results_come_in_the_order_of_the_items():
    gate = threading.Barrier(AT_ONCE, timeout=30)

    def wait_for_the_others(item):
        gate.wait()  # passes only when all of them run at once
        return item

    assert list(side_by_side(wait_for_the_others, range(AT_ONCE))) == list(range(AT_ONCE))


def test_no_more_than_so_many_run_at_once():
    running, most, lock = set(), [], threading.Lock()

    def note(item):
        with lock:
            running.add(item)
            most.append(len(running))
        threading.Event().wait(0.001)
        with lock:
            running.discard(item)

    list(side_by_side(note, range(10 * AT_ONCE)))
    assert 1 < max(most) <= AT_ONCE


def test_few_are_begun_before_their_turn():
    taken = []
    found = side_by_side(lambda item: item, (taken.append(item) or item for item in count()))
    assert [next(found) for _ in range(5)] == [0, 1, 2, 3, 4]
    assert len(taken) <= 2 * AT_ONCE + 5
    found.close()


def test_a_reader_that_reads_side_by_side_does_so_one_by_one():
    inner, names = [], set()

    def outer(item):
        def read(each):
            names.add((item, threading.current_thread().name))
            return each

        inner.append(list(side_by_side(read, range(3))))

    list(side_by_side(outer, range(2 * AT_ONCE)))
    assert inner == [[0, 1, 2]] * 2 * AT_ONCE
    assert len(names) == 2 * AT_ONCE


def test_an_error_comes_in_its_turn_and_ends_it():
    done = []

    def fail_at_two(item):
        if item == 2:
            raise ValueError(item)
        done.append(item)
        return item

    found = side_by_side(fail_at_two, range(100 * AT_ONCE))
    assert [next(found), next(found)] == [0, 1]
    with pytest.raises(ValueError, match="2"):
        next(found)
    assert len(done) <= 3 * AT_ONCE
