"""When schedules come."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice

import pytest

from etcdkeep.config.schedule import longest_gap, moments
from etcdkeep.config.values import PRESETS


@pytest.mark.parametrize(
    ("schedule", "days"),
    [
        ("30 2 * * *", 1),
        ("15 1 * * 1-5", 3),
        ("0 */6 * * *", 0.25),
        ("0 2,14 * * 0", 6.5),
        ("0 0 1 * *", 31),
        ("0 2 29 2 *", 1461),
        ("* 2 * * *", 1 - 59 / 1440),
        ("@hourly", 1 / 24),
        ("@quarterly", 92),
        ("@yearly", 366),
    ],
)
def test_the_longest_gap_of_a_schedule(schedule, days):
    assert longest_gap(schedule) == pytest.approx(timedelta(days=days), abs=timedelta(seconds=1))


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_comes(preset):
    first, second = islice(moments(preset, datetime(2026, 11, 23, 2, tzinfo=UTC)), 2)
    assert datetime(2026, 11, 23, 2, tzinfo=UTC) < first < second
    assert (first.tzinfo, first.minute) == (UTC, 0)
