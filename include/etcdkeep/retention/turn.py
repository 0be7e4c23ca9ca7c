"""One housekeeping at a time for a cluster; and what time it is by the store's clock."""

from __future__ import annotations

import json
import logging
import re
import secrets
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from etcdkeep.documents import read, write
from etcdkeep.errors import AccessDenied, EtcdkeepError, NotFound, ObjectDamaged, RequestRefused, StoreUnavailable
from etcdkeep.records import stamp

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from etcdkeep.ports import ObjectStore, StoredObject

log = logging.getLogger(__name__)

TURN_LASTS = timedelta(hours=3)
"""Past it, whoever has the turn is taken for dead. The DAG's time limit is shorter."""


PROBE, OVER = "-probe.json", "-over.json"
_TURN = re.compile(r"\d{8}T\d{6}\.\d{6}Z-[0-9a-f]{8}(-probe|-over)?\.json")


def turns_prefix(cluster: str) -> str:
    """Return the folder in which each housekeeping says that it runs."""
    return f"{cluster}/housekeeping/"


@dataclass(frozen=True)
class Turn:
    """
    The right to remove sets of a cluster.

    :param stored_at: When it was taken, by the store's clock.
    """

    store: ObjectStore
    cluster: str
    by: str
    mine: StoredObject

    @property
    def stored_at(self) -> datetime:
        """When it was taken, by the store's clock."""
        return self.mine.updated_at

    def check(self, now: datetime) -> None:
        """
        Check that it is still held: two that began at once may both have seen themselves alone.

        :raises RequestRefused: when another one has it, or it has lasted too long.
        """
        if now - self.mine.updated_at > TURN_LASTS:
            raise RequestRefused(
                f"this housekeeping of cluster {self.cluster!r} has run for more than {TURN_LASTS}, and another one may have begun. "
                "It has stopped. What it removed until then stays removed. Run it again."
            )
        other = _earlier(self.store, self.cluster, self.mine, self.by)
        if other is not None:
            raise RequestRefused(
                f"another housekeeping of cluster {self.cluster!r} has run since {other.updated_at:%Y-%m-%d %H:%M:%S} UTC. This one has stopped. "
                f"Wait until the other one ends. If it is dead, delete {other.name}."
            )


@contextmanager
def turn(store: ObjectStore, cluster: str, by: str, now: datetime) -> Iterator[Turn]:
    """
    Take the turn.

    Each one puts an object of its own name; the earliest by the store's clock has the turn. So a dead one's is never
    deleted by mistake, and a retry of the same run goes on. Where the store keeps what was written, another object says
    that the turn is over.

    :raises RequestRefused: when another one has it.
    """
    name = f"{turns_prefix(cluster)}{stamp(now)}-{secrets.token_hex(4)}.json"
    write(store, name, json.dumps({"by": by}).encode())
    try:
        mine = store.stat(name)
        if mine is None:
            raise StoreUnavailable(f"{name} of {store.url} was removed while it was in use. Run again.")
        held = Turn(store, cluster, by, mine)
        held.check(mine.updated_at)
        yield held
    finally:
        try:
            _end(store, name)
        except EtcdkeepError as err:
            log.warning("%s stays, and is ignored after %s: %s", name, TURN_LASTS, err)


def _end(store: ObjectStore, name: str) -> None:
    try:
        store.delete(name)
    except AccessDenied:
        write(store, name.removesuffix(".json") + OVER, b"{}")


def may_not_delete(store: ObjectStore, cluster: str, now: datetime) -> list[str]:
    """
    Return why this account may delete nothing; empty where it may. Asked before the first set gets a tombstone.

    Where the bucket locks whatever is written, this cannot be asked: each set then says it for itself.
    """
    name = f"{turns_prefix(cluster)}{stamp(now)}-{secrets.token_hex(4)}{PROBE}"
    write(store, name, b"{}")
    try:
        store.delete(name)
    except AccessDenied as err:
        probe = store.stat(name)
        if probe is not None and probe.locked_until is not None:
            return []
        return [f"this account may not delete objects of {store.url}: {err}"]
    return []


def is_turn(cluster: str, name: str) -> bool:
    """Say whether an object has a name that a housekeeping gives; anything else in its folder is never removed."""
    prefix = turns_prefix(cluster)
    return name.startswith(prefix) and _TURN.fullmatch(name.removeprefix(prefix)) is not None


def _earlier(store: ObjectStore, cluster: str, mine: StoredObject, by: str) -> StoredObject | None:
    found = [item for item in store.list(turns_prefix(cluster)) if is_turn(cluster, item.name)]
    over = {item.name.removesuffix(OVER) for item in found if item.name.endswith(OVER)}
    for item in found:
        if item.name.endswith((OVER, PROBE)) or item.name.removesuffix(".json") in over:
            continue
        lives = item.updated_at > mine.updated_at - TURN_LASTS
        if lives and (item.updated_at, item.name) < (mine.updated_at, mine.name) and _who(store, item.name) != by:
            return item
    return None


def _who(store: ObjectStore, name: str) -> str | None:
    try:
        found = json.loads(read(store, name))
    except (NotFound, ObjectDamaged, AccessDenied, ValueError):
        return None
    return str(found.get("by")) if isinstance(found, dict) else None
