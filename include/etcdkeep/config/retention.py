"""The settings `retention` and `freshness` of a cluster."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from etcdkeep.config.durations import parse_duration
from etcdkeep.config.profiles import Section


def _duration(text: str) -> str:
    parse_duration(text)
    return text


DurationText = Annotated[str, AfterValidator(_duration)]
Count = Annotated[int, Field(ge=1, le=100_000)]

CALENDAR = ("hourly", "daily", "weekly", "monthly", "yearly")
"""The rules that keep one set for each period."""

RULES = ("keep_last", *CALENDAR, "keep_within")

MOST_LOCKED_DAYS = 400
"""For a lock that every set gets: nobody can shorten one, so a mistyped number must not fill a bucket for years."""

PERIOD_DAYS = {"daily": 1, "weekly": 7, "monthly": 31, "yearly": 366}


class LockDays(Section):
    """
    Days, from when it was taken, for which the store forbids deletion of a set that a rule keeps. A set is locked so once its
    period is over: until then a newer one can take its place.
    """

    daily: int | None = Field(None, ge=1, le=3660, description="For the sets that `daily` keeps.", examples=[14])
    weekly: int | None = Field(None, ge=1, le=3660, description="For the sets that `weekly` keeps.", examples=[56])
    monthly: int | None = Field(None, ge=1, le=3660, description="For the sets that `monthly` keeps.", examples=[365])
    yearly: int | None = Field(None, ge=1, le=3660, description="For the sets that `yearly` keeps.", examples=[1095])


class Retention(Section):
    """
    Which backup sets are kept. The rules are those of restic's `forget`; a set that one of them keeps is kept. Without this
    section nothing is ever removed.
    """

    keep_last: Count | None = Field(None, description="Keep the newest so many good sets.", examples=[7])
    hourly: Count | None = Field(
        None, description="Keep one good set for each of the last so many hours (UTC) that have one.", examples=[24]
    )
    daily: Count | None = Field(None, description="The same for days (UTC).", examples=[14])
    weekly: Count | None = Field(None, description="The same for weeks (ISO, from Monday, UTC).", examples=[8])
    monthly: Count | None = Field(None, description="The same for months (UTC).", examples=[12])
    yearly: Count | None = Field(None, description="The same for years (UTC).", examples=[3])
    keep_within: DurationText | None = Field(
        None,
        description="Keep every good set that is not older than this before the newest good one: years, months, days, hours.",
        examples=["2d12h"],
    )
    min_good: int = Field(
        3,
        ge=1,
        le=1000,
        description="Keep at least so many verified sets, restorable ones first, whatever the rules say.",
        examples=[3],
    )
    keep_bad_days: int = Field(
        14,
        ge=1,
        le=3650,
        description="Days for which bad, unverified and half-written sets are kept, for analysis.",
        examples=[14],
    )
    max_remove_share: float = Field(
        0.25,
        gt=0,
        le=1,
        description="Largest share of a cluster's sets that one run removes without a person's confirmation; one set is always allowed.",
        examples=[0.25],
    )
    lock_days: LockDays = Field(
        default_factory=LockDays,
        description="Longer locks for the sets that a rule keeps; none is longer than the rule itself keeps a set. Set by an enforced run.",
        examples=[{"weekly": 56, "monthly": 365}],
    )
    enforce: bool = Field(
        False,
        description="Whether the DAG `housekeeping` removes sets; false: it only reports what it would remove.",
        examples=[True],
    )

    @model_validator(mode="after")
    def _has_a_rule(self) -> Retention:
        if not any(getattr(self, name) for name in RULES):
            raise ValueError(
                f"no rule is set, so that nothing would be kept by one; set at least one of {', '.join(RULES)}"
            )
        return self

    @model_validator(mode="after")
    def _locks_what_it_keeps(self) -> Retention:
        for name, period_days in PERIOD_DAYS.items():
            days, count = getattr(self.lock_days, name), getattr(self, name)
            if days and not count:
                raise ValueError(f"lock_days.{name} is {days}, but there is no rule {name} that would keep those sets")
            if days and days > count * period_days:
                raise ValueError(
                    f"lock_days.{name} is {days}, longer than {name}: {count} keeps a set ({count * period_days} days); "
                    "nobody can shorten a lock"
                )
        return self


class Freshness(Section):
    """
    When `python -m etcdkeep check` raises an alarm.
    """

    warn_after: DurationText | None = Field(
        None,
        description="Warn when the newest good set is older; default: 1.5 times the schedule's longest gap.",
        examples=["36h"],
    )
    fail_after: DurationText | None = Field(
        None,
        description="Critical when it is older; default: 2.5 times the schedule's longest gap.",
        examples=["60h"],
    )
    quota_bytes: int = Field(
        2 * 2**30,
        ge=2**20,
        description="etcd's `--quota-backend-bytes`: above it etcd refuses writes. Warn at 80 % of it, critical at 95 %. Default: etcd's own.",
        examples=[8589934592],
    )

    @model_validator(mode="after")
    def _warns_first(self) -> Freshness:
        if self.warn_after and self.fail_after:
            warn, fail = parse_duration(self.warn_after), parse_duration(self.fail_after)
            if warn.hours_at_least > fail.hours_at_least:
                raise ValueError(f"warn_after {self.warn_after} is longer than fail_after {self.fail_after}")
        return self
