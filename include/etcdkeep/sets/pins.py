"""
Pins: sets that a person wants kept, whatever the rules of retention say.

A pin is a signed record beside its set, and so is the end of one; the one that was signed last counts, for a file's own time
can be set. They are signed by the key for ``verify``: whoever holds that key says which sets are good, and so decides what
retention counts already. A purpose of its own would protect nothing more. The key for ``backup`` takes no pin away.
"""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING

from pydantic import AwareDatetime

from etcdkeep.records import Kind
from etcdkeep.sets.manifest import AboutSet

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from etcdkeep.records import Signed
    from etcdkeep.sets.manifest import Manifest


class Pin(AboutSet):
    """
    That a set is pinned, or is so no longer.

    :param pinned: False where it ends an earlier pin.
    :param by: Who asked for it.
    :param until: When a pin ends by itself; None for never.
    """

    pinned: bool
    reason: str
    by: str = ""
    until: AwareDatetime | None = None


class InUse(AboutSet):
    """
    That a drill reads the set.

    :param by: Which.
    :param until: When this counts no more, should the drill die.
    """

    by: str
    until: AwareDatetime


PIN = Kind("pin", "verify", Pin)
IN_USE = Kind("in-use", "verify", InUse)


def pin_reason(manifest: Manifest | None, pins: Sequence[Signed[Pin]], now: datetime) -> str | None:
    """
    Return why a set is pinned; None where it is not.

    The form of a backup can pin its set from the start: that stands in the manifest, and holds until a record says otherwise.
    """
    last = max(pins, key=lambda record: record.at, default=None)
    if last is None:
        return (manifest.run.reason or "since it was taken") if manifest and manifest.run.pinned else None
    pin = last.body
    if not pin.pinned or (pin.until is not None and pin.until <= now):
        return None
    until = f" (until {pin.until.astimezone(UTC):%Y-%m-%d %H:%M} UTC)" if pin.until else ""
    return pin.reason + until


def current_use(uses: Sequence[Signed[InUse]], now: datetime) -> str | None:
    """Return what uses a set now; None where nothing does."""
    return next((record.body.by for record in uses if record.body.until > now), None)
