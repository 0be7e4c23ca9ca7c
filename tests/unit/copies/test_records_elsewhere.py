"""What was signed for one repository of a cluster says nothing in another one: verdicts, pins and removals stay where they were made."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from etcdkeep.adapters.stores.directory import DirectoryStore
from etcdkeep.adapters.stores.opening import duplicate
from etcdkeep.copies.replicate import Replicator
from etcdkeep.documents import read, write
from etcdkeep.retention.gather import set_facts
from etcdkeep.retention.plan import Verdict
from etcdkeep.retention.tombstones import Tombstones
from etcdkeep.sets.pins import Pin
from tests.builders import make_repository, make_verification
from tests.shelf import Shelf


@pytest.fixture
def copied(tmp_path):
    """Return a shelf with three nights, their copy, and how each is opened as a site opens it."""
    shelf = Shelf(tmp_path, rehearse=False, copies=[{"repository": f"file://{tmp_path}/copy"}])
    for day in (3, 2, 1):
        shelf.add(day)
    places = [shelf.store.url, f"file://{tmp_path}/copy"]
    first = make_repository(shelf.store, others=places)
    copy = make_repository(DirectoryStore(tmp_path / "copy"), others=places)
    replicate(shelf, first, copy)
    return shelf, first, copy


def replicate(shelf, first, copy):
    replicator = Replicator(first, shelf.cluster, duplicate, "a test", lambda: datetime.now(UTC))
    (report,) = replicator.run({shelf.cluster.copies[0].repository: lambda: copy})
    assert not report.failed
    return report


def test_a_copy_has_the_states_of_the_first_repository(copied):
    _, first, copy = copied
    assert [each.state for each in copy.sets("harbor")] == [each.state for each in first.sets("harbor")] == ["good"] * 3
    assert all(not each.refused for each in copy.sets("harbor"))


@pytest.mark.parametrize("good", [True, False])
def test_a_verdict_on_a_copy_changes_nothing_in_the_first_repository(copied, good):
    _, first, copy = copied
    night, problems = copy.sets("harbor")[0], () if good else ("a page is damaged",)
    if good:
        first.record(
            first.get("harbor", night.backup_id),
            make_verification(at=datetime.now(UTC), problems=("a page is damaged",)),
        )
    name = copy.record(night, make_verification(at=datetime.now(UTC), problems=problems))
    write(first.store, name, read(copy.store, name))
    found = first.get("harbor", night.backup_id)
    assert found.state == ("bad" if good else "good")
    assert [each.word for each in found.refused] == ["moved"]


def test_a_pin_that_ends_in_a_copy_holds_in_the_first_repository(copied):
    shelf, first, copy = copied
    night = first.sets("harbor")[0]
    first.record_pin(night, Pin(pinned=True, reason="an audit", by="a test"))
    replicate(shelf, first, copy)
    copy.record_pin(copy.get("harbor", night.backup_id), Pin(pinned=False, reason="over", by="a test"))
    for item in list(copy.store.list(f"harbor/{night.backup_id}/pins/")):
        if first.store.stat(item.name) is None:
            write(first.store, item.name, read(copy.store, item.name))
    assert first.get("harbor", night.backup_id).pinned(datetime.now(UTC)) == "an audit"
    assert copy.get("harbor", night.backup_id).pinned(datetime.now(UTC)) is None


def test_what_was_removed_in_one_repository_is_missing_in_another(copied):
    shelf, first, copy = copied
    night = first.sets("harbor")[0].backup_id
    for item in list(copy.store.list(f"harbor/{night}/")):
        copy.store.delete(item.name)
    found = first.get("harbor", night)
    facts = set_facts(found, shelf.cluster, None, datetime.now(UTC))
    Tombstones(first.records, "harbor").put(
        found, Verdict(facts, keep=False, reasons=("no rule keeps it",)), "a test", ()
    )
    for item in list(first.store.list("harbor/removed/")):
        write(copy.store, item.name, read(first.store, item.name))
    report = replicate(shelf, first, copy)
    assert (report.copied, report.removed_there) == ([night], 0)
