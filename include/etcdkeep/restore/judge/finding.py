"""What a judge says: findings, and which of them end a restore before it begins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable

Severity = Literal["blocking problem", "warning", "note"]
Topic = Literal["", "healthy", "unasked"]


@dataclass(frozen=True)
class Finding:
    """
    One thing that people should know before a restore.

    :param severity: A blocking problem ends the run; warnings and notes are shown to the approvers.
    :param overridable: Whether an approver may override a blocking problem.
    :param topic: ``healthy``: no restore is needed; ``unasked``: something could not be read from here, so that the
        answer is unknown.
    """

    severity: Severity
    sentence: str
    overridable: bool = True
    topic: Topic = ""


def problem(sentence: str, topic: Topic = "") -> Finding:
    """Return a blocking problem that an approver may override."""
    return Finding("blocking problem", sentence, topic=topic)


def final(sentence: str, topic: Topic = "") -> Finding:
    """Return a blocking problem that nobody may override."""
    return Finding("blocking problem", sentence, overridable=False, topic=topic)


def warning(sentence: str) -> Finding:
    """Return a warning."""
    return Finding("warning", sentence)


def note(sentence: str) -> Finding:
    """Return a note."""
    return Finding("note", sentence)


def by_weight(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return what nobody may override first, notes last."""
    weight = {"blocking problem": 0, "warning": 1, "note": 2}
    return tuple(sorted(findings, key=lambda finding: (weight[finding.severity], finding.overridable)))


def blocking_problems(findings: Iterable[Finding], *, override: bool = False) -> tuple[Finding, ...]:
    """
    Return the findings for which the restore ends here.

    :param override: Whether an approver overrides those that can be overridden.
    """
    blocking = (each for each in findings if each.severity == "blocking problem")
    return tuple(each for each in blocking if not (override and each.overridable))


def needs_attention(findings: Iterable[Finding], *, override: bool = False) -> tuple[Finding, ...]:
    """Return the blocking problems that would stop a restore on the day: all but that none is needed today."""
    return tuple(each for each in blocking_problems(findings, override=override) if each.topic != "healthy")
