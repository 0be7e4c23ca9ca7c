"""Our rules and restic's own `forget` on the same times."""

from __future__ import annotations

import random
import shutil
from datetime import UTC, datetime, timedelta

import pytest

from etcdkeep.config.retention import Retention
from etcdkeep.retention.plan import SetFacts, plan_prune
from tests.restic_repository import forget, make_repository

RESTIC = shutil.which("restic")
NOW = datetime(2026, 3, 31, 12, 0, 1, tzinfo=UTC)
OPTIONS = {"keep_last": "--keep-last", "keep_within": "--keep-within"}
POLICIES = [
    {"keep_last": 3},
    {"hourly": 5},
    {"daily": 7},
    {"weekly": 4},
    {"monthly": 6},
    {"yearly": 2},
    {"daily": 7, "weekly": 4, "monthly": 12, "yearly": 3},
    {"keep_last": 2, "hourly": 24, "monthly": 2},
    {"keep_within": "1m"},
    {"keep_within": "2y5m7d3h", "daily": 1},
    {"keep_within": "30h", "weekly": 100},
]


def _histories(seed: int) -> dict[str, list[datetime]]:
    """Return random series: nightly with gaps, several times a day, sparse over years, and around year and month ends."""
    chance = random.Random(seed)
    ends = [datetime(year, 12, 31, tzinfo=UTC) for year in (2020, 2021, 2023, 2024)]
    seconds = lambda days: chance.randrange(days * 86400)  # noqa: E731
    series = {
        f"nightly-{number}": [
            NOW - timedelta(days=day, seconds=seconds(1)) for day in range(60) if chance.random() < 0.8
        ]
        for number in range(4)
    } | {
        "often": [NOW - timedelta(seconds=seconds(4)) for _ in range(40)],
        "years": [NOW - timedelta(seconds=seconds(2000)) for _ in range(60)],
        "ends": [end + timedelta(seconds=seconds(7) - 3 * 86400) for end in ends for _ in range(8)],
        "one": [NOW - timedelta(seconds=seconds(900))],
    }
    return {name: sorted({time.replace(microsecond=0) for time in times}) for name, times in series.items()}


@pytest.mark.skipif(RESTIC is None, reason="restic is not installed (apt-get install restic)")
def test_the_rules_keep_what_restic_keeps(tmp_path):
    histories = _histories(seed=20261123)
    make_repository(tmp_path, histories)
    for policy in POLICIES:
        options = [word for name, value in policy.items() for word in (OPTIONS.get(name, f"--keep-{name}"), str(value))]
        answers = forget(str(RESTIC), tmp_path, *options)
        assert set(answers) == set(histories)
        for name, times in histories.items():
            sets = [SetFacts(f"{time:%Y%m%dT%H%M%SZ}-00000000", time) for time in times]
            plan = plan_prune(sets, Retention(min_good=1, **policy), NOW)
            ours = {each.found.taken_at for each in plan.verdicts if each.by_rule}
            theirs = {datetime.fromisoformat(time) for time in answers[name]}
            assert ours <= theirs, (policy, name)
            # Versions after 0.14 may keep the oldest one as well, as long as a rule is not used up.
            assert theirs - ours <= {times[0]}, (policy, name)
