"""
Values that are kept for some seconds and never waited for past a deadline.

Each cluster is read in a thread of its own, so that a repository that hangs delays no other cluster's numbers.
"""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from etcdkeep.metrics.families import Sample

log = logging.getLogger(__name__)

AT_ONCE = 16
"""How many clusters are read at the same time."""
HANGS_S = 600.0
"""How long earlier values are still given while a new reading does not end."""


@dataclass(frozen=True)
class _Kept:
    read_at: float
    samples: tuple[Sample, ...]


class Readings:
    """
    The newest values of every cluster.

    :param read: Reads one cluster; one that cannot be read has values too.
    :param missing: Given a cluster and a sentence, returns the values of a cluster that does not answer.
    :param keep_s: How old values may be before they are read again.
    """

    def __init__(
        self,
        read: Callable[[str], Iterable[Sample]],
        missing: Callable[[str, str], Iterable[Sample]],
        keep_s: float,
        hangs_s: float = HANGS_S,
    ) -> None:
        self._read, self._missing = read, missing
        self._keep_s, self._hangs_s = keep_s, hangs_s
        self._kept: dict[str, _Kept] = {}
        self._running: dict[str, Future[None]] = {}
        self._lock = threading.Lock()
        self._slots = threading.Semaphore(AT_ONCE)

    def get(self, names: Sequence[str], within_s: float) -> list[Sample]:
        """Return the values of some clusters, at the latest after so many seconds; late readings go on for the next call."""
        wait([self._begin(name) for name in names if self._age_s(name) > self._keep_s], timeout=within_s)
        return [sample for name in names for sample in self._newest(name, within_s)]

    def _age_s(self, name: str) -> float:
        kept = self._kept.get(name)
        return time.monotonic() - kept.read_at if kept else float("inf")

    def _begin(self, name: str) -> Future[None]:
        """Start to read a cluster, unless that is going on."""
        with self._lock:
            if name not in self._running:
                future = self._running[name] = Future()
                threading.Thread(target=self._run, args=(name, future), daemon=True).start()
            return self._running[name]

    def _run(self, name: str, future: Future[None]) -> None:
        try:
            with self._slots:
                samples = tuple(self._read(name))
            self._kept[name] = _Kept(time.monotonic(), samples)
        except Exception:
            log.exception("The metrics of cluster %s could not be measured.", name)
        finally:
            with self._lock:
                del self._running[name]
            future.set_result(None)

    def _newest(self, name: str, within_s: float) -> Iterable[Sample]:
        kept = self._kept.get(name)
        if kept is not None and self._age_s(name) <= self._keep_s + self._hangs_s:
            return kept.samples
        return self._missing(name, f"the repository did not answer within {within_s:.0f} s")
