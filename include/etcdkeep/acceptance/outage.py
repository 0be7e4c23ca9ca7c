"""The control plane as its users see it while it is restored: ready or not, asked from here again and again."""

from __future__ import annotations

import time
from threading import Event, Thread
from typing import TYPE_CHECKING, Self

import urllib3

if TYPE_CHECKING:
    from types import TracebackType

    from etcdkeep.adapters.kube.connection import KubeConnection

EVERY_S = 0.1
ANSWER_S = 1.0


class Outage:
    """
    Polls ``/readyz`` while the block runs.

    :param client: None where the API cannot be reached from here; then nothing is known.
    """

    def __init__(self, client: KubeConnection | None) -> None:
        self._client = client
        self._over = Event()
        self._seen: list[tuple[float, bool]] = []
        self._thread = Thread(target=self._poll, daemon=True)

    def __enter__(self) -> Self:
        if self._client is not None:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._client is not None:
            self._thread.join()

    @property
    def once_more_s(self) -> float:
        """How long it takes until one more answer is certain."""
        return 0.0 if self._client is None else 2 * (EVERY_S + ANSWER_S)

    @property
    def down_s(self) -> float | None:
        """The longest time from a first failure to the next success; None when there was none, or it is not over."""
        return longest_gap(self._seen)

    def _poll(self) -> None:
        while not self._over.wait(EVERY_S):
            asked = time.monotonic()
            self._seen.append((asked, self._ready()))

    def _ready(self) -> bool:
        client = self._client
        if client is None:
            return False
        try:
            answer = client.request("GET", "/readyz", {}, None, timeout_s=ANSWER_S, retries=False)
        except (urllib3.exceptions.HTTPError, OSError):
            return False
        return bool(answer.status == 200)


def longest_gap(seen: list[tuple[float, bool]]) -> float | None:
    """
    Return the longest time from a first failure to the next success.

    :param seen: Time and whether it answered, in order.
    """
    gaps, began = [], None
    for at, ready in seen:
        if not ready:
            began = at if began is None else began
        elif began is not None:
            gaps.append(at - began)
            began = None
    return max(gaps, default=None)
