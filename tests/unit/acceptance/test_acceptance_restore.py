"""What acceptance decides by itself when it restores a real cluster: whether to approve, and how long it was down."""

from __future__ import annotations

import pytest

from etcdkeep.acceptance.outage import longest_gap
from etcdkeep.acceptance.restoration import overridden

HEALTHY = "- **OVERRIDDEN:** 1 of 1 member(s) are healthy (cp-0): no restore is needed. A restore would only return it"
OTHER = "- **OVERRIDDEN:** node cp-0: etcd is 3.6.1 now, at the backup it was 3.5.16"


@pytest.mark.parametrize(
    ("lines", "unexpected"),
    [
        pytest.param((HEALTHY, "- a warning"), 0, id="healthy-only"),
        pytest.param((HEALTHY, OTHER), 1, id="another-one-too"),
        pytest.param((), 0, id="none"),
    ],
)
def test_only_that_the_cluster_is_healthy_is_passed_over(lines: tuple[str, ...], unexpected: int) -> None:
    assert len(list(overridden("\n".join(lines)))) == unexpected


@pytest.mark.parametrize(
    ("answers", "down_s"),
    [
        pytest.param("ok ok ok", None, id="never-down"),
        pytest.param("ok no no no ok", 3.0, id="once"),
        pytest.param("no ok no no ok ok", 2.0, id="the-longest-of-two"),
        pytest.param("ok no no", None, id="not-over"),
    ],
)
def test_the_down_time_is_the_longest_gap_that_ended(answers: str, down_s: float | None) -> None:
    assert longest_gap([(float(at), answer == "ok") for at, answer in enumerate(answers.split())]) == down_s
