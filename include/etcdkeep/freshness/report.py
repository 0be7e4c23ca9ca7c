"""The findings of a check, and the convention of monitoring plugins: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Status = Literal["OK", "WARNING", "CRITICAL", "UNKNOWN"]
EXIT_CODES: Mapping[Status, int] = {"OK": 0, "WARNING": 1, "CRITICAL": 2, "UNKNOWN": 3}
_RANK: Mapping[Status, int] = {"OK": 0, "WARNING": 1, "UNKNOWN": 2, "CRITICAL": 3}
"""What hides what: a known failure is said before something that is not known."""


def worst(statuses: Iterable[Status]) -> Status:
    """Return the status that counts of several; OK of none."""
    return max(statuses, key=lambda status: _RANK[status], default="OK")


TOPICS = (
    "good", "restorable", "drilled", "copied", "newest", "missing", "trust", "attempts", "certificates", "quota", "clock", "repository",
)  # fmt: skip
"""What findings are about."""


@dataclass(frozen=True)
class CheckFinding:
    """
    One thing that was looked at.

    :param topic: One of TOPICS.
    """

    status: Status
    topic: str
    sentence: str


@dataclass(frozen=True)
class Measure:
    """
    A number for graphs.

    :param value: None where there is nothing to measure.
    :param unit: ``s``, ``B`` or empty.
    """

    value: float | None
    unit: str = ""
    warn: float | None = None
    fail: float | None = None


@dataclass(frozen=True)
class CheckReport:
    """How one cluster's backups are."""

    cluster: str
    findings: tuple[CheckFinding, ...]
    measures: Mapping[str, Measure] = field(default_factory=dict)

    @property
    def status(self) -> Status:
        """The status that counts."""
        return worst(finding.status for finding in self.findings)

    @property
    def alarms(self) -> tuple[CheckFinding, ...]:
        """What is not OK, the worst first."""
        bad = [finding for finding in self.findings if finding.status != "OK"]
        return tuple(sorted(bad, key=lambda finding: -_RANK[finding.status]))


def unknown(cluster: str, sentence: str) -> CheckReport:
    """Return the report of a cluster whose repository could not be read."""
    return CheckReport(cluster, (CheckFinding("UNKNOWN", "repository", sentence),))
