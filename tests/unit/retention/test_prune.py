"""Removing sets: what goes, what stays whatever happens, and what a second run finds after each fault of the first."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pytest

from etcdkeep import naming
from etcdkeep.approval.answers import AirflowRun
from etcdkeep.documents import read, write
from etcdkeep.errors import AccessDenied, ConfigError, RequestRefused
from etcdkeep.recover.record import PROPOSAL as RECOVERY_PROPOSAL
from etcdkeep.recover.record import RecoveryProposal
from etcdkeep.restore.form import Form
from etcdkeep.restore.proposal import RestoreProposal
from etcdkeep.restore.record import Outcome, RestoreRecord
from etcdkeep.retention.prune import Pruner
from etcdkeep.retention.tombstones import Tombstones
from etcdkeep.retention.turn import TURN_LASTS, turn
from etcdkeep.sets.pins import InUse, Pin
from tests.builders import make_repository
from tests.shelf import Shelf
from tests.tripwire import Tripwire

RULES = {"daily": 4, "min_good": 2, "max_remove_share": 1}


@pytest.fixture
def shelf(tmp_path):
    return Shelf(tmp_path, retention=RULES)


def pruner(shelf, store=None, **overrides):
    fields = {
        "repository": make_repository(store or shelf.store),
        "cluster": shelf.cluster,
        "open_spool": lambda: Shelf(shelf.folder / "spool").store,
        "by": "a test",
        "clock": lambda: shelf.now,
    }
    return Pruner(**{**fields, **overrides})


def fill(shelf, days=7):
    """Fill the shelf with a night a day, oldest first; return what the rules keep and what they do not."""
    identifiers = [shelf.add(day) for day in reversed(range(days))]
    return identifiers[-4:], identifiers[:-4]


def of_set(shelf, identifier):
    return shelf.names(naming.set_prefix("harbor", identifier))


# --- what goes and what stays --------------------------------------------------------------------------------------


def test_what_no_rule_keeps_is_removed_and_leaves_a_signed_tombstone(shelf):
    kept, removed = fill(shelf)
    before = shelf.get(removed[0])
    report = pruner(shelf).run()
    assert (report.removed, report.stayed, report.refused) == (removed, {}, ())
    assert shelf.ids() == kept
    for identifier in removed:
        assert of_set(shelf, identifier) == []
        (tombstone,) = Tombstones(shelf.repository.records, "harbor").of(identifier)
        body = tombstone.body
        assert (body.by, body.reason, set(body.floor)) == ("a test", "no rule keeps it", set(kept[-2:]))
    (tombstone,) = Tombstones(shelf.repository.records, "harbor").of(removed[0])
    assert tombstone.body.manifest.encode() == before.manifest_bytes
    assert not (shelf.folder / "repository/harbor" / removed[0]).exists(), "a directory keeps no empty folder"
    assert shelf.names("harbor/housekeeping/") == []


def test_a_second_run_removes_nothing(shelf):
    fill(shelf)
    pruner(shelf).run()
    before = shelf.names()
    report = pruner(shelf).run()
    assert (report.removed, report.finished, report.orphans) == ([], [], 0)
    assert shelf.names() == before


def test_a_dry_run_writes_nothing_and_says_the_same(shelf):
    _, removed = fill(shelf)
    before = shelf.names()
    store = Tripwire(shelf.store, only=("create", "delete", "purge"))
    report = pruner(shelf, store).dry_run()
    assert [each.found.backup_id for each in report.plan.removed] == removed
    assert (report.removed, store.seen, shelf.names()) == ([], [], before)


def test_a_cluster_without_retention_is_never_pruned(tmp_path):
    shelf = Shelf(tmp_path)
    fill(shelf)
    for prune in (pruner(shelf).run, pruner(shelf).dry_run):
        with pytest.raises(ConfigError, match="has no retention: nothing of it is ever removed"):
            prune()
    assert len(shelf.ids()) == 7


@pytest.mark.parametrize("damage", ["gone", "other-bytes"])
def test_nothing_is_removed_when_the_floor_is_not_what_was_verified(shelf, damage):
    kept, removed = fill(shelf)
    name = naming.set_prefix("harbor", kept[-1]) + naming.ETCD_ARTIFACT
    data = read(shelf.store, name)
    shelf.store.delete(name)
    if damage == "other-bytes":
        write(shelf.store, name, bytes(len(data)))
    report = pruner(shelf).run()
    if damage == "gone":  # seen in the listing already: it is bad, so that an older night counts
        assert report.removed == removed[:-1]
    else:
        assert "was read back and is bad" in report.refused[0]
        assert report.removed == []
        assert shelf.ids() == sorted([*kept, *removed])
        assert shelf.get(kept[-1]).state == "bad", "and that is recorded"
        with pytest.raises(RequestRefused, match="no backup of cluster 'harbor' was removed"):
            report.raise_if_refused("harbor")


def test_a_large_share_waits_for_a_person(tmp_path):
    shelf = Shelf(tmp_path, retention={**RULES, "max_remove_share": 0.25})
    _, removed = fill(shelf)
    report = pruner(shelf).run()
    assert report.removed == []
    assert "3 of 7 sets would be removed" in report.refused[0]
    assert len(shelf.ids()) == 7
    assert pruner(shelf).run(confirmed=True).removed == removed


@pytest.mark.parametrize("seconds", [-400, 400])
def test_clocks_that_differ_stop_everything(shelf, seconds):
    fill(shelf)
    before = shelf.names()
    report = pruner(shelf, clock=lambda: shelf.now + timedelta(seconds=seconds)).run()
    assert "the clocks of this worker and of the store of cluster 'harbor' differ by" in report.refused[0]
    assert shelf.names() == before


def test_a_slow_clock_is_seen_in_a_dry_run_too(shelf):
    fill(shelf)
    report = pruner(shelf, clock=lambda: shelf.now - timedelta(hours=1)).dry_run()
    assert "the clocks of this worker and of the store" in report.refused[0]


# --- what holds a set ------------------------------------------------------------------------------------------------


def test_a_pinned_set_stays_and_goes_when_it_is_unpinned(shelf):
    _, removed = fill(shelf)
    shelf.repository.record_pin(shelf.get(removed[0]), Pin(pinned=True, reason="golden"))
    assert pruner(shelf).run().removed == removed[1:]
    shelf.repository.record_pin(shelf.get(removed[0]), Pin(pinned=False, reason="no more"))
    assert pruner(shelf).run().removed == removed[:1]


@pytest.mark.parametrize("what", ["pin", "drill", "verification"])
def test_what_happens_to_a_set_after_the_plan_was_made_counts(shelf, what, monkeypatch):
    kept, removed = fill(shelf)
    found = shelf.get(removed[0])
    acts = {
        "pin": lambda: shelf.repository.record_pin(found, Pin(pinned=True, reason="golden")),
        "drill": lambda: shelf.repository.record_use(found, InUse(by="drill", until=shelf.now + timedelta(hours=1))),
        "verification": lambda: shelf.store.delete(f"harbor/{removed[0]}/{naming.ETCD_ARTIFACT}"),
    }
    made = pruner(shelf)
    read_back = Pruner._read_back
    done = []

    def act(self, *args):
        if not done:
            done.append(acts[what]())
        return read_back(self, *args)

    monkeypatch.setattr(Pruner, "_read_back", act)
    report = made.run()
    assert report.removed == removed[1:]
    assert "since the plan was made" in report.stayed[removed[0]]
    assert shelf.ids() == [removed[0], *kept]


def propose(shelf, identifier, restore="restore-1"):
    found = shelf.get(identifier)
    run = AirflowRun(airflow="a", dag_id="restore", run_id="r")
    record = RestoreRecord(shelf.repository.records, "harbor", restore)
    proposal = record.propose(
        RestoreProposal(run=run, backup_id=identifier, plan_sha256="", page_sha256="", requested_by="a", plan="{}", page="", form=Form(cluster="harbor", reason="x", confirm="harbor"), facts="[]", options="{}", manifest=found.manifest_bytes.decode())
    )  # fmt: skip
    return record, proposal


def test_the_set_of_an_open_restore_stays_until_that_is_over(shelf):
    _, removed = fill(shelf)
    record, proposal = propose(shelf, removed[1])
    record.begin(proposal)
    report = pruner(shelf).run()
    assert report.removed == [removed[0], removed[2]]
    later = shelf.now + timedelta(days=300)
    assert pruner(shelf, clock=lambda: later).dry_run().plan.removed == ()
    record.conclude(Outcome(kind="restored", at=shelf.now, words="done"))
    assert pruner(shelf).run().removed == [removed[1]]


def test_a_restore_that_was_proposed_holds_its_set_for_eight_days(shelf):
    _, removed = fill(shelf)
    propose(shelf, removed[0])
    assert pruner(shelf).run().removed == removed[1:]
    later = pruner(shelf, clock=lambda: shelf.now + timedelta(days=9)).dry_run()
    assert [each.found.backup_id for each in later.plan.removed] == removed[:1]


def test_a_begun_restore_whose_plan_is_gone_stops_everything(shelf):
    fill(shelf)
    record, proposal = propose(shelf, shelf.ids()[0])
    record.begin(proposal)
    shelf.store.delete(proposal.name)
    report = pruner(shelf).run()
    assert report.removed == []
    assert "restore-1 has begun, and its backup is unknown" in report.refused[0]


def test_the_set_of_a_recovery_stays(shelf):
    _, removed = fill(shelf)
    run = AirflowRun(airflow="a", dag_id="recover_objects", run_id="r")
    body = RecoveryProposal(run=run, backup_id=removed[0], plan_sha256="", page_sha256="", requested_by="a")
    shelf.repository.records.append(RECOVERY_PROPOSAL, "harbor/recoveries/r1/proposals/", "harbor", "r1", body)
    report = pruner(shelf).run()
    assert report.removed == removed[1:]
    assert next(each for each in report.plan.kept if each.found.backup_id == removed[0]).reasons == ("in use by recovery r1",)  # fmt: skip


def test_another_cluster_s_sets_are_not_touched(shelf):
    fill(shelf)
    write(shelf.store, f"harbor-2/{shelf.identifier(300)}/{naming.ETCD_ARTIFACT}", b"x")
    shelf.age(300, "harbor-2/")
    pruner(shelf).run()
    assert len(shelf.names("harbor-2/")) == 1


# --- stores that refuse ---------------------------------------------------------------------------------------------


class Locking(Tripwire):
    """Refuses to delete objects of the given sets; tells of locks in its listing only when `tells`."""

    def __init__(self, store, locked, *, until=None):
        super().__init__(store)
        self.locked, self.until = locked, until

    def _is(self, name):
        return any(each in name for each in self.locked)

    def delete(self, name):
        if self._is(name):
            raise AccessDenied(f"{name}: 403 retention policy not met.")
        super().delete(name)

    def list(self, prefix=""):
        for item in super().list(prefix):
            yield replace(item, locked_until=self.until) if self._is(item.name) else item


def test_a_locked_set_stays_whole_and_the_others_go(shelf):
    kept, removed = fill(shelf)
    store = Locking(shelf.store, removed[:1], until=shelf.now + timedelta(days=3))
    report = pruner(shelf, store).run()
    assert (report.removed, report.stayed) == (removed[1:], {})
    assert shelf.ids() == [removed[0], *kept]
    assert shelf.get(removed[0]).missing == ()


def test_a_set_that_the_store_keeps_without_saying_so_stays_whole(shelf):
    _, removed = fill(shelf)
    report = pruner(shelf, Locking(shelf.store, removed[:1])).run()
    assert report.removed == removed[1:]
    assert "the store refuses to delete it: " in report.stayed[removed[0]]
    assert shelf.get(removed[0]).state == "good"
    with pytest.raises(RequestRefused, match="were not removed"):
        report.raise_if_refused("harbor")
    assert pruner(shelf).run().removed == removed[:1], "and goes when the store lets it"
    assert len(Tombstones(shelf.repository.records, "harbor").of(removed[0])) == 1


def test_an_account_that_may_not_delete_writes_no_tombstone(shelf):
    kept, removed = fill(shelf)
    report = pruner(shelf, Locking(shelf.store, ["harbor"])).run()
    assert report.removed == []
    assert "this account may not delete objects" in report.refused[0]
    assert shelf.names(naming.removed_prefix("harbor")) == []
    assert shelf.ids() == [*removed, *kept]
    shelf.add(-0.01, suffix="11111111")  # a backup goes on
    assert len(shelf.ids()) == 8


def test_immutable_days_keep_a_set_and_are_renewed_for_the_floor_and_pins(tmp_path):
    shelf = Shelf(tmp_path, retention=RULES, immutable_days=5)
    kept, removed = fill(shelf, days=9)
    shelf.repository.record_pin(shelf.get(removed[0]), Pin(pinned=True, reason="golden"))
    protected = {}

    class Protecting(Tripwire):
        def protect(self, name, until):
            protected[name.split("/")[1]] = until
            return True

    made = pruner(shelf, Protecting(shelf.store))
    assert made.renew_locks() == []
    report = made.run()
    assert report.removed == [identifier for identifier in removed[1:] if identifier <= shelf.identifier(5)]
    assert protected == dict.fromkeys([removed[0], *kept[-2:]], shelf.now + timedelta(days=5))


# --- one at a time --------------------------------------------------------------------------------------------------


def test_two_housekeepings_of_one_cluster_do_not_run_at_once(shelf):
    fill(shelf)
    with turn(shelf.store, "harbor", "the other", shelf.now):
        with pytest.raises(RequestRefused, match="another housekeeping of cluster 'harbor' has run since"):
            pruner(shelf).run()
        assert len(shelf.names("harbor/housekeeping/")) == 1, "the refused one leaves nothing"
        assert len(shelf.ids()) == 7
    assert len(pruner(shelf).run().removed) == 3


def test_the_turn_of_a_dead_one_is_over_after_a_time_and_at_once_for_its_own_retry(shelf):
    write(
        shelf.store, "harbor/housekeeping/20260101T000000.000000Z-0000dead.json", json.dumps({"by": "run-1"}).encode()
    )
    fill(shelf)
    with pytest.raises(RequestRefused):
        pruner(shelf, by="run-2").run()
    with turn(shelf.store, "harbor", "run-1", shelf.now):
        pass
    shelf.age(TURN_LASTS.total_seconds() / 86400 + 0.01, "harbor/housekeeping/")
    assert len(pruner(shelf, by="run-2").run().removed) == 3


# --- orphans ---------------------------------------------------------------------------------------------------------


def test_orphans_go_after_a_time_and_nothing_that_is_not_ours(shelf):
    kept, _ = fill(shelf)
    half, young, strange = (shelf.identifier(day) for day in (40, 41, 42))
    spool = Shelf(shelf.folder / "spool").store
    for store, name in [
        (shelf.store, f"harbor/{half}/{naming.ETCD_ARTIFACT}"),
        (shelf.store, f"harbor/{half}/{naming.SIGNATURE}"),
        (shelf.store, "harbor/housekeeping/notes.txt"),
        (shelf.store, "harbor/housekeeping/20260101T000000.000000Z-0000dead.json"),
        (shelf.store, f"harbor/{strange}/notes.txt"),
        (shelf.store, f"harbor/{strange}/{naming.ETCD_ARTIFACT}"),
        (shelf.store, naming.attempt_name("harbor", half)),
        (shelf.store, naming.attempt_name("harbor", shelf.identifier(43))),
        (shelf.store, "harbor/attempts/README"),
        (shelf.store, "notes/readme.txt"),
        (spool, f"harbor/{half}/{naming.ETCD_ARTIFACT}"),
        (spool, f"harbor/{half}/{naming.ETCD_ARTIFACT}.json"),
    ]:
        write(store, name, b"x")
    shelf.age(15)
    Shelf(shelf.folder / "spool").age(15)
    write(shelf.store, f"harbor/{young}/{naming.ETCD_ARTIFACT}", b"x")
    assert pruner(shelf).dry_run().orphans == 7
    report = pruner(shelf).run()
    assert report.orphans == 7 + 3, "and the attempts of the sets that were removed"
    left = [name for name in shelf.names() if not any(each in name for each in (*kept, "removed/", "attempts/2"))]
    assert left == sorted(["harbor/attempts/README", "harbor/housekeeping/notes.txt", f"harbor/{young}/{naming.ETCD_ARTIFACT}", f"harbor/{strange}/notes.txt", "notes/readme.txt"])  # fmt: skip
    assert list(spool.list()) == []


def test_a_spool_that_is_the_repository_itself_is_not_swept_as_a_spool(shelf):
    kept, _ = fill(shelf)
    shelf.age(100)
    report = pruner(shelf, open_spool=lambda: shelf.store).run()
    assert shelf.ids() == kept
    assert [name for name in shelf.names() if "attempts" not in name and "removed" not in name]
    assert report.orphans == 3, "the attempts of the removed sets"


def test_a_backup_taken_anew_under_a_removed_id_is_not_finished_off(shelf):
    _, removed = fill(shelf)
    pruner(shelf).run()
    name = f"harbor/{removed[0]}/{naming.ETCD_ARTIFACT}"
    write(shelf.store, name, b"new bytes of a run that was cleared")
    assert pruner(shelf).run().finished == []
    assert read(shelf.store, name)
