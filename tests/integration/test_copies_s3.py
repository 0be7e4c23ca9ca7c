"""Copies in S3: from a directory, inside one server, and between two; locked, pruned, and cut at any request."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from etcdkeep import naming
from etcdkeep.adapters.stores.opening import duplicate
from etcdkeep.copies.replicate import Replicator
from etcdkeep.errors import RequestRefused
from etcdkeep.retention.prune import Pruner
from tests.builders import make_repository
from tests.s3_server import Fault, S3Server, s3_server
from tests.shelf import Shelf

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from etcdkeep.copies.replicate import CopyReport
    from etcdkeep.ports import ObjectStore

RULES = {"daily": 1, "min_good": 1, "max_remove_share": 1}


@pytest.fixture
def server() -> Iterator[S3Server]:
    with s3_server() as running:
        yield running


def shelf_in(folder: Path, store: ObjectStore | None = None, **settings: Any) -> Shelf:
    return Shelf(folder, store, copies=[{"repository": "s3://the-copy/etcd"}], **settings)


def replicate(shelf: Shelf, target: ObjectStore) -> CopyReport:
    replicator = Replicator(shelf.repository, shelf.cluster, duplicate, "a test", lambda: datetime.now(UTC))
    [report] = replicator.run({"s3://the-copy/etcd": lambda: make_repository(target)})
    return report


def test_from_a_directory(server: S3Server, tmp_path: Path) -> None:
    shelf = shelf_in(tmp_path)
    identifier = shelf.add(0, restorable="yes")
    target = server.store("etcd")
    assert replicate(shelf, target).copied == [identifier]
    there = make_repository(target).get("harbor", identifier)
    assert (there.state, there.restorable, there.refused) == ("good", "yes", ())
    assert server.requests
    assert server.uploads() == []


def test_inside_one_server_no_artifact_is_sent(server: S3Server, tmp_path: Path) -> None:
    shelf = shelf_in(tmp_path, server.store("first"))
    identifier = shelf.add(0)
    server.requests.clear()
    target = server.store("copy")
    assert replicate(shelf, target).copied == [identifier]
    artifact = f"/copy/harbor/{identifier}/{naming.ETCD_ARTIFACT}"
    assert server.asked(f"^PUT .*{artifact}[?].*partNumber=1") == 1, "a part that the server copies"
    assert server.asked(f"^GET .*{artifact}$") == 1, "read back from the copy"
    assert server.asked(f"^GET .*/first/harbor/{identifier}/{naming.ETCD_ARTIFACT}$") == 0
    assert make_repository(target).get("harbor", identifier).state == "good"


def test_between_two_servers_it_goes_through_here(server: S3Server, tmp_path: Path) -> None:
    with s3_server() as another:
        shelf = shelf_in(tmp_path, server.store("first"))
        identifier = shelf.add(0)
        target = another.store("copy")
        assert replicate(shelf, target).copied == [identifier]
        assert make_repository(target).get("harbor", identifier).state == "good"


CUT = [
    pytest.param("^PUT .*etcd.db", id="artifact"),
    pytest.param("^GET .*etcd.db", id="read-back"),
    pytest.param("^PUT .*verification/", id="record"),
    pytest.param("^PUT .*manifest.json.sig", id="signature"),
    pytest.param("^PUT .*manifest.json$", id="manifest"),
    pytest.param("^PUT .*copied/", id="copied"),
]


@pytest.mark.parametrize("what", ["lose", "drop"])
@pytest.mark.parametrize("request_", CUT)
def test_a_connection_that_stays_cut_leaves_nothing_half(
    server: S3Server, tmp_path: Path, what: Any, request_: str
) -> None:
    """`lose`: the server has done it, and nobody heard."""
    shelf = shelf_in(tmp_path)
    identifier = shelf.add(0)
    target = server.store("etcd")
    server.faults.append(Fault(what, request_, times=9))  # the client's attempts, and ours
    assert list(replicate(shelf, target).failed) == [identifier]
    server.faults.clear()
    for found in make_repository(target).sets("harbor"):
        assert found.state == "good"
    assert replicate(shelf, target).failed == {}
    there = make_repository(target).get("harbor", identifier)
    assert (there.state, there.copied is not None) == ("good", True)


def test_a_locked_copy_outlasts_whoever_may_delete(tmp_path: Path) -> None:
    with s3_server(lock=True) as server:
        shelf = shelf_in(tmp_path, immutable_days=30)
        old, new = shelf.add(2), shelf.add(0)
        target = server.store("etcd")
        assert replicate(shelf, target).copied == [new, old]
        repository = make_repository(target)
        until = repository.get("harbor", old).locked_until
        assert until is not None
        assert abs(until - (shelf.get(old).taken_at + timedelta(days=30))) < timedelta(seconds=2)
        cluster = Shelf(tmp_path, retention=RULES, immutable_days=0).cluster
        report = Pruner(
            repository, cluster, lambda: Shelf(tmp_path / "spool").store, "a test", lambda: datetime.now(UTC)
        ).run()
        assert report.removed == []
        assert [found.backup_id for found in repository.sets("harbor")] == [old, new]


def test_what_retention_removes_from_a_copy_stays_removed(server: S3Server, tmp_path: Path) -> None:
    shelf = shelf_in(tmp_path)
    old, new = shelf.add(2), shelf.add(0)
    target = server.store("etcd")
    replicate(shelf, target)
    cluster = Shelf(tmp_path, retention=RULES).cluster
    pruner = Pruner(
        make_repository(target), cluster, lambda: Shelf(tmp_path / "spool").store, "a test", lambda: datetime.now(UTC)
    )
    try:
        assert pruner.run().removed == [old]
    except RequestRefused as err:  # pragma: no cover - says why, where it fails
        pytest.fail(str(err))
    report = replicate(shelf, target)
    assert (report.copied, report.removed_there, report.present) == ([], 1, 1)
    assert [found.backup_id for found in make_repository(target).sets("harbor")] == [new]
