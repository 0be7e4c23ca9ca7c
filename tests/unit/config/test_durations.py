"""Durations as restic has them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etcdkeep.config.durations import Duration, parse_duration

MARCH = datetime(2026, 3, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "before"),
    [
        ("3h", datetime(2026, 3, 31, 9, tzinfo=UTC)),
        ("40d", datetime(2026, 2, 19, 12, tzinfo=UTC)),
        ("1m", datetime(2026, 3, 3, 12, tzinfo=UTC)),  # 31 February, as Go has it
        ("1y1m", datetime(2025, 3, 3, 12, tzinfo=UTC)),
        ("25m", datetime(2024, 3, 2, 12, tzinfo=UTC)),  # 29 days in that February
        ("3m", datetime(2025, 12, 31, 12, tzinfo=UTC)),
        ("2y5m7d3h", datetime(2023, 10, 24, 9, tzinfo=UTC)),
        ("9999y", datetime.min.replace(tzinfo=UTC)),
        ("999999d", datetime.min.replace(tzinfo=UTC)),
    ],
)
def test_a_duration_counts_back_by_the_calendar(text, before):
    assert parse_duration(text).before(MARCH) == before


def test_the_moment_s_zone_does_not_matter():
    elsewhere = MARCH.astimezone(timezone(timedelta(hours=14)))
    assert parse_duration("1m").before(elsewhere) == parse_duration("1m").before(MARCH)


@pytest.mark.parametrize(
    "text", ["", "0h", "0y0d", "7", "d", "7d3", "3h7d", "1.5d", "-1d", "1w", "1d ", "x1d", "99999y"]
)
def test_anything_else_is_refused(text):
    with pytest.raises(ValueError, match="is not a duration: expected"):
        parse_duration(text)


@given(st.integers(0, 99), st.integers(0, 99), st.integers(0, 99), st.integers(0, 99))
def test_what_is_written_is_read(years, months, days, hours):
    text = f"{years}y{months}m{days}d{hours}h"
    if years or months or days or hours:
        assert parse_duration(text) == Duration(years, months, days, hours)
        assert parse_duration(text).before(MARCH) < MARCH
