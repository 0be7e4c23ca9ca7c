"""
The threads that read for the page, shared by all that it shows.

A repository that hangs holds a few threads, and none that the others need. A person who asks for a thousand things waits for them alone:
each has a line of their own, of limited length, and the lines take turns. Whoever asks for much on end has a budget of reading time.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

THREADS = 10
PER_PLACE = 4
PER_PERSON = 2
BUDGET_S, EARNED = 300.0, 1 / 3
"""Reading time that a person may use up at once, in seconds; and what comes back of it in each second."""
MOST_OWED_S = BUDGET_S
"""What one may owe besides: a repository that answers after hours keeps nobody waiting for days."""
LINE = 64
"""How many readings wait for one person; of more, those asked for first are forgotten: who still looks asks again."""
WAITERS = 8
"""How many requests wait for a reading at once. Each holds one of the few threads in which Airflow answers its own requests."""
EVERYONE = ""
"""For whom the lines of the fleet are read; no person has this name. It takes turns with them, and leaves threads for two."""
LATER = "\0later"
"""What is read while nobody waits for anything else, one at a time."""
_MOST = {EVERYONE: THREADS - 2 * PER_PERSON, LATER: 1}


@dataclass(frozen=True)
class Job:
    """
    Something to read.

    :param kind: What of; with the key, what makes two jobs the same.
    :param place: What is asked for it, such as a repository's URL: too slow a place keeps no other waiting.
    :param run: Reads it; returns how many seconds of work that was, and what makes it known.
    """

    kind: object
    key: str
    place: str = field(compare=False)
    run: Callable[[], tuple[float, Callable[[], None]]] = field(compare=False)


class Pool:
    """Threads and the lines that wait for them. What its methods are asked under is `changed`, which is told when one has ended."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, deadline_s: float = 60.0) -> None:
        self.changed = threading.Condition()
        self.clock = clock
        self.deadline_s = deadline_s
        self._lines: OrderedDict[str, OrderedDict[str, OrderedDict[Job, float]]] = OrderedDict()
        self._waiting: Counter[Job] = Counter()
        self._running: dict[Job, tuple[float, str]] = {}
        self._busy: Counter[str] = Counter()
        self._paid_at: dict[str, float] = {}
        self._waiters = 0

    def wait(self, done: Callable[[], bool], wait_s: float) -> None:
        """Wait until something is so, for so long at most; not at all where enough others wait."""
        if self._waiters >= WAITERS:
            return
        self._waiters += 1
        try:
            self.changed.wait_for(done, wait_s)
        finally:
            self._waiters -= 1

    def add(self, who: str, job: Job) -> None:
        """Let a job wait in somebody's line, unless it runs or waits there already."""
        line = self._lines.setdefault(who, OrderedDict())
        if job in self._running or job in line.get(job.place, ()):
            return
        line.setdefault(job.place, OrderedDict())[job] = self.clock()
        self._waiting[job] += 1
        if who not in _MOST and sum(map(len, line.values())) > LINE:
            self._leave(who, _oldest(line))

    def is_asked(self, job: Job) -> bool:
        """Say whether a job runs or waits."""
        return job in self._running or job in self._waiting

    def rests_s(self, who: str, job: Job | None = None) -> float:
        """Return for how many seconds nothing is read for a person, whose budget is used up; 0 for a job that runs."""
        if job in self._running:
            return 0.0
        return max(0.0, self._paid_at.get(who, 0.0) - self.clock() - BUDGET_S / EARNED)

    def is_overdue(self, job: Job) -> bool:
        """Say whether a job takes too long; or waits too long, for a place whose every reading takes too long."""
        if job in self._running:
            return self._is_late(self._running[job][0])
        waits = [(line[job.place][job], who) for who, line in self._lines.items() if job in line.get(job.place, ())]
        return any(self._is_late(since) and self._stuck(job.place, who) for since, who in waits)

    def start(self) -> None:
        """Start threads for what waits; one that takes too long does not count as one of them."""
        while (turn := self._next()) is not None:
            who, job = turn
            for each in [name for name, line in self._lines.items() if job in line.get(job.place, ())]:
                self._leave(each, job)
            if who in self._lines:
                self._lines.move_to_end(who)
            self._running[job] = self.clock(), who
            self._busy[job.place] += 1
            threading.Thread(target=self._run, args=(job,), name=f"etcdkeep-page-{job.key}", daemon=True).start()

    def _next(self) -> tuple[str, Job] | None:
        """Return whose turn it is, and the job."""
        held = Counter(who for since, who in self._running.values() if not self._is_late(since))
        if held.total() >= THREADS:
            return None
        at_place = Counter((who, job.place) for job, (_, who) in self._running.items())
        for who in (*(each for each in self._lines if each != LATER), LATER):
            if who == LATER and held:
                return None
            most = _MOST.get(who, PER_PERSON)
            if held[who] < most and not self.rests_s(who):
                for place, jobs in self._lines.get(who, {}).items():
                    if self._busy[place] < PER_PLACE and at_place[who, place] < most:  # what is late counts here
                        return who, next(iter(jobs))
        return None

    def _leave(self, who: str, job: Job) -> None:
        line = self._lines[who]
        jobs = line[job.place]
        del jobs[job]
        line.move_to_end(job.place)  # places take turns too
        if not jobs:
            del line[job.place]
        if not line:
            del self._lines[who]
        self._waiting[job] -= 1
        if not self._waiting[job]:
            del self._waiting[job]

    def _spend(self, who: str, seconds: float) -> None:
        """Take reading time from a person's budget. What is kept is when it will be whole again."""
        now = self.clock()
        self._paid_at = {each: at for each, at in self._paid_at.items() if at > now}
        if who not in _MOST:
            owed_s = (self._paid_at.get(who, now) - now) * EARNED + seconds
            self._paid_at[who] = now + min(owed_s, BUDGET_S + MOST_OWED_S) / EARNED

    def _is_late(self, since: float) -> bool:
        return self.clock() - since > self.deadline_s

    def _stuck(self, place: str, who: str) -> bool:
        """Say whether a place has no thread left for somebody, and all that it holds of theirs or of everybody take too long."""
        held = [(since, each) for job, (since, each) in self._running.items() if job.place == place]
        of_all, own = [since for since, _ in held], [since for since, each in held if each == who]
        limits = (of_all, PER_PLACE), (own, _MOST.get(who, PER_PERSON))
        return any(len(since) >= most and all(map(self._is_late, since)) for since, most in limits)

    def _run(self, job: Job) -> None:
        took_s, finish = job.run()
        with self.changed:
            _, who = self._running.pop(job)
            self._spend(who, took_s)
            self._busy[job.place] -= 1
            if not self._busy[job.place]:
                del self._busy[job.place]
            finish()
            self.start()
            self.changed.notify_all()


def _oldest(line: OrderedDict[str, OrderedDict[Job, float]]) -> Job:
    return min(((at, job) for jobs in line.values() for job, at in jobs.items()), key=lambda each: each[0])[1]
