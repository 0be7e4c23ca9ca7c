"""Kept values: never waited for past the deadline, and one cluster that hangs delays no other."""

from __future__ import annotations

import threading
import time

import pytest

from etcdkeep.metrics.families import REPOSITORY_READABLE
from etcdkeep.metrics.readings import Readings


class Repositories:
    """Reads that can be made to hang or to fail; counts them."""

    def __init__(self):
        self.reads, self.hang, self.fail = [], {}, set()

    def read(self, name):
        self.reads.append(name)
        if name in self.hang:
            self.hang[name].wait(30)
        if name in self.fail:
            raise RuntimeError(name)
        return [REPOSITORY_READABLE.sample(1, name)]

    def missing(self, name, sentence):
        assert "did not answer" in sentence
        return [REPOSITORY_READABLE.sample(0, name)]

    def readings(self, keep_s=60.0, hangs_s=600.0):
        return Readings(self.read, self.missing, keep_s, hangs_s)


@pytest.fixture
def repositories():
    made = Repositories()
    yield made
    for event in made.hang.values():
        event.set()


def readable(samples):
    return {sample.labels[0]: sample.value for sample in samples}


def eventually(look, timeout_s=10):
    deadline = time.monotonic() + timeout_s
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_values_are_kept_for_some_seconds_and_then_read_again(repositories):
    readings = repositories.readings(keep_s=0.2)
    for _ in range(3):
        assert readable(readings.get(["a", "b"], 10)) == {"a": 1, "b": 1}
    assert sorted(repositories.reads) == ["a", "b"]
    time.sleep(0.25)
    readings.get(["a"], 10)
    assert sorted(repositories.reads) == ["a", "a", "b"]


def test_a_repository_that_hangs_delays_no_other_and_is_not_read_twice_at_once(repositories):
    repositories.hang["a"] = threading.Event()
    readings = repositories.readings()
    for _ in range(2):
        began = time.monotonic()
        assert readable(readings.get(["a", "b"], 0.2)) == {"a": 0, "b": 1}
        assert time.monotonic() - began < 2
    assert repositories.reads.count("a") == 1
    repositories.hang["a"].set()
    eventually(lambda: readable(readings.get(["a"], 0.1)) == {"a": 1})


def test_earlier_values_are_given_while_a_reading_is_slow_and_not_for_ever(repositories):
    readings = repositories.readings(keep_s=0, hangs_s=0.5)
    assert readable(readings.get(["a"], 10)) == {"a": 1}
    repositories.hang["a"] = threading.Event()
    assert readable(readings.get(["a"], 0.05)) == {"a": 1}
    eventually(lambda: readable(readings.get(["a"], 0.05)) == {"a": 0})


def test_a_reading_that_raises_is_logged_and_tried_again(repositories, caplog):
    repositories.fail.add("a")
    readings = repositories.readings()
    assert readable(readings.get(["a", "b"], 10)) == {"a": 0, "b": 1}
    assert "The metrics of cluster a could not be measured." in caplog.text
    repositories.fail.clear()
    assert readable(readings.get(["a"], 10)) == {"a": 1}


def test_a_hundred_clusters_that_hang_start_no_more_reads_than_allowed(repositories):
    names = [f"c{number}" for number in range(100)]
    event = threading.Event()
    repositories.hang = dict.fromkeys(names, event)
    readings = repositories.readings()
    assert set(readable(readings.get(names, 0.2)).values()) == {0}
    assert len(repositories.reads) == 16
    event.set()
    assert set(readable(readings.get(names, 20)).values()) == {1}
