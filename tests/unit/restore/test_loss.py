"""What a restore would undo, counted against a recorded Kubernetes API."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from etcdkeep.errors import Unreachable
from etcdkeep.objects.entries import Entry, entries
from etcdkeep.ports import CommandResult
from etcdkeep.restore.loss import Loss, Losses, count_losses, find_losses
from etcdkeep.snapshot import open_snapshot
from tests.object_snapshots import recorded_snapshot
from tests.objects_api import ObjectsApi, recorded_objects
from tests.unit.restore.builders import make_facts

if TYPE_CHECKING:
    from collections.abc import Iterator


def no_node(address: str) -> Any:
    raise AssertionError(f"nobody asks node {address}")


class Node:
    """A node whose etcd is down."""

    def __init__(self, database: bytes, written_s: int) -> None:
        self.database = database
        self.written_s = written_s
        self.size = len(database)

    def run(self, argv: Any, limits: Any) -> CommandResult:
        assert argv[-1] == "/var/lib/etcd/member/snap/db"
        return CommandResult(b"%d %d\n" % (self.size, self.written_s))

    def stream(self, argv: Any, limits: Any) -> Iterator[bytes]:
        assert argv == ("sudo", "-n", "cat", "/var/lib/etcd/member/snap/db")
        return iter([self.database[:7], self.database[7:]])


@dataclass
class Nodes:
    """Some of them, by address."""

    by_address: dict[str, Node]

    @contextmanager
    def open(self, address: str) -> Iterator[Any]:
        if address not in self.by_address:
            raise Unreachable(f"node {address} is gone")
        yield self.by_address[address]

    def losses(self, stored: list[Entry], monkeypatch: pytest.MonkeyPatch) -> Losses:
        monkeypatch.setattr("etcdkeep.restore.loss.StoredSet", lambda *args: SimpleNamespace(entries=lambda: stored))
        facts = [replace(make_facts(name), address=address) for address, name in ADDRESSES.items()]
        return find_losses(None, None, [], None, self.open, facts)  # type: ignore[arg-type]


ADDRESSES = {"10.0.0.1": "cp-0", "10.0.0.2": "cp-1", "10.0.0.3": "cp-2"}


@pytest.fixture(scope="module")
def stored() -> list[Entry]:
    """What is in the recorded snapshot."""
    with tempfile.TemporaryFile() as file:
        file.write(recorded_snapshot())
        file.flush()
        with open_snapshot(file.fileno()) as snapshot:
            return list(entries(snapshot))


@pytest.fixture
def api(stored: list[Entry]) -> ObjectsApi:
    """The cluster as it was when the snapshot was taken."""
    served = recorded_objects()
    by_key = {entry.key: entry for entry in stored}
    for key, each in served:
        entry = next((entry for entry in by_key.values() if (entry.resource, entry.namespace, entry.name) == (key.resource, key.namespace, key.name)), None)  # fmt: skip
        assert entry is not None
        each["metadata"]["resourceVersion"] = str(entry.revision)
    return ObjectsApi(served)


def counted(api: Any, stored: list[Entry]) -> Losses:
    losses = count_losses(api, stored)
    seen = tuple(row for row in losses.rows if not row.kind.startswith("apiservices"))  # the API brings one of its own
    return Losses(seen, losses.notes)


def configmaps(api: ObjectsApi) -> Any:
    return api.collections["/api/v1/configmaps"]


def test_a_cluster_that_is_as_it_was_loses_nothing(api: ObjectsApi, stored: list[Entry]) -> None:
    assert counted(api, stored) == Losses()


def test_created_changed_and_deleted_are_counted_by_kind_and_namespace(api: ObjectsApi, stored: list[Entry]) -> None:
    kept = configmaps(api)[0]["metadata"]
    namespace = kept["namespace"]
    kept["resourceVersion"] = "999999"
    for name in ("new-1", "new-2"):
        configmaps(api).append(
            {"kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace, "resourceVersion": "1000000"}}
        )
    before = len(configmaps(api))
    removed = next(each for each in configmaps(api)[1:] if not each["metadata"]["name"].startswith("new-"))
    configmaps(api).remove(removed)
    assert len(configmaps(api)) == before - 1
    found = {(row.kind, row.namespace): row for row in counted(api, stored).rows}
    own = Loss("configmaps", namespace, 2, 1, int(removed["metadata"]["namespace"] == namespace))
    assert found.pop(("configmaps", namespace)) == own
    assert [row.deleted for row in found.values()] == [1] * (1 - own.deleted)


def test_a_kind_that_may_not_be_listed_is_told_and_the_rest_counted(api: ObjectsApi, stored: list[Entry]) -> None:
    api.refused.add("/api/v1/configmaps")
    losses = counted(api, stored)
    assert losses.rows == ()
    assert losses.notes == ("configmaps could not be listed: GET /api/v1/configmaps: 403",)


def test_a_kind_that_is_no_longer_served_is_told(api: ObjectsApi, stored: list[Entry]) -> None:
    strange = Entry(
        "shop.example", "orders", "Order", "shop.example/v1", "a", "b", "/registry/shop.example/orders/a/b", 1, 1, 1
    )
    assert counted(api, [*stored, strange]).notes == (
        "orders.shop.example: 1 object(s) in the backup, and the cluster does not serve the kind",
    )


def test_what_takes_too_long_is_left_out_and_named(api: ObjectsApi, stored: list[Entry]) -> None:
    ticks: Iterator[int] = iter(range(1000))
    losses = count_losses(api, stored, limit_s=0.5, clock=lambda: next(ticks))
    assert losses.rows == ()
    assert "not counted, since it took too long" in losses.notes[0]
    assert "configmaps" in losses.notes[0]


def test_events_and_leases_are_no_loss(api: ObjectsApi, stored: list[Entry]) -> None:
    noise = Entry("", "events", "Event", "v1", "a", "b", "/registry/events/a/b", 1, 1, 1)
    assert counted(api, [*stored, noise]) == Losses()


def test_with_the_api_down_the_newest_data_directory_tells(
    stored: list[Entry], monkeypatch: pytest.MonkeyPatch
) -> None:
    maps = [each for each in stored if each.resource == "configmaps" and each.namespace == "kube-system"]
    gone, changed, kept = maps[:3]
    backup = [each for each in stored if each != gone]
    backup[backup.index(changed)] = changed._replace(revision=changed.revision - 1)
    backup.append(kept._replace(name="deleted-since", key=f"{kept.key}-since"))
    nodes = Nodes({"10.0.0.1": Node(b"old and damaged", 100), "10.0.0.2": Node(recorded_snapshot(), 1_700_000_000)})
    losses = nodes.losses(backup, monkeypatch)
    assert losses.rows == (Loss("configmaps", "kube-system", 1, 1, 1),)
    assert losses.notes[0].startswith(
        "counted in the data directory of node cp-1, last written 2023-11-14 22:13:20 UTC"
    )


@pytest.mark.parametrize("broken", ["damaged", "short", "not-there"])
def test_a_data_directory_that_cannot_be_read_leaves_it_to_the_next(
    broken: str, stored: list[Entry], monkeypatch: pytest.MonkeyPatch
) -> None:
    newest = Node(recorded_snapshot(), 200)
    if broken == "damaged":
        newest.database = bytes(8192) + newest.database[8192:]
    elif broken == "short":
        newest.database = newest.database[:-4096]
    nodes = Nodes(
        {"10.0.0.2": Node(recorded_snapshot(), 100)} | ({} if broken == "not-there" else {"10.0.0.3": newest})
    )
    assert "of node cp-1" in nodes.losses(stored, monkeypatch).notes[0]
    del nodes.by_address["10.0.0.2"]
    unknown = nodes.losses(stored, monkeypatch).unknown
    assert ("no data directory can be read" if broken == "not-there" else "snap/db of node cp-2: ") in unknown


def test_a_backup_that_cannot_be_opened_tells_nothing() -> None:
    assert "cannot be opened" in find_losses(None, None, None, object(), no_node).unknown  # type: ignore[arg-type]


def test_without_api_and_nodes_nothing_is_known(stored: list[Entry], monkeypatch: pytest.MonkeyPatch) -> None:
    unknown = Nodes({}).losses(stored, monkeypatch).unknown
    assert unknown == "the cluster's own API does not answer here; no data directory can be read"


def test_an_api_that_stops_answering_stops_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    class Set:
        def __init__(self, *args: Any) -> None:
            pass

        def entries(self) -> list[Entry]:
            raise Unreachable("cut in the middle")

    monkeypatch.setattr("etcdkeep.restore.loss.StoredSet", Set)
    assert find_losses(None, None, [], object(), no_node).unknown == "cut in the middle"  # type: ignore[arg-type]
