"""Which backup set is meant: the one place that chooses, for every command and task, with the same sentence for the same fault."""

from __future__ import annotations

from typing import TYPE_CHECKING

from etcdkeep.errors import NotFound, VerificationFailed
from etcdkeep.naming import parse_set_name
from etcdkeep.sets.backup_set import ANY, GOOD

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from etcdkeep.sets.backup_set import BackupSet, State
    from etcdkeep.sets.manifest import Manifest
    from etcdkeep.sets.repository import Repository


def choose_set(
    repository: Repository,
    cluster: str,
    wanted: str = "",
    *,
    allow: Collection[State] = ANY,
    newest: Collection[State] = GOOD,
) -> BackupSet:
    """
    Return the set of a cluster that is meant.

    :param wanted: Backup id, ``cluster/id``, or empty for the newest one.
    :param allow: The states that a set may have which is named.
    :param newest: The states among which the newest one is looked for.
    :raises NotFound: when there is none, or when it belongs to another cluster.
    :raises VerificationFailed: when its state is not allowed.
    """
    wanted = wanted.strip()
    if not wanted:
        return _newest(repository, cluster, newest)
    named, identifier = parse_set_name(wanted) if "/" in wanted else (cluster, wanted)
    if named != cluster:
        raise NotFound(
            f"backup {wanted} is of cluster {named!r}, not of {cluster!r}; nothing was changed. List the backups of {cluster!r}: "
            f"`python -m etcdkeep list {cluster}`."
        )
    found = repository.get(cluster, identifier)
    if found.state not in allow:
        raise not_usable(found)
    return found


def previous_set(newest_first: Iterable[BackupSet], found: BackupSet, states: Collection[State] = GOOD) -> BackupSet:
    """
    Return the newest set in one of the states that was taken before another one.

    :param newest_first: The sets of the cluster; read as far as needed.
    :raises NotFound: when there is none.
    """
    for each in newest_first:
        if each.order < found.order and each.state in states:
            return each
    raise NotFound(
        f"no {_in_words(states)}backup was taken before {found.name}; see `python -m etcdkeep list {found.cluster}`."
    )


def manifest_of(found: BackupSet) -> Manifest:
    """
    Return the set's manifest.

    :raises VerificationFailed: when it is not believed: unsigned, foreign, moved, from the future or unreadable.
    """
    if found.manifest is None:
        raise not_usable(found)
    return found.manifest


def not_usable(found: BackupSet) -> VerificationFailed:
    """Return the error that names a set which must not be used, and why."""
    return VerificationFailed(
        f"backup {found.name} is {found.state} and cannot be used. Choose another set.", found.problems
    )


def _newest(repository: Repository, cluster: str, states: Collection[State]) -> BackupSet:
    found = repository.newest(cluster, states)
    if found is None:
        way_out = "" if set(states) - set(GOOD) else " To use one that is not good, give its id."
        raise NotFound(
            f"cluster {cluster!r} has no {_in_words(states)}backup in {repository.store.url}; see `python -m etcdkeep list {cluster}`.{way_out}"
        )
    return found


def _in_words(states: Collection[State]) -> str:
    """Return the states as a list before a noun; empty where every state counts."""
    if not set(ANY) - set(states):
        return ""
    *others, last = states
    return f"{', '.join(others)} or {last} " if others else f"{last} "
