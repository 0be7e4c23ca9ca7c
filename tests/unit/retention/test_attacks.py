"""
Somebody who can write to the repository and has no signing key: nothing makes retention remove the last good sets, and what
holds it up is said.
"""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier

import pytest

from etcdkeep import naming
from etcdkeep.backup.publish import record_attempt
from etcdkeep.documents import read, write
from etcdkeep.errors import AccessDenied, RequestRefused
from etcdkeep.freshness.check import check_cluster, check_stored
from etcdkeep.metrics.samples import samples_of
from etcdkeep.retention.prune import Pruner
from etcdkeep.retention.turn import TURN_LASTS, turn
from etcdkeep.sets.backup_set import ANY
from etcdkeep.sets.pins import Pin
from etcdkeep.sets.repository import MAX_SIGNATURE_BYTES
from tests.builders import make_repository
from tests.shelf import Shelf
from tests.tripwire import Killed, Tripwire
from tests.unit.retention.test_prune import fill, propose, pruner

RULES = {"daily": 4, "min_good": 2, "max_remove_share": 1}


@pytest.fixture
def shelf(tmp_path):
    return Shelf(tmp_path, retention=RULES, rehearse=False)


def delete_verifications(shelf, *identifiers):
    for identifier in identifiers:
        for name in shelf.names(f"harbor/{identifier}/verification/"):
            shelf.store.delete(name)


def findings(shelf, status):
    found = check_cluster(shelf.repository, shelf.cluster, shelf.now).findings
    return [f"{each.topic}: {each.sentence}" for each in found if each.status == status]


# --- the last good sets stay -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("left", [0, 1, 2])
def test_deleted_verifications_remove_no_set_of_another_day(shelf, left):
    nights = [shelf.add(day) for day in (23, 22, 21, 20)]
    delete_verifications(shelf, *nights[: len(nights) - left])
    assert pruner(shelf).run().removed == []
    assert shelf.ids() == nights


def test_with_only_old_ones_left_verified_the_new_ones_stay(shelf):
    kept, _ = fill(shelf)
    delete_verifications(shelf, *kept)
    pruner(shelf).run()
    assert set(kept) <= set(shelf.ids())


def test_forged_sets_take_no_place_and_make_no_large_share_small(tmp_path):
    shelf = Shelf(tmp_path, retention={**RULES, "max_remove_share": 0.25})
    kept, removed = fill(shelf)
    for number in range(40):
        write(shelf.store, f"harbor/{shelf.identifier(0, f'{number + 1:08}')}/{naming.MANIFEST}", b"{}")
    report = pruner(shelf).run()
    assert "3 of 7 sets would be removed" in report.refused[0]
    assert pruner(shelf).run(confirmed=True).removed == removed
    assert set(kept) < set(shelf.ids())


def test_a_set_copied_to_another_day_or_cluster_takes_no_place(shelf):
    kept, removed = fill(shelf)
    copy = shelf.identifier(-0.001, "99999999")
    for name in shelf.names(f"harbor/{removed[0]}/"):
        write(shelf.store, name.replace(removed[0], copy), read(shelf.store, name))
    report = pruner(shelf).run()
    assert report.removed == removed
    assert set(shelf.ids()) == {*kept, copy}
    assert any(finding.startswith("trust: ") for finding in findings(shelf, "WARNING"))


@pytest.mark.parametrize("days", [-400, -1, 1, 400])
def test_set_times_of_objects_remove_nothing_that_a_rule_keeps(shelf, days):
    kept, _ = fill(shelf)
    shelf.age(days)
    report = pruner(shelf).run()
    assert set(kept) <= set(shelf.ids())
    if days < 0:
        assert report.removed == []
        assert "if the clocks agree, somebody set its time" in report.refused[0]
        assert any("stored" in finding and "in the future" in finding for finding in findings(shelf, "UNKNOWN"))


def test_a_running_backup_with_old_file_times_is_not_swept(shelf):
    fill(shelf)
    running = f"harbor/{shelf.identifier(0, '77777777')}/{naming.ETCD_ARTIFACT}"
    write(shelf.store, running, b"x")
    shelf.age(100, running)
    pruner(shelf).run()
    assert read(shelf.store, running)


def test_a_set_whose_manifest_was_deleted_is_not_swept_and_is_reported(shelf):
    fill(shelf)
    lost = shelf.add(60)
    shelf.age(50, f"harbor/{lost}/")
    shelf.store.delete(f"harbor/{lost}/{naming.MANIFEST}")
    report = pruner(shelf).run()
    assert f"harbor/{lost}/{naming.ETCD_ARTIFACT}" in shelf.names()
    assert f"backup {lost} has lost its manifest" in report.attention[0]
    assert any(f"lost their manifest, such as {lost}" in finding for finding in findings(shelf, "WARNING"))


def test_what_is_left_of_a_removed_set_is_no_lost_one(shelf):
    fill(shelf)
    store = Tripwire(shelf.store, 3, only=("delete",))
    with pytest.raises(Killed):
        pruner(shelf, store).run()
    assert pruner(shelf).dry_run().attention == ()


@pytest.mark.parametrize("act", ["overwritten", "of-a-key-that-is-gone"])
def test_a_pin_that_is_not_believed_any_more_keeps_its_set_and_is_reported(shelf, act):
    _, removed = fill(shelf)
    shelf.repository.record_pin(shelf.get(removed[0]), Pin(pinned=True, reason="golden"))
    (name,) = shelf.names(f"harbor/{removed[0]}/pins/")
    document = json.loads(read(shelf.store, name))
    document["signature"] = document["signature"][::-1] if act == "overwritten" else "A" * 86 + "=="
    shelf.store.delete(name)
    write(shelf.store, name, json.dumps(document).encode())
    report = pruner(shelf).run()
    assert report.removed == removed[1:]
    assert report.attention == (
        f"backup {removed[0]} stays: {name} is not believed. Check who wrote it, then delete it.",
    )
    assert any(name in finding for finding in findings(shelf, "WARNING"))


def test_after_a_change_of_keys_old_sets_do_not_go_as_unverified(shelf):
    """Verifications of a key that is no longer trusted: the sets are unverified, and a person decides."""
    _, removed = fill(shelf)
    for name in shelf.names(f"harbor/{removed[0]}/verification/"):
        shelf.store.delete(name)
        write(shelf.store, name, b"{}")
    shelf.age(0.1)
    report = pruner(shelf, clock=lambda: shelf.now).run()
    assert removed[0] in shelf.ids()
    assert f"backup {removed[0]} stays" in report.attention[0]


# --- nothing is held up in silence -------------------------------------------------------------------------------


def test_a_forged_turn_holds_it_up_loudly_and_junk_in_its_folder_does_not(shelf):
    _, removed = fill(shelf)
    write(shelf.store, "harbor/housekeeping/junk.json", b"\xff")
    shelf.age(0.01, "harbor/housekeeping/")
    assert pruner(shelf).run().removed == removed
    name = "harbor/housekeeping/20260101T000000.000000Z-0000dead.json"
    write(shelf.store, name, b"{}")
    shelf.age(0.01, name)
    with pytest.raises(RequestRefused, match=f"delete {name}"):
        pruner(shelf).run()


@pytest.mark.parametrize("name", ["harbor/restores/x/begun.json", "harbor/restores/x/proposals/y.json"])
def test_a_forged_restore_removes_no_protection(shelf, name):
    _, removed = fill(shelf)
    write(shelf.store, name, b"{}")
    record, proposal = propose(shelf, removed[1], "restore-1")
    record.begin(proposal)
    report = pruner(shelf).run()
    assert removed[1] in shelf.ids()
    assert report.refused or report.removed == [removed[0], removed[2]]


# --- what happens while it runs -----------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["restore", "turn", "time"])
def test_what_begins_while_the_floor_is_read_back_counts(shelf, what, monkeypatch):
    _, removed = fill(shelf)
    read_back, made, late = Pruner._read_back, pruner(shelf), []
    other = "harbor/housekeeping/20260101T000000.000000Z-00000001.json"

    def act(self, *args):
        if what == "restore" and not late:
            propose(shelf, removed[1])
        if what == "turn" and not late:
            write(shelf.store, other, json.dumps({"by": "the other"}).encode())
            os.utime(shelf.folder / "repository" / other, (shelf.now.timestamp() - 60,) * 2)
        late.append(what)
        return read_back(self, *args)

    monkeypatch.setattr(Pruner, "_read_back", act)
    if what == "time":
        made = pruner(shelf, clock=lambda: shelf.now + (TURN_LASTS + timedelta(minutes=1) if late else timedelta(0)))
    report = made.run()
    if what == "restore":
        assert report.removed == [removed[0], removed[2]]
        assert "in use by restore-1 since the plan was made" in report.stayed[removed[1]]
    else:
        assert report.removed == []
        assert ("another housekeeping" if what == "turn" else "has run for more than 3:00:00") in report.refused[0]


def test_a_set_that_somebody_else_removed_meanwhile_is_no_failure(shelf, monkeypatch):
    _, removed = fill(shelf)
    read_back = Pruner._read_back
    monkeypatch.setattr(Pruner, "_read_back", lambda self, *args: (shelf.store.purge(f"harbor/{removed[0]}/") and None) or read_back(self, *args))  # fmt: skip
    report = pruner(shelf).run()
    assert report.stayed == {}
    report.raise_if_refused("harbor")


@pytest.mark.parametrize("names", [("one", "other"), ("one", "one")], ids=["two-runs", "a-run-and-its-own-retry"])
def test_two_at_once_remove_only_what_the_rules_do_not_keep(shelf, names):
    kept, removed = fill(shelf)
    start = Barrier(2)

    def work(by):
        start.wait()
        try:
            return pruner(shelf, by=by).run()
        except RequestRefused as err:
            return err

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(work, names))
    assert any(not isinstance(each, RequestRefused) and not each.refused for each in found)
    for each in shelf.repository.sets("harbor"):
        assert (each.state, each.missing) == ("good", ())
    pruner(shelf).run()
    assert shelf.ids() == kept
    assert not any(name for identifier in removed for name in shelf.names(f"harbor/{identifier}/"))
    assert shelf.names("harbor/housekeeping/") == []


# --- stores that keep what is written -----------------------------------------------------------------------------


class Keeping(Tripwire):
    """A bucket that locks whatever is written for some days, by when it was stored."""

    def __init__(self, store, shelf, days):
        super().__init__(store)
        self.shelf, self.days = shelf, timedelta(days=days)

    def _locked(self, item):
        until = item.updated_at + self.days
        return until if until > self.shelf.now else None

    def delete(self, name):
        item = self.store.stat(name)
        if item and self._locked(item):
            raise AccessDenied(f"{name}: 403 retention policy not met.")
        super().delete(name)

    def stat(self, name):
        found = super().stat(name)
        return found and type(found)(**{**vars(found), "locked_until": self._locked(found)})

    def list(self, prefix=""):
        for item in super().list(prefix):
            yield type(item)(**{**vars(item), "locked_until": self._locked(item)})


def test_a_bucket_s_own_retention_policy_works_too(shelf):
    kept, removed = fill(shelf)
    for days, identifier in zip(reversed(range(7)), (*removed, *kept), strict=True):
        shelf.age(days, f"harbor/{identifier}/")
    store = Keeping(shelf.store, shelf, 4.5)
    assert pruner(shelf, store).run().removed == removed[:2], "the youngest is locked"
    assert set(shelf.ids()) == {removed[2], *kept}
    assert pruner(shelf, store, by="somebody else").run().removed == [], "the first one's turn is over"


def test_a_younger_record_that_is_locked_keeps_its_set_whole(shelf):
    kept, removed = fill(shelf)
    for days, identifier in zip(reversed(range(7)), (*removed, *kept), strict=True):
        shelf.age(days, f"harbor/{identifier}/")
    shelf.repository.record_pin(shelf.get(removed[0]), Pin(pinned=False, reason="no more"))
    report = pruner(shelf, Keeping(shelf.store, shelf, 3.5)).run()
    assert removed[0] not in report.removed
    assert shelf.get(removed[0]).state == "good"


@pytest.mark.parametrize("kept_name", [naming.ETCD_ARTIFACT, naming.SIGNATURE, "verification/"])
def test_a_rest_that_cannot_go_yet_fails_nothing_and_goes_later(shelf, kept_name):
    kept, removed = fill(shelf)

    class Refusing(Tripwire):
        def delete(self, name):
            if f"{removed[0]}/{kept_name}" in name:
                raise AccessDenied("403")
            super().delete(name)

    for _ in range(2):
        report = pruner(shelf, Refusing(shelf.store)).run()
        assert (report.refused, report.stayed) == ((), {})
        assert shelf.ids() == kept
    assert shelf.names(f"harbor/{removed[0]}/")
    assert pruner(shelf).run().finished == removed[:1]
    assert shelf.names(f"harbor/{removed[0]}/") == []


def test_a_turn_that_cannot_be_deleted_is_over_all_the_same(shelf):
    class Refusing(Tripwire):
        def delete(self, name):
            raise AccessDenied("403")

    with turn(Refusing(shelf.store), "harbor", "one", shelf.now):
        pass
    assert len(shelf.names("harbor/housekeeping/")) == 2
    with turn(shelf.store, "harbor", "another", shelf.now) as held:
        held.check(shelf.now)


def test_a_cluster_of_another_name_is_not_asked_for(shelf):
    fill(shelf)
    store = Tripwire(shelf.store)
    Pruner(make_repository(store), shelf.cluster, lambda: shelf.store, "a test", lambda: shelf.now).dry_run()
    assert all(each.split(" ", 1)[1].startswith("harbor/") for each in store.seen)


# --- names of the future, and whoever may start a run -----------------------------------------------------------------


@pytest.mark.parametrize("year", [2099, 9999])
def test_a_name_of_the_future_hides_no_set_and_no_failed_run(shelf, year):
    night = shelf.add(1)
    junk = f"{year}1231T235959Z-00000000"
    write(shelf.store, f"harbor/{junk}/manifest.json", b"")
    write(shelf.store, f"harbor/attempts/{junk}.json", b"{}")
    record_attempt(shelf.store, "harbor", shelf.identifier(0.5), "scheduled__later")
    assert shelf.repository.newest("harbor", ANY).backup_id == night
    assert pruner(shelf).run().removed == []
    said = findings(shelf, "WARNING")
    assert any("1 run(s) since" in each for each in said)
    assert any(each.startswith("trust: ") for each in said) == (year == 2099)
    checked = check_stored(shelf.repository, shelf.cluster, shelf.now)
    begun = next(
        each.value for each in samples_of(checked) if each.metric.name == "etcdkeep_last_attempt_timestamp_seconds"
    )
    assert begun <= shelf.now.timestamp()


def test_sets_taken_by_hand_use_up_no_night_whatever_their_run_is_called(tmp_path):
    shelf = Shelf(tmp_path, retention={"keep_last": 3, "min_good": 1, "max_remove_share": 1}, rehearse=False)
    nights = [shelf.add(day) for day in (3, 2, 1)]
    for number in range(4):
        shelf.add(0.2 - number / 100, run={"run_id": f"x{number}", "by_hand": True}, suffix=f"0000000{number + 1}")
    pruner(shelf).run()
    assert set(nights) <= set(shelf.ids())


def test_a_signature_larger_than_any_is_not_read(shelf, monkeypatch):
    night, junk = shelf.add(1), shelf.identifier(0.5)
    write(shelf.store, f"harbor/{junk}/manifest.json", b"{}")
    write(shelf.store, f"harbor/{junk}/manifest.json.sig", bytes(MAX_SIGNATURE_BYTES + 1))
    assert [(each.backup_id, each.state, each.signature == b"") for each in shelf.repository.sets("harbor")] == [
        (night, "good", False),
        (junk, "unreadable", True),
    ]
