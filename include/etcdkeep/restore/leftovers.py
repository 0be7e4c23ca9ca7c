"""What earlier restores left on a node, and its removal, which only a person asks for."""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING

from etcdkeep.control_plane import SUDO
from etcdkeep.errors import RestoreRefused
from etcdkeep.ports import StreamLimits
from etcdkeep.restore.facts import ACTIVE, FOLDER, EarlierRun

if TYPE_CHECKING:
    from collections.abc import Sequence

    from etcdkeep.ports import CommandRunner

REMOVE_S = 600.0


def removal_argv(leftover: EarlierRun) -> tuple[str, ...]:
    """
    Return the call that removes one restore's folder, with the old state that it kept.

    :raises RestoreRefused: when that restore is under way, or the path is no folder of ours.
    """
    if leftover.state == ACTIVE:
        raise RestoreRefused(
            f"{leftover.folder} was not removed: restore {leftover.run!r} is neither finished nor taken back. Do one of both first."
        )
    parent, name = posixpath.split(leftover.folder)
    if posixpath.basename(parent) != FOLDER or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]*", name):
        raise RestoreRefused(f"{leftover.folder} was not removed: it is no folder of a restore (…/{FOLDER}/RUN).")
    return (*SUDO, "rm", "-r", "--one-file-system", "--", leftover.folder)


def remove_leftovers(runner: CommandRunner, leftovers: Sequence[EarlierRun], run: str) -> tuple[str, ...]:
    """
    Remove what one restore left on a node; the rollback of that restore is impossible from then on.

    :param leftovers: Of that node, as :func:`~etcdkeep.restore.gather.gather_node` found them.
    :return: The folders removed.
    """
    chosen = [leftover for leftover in leftovers if leftover.run == run]
    calls = [removal_argv(leftover) for leftover in chosen]
    for argv in calls:
        runner.run(argv, StreamLimits(REMOVE_S))
    return tuple(leftover.folder for leftover in chosen)
