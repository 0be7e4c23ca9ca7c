"""What counts as a backup set, and as a good one."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta

import pytest

from etcdkeep import naming
from etcdkeep.adapters.stores.directory import DirectoryStore
from etcdkeep.documents import MAX_DOCUMENT_BYTES, read, write
from etcdkeep.errors import AccessDenied, NotFound, ObjectDamaged, ObjectExists, UnsafeName
from etcdkeep.sealing.signature import load_signing_key
from etcdkeep.sets.results import DrillResult
from tests.builders import BACKUP_ID, NOW, make_manifest, make_repository, make_verification, signing_pair

PEM, PUBLIC = signing_pair()
ETCD_BAD = {"levels": ("stored", "sealed"), "problems": ("etcd.db.zst.age: a page is damaged",)}
STORED_BAD = {"levels": (), "complete": False, "problems": ("etcd.db.zst.age is not in the repository",)}
STORED_OK = {"levels": ("stored",), "complete": False}
DRILL = DrillResult(etcd_version="3.5.16", tool="etcdutl 3.5.16")
DRILL_OK = {"levels": ("drill",), "complete": False, "drill": DRILL}
DRILL_BAD = {"levels": (), "complete": False, "problems": ("etcd did not start",), "drill": DRILL}
WHOLE = ("stored", "sealed", "etcd", "pki")
OK: dict[str, object] = {}


@pytest.fixture
def repository(tmp_path):
    return make_repository(DirectoryStore(tmp_path / "repository"))


def publish(repository, identifier=BACKUP_ID, cluster="harbor", key=PEM, public=PUBLIC, **overrides):
    """Publish a set's manifest and signature."""
    manifest = make_manifest(**{"cluster": cluster, "backup_id": identifier, **overrides})
    prefix = naming.set_prefix(cluster, identifier)
    data = manifest.to_bytes()
    write(repository.store, prefix + naming.SIGNATURE, load_signing_key(key, [public]).sign(data))
    write(repository.store, prefix + naming.MANIFEST, data)
    for artifact in manifest.artifacts:
        write(repository.store, prefix + artifact.name, bytes(artifact.stored.size_bytes))
    return repository.get(cluster, identifier)


def replace(repository, name, data):
    repository.store.delete(name)
    write(repository.store, name, data)


@pytest.mark.parametrize(
    ("records", "state", "levels"),
    [
        pytest.param([], "unverified", (), id="never-verified"),
        pytest.param([OK], "good", ("stored", "sealed", "etcd", "pki"), id="verified"),
        pytest.param([STORED_OK], "unverified", ("stored",), id="stored-only"),
        pytest.param([STORED_OK, OK], "good", ("stored", "sealed", "etcd", "pki"), id="stored-then-whole"),
        pytest.param([OK, STORED_OK], "good", ("stored", "sealed", "etcd", "pki"), id="whole-then-stored"),
        pytest.param([ETCD_BAD], "bad", ("stored", "sealed"), id="failed"),
        pytest.param([OK, STORED_BAD], "bad", (), id="good-then-lost"),
        pytest.param([ETCD_BAD, STORED_OK], "bad", ("stored", "sealed"), id="a-weaker-check-clears-nothing"),
        pytest.param([OK, STORED_BAD, STORED_OK], "bad", ("stored",), id="nor-after-a-good-one"),
        pytest.param([STORED_BAD, OK], "good", ("stored", "sealed", "etcd", "pki"), id="a-whole-check-clears"),
        pytest.param([OK, DRILL_OK], "good", ("stored", "sealed", "etcd", "pki", "drill"), id="drilled"),
        pytest.param([DRILL_OK], "unverified", ("drill",), id="drill-alone-is-not-whole"),
        pytest.param([OK, DRILL_BAD], "bad", WHOLE, id="drill-failed"),
        pytest.param([OK, DRILL_BAD, OK], "bad", WHOLE, id="a-verification-does-not-clear-a-failed-drill"),
        pytest.param([OK, DRILL_BAD, DRILL_OK], "good", (*WHOLE, "drill"), id="a-drill-does"),
        pytest.param([OK, STORED_BAD, DRILL_OK], "bad", ("drill",), id="a-drill-does-not-clear-a-failed-verification"),
    ],
)
def test_the_state_follows_from_the_records(repository, records, state, levels):
    found = publish(repository)
    for minute, record in enumerate(records):
        repository.record(found, make_verification(at=NOW + timedelta(minutes=minute), **record))
    found = repository.get("harbor", BACKUP_ID)
    assert (found.state, found.levels) == (state, levels)
    assert [list(record.levels) for record in found.verifications] == [
        list(make_verification(**record).levels) for record in records
    ]
    assert (repository.newest("harbor") is not None) == (state == "good")


@pytest.mark.parametrize(
    ("records", "problems"),
    [
        pytest.param([OK, DRILL_OK], (), id="none"),
        pytest.param([ETCD_BAD, STORED_OK], ETCD_BAD["problems"], id="of-the-verification-that-counts"),
        pytest.param([OK, DRILL_BAD, OK], DRILL_BAD["problems"], id="of-the-drill"),
        pytest.param([ETCD_BAD, DRILL_BAD], (*ETCD_BAD["problems"], *DRILL_BAD["problems"]), id="of-both"),
    ],
)
def test_what_makes_a_set_bad_is_told(repository, records, problems):
    found = publish(repository)
    for minute, record in enumerate(records):
        repository.record(found, make_verification(at=NOW + timedelta(minutes=minute), **record))
    assert repository.get("harbor", BACKUP_ID).problems == problems


def test_sets_come_oldest_first_and_only_the_cluster_s_own(repository):
    late, early = "20261125T000000Z-00000000", "20261124T000000Z-ffffffff"
    for identifier in (late, early):
        publish(repository, identifier)
    publish(repository, cluster="harbor-2")
    assert [found.backup_id for found in repository.sets("harbor")] == [early, late]
    newest = repository.newest("harbor", ("unverified",))
    assert newest is not None
    assert newest.name == f"harbor/{late}"
    assert repository.newest("nobody") is None


def test_a_partial_set_shows_nowhere(repository):
    prefix = naming.set_prefix("harbor", BACKUP_ID)
    for name in (naming.ETCD_ARTIFACT, naming.SIGNATURE, "verification/x-etcd.json"):
        write(repository.store, prefix + name, b"{}")
    write(repository.store, naming.attempt_name("harbor", BACKUP_ID), b"{}")
    write(repository.store, "harbor/20260231T000000Z-00000000/manifest.json", b"{}")
    write(repository.store, "harbor/notes/manifest.json", b"{}")
    assert list(repository.sets("harbor")) == []
    with pytest.raises(NotFound, match="no backup harbor/"):
        repository.get("harbor", BACKUP_ID)


def test_a_set_that_vanishes_while_it_is_listed_is_left_out(repository, monkeypatch):
    publish(repository)
    listed = list(repository.store.list("harbor/"))
    monkeypatch.setattr(repository.store, "list", lambda prefix: iter(listed))
    repository.store.purge("harbor")
    assert list(repository.sets("harbor")) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param(lambda data: data.replace(b'"revision": 23', b'"revision": 24'), "the signature is of none", id="altered"),
        pytest.param(lambda data: data[:-2], "the signature is of none", id="cut"),
        pytest.param(lambda data: b"", "the signature is of none", id="emptied"),
    ],
)  # fmt: skip
def test_an_altered_manifest_makes_the_set_bad_whatever_was_verified(repository, change, said):
    found = publish(repository)
    repository.record(found, make_verification())
    name = naming.set_prefix("harbor", BACKUP_ID) + naming.MANIFEST
    replace(repository, name, change(read(repository.store, name)))
    (found,) = repository.sets("harbor")
    assert found.state == "foreign"
    assert found.manifest is None
    assert said in found.problem
    assert repository.newest("harbor") is None


def test_a_set_without_a_signature_or_of_another_signer_has_its_own_word(repository):
    repository.store.delete(publish(repository).name + "/" + naming.SIGNATURE)
    assert repository.get("harbor", BACKUP_ID).state == "unsigned"
    other_pem, other = signing_pair("other")
    assert publish(repository, "20261124T000000Z-00000000", key=other_pem, public=other).state == "foreign"


def test_a_set_from_the_future_has_its_own_word_and_is_not_the_newest(repository):
    sound = publish(repository)
    repository.record(sound, make_verification())
    later = datetime.now(UTC) + timedelta(hours=1)
    future = publish(repository, "20991124T000000Z-00000000", taken_at=later)
    assert (future.state, future.manifest) == ("future", None)
    newest = repository.newest("harbor")
    assert newest is not None
    assert newest.name == sound.name


def test_the_newest_is_what_was_taken_last_whatever_its_name(repository):
    old = publish(repository, "20261125T000000Z-00000000", taken_at=NOW - timedelta(days=2))
    new = publish(repository, "20261122T000000Z-ffffffff", taken_at=NOW)
    for found in (old, new):
        repository.record(found, make_verification())
    assert [found.name for found in repository.sets("harbor")] == [old.name, new.name]
    newest = repository.newest("harbor")
    assert newest is not None
    assert newest.name == new.name


@pytest.mark.parametrize(
    ("size", "said"),
    [
        pytest.param(None, "etcd.db.zst.age is not in the repository", id="missing"),
        pytest.param(7, "etcd.db.zst.age has 7 bytes in the repository, the manifest says 4096", id="cut"),
    ],
)
def test_a_good_set_that_is_not_complete_any_more_is_bad(repository, size, said):
    repository.record(publish(repository), make_verification())
    name = f"harbor/{BACKUP_ID}/{naming.ETCD_ARTIFACT}"
    repository.store.delete(name)
    if size is not None:
        write(repository.store, name, bytes(size))
    found = repository.get("harbor", BACKUP_ID)
    assert (found.state, found.problems) == ("bad", (said,))
    assert repository.newest("harbor") is None


def test_a_verification_without_a_signature_counts_as_nothing_and_is_told(repository):
    found = publish(repository)
    name = naming.verification_name("harbor", BACKUP_ID, NOW, "pki")
    write(repository.store, name, make_verification().model_dump_json().encode())
    found = repository.get("harbor", BACKUP_ID)
    assert (found.state, found.verifications) == ("unverified", ())
    assert [(each.name, each.word) for each in found.refused] == [(name, "unsigned")]


def test_a_set_under_another_name_is_not_believed(repository):
    publish(repository)
    moved = "20261124T000000Z-00000000"
    for name in (naming.MANIFEST, naming.SIGNATURE):
        repository.store.copy(f"harbor/{BACKUP_ID}/{name}", f"harbor/{moved}/{name}")
        repository.store.copy(f"harbor/{BACKUP_ID}/{name}", f"skiff/{BACKUP_ID}/{name}")
    for cluster, identifier in (("harbor", moved), ("skiff", BACKUP_ID)):
        found = repository.get(cluster, identifier)
        assert (found.state, found.manifest) == ("moved", None)
        assert f"is the manifest of harbor/{BACKUP_ID}: the set was moved" in found.problem


def test_a_signed_manifest_of_a_later_version_is_unreadable_here_and_says_so(repository):
    document = json.dumps({**json.loads(make_manifest().to_bytes()), "schema_version": 2}).encode()
    prefix = naming.set_prefix("harbor", BACKUP_ID)
    write(repository.store, prefix + naming.SIGNATURE, load_signing_key(PEM, [PUBLIC]).sign(document))
    write(repository.store, prefix + naming.MANIFEST, document)
    assert "is not a manifest of schema_version 1" in repository.get("harbor", BACKUP_ID).problem


def test_an_unreadable_record_spoils_neither_its_set_nor_the_list(repository):
    publish(repository)
    sound = publish(repository, "20261124T000000Z-00000000")
    repository.record(sound, make_verification())
    write(repository.store, naming.verification_name("harbor", BACKUP_ID, NOW, "etcd"), b"{")
    first, second = repository.sets("harbor")
    assert (first.state, second.state) == ("unverified", "good")
    assert "is not a signed record" in first.refused[0].sentence


@pytest.mark.parametrize("error", [AccessDenied, UnsafeName])
def test_a_manifest_that_may_not_be_read_spoils_its_set_alone(repository, monkeypatch, error):
    publish(repository)
    repository.record(publish(repository, "20261124T000000Z-00000000"), make_verification())
    denied, opened = naming.set_prefix("harbor", BACKUP_ID) + naming.MANIFEST, repository.store.open

    def refusing(name):
        if name == denied:
            raise error(f"{name}: 403, the object's own rules.")
        return opened(name)

    monkeypatch.setattr(repository.store, "open", refusing)
    first, second = repository.sets("harbor")
    assert (first.state, second.state) == ("unreadable", "good")
    assert f"{denied}: 403" in first.problem
    assert repository.newest("harbor").backup_id == second.backup_id


def test_a_document_larger_than_any_of_ours_is_refused(repository, tmp_path):
    publish(repository)
    file = tmp_path / "repository/harbor" / BACKUP_ID / naming.MANIFEST
    with file.open("r+b") as stream:
        stream.truncate(MAX_DOCUMENT_BYTES + 1)
    (found,) = repository.sets("harbor")
    assert "was not read" in found.problem
    with pytest.raises(ObjectDamaged):
        read(repository.store, f"harbor/{BACKUP_ID}/{naming.MANIFEST}")


def test_a_document_is_written_once_and_the_same_again_is_success(repository):
    write(repository.store, "a/b", b"same")
    write(repository.store, "a/b", b"same")
    with pytest.raises(ObjectExists):
        write(repository.store, "a/b", b"other")
    assert read(repository.store, "a/b") == b"same"


class CountingStore(DirectoryStore):
    """Counts which sets are opened."""

    def __init__(self, root):
        super().__init__(root)
        self.opened = set()

    def open(self, name):
        self.opened.add(name.split("/")[1])
        return super().open(name)


@pytest.fixture
def nights(tmp_path):
    """Two hundred good sets, a night apart, each stored ten minutes after it was taken."""
    store = CountingStore(tmp_path / "repository")
    repository = make_repository(store)
    for night in range(200):
        at = NOW - timedelta(days=night)
        identifier = f"{at:%Y%m%dT%H%M%SZ}-00000000"
        found = publish(repository, identifier, taken_at=at)
        repository.record(found, make_verification(at=at))
        stored_at(store, identifier, at + timedelta(minutes=10))
    store.opened.clear()
    return repository


def stored_at(store, identifier, at):
    path = store.root / naming.set_prefix("harbor", identifier) / naming.MANIFEST
    os.utime(path, (at.timestamp(), at.timestamp()))


def test_the_newest_is_found_by_opening_few(nights):
    assert nights.newest("harbor").taken_at == NOW
    assert len(nights.store.opened) <= 3


def test_of_the_newest_as_many_are_opened_as_are_looked_at(nights):
    first = nights.get("harbor", f"{NOW:%Y%m%dT%H%M%SZ}-00000000")
    nights.record(first, make_verification(at=NOW + timedelta(hours=1), **ETCD_BAD))
    nights.store.opened.clear()
    assert nights.newest("harbor").taken_at == NOW - timedelta(days=1)
    assert len(nights.store.opened) <= 3


def test_from_newest_is_the_order_of_sets_from_its_end(nights):
    assert [found.name for found in nights.from_newest("harbor")] == [found.name for found in nights.sets("harbor")][
        ::-1
    ]


def test_a_run_that_was_cleared_a_week_later_took_the_newest_set(nights):
    old = NOW - timedelta(days=7)
    identifier = f"{old:%Y%m%dT%H%M%SZ}-11111111"
    found = publish(nights, identifier, taken_at=NOW + timedelta(hours=2))
    nights.record(found, make_verification(at=NOW + timedelta(hours=3)))
    stored_at(nights.store, identifier, NOW + timedelta(hours=3))
    assert nights.newest("harbor").backup_id == identifier


@pytest.mark.parametrize("days", [-3000, 3000])
def test_times_of_files_that_were_all_set_alike_change_nothing_but_the_effort(nights, days):
    for found in nights.sets("harbor"):
        stored_at(nights.store, found.backup_id, NOW + timedelta(days=days))
    assert nights.newest("harbor").taken_at == NOW


def test_sets_are_read_without_keeping_them(nights):
    found = nights.each_set("harbor")
    assert next(found).backup_id == f"{NOW - timedelta(days=199):%Y%m%dT%H%M%SZ}-00000000"
    assert len(nights.store.opened) < 200
