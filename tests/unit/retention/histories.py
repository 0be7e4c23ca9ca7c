"""Random histories of backup sets, for hypothesis."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

from hypothesis import strategies as st

from etcdkeep.config.retention import Retention
from etcdkeep.retention.plan import SetFacts

NOW = datetime(2026, 11, 23, 6, 0, tzinfo=UTC)
ZONES = [timezone(timedelta(hours=hours)) for hours in (-11, 0, 5, 14)]
STATES = ["good"] * 6 + ["bad", "unverified", "unsigned", "foreign", "moved", "future"]


def _facts(hours_ago: float, zone: timezone, state: str, **fields: object) -> SetFacts:
    at = (NOW - timedelta(hours=hours_ago)).astimezone(zone)
    believed = state in ("good", "bad", "unverified")
    return SetFacts(f"{at.astimezone(UTC):%Y%m%dT%H%M%SZ}-00000000", at, state, believed, **fields)


facts = st.builds(
    _facts,
    st.one_of(st.floats(-100, 200), st.floats(0, 24 * 800), st.integers(0, 40).map(lambda day: day * 24.0)),
    st.sampled_from(ZONES),
    st.sampled_from(STATES),
    restorable=st.sampled_from([None, "yes", "yes", "no", "unknown"]),
    drilled=st.booleans(),
    by_hand=st.sampled_from([False, False, False, True]),
    pinned=st.sampled_from([None, None, None, None, "kept for a reason"]),
    in_use=st.sampled_from([None, None, None, None, "restore-x"]),
    locked_until=st.sampled_from([None, None, None, NOW - timedelta(days=1), NOW + timedelta(days=1)]),
)
histories = st.lists(facts, max_size=40, unique_by=lambda each: each.backup_id)
counts = st.none() | st.integers(1, 12)
rules = st.builds(
    Retention,
    keep_last=st.integers(1, 5),
    hourly=counts,
    daily=counts,
    weekly=counts,
    monthly=counts,
    yearly=counts,
    keep_within=st.sampled_from([None, "3h", "2d", "1m", "1y2m3d4h"]),
    min_good=st.integers(1, 6),
    keep_bad_days=st.integers(1, 20),
)
