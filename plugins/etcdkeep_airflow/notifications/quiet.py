"""A callback that never raises: whatever goes wrong with telling people is logged, and nothing else waits or fails."""

from __future__ import annotations

import logging
from functools import wraps
from typing import TYPE_CHECKING, Any

from etcdkeep.notifications.deliver import public
from etcdkeep.plain_text import one_line

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)


def quietly(callback: Callable[..., None]) -> Callable[..., None]:
    """Return the callback, with its exceptions logged."""

    @wraps(callback)
    def call(*args: Any, **kwargs: Any) -> None:
        try:
            callback(*args, **kwargs)
        except Exception as err:  # noqa: BLE001 - to tell of a backup must not fail it
            log.error("%s: nobody was notified: %s", callback.__name__, one_line(public(err)))

    return call
