"""Removal of what restores left: only of finished ones, only of folders of ours."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from etcdkeep.errors import CommandFailed, RequestRefused
from etcdkeep.ports import CommandResult
from etcdkeep.restore.found.nodes import EarlierRun
from etcdkeep.restore.leftovers import (
    IN_PODS,
    check_set_aside,
    find_in_pod,
    release_node,
    removal_argv,
    remove_leftovers,
)
from tests.unit.restore.builders import make_machine

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from etcdkeep.ports import StreamLimits


@pytest.mark.parametrize(
    ("leftover", "words"),
    [
        pytest.param(EarlierRun("/var/lib/.etcdkeep/r1", "active"), "neither finished nor rolled back", id="active"),
        pytest.param(EarlierRun("/var/lib/etcd", "finished"), "not a folder of a restore", id="live-data"),
        pytest.param(EarlierRun("/var/lib/.etcdkeep", "finished"), "not a folder of a restore", id="all-of-them"),
        pytest.param(EarlierRun("/var/lib/.etcdkeep/..", "finished"), "not a folder of a restore", id="upwards"),
    ],
)
def test_nothing_else_is_removed(leftover: EarlierRun, words: str) -> None:
    with pytest.raises(RequestRefused, match=words):
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


class Pod:
    """An etcd container with few programs; `answers` has what they print."""

    where = "pod kube-etcd-0"

    def __init__(self, answers: dict[tuple[str, ...], str]) -> None:
        self.answers = answers

    def run(self, argv: Sequence[str], limits: StreamLimits, *, stdin: bytes = b"") -> CommandResult:
        if tuple(argv) not in self.answers:
            raise CommandFailed("no such file or directory", exit_code=1)
        return CommandResult(self.answers[tuple(argv)].encode())

    def stream(self, argv: Sequence[str], limits: StreamLimits) -> Iterator[bytes]:
        yield self.run(argv, limits).stdout


def test_what_is_left_on_a_pods_claim_is_found_with_few_programs() -> None:
    base = "/var/lib/etcd/.etcdkeep"
    pod = Pod(
        {
            ("ls", "-A", base): "active\nr1\nr2\nr3\n",
            ("ls", "-A", f"{base}/r1"): "data\nfinished\nold\n",
            ("ls", "-A", f"{base}/r2"): "data\n",
            ("ls", "-A", f"{base}/r3"): "rolled-back\n",
            ("readlink", f"{base}/active"): f"{base}/r2\n",
        }
    )
    found = find_in_pod(pod, base)
    assert [(each.run, each.state) for each in found] == [("r1", "finished"), ("r2", "active"), ("r3", "rolled-back")]
    assert removal_argv(found[0], IN_PODS) == ("rm", "-r", "--", f"{base}/r1"), "BusyBox knows no --one-file-system"
    assert find_in_pod(Pod({}), base) == ()


class Here:
    """Runs the commands of a node in a folder of this machine, as whoever runs the tests."""

    where = "node cp-0"

    def run(self, argv: Sequence[str], limits: StreamLimits, *, stdin: bytes = b"") -> CommandResult:
        assert argv[:2] == ("sudo", "-n")
        return CommandResult(subprocess.run(argv[2:], check=True, capture_output=True).stdout)

    def stream(self, argv: Sequence[str], limits: StreamLimits) -> Iterator[bytes]:
        yield self.run(argv, limits).stdout


def unfinished(folder: Path) -> tuple[EarlierRun, ...]:
    """Lay out two folders of a restore that holds a node: beside the data, and beside the keys."""
    folders = [folder / "data/.etcdkeep/r1", folder / "keys/.etcdkeep/r1"]
    for each in folders:
        (each / "old").mkdir(parents=True)
    (folders[0].parent / "active").symlink_to(folders[0])
    return tuple(EarlierRun(str(each), "active") for each in folders)


def test_a_node_is_released_once_and_its_leftovers_can_be_removed(tmp_path: Path) -> None:
    left = unfinished(tmp_path)
    check_set_aside(Here(), left, "r1")
    assert release_node(Here(), left, "r2") == ()
    assert release_node(Here(), left, "r1") == (left[0].folder,)
    assert not (tmp_path / "data/.etcdkeep/active").is_symlink()
    assert (tmp_path / "data/.etcdkeep/r1/rolled-back").is_symlink()
    assert release_node(Here(), left, "r1") == ()


def test_another_restores_link_stays(tmp_path: Path) -> None:
    left = unfinished(tmp_path)
    link = tmp_path / "data/.etcdkeep/active"
    link.unlink()
    link.symlink_to(tmp_path / "data/.etcdkeep/r9")
    assert release_node(Here(), left, "r1") == ()
    assert link.is_symlink()


@pytest.mark.parametrize(
    "aside", ["data/.etcdkeep/r1/old/member", "keys/.etcdkeep/r1/old/pki", "keys/.etcdkeep/r1/manifests/etcd.yaml"]
)
def test_a_node_whose_old_state_was_set_aside_is_not_released(tmp_path: Path, aside: str) -> None:
    left = unfinished(tmp_path)
    (tmp_path / aside).mkdir(parents=True)
    with pytest.raises(RequestRefused, match=r"was not released: it has set aside .*rollback"):
        check_set_aside(Here(), left, "r1")
    assert (tmp_path / "data/.etcdkeep/active").is_symlink()
