"""How old the newest set in each copy is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from etcdkeep.errors import EtcdkeepError
from etcdkeep.freshness.limits import limits_of
from etcdkeep.freshness.measure import judge_age
from etcdkeep.freshness.report import CheckFinding

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from etcdkeep.config.models import Cluster
    from etcdkeep.freshness.report import Measure
    from etcdkeep.sets.judged import Looked
    from etcdkeep.sets.repository import Repository


def check_copies(
    cluster: Cluster,
    copies: Mapping[str, Callable[[], Repository]],
    now: datetime,
    measures: dict[str, Measure],
    read: Callable[[Repository, str], Sequence[Looked]] = lambda repository, name: repository.sets(name),
) -> list[CheckFinding]:
    """
    Judge the newest set of each copy that was read back there, by the copy itself; reads only.

    :param copies: By URL; opened here, so that one that cannot be is a finding.
    :param read: Gives a cluster's sets in a copy, oldest first; those that were read back there suffice.
    :param measures: Gets the age in the copy that is the furthest behind.
    """
    findings, limits = [], limits_of(cluster, now)
    ages: list[Measure] = []
    for url, open_copy in copies.items():
        found: dict[str, Measure] = {}
        try:
            sets = [each for each in read(open_copy(), cluster.name) if is_copy(each)]
        except EtcdkeepError as err:
            findings.append(CheckFinding("UNKNOWN", "copied", f"{url} cannot be read: {err}"))
            continue
        finding = judge_age(cluster, "copied", sets, limits, now, found)
        findings.append(CheckFinding(finding.status, "copied", f"{finding.sentence}, in {url}"))
        ages.extend(found.values())
    if ages:
        measures["newest_copied_age"] = max(ages, key=lambda each: float("inf") if each.value is None else each.value)
    return findings


def is_copy(found: Looked) -> bool:
    """Say whether a set in a copy counts there: it was read back, and nothing was found wrong since."""
    return found.copied_at is not None and found.whole and found.state != "bad"
