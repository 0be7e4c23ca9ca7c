"""Which backup is drilled."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from etcdkeep.errors import NotFound
from etcdkeep.naming import is_backup_id
from etcdkeep.repository import USABLE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from etcdkeep.repository import BackupSet, Repository


def choose_set(repository: Repository, cluster: str, asked: str, announced: Sequence[str] = ()) -> BackupSet:
    """
    Return the set that is asked for, else of those announced the one taken last, else the cluster's newest good one.

    :param asked: Backup id, or empty; a bad set may be asked for, so that a drill can clear it.
    :param announced: Backup ids of the verified backups that triggered the drill.
    :raises NotFound: when there is none.
    """
    if asked and not is_backup_id(asked):
        raise NotFound(
            f"{asked!r} is no backup id: expected such as 20261123T023000Z-1f0c9a3e (python -m etcdkeep list {cluster})."
        )
    if asked:
        return repository.get(cluster, asked)
    verified = [each for each in _announced(repository, cluster, announced) if each.state in USABLE]
    found = max(verified, key=lambda each: each.taken_at) if verified else repository.newest(cluster)
    if found is None:
        raise NotFound(
            f"cluster {cluster!r} has no good backup that could be drilled; see `python -m etcdkeep list {cluster}`."
        )
    return found


def _announced(repository: Repository, cluster: str, announced: Sequence[str]) -> Iterator[BackupSet]:
    """Yield the announced sets that exist: anybody with rights on assets can announce one."""
    for identifier in announced:
        with suppress(NotFound):
            yield repository.get(cluster, identifier)
