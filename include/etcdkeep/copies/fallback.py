"""From which repository a set is read: the first, else a copy, and then that is said."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from etcdkeep.errors import AccessDenied, ConfigError, NotFound, SecretUnavailable, ServerUntrusted, TransientError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from etcdkeep.sets.backup_set import BackupSet
    from etcdkeep.sets.repository import Repository

LOST = (TransientError, AccessDenied, ConfigError, NotFound, SecretUnavailable, ServerUntrusted)
"""With which of our errors a repository, or a set in it, may be gone."""


class FoundIn(NamedTuple):
    """
    A set, and where it was found.

    :param passed: What was wrong with each repository before, one sentence each.
    """

    url: str
    found: BackupSet
    passed: tuple[str, ...]


def find_in_copies(
    repositories: Mapping[str, Callable[[], Repository]], look: Callable[[Repository], BackupSet]
) -> FoundIn:
    """
    Return a set from the first repository that has it whole; else the first one found, however it is.

    :param repositories: By URL, the cluster's own one first; at least one.
    :param look: Finds the set in one of them, or raises.
    :raises EtcdkeepError: of the first repository, when no other has the set.
    """
    passed: list[str] = []
    errors: list[Exception] = []
    damaged: FoundIn | None = None
    for url, open_repository in repositories.items():
        try:
            found = look(open_repository())
        except LOST as err:
            errors.append(err)
            passed.append(f"{url}: {err}")
            continue
        if found.whole:
            return FoundIn(url, found, tuple(passed))
        damaged = damaged or FoundIn(url, found, tuple(passed))
        passed.append(f"{url}: {found.name} is {found.state}: {'; '.join(found.problems)}")
    if damaged is None:
        raise errors[0]
    return damaged
