"""Which backup is drilled."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from etcdkeep.errors import NotFound
from etcdkeep.sets.backup_set import USABLE
from etcdkeep.sets.choosing import choose_set

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from etcdkeep.sets.backup_set import BackupSet
    from etcdkeep.sets.repository import Repository


def set_to_drill(repository: Repository, cluster: str, asked: str, announced: Sequence[str] = ()) -> BackupSet:
    """
    Return the set that is asked for, else of those announced the one taken last, else the cluster's newest good one.

    :param asked: As for :func:`~etcdkeep.sets.choosing.choose_set`; a bad set may be asked for, so that a drill can clear it.
    :param announced: Backup ids of the verified backups that triggered the drill.
    :raises NotFound: when there is none.
    """
    verified = [] if asked.strip() else [*_announced(repository, cluster, announced)]
    if verified:
        return max(verified, key=lambda each: each.taken_at)
    return choose_set(repository, cluster, asked)


def _announced(repository: Repository, cluster: str, announced: Sequence[str]) -> Iterator[BackupSet]:
    """Yield the announced sets that exist: anybody with rights on assets can announce one."""
    for identifier in announced:
        with suppress(NotFound):
            found = repository.get(cluster, identifier)
            if found.state in USABLE:
                yield found
