"""Schedules that are spread over the minutes after a common one."""

from __future__ import annotations

from collections import Counter

import pytest

from etcdkeep.config.loading import parse_config
from etcdkeep.config.spreading import spread
from tests.builders import make_entry, make_file

NAMES = [f"cluster-{number:04}" for number in range(1000)]


def minute_of_day(schedule):
    minute, hour, *_ = schedule.split()
    return int(hour) * 60 + int(minute)


def test_clusters_fill_the_window_and_nothing_else():
    found = Counter(minute_of_day(spread("30 2 * * *", 90, name)) for name in NAMES)
    assert (min(found), max(found)) == (150, 239)
    assert max(found.values()) < 30  # 1,000 over 90 minutes, 11 each


def test_a_name_keeps_its_minute():
    assert spread("30 2 * * *", 90, "harbor") == spread("30 2 * * *", 90, "harbor") == "59 2 * * *"


@pytest.mark.parametrize(
    ("schedule", "minutes"), [("30 2 * * *", 0), (None, 90), ("after_backup", 90), ("*/10 * * * *", 0)]
)
def test_what_is_not_spread_stays(schedule, minutes):
    assert spread(schedule, minutes, "harbor") == schedule


@pytest.mark.parametrize(
    ("schedule", "minutes", "rest"),
    [
        ("0 */6 * * 1-5", 60, ["*/6", "*", "*", "1-5"]),
        ("@daily", 60, ["0", "*", "*", "*"]),
        ("@hourly", 60, ["*", "*", "*", "*"]),
        ("@yearly", 60, ["0", "1", "1", "*"]),
        ("15 2,14 1 * *", 45, ["2,14", "1", "*", "*"]),
    ],
)
def test_within_the_hour_the_other_fields_stay(schedule, minutes, rest):
    for name in NAMES[:50]:
        minute, *others = spread(schedule, minutes, name).split()
        assert others == rest
        assert int(minute) < 60


@pytest.mark.parametrize(
    ("schedule", "minutes", "said"),
    [
        ("*/10 * * * *", 5, "one minute"),
        ("0 */6 * * *", 61, "at most 60 minutes"),
        ("30 23 * * *", 31, "at most 30 minutes"),
        ("@hourly", 90, "at most 60 minutes"),
    ],
)
def test_what_no_cron_expression_says_is_refused_with_the_way_out(schedule, minutes, said):
    with pytest.raises(ValueError, match=said):
        spread(schedule, minutes, "harbor")


def test_a_loaded_cluster_has_its_own_minute_for_backups_and_drills():
    entry = make_entry(schedule="0 2 * * *", spread_minutes=60, drill={"schedule": "0 5 * * 0"})
    cluster = parse_config(make_file(entry), "x").cluster("harbor")
    minute = cluster.schedule.split()[0]
    assert cluster.schedule == f"{minute} 2 * * *"
    assert cluster.drill.schedule == f"{minute} 5 * * 0"
    assert minute != "0"


def test_a_window_that_does_not_fit_is_a_problem_with_its_path():
    (problem,) = parse_config(make_file(make_entry(schedule="0 23 * * *", spread_minutes=90)), "x").problems
    assert problem.startswith("clusters[0] (harbor): spread_minutes: schedule '0 23 * * *' cannot be spread")
