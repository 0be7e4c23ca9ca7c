"""What counts as a backup set, and as a good one."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from etcdkeep import naming
from etcdkeep.adapters.directory import DirectoryStore
from etcdkeep.errors import NotFound, ObjectDamaged, ObjectExists
from etcdkeep.repository import Drill
from etcdkeep.signature import load_signing_key
from etcdkeep.stored_documents import MAX_DOCUMENT_BYTES, read, write
from tests.builders import BACKUP_ID, NOW, make_manifest, make_repository, make_verification, signing_pair

PEM, PUBLIC = signing_pair()
ETCD_BAD = {"levels": ("stored", "sealed"), "problems": ("etcd.db.zst.age: a page is damaged",)}
STORED_BAD = {"levels": (), "complete": False, "problems": ("etcd.db.zst.age is not in the repository",)}
STORED_OK = {"levels": ("stored",), "complete": False}
DRILL = Drill(etcd_version="3.5.16", tool="etcdutl 3.5.16")
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


def test_a_signed_manifest_of_a_later_version_is_bad_here_and_says_so(repository):
    document = json.dumps({**json.loads(make_manifest().to_bytes()), "schema_version": 2}).encode()
    prefix = naming.set_prefix("harbor", BACKUP_ID)
    write(repository.store, prefix + naming.SIGNATURE, load_signing_key(PEM, [PUBLIC]).sign(document))
    write(repository.store, prefix + naming.MANIFEST, document)
    assert "is no manifest of schema_version 1" in repository.get("harbor", BACKUP_ID).problem


def test_an_unreadable_record_spoils_neither_its_set_nor_the_list(repository):
    publish(repository)
    sound = publish(repository, "20261124T000000Z-00000000")
    repository.record(sound, make_verification())
    write(repository.store, naming.verification_name("harbor", BACKUP_ID, NOW, "etcd"), b"{")
    first, second = repository.sets("harbor")
    assert (first.state, second.state) == ("unverified", "good")
    assert "is not a signed record" in first.refused[0].sentence


def test_a_document_larger_than_any_of_ours_is_refused(repository, tmp_path):
    publish(repository)
    file = tmp_path / "repository/harbor" / BACKUP_ID / naming.MANIFEST
    with file.open("r+b") as stream:
        stream.truncate(MAX_DOCUMENT_BYTES + 1)
    (found,) = repository.sets("harbor")
    assert "is larger than" in found.problem
    with pytest.raises(ObjectDamaged):
        read(repository.store, f"harbor/{BACKUP_ID}/{naming.MANIFEST}")


def test_a_document_is_written_once_and_the_same_again_is_success(repository):
    write(repository.store, "a/b", b"same")
    write(repository.store, "a/b", b"same")
    with pytest.raises(ObjectExists):
        write(repository.store, "a/b", b"other")
    assert read(repository.store, "a/b") == b"same"
