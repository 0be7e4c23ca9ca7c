"""Copying sets into other repositories: what is copied when, and what a second run finds after each fault of the first."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from datetime import timedelta
from itertools import count

import pytest

from etcdkeep import naming
from etcdkeep.adapters.stores.directory import DirectoryStore
from etcdkeep.adapters.stores.opening import duplicate
from etcdkeep.copies.replicate import Replicator, raise_if_failed
from etcdkeep.errors import AccessDenied, NeedsAttention, ObjectDamaged, ObjectExists, StoreUnavailable
from etcdkeep.retention.prune import Pruner
from etcdkeep.sets.pins import Pin
from tests.builders import make_repository, make_verification
from tests.shelf import Shelf
from tests.tripwire import Killed, Tripwire

TICKS = count()
"""No two acts are at one moment."""


@pytest.fixture
def shelf(tmp_path):
    return Shelf(tmp_path, copies=[{"repository": f"file://{tmp_path}/copy"}])


@pytest.fixture
def copy(tmp_path):
    """The copy as another shelf: its store, and what is listed there."""
    return Shelf(tmp_path / "of-copy", DirectoryStore(tmp_path / "copy"))


def replicate(shelf, copy, store=None, source=None, *, dry_run=False, **settings):
    cluster = shelf.cluster.model_copy(update=settings)
    replicator = Replicator(
        make_repository(source or shelf.store),
        cluster,
        duplicate,
        "a test",
        lambda: shelf.now + timedelta(milliseconds=next(TICKS)),
    )
    [report] = replicator.run({cluster.copies[0].repository: lambda: make_repository(store or copy.store)}, dry_run=dry_run)  # fmt: skip
    return report


def whole(shelf, copy, identifier):
    """Say whether a listed copy has the bytes, the state and the levels of its set."""
    original, there = shelf.get(identifier), copy.get(identifier)
    same = all(read(copy.store, name) == read(shelf.store, name) for name in objects_of(shelf, identifier))
    return same and (there.state, there.levels) == (original.state, original.levels)


def objects_of(shelf, identifier):
    prefix = naming.set_prefix("harbor", identifier)
    names = (naming.MANIFEST, naming.SIGNATURE, *(each.name for each in shelf.get(identifier).manifest.artifacts))
    return [prefix + name for name in names]


def read(store, name):
    with store.open(name) as stream:
        return stream.read()


# --- what is copied ------------------------------------------------------------------------------------------------


def test_every_verified_set_is_copied_and_is_good_there(shelf, copy):
    identifiers = [shelf.add(day, restorable="yes", drilled=True) for day in (2, 1, 0)]
    report = replicate(shelf, copy)
    assert report.copied == identifiers[::-1], "the newest first"
    assert copy.ids() == identifiers
    assert all(whole(shelf, copy, each) for each in identifiers)
    there = copy.get(identifiers[0])
    assert (there.restorable, there.refused) == ("yes", ())
    assert (there.copied.body.source, there.copied.body.by) == (shelf.store.url, "a test")
    assert shelf.get(identifiers[0]).copied is None


def test_a_second_run_has_nothing_to_do(shelf, copy):
    shelf.add(0)
    replicate(shelf, copy)
    before = copy.names()
    report = replicate(shelf, copy)
    assert (report.copied, report.healed, report.present) == ([], [], 1)
    assert copy.names() == before


def test_a_dry_run_says_what_and_writes_nothing(shelf, copy):
    identifier = shelf.add(0)
    report = replicate(shelf, copy, dry_run=True)
    assert report.copied == [identifier]
    assert copy.names() == []


@pytest.mark.parametrize("state", ["bad", "unverified"])
def test_what_is_not_known_to_be_good_is_not_copied(shelf, copy, state):
    shelf.add(0, state)
    assert replicate(shelf, copy).copied == []
    assert copy.ids() == []


def test_a_set_that_nobody_here_can_open_is_copied_when_its_bytes_were_compared(shelf, copy):
    identifier = shelf.add(0, "unverified")
    shelf.repository.record(shelf.get(identifier), make_verification(levels=("stored",), complete=False))
    assert replicate(shelf, copy).copied == [identifier]
    assert copy.get(identifier).state == "unverified"


def test_what_retention_removed_there_stays_removed(shelf, copy):
    kept = [shelf.add(day) for day in (5, 4, 3, 2, 1, 0)]
    replicate(shelf, copy)
    rules = {"daily": 2, "min_good": 1, "max_remove_share": 1}
    at_copy = Shelf(shelf.folder, copies=[{"repository": copy.store.url, "retention": rules}])
    cluster = at_copy.cluster.at_copy(at_copy.cluster.copies[0])
    pruned = Pruner(
        copy.repository, cluster, lambda: Shelf(shelf.folder / "spool").store, "a test", lambda: shelf.now
    ).run()
    assert len(pruned.removed) == 4
    report = replicate(shelf, copy)
    assert (report.copied, report.removed_there) == ([], 4)
    assert copy.ids() == kept[-2:]
    assert not [name for name in copy.names() if kept[0] in name and "removed/" not in name], "nothing is left of it"


def test_pins_come_along_later_too(shelf, copy):
    identifier = shelf.add(0)
    replicate(shelf, copy)
    shelf.repository.record_pin(shelf.get(identifier), Pin(pinned=True, reason="for an audit", by="alice"))
    replicate(shelf, copy)
    assert copy.get(identifier).pinned(shelf.now) == shelf.get(identifier).pinned(shelf.now) is not None


def test_a_copy_is_judged_by_its_own_verifications_once_it_is_made(shelf, copy):
    """Else a later `good` of the first repository would hide that the copy's bytes have rotted."""
    identifier = shelf.add(0)
    replicate(shelf, copy)
    copy.repository.record(copy.get(identifier), make_verification(levels=("stored",), problems=("a page is damaged",)))
    shelf.repository.record(shelf.get(identifier), make_verification())
    replicate(shelf, copy)
    assert copy.get(identifier).state == "bad"


def test_its_locks(shelf, copy):
    class Locking(DirectoryStore):
        locked: dict = {}  # noqa: RUF012

        def protect(self, name, until):
            self.locked[name] = until
            return True

    identifier = shelf.add(0)
    store = Locking(copy.store.root)
    replicate(shelf, copy, store, immutable_days=30)
    assert set(Locking.locked) == set(objects_of(shelf, identifier))
    assert set(Locking.locked.values()) == {shelf.get(identifier).taken_at + timedelta(days=30)}


# --- healing -------------------------------------------------------------------------------------------------------


def test_a_lost_artifact_of_a_copy_is_brought_back(shelf, copy):
    identifier = shelf.add(0)
    replicate(shelf, copy)
    copy.store.delete(f"harbor/{identifier}/{naming.ETCD_ARTIFACT}")
    assert copy.get(identifier).state == "bad"
    assert replicate(shelf, copy).healed == [identifier]
    assert whole(shelf, copy, identifier)


def test_rotten_bytes_of_a_copy_are_replaced_when_a_verification_found_them(shelf, copy):
    identifier = shelf.add(0)
    replicate(shelf, copy)
    name = f"harbor/{identifier}/{naming.ETCD_ARTIFACT}"
    (copy.store.root / name).write_bytes(b"SEALED database")
    copy.repository.record(copy.get(identifier), make_verification(levels=(), problems=("other bytes",)))
    assert replicate(shelf, copy).healed == [identifier]
    assert read(copy.store, name) == read(shelf.store, name)
    assert copy.get(identifier).state == "bad", "until a verification has opened it"
    assert replicate(shelf, copy).healed == [], "its bytes were compared since"
    copy.repository.record(copy.get(identifier), make_verification())
    assert copy.get(identifier).state == "good"


def test_another_set_under_this_id_is_not_mixed_with_ours(shelf, copy):
    identifier = shelf.add(0)
    name = f"harbor/{identifier}/{naming.MANIFEST}"
    with copy.store.create(name) as sink:
        sink.write(b"something else")
    report = replicate(shelf, copy)
    assert isinstance(report.failed[identifier], ObjectExists)
    assert read(copy.store, name) == b"something else"
    with pytest.raises(NeedsAttention, match="themselves are unchanged"):
        raise_if_failed("harbor", [report])


def test_damaged_bytes_are_never_published(shelf, copy):
    """Of the same length, so that only reading back can tell."""
    identifier = shelf.add(0)
    (shelf.store.root / f"harbor/{identifier}/{naming.ETCD_ARTIFACT}").write_bytes(b"SEALED database")
    report = replicate(shelf, copy)
    assert isinstance(report.failed[identifier], ObjectDamaged)
    assert copy.ids() == []
    assert copy.names() == []


def test_one_copy_that_fails_keeps_no_other_from_being_made(shelf, copy, tmp_path):
    identifier = shelf.add(0)
    two = [{"repository": f"file://{tmp_path}/lost"}, {"repository": f"file://{tmp_path}/copy"}]
    cluster = Shelf(tmp_path, copies=two).cluster

    def lost():
        raise StoreUnavailable("no answer")

    replicator = Replicator(shelf.repository, cluster, duplicate, "a test", lambda: shelf.now)
    reports = replicator.run({two[0]["repository"]: lost, two[1]["repository"]: lambda: copy.repository})
    assert copy.ids() == [identifier]
    with pytest.raises(StoreUnavailable, match=r"harbor to file:///.*/lost: no answer"):
        raise_if_failed("harbor", reports)


# --- every step fails, or the process dies at it -----------------------------------------------------------------


def listed_is_whole(shelf, copy):
    for identifier in copy.ids():
        assert whole(shelf, copy, identifier)


FAULTS = [
    pytest.param(Killed, id="killed"),
    pytest.param(lambda: StoreUnavailable("no answer"), id="passing"),
    pytest.param(lambda: AccessDenied("403"), id="refused"),
]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("error", FAULTS)
@pytest.mark.parametrize("side", ["source", "store"])
def test_a_fault_at_every_step_leaves_nothing_half_and_a_second_run_finishes(tmp_path, side, error, after):
    for step in range(1, 200):
        folder = tmp_path / str(step)
        shelf = Shelf(folder, copies=[{"repository": f"file://{folder}/copy"}])
        copy = Shelf(folder / "of-copy", DirectoryStore(folder / "copy"))
        identifier = shelf.add(0, restorable="yes")
        wire = Tripwire(shelf.store if side == "source" else copy.store, step, error, after=after)
        with suppress(Killed, StoreUnavailable, AccessDenied):
            replicate(shelf, copy, **{side: wire})
        listed_is_whole(shelf, copy)
        if len(wire.seen) < step:
            assert step > 10
            return
        report = replicate(shelf, copy)
        assert report.failed == {}
        assert copy.ids() == [identifier]
        assert whole(shelf, copy, identifier)
        assert copy.get(identifier).copied is not None
        assert replicate(shelf, copy).present == 1
    pytest.fail("there was no end to the steps")


@pytest.mark.parametrize("nth", range(1, 7))
def test_a_process_that_is_killed(shelf, copy, nth):
    """SIGKILL at the nth object that is written: the next process finishes."""

    class Deadly(DirectoryStore):
        left = nth

        def create(self, name, **kwargs):
            Deadly.left -= 1
            if not Deadly.left:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().create(name, **kwargs)

    identifier = shelf.add(0)
    child = os.fork()
    if not child:
        replicate(shelf, copy, Deadly(copy.store.root))
        os._exit(0)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    listed_is_whole(shelf, copy)
    replicate(shelf, copy)
    assert copy.ids() == [identifier]
    assert whole(shelf, copy, identifier)
