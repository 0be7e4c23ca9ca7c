"""
Schedules of many clusters that all say the same minute: each begins at one of its own, which its name decides.

The result is a plain cron expression, so that Airflow, `check` and people see when a run really begins.
"""

from __future__ import annotations

import hashlib

from etcdkeep.config.values import AFTER_BACKUP

DAY_MINUTES = 24 * 60
_PRESETS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@quarterly": "0 0 1 */3 *",
    "@yearly": "0 0 1 1 *",
}


def spread(schedule: str | None, minutes: int, name: str) -> str | None:
    """
    Return the schedule of one cluster: up to `minutes` later than the common one, always the same for the same name.

    :param schedule: Cron expression or preset; what is none is returned as it is.
    :param minutes: How far it may be moved; 0 for not at all.
    :raises ValueError: when the moved schedule could not be said as a cron expression.
    """
    if not minutes or schedule is None or schedule == AFTER_BACKUP:
        return schedule
    minute, hour, *days = _PRESETS.get(schedule, schedule).split()
    if not minute.isdigit():
        raise ValueError(f"{schedule!r} cannot be spread: expected a schedule with one minute, such as '30 2 * * *'")
    latest = int(minute) + minutes - 1
    at = int(minute) + _share(name) % minutes
    if latest < 60:
        return " ".join((str(at), hour, *days))
    if not hour.isdigit():
        raise ValueError(
            f"{schedule!r} cannot be spread over {minutes} minutes: expected one hour, such as '30 2 * * *', or at most {60 - int(minute)} minutes"
        )
    if int(hour) * 60 + latest >= DAY_MINUTES:
        raise ValueError(
            f"{schedule!r} cannot be spread over {minutes} minutes, past midnight: begin earlier, or give at most {DAY_MINUTES - int(hour) * 60 - int(minute)} minutes"
        )
    return " ".join((str(at % 60), str(int(hour) + at // 60), *days))


def _share(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
