"""How old something is, in the words of kubectl."""

from __future__ import annotations

from datetime import datetime

_MINUTE, _HOUR, _DAY, _YEAR = 60, 3600, 86400, 365 * 86400


def age(created: object, now: datetime) -> str:
    """Return ``3d4h`` for a creationTimestamp; ``<unknown>`` where it is none."""
    try:
        seconds = int((now - datetime.fromisoformat(str(created))).total_seconds())
    except (ValueError, TypeError):
        return "<unknown>"
    return "<invalid>" if seconds < -1 else duration(max(seconds, 0))


def duration(seconds: int) -> str:
    """Return a duration in one or two units: fewer as it grows."""
    if seconds < 2 * _MINUTE:
        return f"{seconds}s"
    if seconds < 10 * _MINUTE:
        return _two(seconds, _MINUTE, "m", 1, "s")
    if seconds < 3 * _HOUR:
        return f"{seconds // _MINUTE}m"
    if seconds < 8 * _HOUR:
        return _two(seconds, _HOUR, "h", _MINUTE, "m")
    if seconds < 2 * _DAY:
        return f"{seconds // _HOUR}h"
    if seconds < 8 * _DAY:
        return _two(seconds, _DAY, "d", _HOUR, "h")
    if seconds < 2 * _YEAR:
        return f"{seconds // _DAY}d"
    if seconds < 8 * _YEAR:
        return _two(seconds, _YEAR, "y", _DAY, "d")
    return f"{seconds // _YEAR}y"


def _two(seconds: int, unit_s: int, name: str, rest_unit_s: int, rest_name: str) -> str:
    whole, rest = divmod(seconds, unit_s)
    rest //= rest_unit_s
    return f"{whole}{name}{rest}{rest_name}" if rest else f"{whole}{name}"
