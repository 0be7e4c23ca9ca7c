"""Which sets were removed by retention: a name in the folder of removals proves nothing, the signature of the record does."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from etcdkeep.naming import backup_time
from etcdkeep.retention.tombstones import TOMBSTONE
from etcdkeep.side_by_side import side_by_side

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from etcdkeep.freshness.check import StoredNames
    from etcdkeep.ports import StoredObject
    from etcdkeep.records import Records
    from etcdkeep.sets.judged import Looked

SPAN = timedelta(days=91)
"""How far back it matters that a set was removed."""


def looks_removed(names: StoredNames, sets: Iterable[Looked], now: datetime) -> list[str]:
    """
    Return the backup ids whose removal has to be proved: of attempts that left no set, and of days without a good backup.

    Removals of longer ago, and of days that have a good backup, change nothing that is shown.
    """
    good = {each.taken_at.astimezone(UTC).date() for each in sets if each.state == "good"}
    return [
        name
        for name in names.removed
        if name not in names.published
        and (name in names.attempts or (now - backup_time(name) < SPAN and backup_time(name).date() not in good))
    ]


def signed_removals(records: Records, cluster: str, removed: Mapping[str, Sequence[StoredObject]]) -> set[str]:
    """
    Return those of the backup ids whose removal is signed.

    :param removed: The records of each.
    :raises EtcdkeepError: when the repository cannot be read.
    """

    def is_signed(name: str) -> bool:
        return any(records.read_all(TOMBSTONE, [item], cluster, name)[0] for item in removed[name])

    return {name for name, signed in zip(removed, side_by_side(is_signed, removed), strict=True) if signed}
