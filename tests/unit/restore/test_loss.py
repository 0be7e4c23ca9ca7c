"""What a restore would undo, counted against a recorded Kubernetes API."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING, Any

import pytest

from etcdkeep.errors import Unreachable
from etcdkeep.objects.entries import Entry, entries
from etcdkeep.restore.loss import Loss, Losses, count_losses, find_losses
from etcdkeep.snapshot import open_snapshot
from tests.object_snapshots import recorded_snapshot
from tests.objects_api import ObjectsApi, recorded_objects

if TYPE_CHECKING:
    from collections.abc import Iterator


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


@pytest.mark.parametrize(
    ("api", "identities", "said"),
    [
        pytest.param(None, [], "does not answer", id="no-api"),
        pytest.param(object(), None, "cannot be opened", id="no-identity"),
    ],
)
def test_what_cannot_be_known_is_said(api: Any, identities: Any, said: str) -> None:
    assert said in find_losses(None, None, identities, api).unknown  # type: ignore[arg-type]


def test_an_api_that_stops_answering_stops_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    class Set:
        def __init__(self, *args: Any) -> None:
            pass

        def entries(self) -> list[Entry]:
            raise Unreachable("cut in the middle")

    monkeypatch.setattr("etcdkeep.restore.loss.StoredSet", Set)
    assert find_losses(None, None, [], object()).unknown == "cut in the middle"  # type: ignore[arg-type]
