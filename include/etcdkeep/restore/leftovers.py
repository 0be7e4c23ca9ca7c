"""What earlier restores left on a node or on a pod's claim, and its removal, which only a person asks for."""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING

from etcdkeep.control_plane.node_archive import SUDO
from etcdkeep.errors import CommandFailed, RequestRefused
from etcdkeep.ports import StreamLimits
from etcdkeep.restore.found.nodes import ACTIVE, FOLDER, ROLLED_BACK, EarlierRun, parse_earlier_runs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from etcdkeep.ports import CommandRunner

REMOVE_S = 600.0
SET_ASIDE = 'for each in old manifests; do ls -A "$1/$each" 2>/dev/null || true; done'
RELEASE = '[ "$(readlink "$1")" != "$2" ] || { mv -T "$1" "$2/$3" && echo "$2"; }'
ON_NODES = (*SUDO, "rm", "-r", "--one-file-system", "--")
IN_PODS = ("rm", "-r", "--")


def find_in_pod(runner: CommandRunner, base: str) -> tuple[EarlierRun, ...]:
    """
    Return what restores left on a member's claim, asked with no more than an etcd image may have: ls and readlink.

    :param base: The ``.etcdkeep`` folder.
    :raises CommandMissing: when the image has not even those.
    """

    def ask(*argv: str) -> list[str]:
        try:
            return runner.run(argv, StreamLimits(REMOVE_S)).stdout.decode(errors="replace").split()
        except CommandFailed:
            return []

    lines = []
    for name in ask("ls", "-A", base):
        path = posixpath.join(base, name)
        if name == ACTIVE:
            lines += [f"l\t{path}\t{target}" for target in ask("readlink", path)]
        else:
            lines += [f"d\t{path}\t", *(f"f\t{posixpath.join(path, each)}\t" for each in ask("ls", "-A", path))]
    return parse_earlier_runs("\n".join(lines))


def check_set_aside(runner: CommandRunner, leftovers: Sequence[EarlierRun], run: str) -> None:
    """
    :param leftovers: Of that node.
    :raises RequestRefused: when an unfinished restore has set the old state aside there: only a rollback brings that back.
    """
    for each in _held(leftovers, run):
        look = (*SUDO, "sh", "-c", SET_ASIDE, "sh", each.folder)
        aside = runner.run(look, StreamLimits(REMOVE_S)).stdout.decode(errors="replace").split()
        if aside:
            raise RequestRefused(
                f"{runner.where}: restore {run!r} was not released: it has set aside {', '.join(aside)} in {each.folder}. "
                "Clear its task `rollback`, or roll it back with its runbook (--begun)."
            )


def release_node(runner: CommandRunner, leftovers: Sequence[EarlierRun], run: str) -> tuple[str, ...]:
    """
    Release a node which an unfinished restore holds; :func:`check_set_aside` says whether it may be.

    :param leftovers: Of that node.
    :return: The folders that were released; none where it holds none.
    """
    released = []
    for each in _held(leftovers, run):
        active = posixpath.join(posixpath.dirname(each.folder), ACTIVE)
        argv = (*SUDO, "sh", "-c", RELEASE, "sh", active, each.folder, ROLLED_BACK)
        if runner.run(argv, StreamLimits(REMOVE_S)).stdout.strip():
            released.append(each.folder)
    return tuple(released)


def _held(leftovers: Sequence[EarlierRun], run: str) -> list[EarlierRun]:
    return [each for each in leftovers if each.run == run and each.state == ACTIVE]


def removal_argv(leftover: EarlierRun, command: tuple[str, ...] = ON_NODES) -> tuple[str, ...]:
    """
    Return the call that removes one restore's folder, with the old state that it kept.

    :raises RequestRefused: when that restore is under way, or the path is no folder of ours.
    """
    if leftover.state == ACTIVE:
        raise RequestRefused(
            f"{leftover.folder} was not removed: restore {leftover.run!r} is neither finished nor rolled back. Clear its task `rollback`, "
            f"or release it first: the option --release {leftover.run}."
        )
    parent, name = posixpath.split(leftover.folder)
    if posixpath.basename(parent) != FOLDER or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]*", name):
        raise RequestRefused(f"{leftover.folder} was not removed: it is not a folder of a restore (…/{FOLDER}/RUN).")
    return (*command, leftover.folder)


def remove_leftovers(
    runner: CommandRunner, leftovers: Sequence[EarlierRun], run: str, command: tuple[str, ...] = ON_NODES
) -> tuple[str, ...]:
    """
    Remove what one restore left at a place; the rollback of that restore is impossible from then on.

    :param leftovers: Of that place, as :func:`~etcdkeep.restore.probe.nodes.gather_node` or :func:`find_in_pod` found them.
    :return: The folders removed.
    """
    chosen = [leftover for leftover in leftovers if leftover.run == run]
    calls = [removal_argv(leftover, command) for leftover in chosen]
    for argv in calls:
        runner.run(argv, StreamLimits(REMOVE_S))
    return tuple(leftover.folder for leftover in chosen)
