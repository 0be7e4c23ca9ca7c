"""Removal of what restores left: only of finished ones, only of folders of ours."""

from __future__ import annotations

import pytest

from etcdkeep.errors import RestoreRefused
from etcdkeep.restore.facts import EarlierRun
from etcdkeep.restore.leftovers import removal_argv, remove_leftovers
from tests.unit.restore.builders import make_machine


@pytest.mark.parametrize(
    ("leftover", "words"),
    [
        pytest.param(EarlierRun("/var/lib/.etcdkeep/r1", "active"), "neither finished nor taken back", id="active"),
        pytest.param(EarlierRun("/var/lib/etcd", "finished"), "no folder of a restore", id="live-data"),
        pytest.param(EarlierRun("/var/lib/.etcdkeep", "finished"), "no folder of a restore", id="all-of-them"),
        pytest.param(EarlierRun("/var/lib/.etcdkeep/..", "finished"), "no folder of a restore", id="upwards"),
    ],
)
def test_nothing_else_is_removed(leftover: EarlierRun, words: str) -> None:
    with pytest.raises(RestoreRefused, match=words):
        removal_argv(leftover)


def test_one_restores_folders_are_removed_whole() -> None:
    leftovers = (
        EarlierRun("/etc/kubernetes/.etcdkeep/r1", "finished"),
        EarlierRun("/var/lib/.etcdkeep/r1", "finished"),
        EarlierRun("/var/lib/.etcdkeep/r2", "finished"),
    )
    asked: list[str] = []
    machine = make_machine()
    machine.watch = lambda machine: None
    machine._rm = lambda args, stdin: asked.append(args[-1])  # type: ignore[attr-defined]
    assert remove_leftovers(machine, leftovers, "r1") == ("/etc/kubernetes/.etcdkeep/r1", "/var/lib/.etcdkeep/r1")
    assert asked == ["/etc/kubernetes/.etcdkeep/r1", "/var/lib/.etcdkeep/r1"]
