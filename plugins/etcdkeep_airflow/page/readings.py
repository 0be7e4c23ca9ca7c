"""
Values that are slow to read, kept with their age. Threads read them; whoever asks gets what is known, at once.

A read that takes too long is said to have no answer, and what was known before stays. Values are read again no more often than a
third of one processor allows. The threads are those of :mod:`etcdkeep_airflow.page.pool`.
"""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from etcdkeep.errors import EtcdkeepError, PermanentError
from etcdkeep.plain_text import one_line
from etcdkeep_airflow.page.pool import EVERYONE, Job, Pool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

log = logging.getLogger(__name__)

FRESH_S = 30.0
REST = 2.0
"""Times the reading of everything that nothing is read after it."""
OLD_S = 3600.0
"""Nobody looked for so long: what was read before says nothing of now, and is shown only where it cannot be read again."""
KEY_CHARS = 300
"""Of a key in the log: it may be what somebody typed into an address."""

Value = TypeVar("Value")


@dataclass(frozen=True)
class Known(Generic[Value]):
    """
    What is known of one key.

    :param value: None where it was never read.
    :param age_s: Of the value; None where there is none.
    :param problem: Why it could not be read the last time; empty where it could.
    :param reading: Whether it is being read, or waits for that.
    """

    value: Value | None = None
    age_s: float | None = None
    problem: str = ""
    reading: bool = False


@dataclass
class _Entry(Generic[Value]):
    """:param who: Who asked for it first."""

    job: Job
    who: str
    value: Value | None = None
    read_at: float | None = None
    tried_at: float | None = None
    took_s: float = 0.0
    problem: str = ""
    settings: object = None

    def empty(self) -> None:
        """Make it as if it had never been read."""
        self.value = self.read_at = self.tried_at = None
        self.problem = ""


class Readings(Generic[Value]):
    """
    Values by key.

    :param read: Reads one; runs in a thread.
    :param place: What is asked for it, such as a repository's URL.
    :param pool: The threads, shared with the readings of other things.
    :param keep: How many values are kept; those asked for last.
    :param settings: What the reading of a key goes by, such as the cluster's entry in the configuration: what was read by others
        says nothing of the place, the keys and the rules of now.
    """

    def __init__(
        self,
        read: Callable[[str], Value],
        place: Callable[[str], str],
        pool: Pool,
        *,
        keep: int,
        fresh_s: float = FRESH_S,
        settings: Callable[[str], object] = lambda key: None,
    ) -> None:
        self._read = read
        self._settings = settings
        self._place = place
        self._pool = pool
        self._keep = keep
        self._fresh_s = fresh_s
        self._entries: OrderedDict[str, _Entry[Value]] = OrderedDict()
        self._all_took_s = 0.0

    def get(self, key: str, wait_s: float = 0.0, who: str = EVERYONE) -> Known[Value]:
        """
        Return what is known of a key, and have it read when that is old. Wait so long where nothing is known yet.

        :param who: Whose line it waits in.
        """
        with self._pool.changed:
            entry = self._want(key, who)
            self._pool.start()
            self._pool.wait(lambda: self._has_answer(entry, who), wait_s)
            return self._known(entry, who)

    def get_all(self, keys: Iterable[str], who: str = EVERYONE) -> dict[str, Known[Value]]:
        """Return what is known of several keys."""
        with self._pool.changed:
            entries = {key: self._want(key, who) for key in keys}
            self._pool.start()
            return {key: self._known(entry, who) for key, entry in entries.items()}

    def peek(self, key: str) -> Known[Value]:
        """Return what is known of a key, and have nothing read."""
        with self._pool.changed:
            entry = self._current(key)
            return self._known(entry) if entry else Known()

    def _current(self, key: str) -> _Entry[Value] | None:
        """Return a key's entry, emptied when it was read by other settings than those of now."""
        entry, settings = self._entries.get(key), self._settings(key)
        if entry is not None and entry.settings is not settings:
            if entry.settings != settings:
                entry.empty()
            entry.settings = settings
        return entry

    def _want(self, key: str, who: str) -> _Entry[Value]:
        entry = self._current(key)
        if entry is None:
            entry = self._entries[key] = _Entry(self._job(key), who, settings=self._settings(key))
        self._entries.move_to_end(key)
        if entry.tried_at is None or self._pool.clock() - entry.tried_at >= self._rest_s():
            if not self._pool.is_asked(entry.job):
                entry.job = self._job(key)  # its place may be another one by now
            self._pool.add(who, entry.job)
        self._forget()
        return entry

    def _job(self, key: str) -> Job:
        return Job(id(self), key, self._place(key), lambda: self._run(key))

    def _rest_s(self) -> float:
        return max(self._fresh_s, REST * self._all_took_s)

    def _run(self, key: str) -> tuple[float, Callable[[], None]]:
        """Read a value; return how many seconds of work that was, and what makes it known."""
        value, problem, began, settings, works = None, "", self._pool.clock(), self._settings(key), True
        try:
            value = self._read(key)
        except (EtcdkeepError, OSError) as err:
            problem = str(err)
            works = isinstance(err, PermanentError)  # what a repository keeps waiting for is no work
        except BaseException as err:  # a library in Rust that panics raises no Exception
            log.exception("%s could not be read for the page", one_line(key, KEY_CHARS))
            problem = f"{type(err).__name__}, which nobody expected. Read the API server's log."
        took_s = self._pool.clock() - began if works else 0.0
        return took_s, lambda: self._finish(key, began, value, problem, settings)

    def _finish(self, key: str, began: float, value: Value | None, problem: str, settings: object) -> None:
        entry = self._entries[key]  # what is being read is not forgotten
        self._entries.move_to_end(key)
        self._current(key)
        if entry.settings != settings:  # they changed meanwhile
            entry.job = self._job(key)
            self._pool.add(EVERYONE, entry.job)
            return
        now = self._pool.clock()
        # What hangs or fails is waited for, and keeps no processor busy: no reason to read the others seldom.
        took_s = 0.0 if problem else min(now - began, self._pool.deadline_s)
        self._all_took_s += took_s - entry.took_s
        entry.tried_at, entry.took_s, entry.problem = now, took_s, problem
        if value is not None:
            entry.value, entry.read_at = value, now
        self._forget()

    def _forget(self) -> None:
        """
        Keep no more than allowed, besides what is read for the first time, which takes no room yet.

        Who has most loses first: nobody pushes out all that others look at. What is to be read again may wait for long: it loses its value.
        """
        if len(self._entries) <= self._keep:
            return
        newest = next(reversed(self._entries))
        kept = {
            key: each
            for key, each in self._entries.items()
            if each.tried_at is not None or not self._pool.is_asked(each.job)
        }
        has = Counter(each.who for each in kept.values())
        while len(kept) > self._keep:
            # The oldest, where some have as many.
            key = max((each for each in kept if each != newest), key=lambda each: has[kept[each].who])
            entry = kept.pop(key)
            has[entry.who] -= 1
            self._all_took_s -= entry.took_s
            entry.took_s = 0.0
            if self._pool.is_asked(entry.job):
                entry.empty()
            else:
                del self._entries[key]

    def _has_answer(self, entry: _Entry[Value], who: str) -> bool:
        known = self._known(entry, who)
        return known.value is not None or bool(known.problem) or (entry.tried_at is not None and not known.reading)

    def _known(self, entry: _Entry[Value], who: str = EVERYONE) -> Known[Value]:
        age_s = None if entry.read_at is None else self._pool.clock() - entry.read_at
        if not self._pool.is_asked(entry.job):
            return Known(entry.value, age_s, entry.problem)
        problem = entry.problem
        if self._pool.is_overdue(entry.job):
            problem = f"no answer within {self._pool.deadline_s:.0f} s"
        elif rests_s := self._pool.rests_s(who, entry.job):
            problem = f"much was read for you in the last minutes; reading for you goes on in about {rests_s:.0f} s"
        if not problem and age_s is not None and age_s > max(OLD_S, 2 * self._rest_s()):
            return Known(reading=True)
        return Known(entry.value, age_s, problem, reading=True)
