"""What is read in the background: at once what is known, its age, and no thread for others that a dead repository holds."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from etcdkeep.errors import NotFound, StoreUnavailable
from etcdkeep_airflow.page.pool import (
    BUDGET_S,
    EARNED,
    EVERYONE,
    LATER,
    LINE,
    MOST_OWED_S,
    PER_PERSON,
    PER_PLACE,
    THREADS,
    WAITERS,
    Pool,
)
from etcdkeep_airflow.page.readings import Readings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SEEN_S = 10.0


class Repositories:
    """Keys ``place/name``; a place can hang or fail."""

    def __init__(self) -> None:
        self.reads: list[str] = []
        self.hanging: set[str] = set()
        self.failing: set[str] = set()
        self.released = threading.Event()
        self.at_once = 0
        self._reading = 0
        self._lock = threading.Lock()

    def read(self, key: str) -> str:
        with self._lock:
            self.reads.append(key)
            self._reading += 1
            self.at_once = max(self.at_once, self._reading)
        try:
            if self.place(key) in self.hanging:
                self.released.wait(SEEN_S * 3)
            if self.place(key) in self.failing:
                raise StoreUnavailable(f"{key} does not answer")
            return f"{key} #{self.reads.count(key)}"
        finally:
            with self._lock:
                self._reading -= 1

    def place(self, key: str) -> str:
        return key.partition("/")[0]


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def repositories() -> Iterator[Repositories]:
    made = Repositories()
    yield made
    made.released.set()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def readings(repositories: Repositories, clock: Clock) -> Readings[str]:
    return Readings(repositories.read, repositories.place, Pool(clock), keep=1000)


def seen(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + SEEN_S
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def test_the_first_answer_comes_at_once_and_the_value_later(readings, repositories):
    repositories.hanging = {"a"}
    known = readings.get("a/1")
    assert (known.value, known.reading, known.problem) == (None, True, "")
    repositories.released.set()
    assert seen(lambda: readings.get("a/1").value == "a/1 #1")
    assert readings.get("a/1").reading is False


def test_who_waits_gets_the_value(readings):
    assert readings.get("a/1", wait_s=SEEN_S).value == "a/1 #1"


def test_a_value_is_kept_for_a_while_then_read_again_and_shown_meanwhile(readings, repositories, clock):
    readings.get("a/1", wait_s=SEEN_S)
    clock.now_s = 29
    assert (readings.get("a/1").age_s, readings.get("a/1").reading) == (29, False)
    clock.now_s = 31
    repositories.hanging = {"a"}
    known = readings.get("a/1")
    assert (known.value, known.age_s, known.reading) == ("a/1 #1", 31, True)
    repositories.released.set()
    assert seen(lambda: readings.get("a/1").value == "a/1 #2")


def test_a_failure_is_said_and_the_last_value_stays(readings, repositories, clock):
    readings.get("a/1", wait_s=SEEN_S)
    repositories.failing, clock.now_s = {"a"}, 60
    readings.get("a/1")
    assert seen(lambda: bool(readings.get("a/1").problem))
    known = readings.get("a/1")
    assert (known.value, known.age_s, known.problem) == ("a/1 #1", 60, "a/1 does not answer")
    repositories.failing, clock.now_s = set(), 120
    readings.get("a/1")
    assert seen(lambda: not readings.get("a/1").problem)


def test_a_fault_of_ours_is_said_and_logged(clock, caplog):
    def read(key: str) -> str:
        raise ZeroDivisionError(key)

    known = Readings(read, str, Pool(clock), keep=10).get("a", wait_s=SEEN_S)
    assert known.problem.startswith("ZeroDivisionError")
    assert "a could not be read for the page" in caplog.text


def test_a_library_that_panics_keeps_nobody_waiting(clock, caplog):
    class Panic(BaseException):
        """What a library in Rust raises."""

    def read(key: str) -> str:
        raise Panic(key)

    pool = Pool(clock)
    assert Readings(read, str, pool, keep=10).get("a", wait_s=SEEN_S).problem.startswith("Panic")
    assert not pool._running


def test_a_dead_repository_keeps_no_other_from_being_read(readings, repositories):
    repositories.hanging = {"dead"}
    keys = [*(f"dead/{number}" for number in range(50)), *(f"alive/{number}" for number in range(50))]
    readings.get_all(keys)
    assert seen(lambda: all(known.value for key, known in readings.get_all(keys).items() if key.startswith("alive")))
    assert sum(key.startswith("dead") for key in repositories.reads) == PER_PLACE
    assert repositories.at_once <= THREADS


def test_what_takes_too_long_is_said_to_have_no_answer(readings, repositories, clock):
    repositories.hanging = {"dead"}
    keys = [f"dead/{number}" for number in range(5)]
    readings.get_all(keys)
    clock.now_s = 61
    found = readings.get_all(keys)
    assert {known.problem for known in found.values()} == {"no answer within 60 s"}
    assert len(repositories.reads) == PER_PLACE
    repositories.released.set()
    assert seen(lambda: all(known.value and not known.problem for known in readings.get_all(keys).values()))


def test_many_dead_repositories_leave_threads_for_one_that_answers(readings, repositories, clock):
    repositories.hanging = {f"dead{number}" for number in range(THREADS * 2)}
    readings.get_all([f"{place}/1" for place in sorted(repositories.hanging)])
    assert readings.get("alive/1", wait_s=0.2).value is None, "all threads wait"
    for minute in range(1, 6):
        clock.now_s = 61 * minute
        readings.get_all([f"{place}/1" for place in sorted(repositories.hanging)])
    assert seen(lambda: readings.get("alive/1").value is not None)


def test_reading_leaves_the_processor_to_others(repositories, clock):
    def read(key: str) -> str:
        clock.now_s += 50
        return repositories.read(key)

    slow = Readings(read, repositories.place, Pool(clock), keep=10)
    slow.get("a/1", wait_s=SEEN_S)
    clock.now_s += 99
    assert not slow.get("a/1").reading
    clock.now_s += 2
    assert slow.get("a/1").reading


def test_no_more_is_kept_than_allowed(repositories, clock):
    few = Readings(repositories.read, repositories.place, Pool(clock), keep=3)
    for number in range(9):
        few.get(f"a/{number}", wait_s=SEEN_S)
    assert len(few._entries) <= 3
    assert few.get("a/8").value


def test_who_waits_gets_the_value_whatever_else_is_asked_for(repositories, clock):
    few = Readings(repositories.read, repositories.place, Pool(clock), keep=1)
    with ThreadPoolExecutor(8) as people:
        found = list(people.map(lambda number: few.get(f"a/{number}", wait_s=1.0), range(8)))
    assert any(each.value for each in found)
    assert all(each.value or not each.problem for each in found)
    assert len(few._entries) <= 1 + THREADS


def test_what_waits_in_line_is_not_without_an_answer(repositories, clock):
    def read(key: str) -> str:
        clock.now_s += 4  # one that is slow to start sees many of the others end
        return repositories.read(key)

    slow = Readings(read, repositories.place, Pool(clock), keep=100)
    slow.get_all([f"a/{number}" for number in range(20)])
    for number in range(20):
        assert slow.get(f"a/{number}", wait_s=SEEN_S).problem == ""


def test_what_nobody_asked_for_in_an_hour_is_read_again_before_it_is_shown(readings, repositories, clock):
    readings.get("a/1", wait_s=SEEN_S)
    clock.now_s = 3601
    assert readings.get("a/1", wait_s=SEEN_S).value == "a/1 #2"
    clock.now_s, repositories.hanging = 7300, {"a"}
    known = readings.get("a/1")
    assert (known.value, known.reading) == (None, True)
    clock.now_s += 61
    known = readings.get("a/1")
    assert (known.value, known.problem) == ("a/1 #2", "no answer within 60 s"), "the last known state, with the reason"
    assert known.age_s == 7361 - 3601


def test_a_slow_failure_does_not_make_others_old(repositories, clock):
    def read(key: str) -> str:
        clock.now_s += 50 if repositories.place(key) == "dead" else 0
        return repositories.read(key)

    repositories.failing = {"dead"}
    readings = Readings(read, repositories.place, Pool(clock), keep=1000)
    for number in range(20):
        assert readings.get(f"dead/{number}", wait_s=SEEN_S).problem
    readings.get("a/1", wait_s=SEEN_S)
    clock.now_s += 31
    assert readings.get("a/1").reading


def test_what_was_read_by_other_settings_is_not_shown(repositories, clock):
    settings = {"a": ["place of before"]}
    readings = Readings(
        repositories.read, repositories.place, Pool(clock), keep=9, settings=lambda key: settings[key[0]]
    )
    assert readings.get("a/1", wait_s=SEEN_S).value == "a/1 #1"
    settings["a"] = ["place of before"]
    assert readings.get("a/1").value == "a/1 #1", "an equal entry, read from the file again"
    settings["a"], repositories.failing = ["place of now"], {"a"}
    assert readings.peek("a/1").value is None
    known = readings.get("a/1", wait_s=SEEN_S)
    assert (known.value, known.problem) == (None, "a/1 does not answer")


def test_settings_that_change_during_a_reading_make_it_void(repositories, clock):
    settings = ["before"]
    readings = Readings(repositories.read, repositories.place, Pool(clock), keep=9, settings=lambda key: settings[0])
    repositories.hanging = {"a"}
    readings.get("a/1")
    assert seen(lambda: repositories.reads == ["a/1"])
    settings[0] = "now"
    repositories.released.set()
    assert seen(lambda: readings.peek("a/1").value is not None)
    assert readings.peek("a/1").value == "a/1 #2"


# --- the threads that all share ------------------------------------------------------------------------------------


def test_no_person_fills_the_line_of_the_others(repositories, clock):
    pool = Pool(clock)
    sets, histories = (Readings(repositories.read, repositories.place, pool, keep=1000) for _ in range(2))
    repositories.hanging = {f"p{number}" for number in range(500)}
    for number in range(500):
        for readings in (sets, histories):
            readings.get(f"p{number}/x", who="user mallory")
    assert len(repositories.reads) <= PER_PERSON
    assert sum(map(len, pool._lines["user mallory"].values())) == LINE
    assert histories.get("alive/1", wait_s=SEEN_S, who="user alice").value
    assert sets.get("alive/2", wait_s=SEEN_S).value


def test_few_requests_wait_at_once(repositories, readings):
    """Each that waits holds a thread of Airflow's."""
    repositories.hanging = {"a"}
    began = time.monotonic()
    with ThreadPoolExecutor(8 * WAITERS) as people:
        took = list(people.map(lambda number: _timed(lambda: readings.get(f"a/{number}", 1.0)), range(8 * WAITERS)))
    assert sum(each > 0.9 for each in took) == WAITERS
    assert time.monotonic() - began < 5


def _timed(call: Callable[[], object]) -> float:
    began = time.monotonic()
    call()
    return time.monotonic() - began


def test_people_take_turns(clock):
    began, gate = [], threading.Event()

    def read(key):
        began.append(key)
        gate.wait(SEEN_S)
        return key

    readings = Readings(read, str, Pool(clock), keep=1000)
    for number in range(30):
        readings.get(f"m{number}", who="user mallory")
    for number in range(3):
        readings.get(f"a{number}", who="user alice")
    assert seen(lambda: len(began) == 2 * PER_PERSON)
    gate.set()
    assert seen(lambda: "a2" in began)
    assert began.index("a2") < 2 * PER_PERSON + 4


@pytest.mark.parametrize("error", [None, NotFound("no backup has it")], ids=["found", "not-found"])
def test_who_has_had_much_read_waits_and_is_told_so(clock, error):
    def read(key):
        if key == "long":
            clock.now_s += 1.2 * BUDGET_S
            if error:
                raise error
        return key

    readings = Readings(read, str, Pool(clock, deadline_s=10 * BUDGET_S), keep=1000)
    found = readings.get("long", SEEN_S, "user mallory")
    assert found.value or found.problem
    rests_s = 0.2 * BUDGET_S / EARNED
    for _ in range(2):
        waits = readings.get("short", 0.01, "user mallory")
        assert (waits.value, waits.reading) == (None, True)
        assert f"in about {rests_s:.0f} s" in waits.problem
    assert readings.get("other", SEEN_S, "user alice").value, "nobody else waits"
    assert readings.get("short", SEEN_S).value, "nor does what others want too"
    clock.now_s += rests_s + 1
    assert readings.get("later", SEEN_S, "user mallory").value


def test_what_does_not_answer_uses_up_no_budget(repositories, clock):
    repositories.hanging = repositories.failing = {"dead"}
    pool = Pool(clock)
    readings = Readings(repositories.read, repositories.place, pool, keep=1000)
    readings.get("dead/1", who="user alice")
    clock.now_s += 10 * BUDGET_S
    repositories.released.set()
    assert seen(lambda: not readings.get("dead/1", who="user alice").reading)
    assert readings.get("alive/1", SEEN_S, "user alice").value


def test_who_has_most_loses_first(repositories, clock):
    readings = Readings(repositories.read, repositories.place, Pool(clock), keep=4)
    for name in ("1", "2"):
        assert readings.get(f"a/{name}", SEEN_S, "user alice").value
    for number in range(20):
        assert readings.get(f"m/{number}", SEEN_S, "user mallory").value
    readings.get("a/1", SEEN_S, "user mallory")  # to ask for what is alice's does not make it mallory's
    assert readings.get("m/20", SEEN_S, "user mallory").value
    assert {key for key in ("a/1", "a/2", "m/19", "m/20") if readings.peek(key).value} == {"a/1", "a/2", "m/19", "m/20"}
    assert sum(bool(readings.peek(f"m/{number}").value) for number in range(21)) == 2


def spend(readings, clock, seconds, who):
    """Use up reading time of a person."""
    clock.spends_s = seconds
    assert readings.get(f"spent by {who}/", SEEN_S, who).value


@pytest.fixture
def four(repositories, clock):
    """Readings of which four are kept."""
    clock.spends_s = 0.0

    def read(key):
        clock.now_s, clock.spends_s = clock.now_s + clock.spends_s, 0.0
        return repositories.read(key)

    return Readings(read, repositories.place, Pool(clock, deadline_s=10 * BUDGET_S), keep=4)


def test_what_waits_pushes_out_nothing(four, clock):
    spend(four, clock, 1.9 * BUDGET_S, "user mallory")
    for number in range(3):
        assert four.get(f"a/{number}", SEEN_S, "user alice").value
    for number in range(LINE):
        assert four.get(f"m/{number}", who="user mallory").value is None
    four.get("a/0", who="user alice")
    assert all(four.peek(f"a/{number}").value for number in range(3))


def test_what_waits_to_be_read_again_makes_room(four, clock):
    for number in range(4):
        assert four.get(f"m/{number}", SEEN_S, "user mallory").value
    spend(four, clock, 1.9 * BUDGET_S, "user mallory")
    for number in range(4):
        four.get(f"m/{number}", who="user mallory")
    for number in range(2):
        assert four.get(f"a/{number}", SEEN_S, "user alice").value
    assert all(four.peek(f"a/{number}").value for number in range(2))
    assert sum(bool(four.peek(f"m/{number}").value) for number in range(4)) == 2
    clock.now_s += 2 * BUDGET_S / EARNED
    for number in range(4):
        assert four.get(f"m/{number}", SEEN_S, "user mallory").value
    assert seen(lambda: not any(each.reading for each in map(four.peek, list(four._entries))))
    assert len(four._entries) == 4


def test_who_has_used_up_the_budget_keeps_no_request_waiting(four, clock):
    spend(four, clock, 1.9 * BUDGET_S, "user mallory")
    assert _timed(lambda: four.get("m/1", SEEN_S, "user mallory")) < SEEN_S / 2


def test_nobody_rests_for_long(four, clock):
    spend(four, clock, 9 * BUDGET_S, "user alice")
    assert "goes on in about" in four.get("a/1", 0.01, "user alice").problem
    clock.now_s += MOST_OWED_S / EARNED + 1
    assert four.get("a/1", SEEN_S, "user alice").value


def test_one_person_holds_no_more_of_a_place_when_it_takes_too_long(readings, repositories, clock):
    repositories.hanging = {"a"}
    keys = [f"a/{number}" for number in range(2 * PER_PLACE)]
    readings.get_all(keys, "user mallory")
    clock.now_s = 61
    assert {each.problem for each in readings.get_all(keys, "user mallory").values()} == {"no answer within 60 s"}
    assert len(repositories.reads) == PER_PERSON
    repositories.hanging = set()
    assert readings.get("a/row", SEEN_S).value


def test_everything_together_runs_in_so_many_threads(repositories, clock):
    pool = Pool(clock)
    kinds = [Readings(repositories.read, repositories.place, pool, keep=1000) for _ in range(7)]
    repositories.hanging = {f"p{number}" for number in range(50)}
    for person in range(50):
        for readings in kinds:
            readings.get(f"p{person}/{id(readings)}", who=f"user {person}")
            readings.get_all([f"p{number}/rows" for number in range(50)], EVERYONE)
    assert seen(lambda: repositories.at_once == THREADS)
    repositories.released.set()
    assert seen(lambda: all(each.value for each in kinds[0].get_all([f"p{number}/rows" for number in range(50)]).values()))  # fmt: skip
    assert repositories.at_once == THREADS


def test_what_two_want_is_read_once(repositories, readings):
    repositories.hanging = {"a"}
    for who in ("user alice", "user bob", EVERYONE):
        readings.get_all([f"a/{number}" for number in range(8)], who)
    repositories.released.set()
    assert seen(lambda: all(each.value for each in readings.get_all([f"a/{number}" for number in range(8)]).values()))
    assert sorted(repositories.reads) == [f"a/{number}" for number in range(8)]


def test_what_can_wait_is_read_when_nothing_else_is(repositories, clock):
    pool = Pool(clock)
    rows, older = (Readings(repositories.read, repositories.place, pool, keep=1000) for _ in range(2))
    repositories.hanging = {"a"}
    rows.get("a/1")
    older.get_all([f"b/{number}" for number in range(5)], LATER)
    assert repositories.reads == ["a/1"]
    repositories.released.set()
    assert seen(lambda: all(each.value for each in older.get_all([f"b/{number}" for number in range(5)], LATER).values()))  # fmt: skip
    assert older.peek("b/1").value
    assert older.peek("b/9").reading is False
