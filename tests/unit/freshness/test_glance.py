"""A glance: few sets are opened, the answer is that of a check, and a set that changed is judged anew."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import timedelta

import pytest

from etcdkeep import naming
from etcdkeep.backup.publish import record_attempt
from etcdkeep.documents import read, write
from etcdkeep.errors import AccessDenied, NotFound
from etcdkeep.freshness.check import check_stored
from etcdkeep.freshness.glance import AGAIN, MORE, SOON, JudgedSets, glance
from etcdkeep.freshness.removals import looks_removed, signed_removals
from etcdkeep.overview.fleet import fleet_row
from etcdkeep.records import trust_for_all
from etcdkeep.sets.pins import Pin
from etcdkeep.sets.repository import Repository
from etcdkeep.sets.results import Copied, DrillResult
from tests.builders import make_verification
from tests.shelf import Shelf

DAILY = {"schedule": "0 2 * * *", "drill": {"schedule": "0 5 * * 1"}}


class Counting:
    """A store that notes which manifests are opened."""

    def __init__(self, store):
        self._store = store
        self.opened = []

    def __getattr__(self, name):
        return getattr(self._store, name)

    def open(self, name):
        if name.endswith(naming.MANIFEST):
            self.opened.append(name.split("/")[1])
        return self._store.open(name)


@pytest.fixture
def shelf(tmp_path):
    """Forty nights, each stored when it was taken."""
    made = Shelf(tmp_path, **DAILY)
    for day in range(40, -1, -1):
        identifier = made.add(day + 0.1, restorable="yes", drilled=day == 9, size_bytes=2**20 * (100 - day))
        made.age(day + 0.09, f"harbor/{identifier}/")
    return made


@pytest.fixture
def judged():
    return JudgedSets()


def look(shelf, judged, now=None, **options):
    store = Counting(shelf.store)
    repository = Repository(store, shelf.repository.trust)
    found = glance(repository, shelf.cluster, now or shelf.now, judged, **options)
    return found, store.opened


def row(found):
    return fleet_row(found, found.at)


def checked_row(shelf, now=None):
    now = now or shelf.now
    checked = check_stored(shelf.repository, shelf.cluster, now)
    asked = looks_removed(checked.stored, checked.stored.sets, now)
    gone = signed_removals(shelf.repository.records, "harbor", {name: checked.stored.removed[name] for name in asked})
    return fleet_row(checked, now, gone)


def at_once_known(found):
    """What of a line does not wait for the older sets."""
    return found.state, found.status, found.problem, found.newest, found.newest_backup, found.revision, found.sets, found.restore_s  # fmt: skip


def test_of_many_sets_the_newest_of_each_kind_are_opened(shelf, judged):
    found, opened = look(shelf, judged)
    assert sorted(opened) == [shelf.identifier(9.1), shelf.identifier(0.1)]
    assert at_once_known(row(found)) == at_once_known(checked_row(shelf))
    assert (row(found).unread, row(found).calendar.count("u")) == (39, 39)


def test_when_all_are_read_the_line_is_that_of_a_check(shelf, judged):
    spoil(shelf)
    look(shelf, judged)
    found, _ = look(shelf, judged, everything=True)
    assert found.report == check_stored(shelf.repository, shelf.cluster, shelf.now).report
    assert row(found) == checked_row(shelf)
    found, opened = look(shelf, judged)
    assert (row(found), opened) == (checked_row(shelf), []), "and nothing is opened twice"


def spoil(shelf):
    """Give the shelf all that a check may find."""
    ids = shelf.ids()
    shelf.store.delete(naming.set_prefix("harbor", ids[3]) + naming.SIGNATURE)
    shelf.store.delete(naming.set_prefix("harbor", ids[5]) + naming.ETCD_ARTIFACT)
    shelf.repository.record(shelf.get(ids[7]), make_verification(at=shelf.now, levels=(), problems=("a page is damaged",)))  # fmt: skip
    write(shelf.store, naming.set_prefix("harbor", ids[9]) + "pins/20261123T023100.000000Z.json", b"{}")
    drill = DrillResult(etcd_version="3.5.16", tool="etcdutl 3.5.16", restore_s=8.4)
    expires = shelf.now + timedelta(days=3)
    shelf.repository.record(shelf.get(ids[11]), make_verification(at=shelf.now, levels=("drill",), complete=False, drill=drill))  # fmt: skip
    shelf.repository.record(shelf.get(ids[-1]), make_verification(at=shelf.now, expires_at=expires, expires_first="cp-0"))  # fmt: skip
    record_attempt(shelf.store, "harbor", shelf.identifier(0.05), "scheduled__x")
    for day, forged in ((45, False), (46, True), (47, True)):
        removed = shelf.identifier(day)
        record_attempt(shelf.store, "harbor", removed, "scheduled__y")
        if forged:
            write(shelf.store, f"harbor/removed/{removed}/20260101T000000.000000Z.json", b"{}")
        else:
            shelf.bury(removed)


@pytest.mark.parametrize(
    ("state", "days"), [("bad", 0.05), ("unverified", 0.05), ("good", 0.05)], ids=["bad", "unverified", "good"]
)
def test_a_newest_set_of_any_state_is_seen_at_once(shelf, judged, state, days):
    look(shelf, judged)
    shelf.add(days, state=state, restorable="no")
    for now in (shelf.now, shelf.now + timedelta(days=2)):
        found, _ = look(shelf, judged, now)
        assert at_once_known(row(found)) == at_once_known(checked_row(shelf, now))


def test_what_becomes_of_a_set_that_was_opened_is_seen_at_the_next_look(shelf, judged):
    newest = shelf.ids()[-1]
    look(shelf, judged)
    shelf.repository.record(shelf.get(newest), make_verification(at=shelf.now, levels=(), problems=("damaged",)))
    found, opened = look(shelf, judged)
    assert newest in opened
    assert (row(found).state, found.report.status) == (checked_row(shelf).state, "WARNING")
    shelf.store.delete(naming.set_prefix("harbor", newest) + naming.SIGNATURE)
    assert look(shelf, judged)[0].stored.sets[-1].state == "unsigned"


def test_bytes_that_were_changed_under_the_same_size_and_time_are_judged_anew(shelf, judged):
    """As somebody with the disk can do."""
    newest = shelf.ids()[-1]
    look(shelf, judged)
    path = shelf.folder / "repository" / naming.set_prefix("harbor", newest) / naming.MANIFEST
    before = path.stat()
    path.write_bytes(path.read_bytes().replace(b'"kubeadm"', b'"kubeadn"'))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    found, _ = look(shelf, judged)
    assert found.stored.sets[-1].state == "foreign"


def test_a_set_is_opened_again_after_a_while_a_few_at_a_time(shelf, judged):
    look(shelf, judged, everything=True)
    _, opened = look(shelf, judged, shelf.now + AGAIN)
    assert 0 < len(opened) <= MORE + 2
    _, again = look(shelf, judged, shelf.now + AGAIN)
    assert set(opened).isdisjoint(again)
    assert again


def test_a_set_from_the_future_is_asked_again_soon(shelf, judged):
    shelf.add(-0.01)
    found, _ = look(shelf, judged, everything=True)
    assert found.stored.sets[-1].state == "future"
    assert shelf.identifier(-0.01) in look(shelf, judged, shelf.now + SOON)[1]


def test_a_manifest_that_could_not_be_read_is_asked_again_soon(shelf, judged):
    newest = shelf.ids()[-1]

    class Closed(Counting):
        def open(self, name):
            if newest in name:
                raise AccessDenied(f"{name}: permission denied.")
            return super().open(name)

    found = glance(Repository(Closed(shelf.store), shelf.repository.trust), shelf.cluster, shelf.now, judged)
    assert found.stored.sets[-1].state == "unreadable"
    found, _ = look(shelf, judged, shelf.now + SOON)
    assert found.stored.sets[-1].state == "good"


def test_new_sets_are_opened_by_and_by_once_all_were_read(shelf, judged):
    look(shelf, judged, everything=True)
    for hour in range(1, 2 * MORE + 1):
        identifier = shelf.add(20 + hour / 24, suffix="aaaaaaaa")
        shelf.age(20, f"harbor/{identifier}/")
    assert row(look(shelf, judged)[0]).unread == MORE
    assert row(look(shelf, judged)[0]).unread == 0


def test_what_was_judged_with_other_keys_counts_no_more(shelf, judged):
    look(shelf, judged, everything=True)
    stranger = Repository(shelf.store, trust_for_all(["A" * 43 + "="]))
    found = glance(stranger, shelf.cluster, shelf.now, judged)
    assert {each.state for each in found.stored.sets} == {"foreign"}
    assert row(found).state == "never"


def test_a_set_that_was_deleted_is_forgotten(shelf, judged):
    look(shelf, judged, everything=True)
    newest = shelf.ids()[-1]
    for name in shelf.names(f"harbor/{newest}/"):
        shelf.store.delete(name)
    found, _ = look(shelf, judged)
    assert row(found) == checked_row(shelf)


def test_a_set_that_goes_while_it_is_read_is_none(shelf, judged):
    newest = shelf.ids()[-1]

    class Going(Counting):
        def open(self, name):
            if newest in name:
                raise NotFound(name)
            return super().open(name)

    found = glance(Repository(Going(shelf.store), shelf.repository.trust), shelf.cluster, shelf.now, judged)
    assert row(found).newest_backup == shelf.identifier(1.1)


def test_a_removal_is_believed_when_its_signature_was_checked(shelf, judged):
    removed, forged, copied = shelf.identifier(45), shelf.identifier(46), shelf.identifier(47)
    shelf.bury(removed)
    write(shelf.store, f"harbor/removed/{forged}/20260101T000000.000000Z.json", b"{}")
    (signed,) = shelf.names(f"harbor/removed/{removed}/")
    write(shelf.store, f"harbor/removed/{copied}/{signed.rpartition('/')[2]}", read(shelf.store, signed))
    first = row(look(shelf, judged)[0])
    assert first.calendar[-48:-45] == "uuu", "nobody has looked yet"
    assert row(look(shelf, judged, everything=True)[0]).calendar[-48:-45] == "--r"
    assert looks_removed(look(shelf, judged)[0].stored, (), shelf.now + timedelta(days=400)) == []


@pytest.mark.parametrize("name", ["harbor/removed", "harbor/attempts", "harbor/20261101T020000Z-00000000", "harbor/x"])
def test_objects_with_the_names_of_folders_confuse_nothing(tmp_path, judged, name):
    """As a bucket can hold them."""
    shelf = Shelf(tmp_path, rehearse=False)
    write(shelf.store, name, b"{}")
    found, _ = look(shelf, judged)
    assert (found.stored.sets, found.stored.attempts, found.stored.removed, found.stored.unread) == ((), {}, {}, ())
    assert found.report == check_stored(shelf.repository, shelf.cluster, shelf.now).report


def test_of_a_copy_the_newest_that_was_read_back_counts(tmp_path, judged):
    copy = Shelf(tmp_path / "of-copy", **DAILY)
    shelf = Shelf(tmp_path, copies=[{"repository": "file:///copy"}], **DAILY)
    shelf.add(0.1, restorable="yes")
    for day in (20, 10, 0.1):
        identifier = copy.add(day)
        if day > 1:
            copy.repository.record_copy(copy.get(identifier), Copied(at=shelf.now, source="x", by="y"))
        copy.age(day, f"harbor/{identifier}/")
    store = Counting(copy.store)
    copies = {"file:///copy": lambda: Repository(store, copy.repository.trust)}
    found, _ = look(shelf, judged, copies=copies)
    assert found.report == check_stored(shelf.repository, shelf.cluster, shelf.now, copies={"file:///copy": lambda: copy.repository}).report  # fmt: skip
    assert "is 10 d 0 h old" in next(each.sentence for each in found.report.findings if each.topic == "copied")
    assert store.opened == [copy.identifier(10)]


def test_a_pin_changes_nothing_that_is_remembered_and_is_no_reason_to_forget(shelf, judged):
    look(shelf, judged, everything=True)
    pinned = shelf.ids()[2]
    shelf.repository.record_pin(shelf.get(pinned), Pin(pinned=True, reason="audit", by="alice"))
    found, opened = look(shelf, judged)
    assert opened == [pinned]
    assert replace(row(found), stored_bytes=0) == replace(checked_row(shelf), stored_bytes=0)
