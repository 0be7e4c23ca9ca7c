"""Delivering within a bounded time: whoever fails, hangs or is slow keeps neither the others nor the caller waiting."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from etcdkeep.errors import EtcdkeepError
from etcdkeep.plain_text import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

log = logging.getLogger(__name__)


class Delivery(threading.Thread):
    """
    One message on its way. A thread, and one that ends with its process: a notifier's code cannot be interrupted.

    :param send: Delivers it, or raises.
    :param describe: Returns what may be shown of an exception: that of a foreign library may quote a secret URL.
    """

    def __init__(self, name: str, timeout_s: float, send: Callable[[], object], describe: Callable[[Exception], str]):
        super().__init__(name=f"notify-{name}", daemon=True)
        self.to = name
        self.timeout_s = timeout_s
        self._send = send
        self._describe = describe
        self.problem: str | None = f"did not finish within {timeout_s:g} s"

    def run(self) -> None:
        try:
            self._send()
        except Exception as err:  # noqa: BLE001 - a notifier may raise anything, and never fails a backup
            self.problem = self._describe(err)
        else:
            self.problem = None


def deliver(deliveries: Iterable[Delivery]) -> tuple[str, ...]:
    """
    Send all at once, and return the names of those that failed or were not done in their time.

    Takes as long as the slowest, and at most the longest time-out. Never raises.
    """
    begun = time.monotonic()
    sent = list(deliveries)
    for each in sent:
        each.start()
    missed = []
    for each in sent:
        each.join(max(0.0, begun + each.timeout_s - time.monotonic()))
        if each.is_alive() or each.problem:
            missed.append(each.to)
            log.error("%s could not be notified: %s", each.to, one_line(each.problem))
        else:
            log.info("%s was notified", each.to)
    return tuple(missed)


def public(err: Exception) -> str:
    """Return an exception of our own in full, of another one its kind alone."""
    return (
        str(err)
        if isinstance(err, EtcdkeepError)
        else f"{type(err).__name__} (its text is not shown: it may hold a secret)"
    )
