"""A store in memory whose every request takes its time, as a bucket far away does."""

from __future__ import annotations

import io
import threading
import time
from bisect import bisect_left
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO, cast

from etcdkeep.ports import StoredObject

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

PAGE = 1000
"""Names in one answer to a listing, as GCS and S3 give them."""


@dataclass
class SlowStore:
    """
    The reading half of an :class:`~etcdkeep.ports.ObjectStore`, with a `create` that takes no time.

    :param latency_s: Of each request: a page of names, an object's facts, an object's bytes.
    """

    latency_s: float
    url: str = "memory://slow"
    requests: int = 0
    at_once: int = 0
    _running: int = 0
    _objects: dict[str, tuple[StoredObject, bytes]] = field(default_factory=dict)
    _names: list[str] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def put(self, name: str, data: bytes, size_bytes: int, at: datetime) -> None:
        self._objects[name] = StoredObject(name, size_bytes, at), data
        self._names = None

    @contextmanager
    def create(self, name: str, *, content_type: str = "") -> Iterator[BinaryIO]:
        sink = io.BytesIO()
        yield sink
        at = max(found.updated_at for found, _ in self._objects.values())
        self.put(name, sink.getvalue(), len(sink.getvalue()), at)

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        self._request()  # as a client does that asks for an object's size before its bytes
        self._request()
        yield cast("BinaryIO", io.BytesIO(self._objects[name][1]))

    def stat(self, name: str) -> StoredObject | None:
        self._request()
        return self._objects[name][0] if name in self._objects else None

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        if self._names is None:
            self._names = sorted(self._objects)
        at = bisect_left(self._names, prefix)
        self._request()
        for count, name in enumerate(self._names[at:]):
            if not name.startswith(prefix):
                return
            if count and count % PAGE == 0:
                self._request()
            yield self._objects[name][0]

    def _request(self) -> None:
        with self._lock:
            self.requests += 1
            self._running += 1
            self.at_once = max(self.at_once, self._running)
        time.sleep(self.latency_s)
        with self._lock:
            self._running -= 1
