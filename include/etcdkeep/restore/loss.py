"""What a restore would undo: objects created, changed or deleted since the backup, counted by kind and namespace."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

from etcdkeep.errors import AccessDenied, EtcdkeepError, NotFound
from etcdkeep.objects.entries import entries
from etcdkeep.objects.live_cluster import served_kinds
from etcdkeep.objects.prefix import choose_prefix
from etcdkeep.objects.resources import same_objects
from etcdkeep.objects.stored_set import StoredSet
from etcdkeep.ports import CommandRunner
from etcdkeep.restore.live_data import find_databases, open_database

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from etcdkeep.objects.entries import Entry
    from etcdkeep.objects.live_cluster import Served
    from etcdkeep.ports import KubeApi, ObjectStore
    from etcdkeep.restore.found.nodes import NodeFacts
    from etcdkeep.sealing.age_keys import Identity
    from etcdkeep.sets.backup_set import BackupSet

COUNT_S = 30.0
NOISE = ("events", "leases")
"""Written every few seconds, and of no worth past the next few."""

Places = dict[tuple[str, str], int]
"""Namespace and name → the revision at which it was last written."""
OpenNode = Callable[[str], AbstractContextManager[CommandRunner]]
"""Opens a shell on a node, given its address."""


@dataclass(frozen=True)
class Loss:
    """Objects of one kind in one namespace, by what became of them since the backup."""

    kind: str
    namespace: str
    created: int
    changed: int
    deleted: int


@dataclass(frozen=True)
class Losses:
    """
    All of them.

    :param unknown: Why nothing could be counted; empty when it could.
    :param notes: What was left out.
    """

    rows: tuple[Loss, ...] = ()
    notes: tuple[str, ...] = ()
    unknown: str = ""


def find_losses(
    found: BackupSet,
    store: ObjectStore,
    identities: Sequence[Identity] | None,
    api: KubeApi | None,
    open_node: OpenNode,
    nodes: Sequence[NodeFacts] = (),
) -> Losses:
    """
    Say what was written since a backup; whatever keeps that from being known keeps nothing else.

    :param api: The cluster's own; None when it does not answer or is not to be reached from here.
    :param nodes: Whose data directories are read when there is no API.
    """
    if identities is None:
        return Losses(unknown="the backup cannot be opened here")
    try:
        with ExitStack() as stack:
            stored = StoredSet(stack, store, found, lambda: identities).entries
            if api is not None:
                return count_losses(api, stored())
            return _count_on_nodes(stored, open_node, nodes)
    except EtcdkeepError as err:
        return Losses(unknown=str(err))


def _count_on_nodes(stored: Callable[[], Iterable[Entry]], open_node: OpenNode, nodes: Sequence[NodeFacts]) -> Losses:
    problems = ["the cluster's own API does not answer here"]
    for database in find_databases(nodes, open_node):
        try:
            with open_node(database.address) as runner, open_database(runner, database) as snapshot:
                rows = compare_states(stored(), entries(snapshot, prefix=choose_prefix(snapshot, database.path)))
        except EtcdkeepError as err:
            problems.append(f"{database.path} of node {database.node}: {err}")
            continue
        note = (
            f"counted in the data directory of node {database.node}, last written {database.written_at:%Y-%m-%d %H:%M:%S} UTC, since "
            "the API does not answer; what etcd did in its last seconds may be missing"
        )
        return Losses(rows, (note,))
    if len(problems) == 1:
        problems.append("no data directory can be read")
    return Losses(unknown="; ".join(problems))


def compare_states(before: Iterable[Entry], after: Iterable[Entry]) -> tuple[Loss, ...]:
    """Compare what two snapshots hold, by the revision at which each object was last written."""
    old, new = _places(before), _places(after)
    names = sorted(old.keys() | new.keys())
    rows = (_compare(name, old.get(name, {}), new.get(name, {})) for name in names if not _is_noise(name))
    return tuple(chain.from_iterable(rows))


def count_losses(
    api: KubeApi, stored: Iterable[Entry], *, limit_s: float = COUNT_S, clock: Callable[[], float] = time.monotonic
) -> Losses:
    """
    Compare a backup with the running cluster, by the revision at which each object was last written.

    :param stored: What is in the backup, as its index lists it.
    :raises TransientError: when the API stops answering.
    """
    until = clock() + limit_s
    before = _places(stored)
    rows: list[Loss] = []
    notes: list[str] = []
    late: list[str] = []
    for served in served_kinds(api):
        kind = served.resource.full_name
        old = before.pop(same_objects(served.resource), {})
        if served.resource.plural in NOISE:
            continue
        if clock() > until:
            late.append(kind)
            continue
        try:
            rows += _compare(kind, old, _live(api, served))
        except (AccessDenied, NotFound) as err:
            notes.append(f"{kind} could not be listed: {err}")
    if late:
        notes.append(f"not counted, since it took too long: {', '.join(late)}")
    gone = sorted(kind for kind, places in before.items() if places and not _is_noise(kind))
    notes += [
        f"{kind}: {len(before[kind])} object(s) in the backup, and the cluster does not serve the kind" for kind in gone
    ]
    return Losses(tuple(rows), tuple(notes))


def _places(found: Iterable[Entry]) -> dict[str, Places]:
    kinds: dict[str, Places] = {}
    for entry in found:
        if not entry.other:
            kinds.setdefault(same_objects(entry.type), {})[entry.namespace, entry.name] = entry.revision
    return kinds


def _is_noise(kind: str) -> bool:
    return kind.partition(".")[0] in NOISE


def _live(api: KubeApi, served: Served) -> Places:
    version = served.versions[0]
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    found = (item["metadata"] for item in api.list(f"{root}/{served.resource.plural}"))
    return {(each.get("namespace", ""), each["name"]): _revision(each) for each in found}


def _revision(metadata: Mapping[str, Any]) -> int:
    """What an API server that is not etcd's own writes there is no revision."""
    version = str(metadata.get("resourceVersion", ""))
    return int(version) if version.isdecimal() else 0


def _compare(kind: str, before: Mapping[tuple[str, str], int], after: Mapping[tuple[str, str], int]) -> list[Loss]:
    created = Counter(place[0] for place in after.keys() - before.keys())
    deleted = Counter(place[0] for place in before.keys() - after.keys())
    changed = Counter(place[0] for place in after.keys() & before.keys() if after[place] != before[place])
    namespaces = sorted(created.keys() | deleted.keys() | changed.keys())
    return [Loss(kind, name, created[name], changed[name], deleted[name]) for name in namespaces]
