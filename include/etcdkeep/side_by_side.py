"""Many small reads at once: a store far away takes tens of milliseconds for each, and most of it is waiting."""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future

AT_ONCE = 64
"""Reads of one call; the stores' clients keep as many connections."""

Item = TypeVar("Item")
Result = TypeVar("Result")
_reader = threading.local()
"""Knows the threads of readers."""


def side_by_side(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """
    Yield what `function` returns for each item, in the order of the items.

    No more than :data:`AT_ONCE` run at once, and no more than twice as many are begun before their turn comes, so that
    memory does not grow with the number of items. A function that itself reads side by side does so one by one. What it
    raises is raised when its turn comes; what was not begun by then never is.
    """
    if getattr(_reader, "reads", False):
        yield from map(function, items)
        return
    items = iter(items)
    first = list(islice(items, 2))
    if len(first) < 2:  # one needs no thread
        yield from map(function, first)
        return
    begun: deque[Future[Result]] = deque()
    readers = ThreadPoolExecutor(AT_ONCE, "reader", initializer=lambda: setattr(_reader, "reads", True))
    try:
        for item in chain(first, items):
            begun.append(readers.submit(function, item))
            if len(begun) == 2 * AT_ONCE:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        readers.shutdown(cancel_futures=True)
