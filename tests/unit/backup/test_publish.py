"""Publishing: whole or not at all, and never twice."""

from __future__ import annotations

import json
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest

from etcdkeep import naming
from etcdkeep.adapters.stores.directory import DirectoryStore
from etcdkeep.adapters.stores.opening import transfer
from etcdkeep.backup.publish import publish, record_attempt, remove_unpublished
from etcdkeep.documents import read
from etcdkeep.errors import AccessDenied, NotFound, ObjectDamaged, ObjectExists, StoreUnavailable
from tests.builders import BACKUP_ID, make_artifact, make_repository

PREFIX = naming.set_prefix("harbor", BACKUP_ID)
DOWN = StoreUnavailable("the store answered 503")


class Unreliable:
    """A store whose n-th changing call fails, before it does anything or after it was done."""

    def __init__(self, store, *, fail_at=0, after=False):
        self.store = store
        self.fail_at = fail_at
        self.after = after
        self.changes = 0

    def __getattr__(self, name):
        return getattr(self.store, name)

    def _change(self, act):
        self.changes += 1
        fails = self.changes == self.fail_at
        if fails and not self.after:
            raise DOWN
        act()
        if fails:
            raise DOWN

    def delete(self, name):
        self._change(lambda: self.store.delete(name))

    def copied(self, source, source_name, name):
        self._change(lambda: transfer(source, source_name, self.store, name))

    @contextmanager
    def create(self, name, *, content_type="application/octet-stream"):
        self.changes += 1
        if self.changes == self.fail_at and not self.after:
            raise DOWN
        with self.store.create(name, content_type=content_type) as stream:
            yield stream
        if self.changes == self.fail_at:
            raise DOWN


def publish_through(site, store, manifest):
    def move(source, source_name, target, target_name):
        target.copied(source, source_name, target_name)

    repository = make_repository(store)
    return publish(repository, site.spool(BACKUP_ID), move, manifest, site.signer())


def steps(site, manifest):
    """Return how many changing calls an undisturbed publication makes."""
    store = Unreliable(site.repository.store)
    publish_through(site, store, manifest)
    site.repository.store.purge(PREFIX)
    return store.changes


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_whatever_call_fails_the_set_is_whole_or_hidden_and_the_retry_makes_it_whole(site, after):
    manifest = site.compose()
    count = steps(site, manifest)
    assert count >= 3 + 2, "each artifact's copy, the signature, the manifest"
    for fail_at in range(1, count + 1):
        with pytest.raises(StoreUnavailable):
            publish_through(site, Unreliable(site.repository.store, fail_at=fail_at, after=after), manifest)
        shown = list(site.repository.sets("harbor"))
        assert all(found.manifest == manifest for found in shown)
        assert len(shown) == (1 if after and fail_at == count else 0), f"call {fail_at}"
        assert site.publish(manifest) == manifest
        assert [found.manifest for found in site.repository.sets("harbor")] == [manifest]
        site.repository.store.purge(PREFIX)


def test_a_run_that_is_cleared_and_taken_anew_leaves_the_published_set_as_it_is(site):
    first = site.backup()
    site.clean_up(site.discover())
    site.members[0].version = "3.5.17"
    second = site.publish(site.compose())
    assert second == first.manifest
    assert read(site.repository.store, PREFIX + naming.MANIFEST) == first.manifest_bytes


def test_other_bytes_of_an_earlier_try_are_replaced_before_the_manifest_is_there(site):
    manifest = site.compose()
    for name in (naming.ETCD_ARTIFACT, naming.SIGNATURE):
        with site.repository.store.create(PREFIX + name) as stored:
            stored.write(b"half of another try")
    assert site.publish(manifest) == manifest
    stored = site.repository.store.stat(PREFIX + naming.ETCD_ARTIFACT)
    assert stored.size_bytes == manifest.artifacts[0].stored.size_bytes


def test_an_artifact_that_changes_on_the_way_is_not_published(site):
    manifest = site.compose()
    wrong = make_artifact(stored={"size_bytes": 5, "sha256": "0" * 64, "crc32c": 0})
    with pytest.raises(ObjectDamaged, match="is not the artifact that was sealed"):
        site.publish(manifest.model_copy(update={"artifacts": (wrong,)}))
    assert list(site.repository.sets("harbor")) == []


def test_another_try_that_was_faster_with_an_artifact_is_no_harm(site):
    manifest = site.compose()

    def twice(*names):
        transfer(*names)
        raise ObjectExists("it is there already")

    published = publish(site.repository, site.spool(BACKUP_ID), twice, manifest, site.signer())
    assert published == manifest


def test_after_cleanup_the_spool_is_empty_and_the_error_says_what_to_clear(site):
    manifest = site.compose()
    site.spool(BACKUP_ID).purge()
    with pytest.raises(NotFound, match=r"cleanup has run\. Clear the whole run"):
        site.publish(manifest)


def test_a_published_set_that_is_not_ours_is_told(site):
    manifest = site.compose()
    with site.repository.store.create(PREFIX + naming.MANIFEST) as stored:
        stored.write(b"{}")
    with pytest.raises(ObjectDamaged, match=r"is published but not usable: .*signature"):
        site.publish(manifest)


def test_the_manifest_says_what_the_steps_found(site):
    manifest = site.compose()
    assert [artifact.kind for artifact in manifest.artifacts] == ["etcd", "control-plane", "access"]
    assert manifest.identity.ca_sha256
    assert {"kubernetes", "etcd", "etcdctl", "etcdkeep"} == set(manifest.versions)
    assert manifest.to_bytes() == site.compose().to_bytes()


def test_no_key_stands_in_the_manifest_or_unsealed_in_the_repository(site):
    site.backup()
    key = (site.folder / "kubernetes/pki/sa.key").read_bytes().splitlines()[1]
    for path in (site.folder / "repository").rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert key not in data
            assert b"CANARY" not in data
            assert b"/registry/configmaps" not in data


@pytest.mark.parametrize("can", [True, False])
def test_every_object_of_the_set_is_protected_where_the_store_can(make_site, monkeypatch, can, caplog):
    site = make_site(1, immutable_days=30)
    manifest = site.compose()
    protected = {}
    repository = site.repository

    def protect(name, until):
        protected[name.removeprefix(PREFIX)] = (until - manifest.taken_at).days
        return can

    monkeypatch.setattr(repository.store, "protect", protect)
    publish(repository, site.spool(BACKUP_ID), transfer, manifest, site.signer(), immutable_days=30)
    if can:
        names = [naming.MANIFEST, naming.SIGNATURE, *(artifact.name for artifact in manifest.artifacts)]
        assert protected == dict.fromkeys(names, 30)
    assert ("immutable_days has no effect there" in caplog.text) is not can


def test_an_attempt_is_recorded_once(site):
    store = site.repository.store
    for _ in range(2):
        record_attempt(store, "harbor", BACKUP_ID, "manual__1")
    (attempt,) = store.list("harbor/attempts/")
    assert json.loads(read(store, attempt.name))["run_id"] == "manual__1"
    assert list(site.repository.sets("harbor")) == []


def test_only_what_is_not_published_is_removed(site):
    store = site.repository.store
    with store.create(PREFIX + naming.ETCD_ARTIFACT) as stored:
        stored.write(b"half")
    assert remove_unpublished(store, "harbor", BACKUP_ID) == 1
    site.backup()
    assert remove_unpublished(store, "harbor", BACKUP_ID) == 0
    assert len(list(site.repository.sets("harbor"))) == 1


def test_a_clock_that_is_ahead_does_not_make_the_lock_longer(make_site, monkeypatch):
    """Nobody can shorten a lock: the store's clock bounds it."""
    site = make_site(1, immutable_days=30)
    made = site.compose()
    at = datetime.now(UTC) + timedelta(minutes=4)
    manifest = made.model_copy(update={"taken_at": at, "snapshot": made.snapshot.model_copy(update={"taken_at": at})})
    ends = []
    repository = site.repository
    monkeypatch.setattr(repository.store, "protect", lambda name, until: bool(ends.append(until)) or True)
    publish(repository, site.spool(BACKUP_ID), transfer, manifest, site.signer(), immutable_days=30)
    assert max(ends) <= datetime.now(UTC) + timedelta(days=30)


def test_an_account_without_the_right_to_delete_publishes_and_retries(make_site, monkeypatch):
    def refuse(self, name):
        raise AccessDenied("403 storage.objects.delete")

    delete = DirectoryStore.delete
    monkeypatch.setattr(DirectoryStore, "delete", refuse)
    monkeypatch.setattr(DirectoryStore, "purge", refuse)
    site = make_site(1)
    repository, manifest = site.repository, site.compose()
    for _ in range(2):
        assert publish(repository, site.spool(BACKUP_ID), transfer, manifest, site.signer()) == manifest
    delete(repository.store, PREFIX + naming.MANIFEST)  # as after an attempt that died before it
    assert publish(repository, site.spool(BACKUP_ID), transfer, manifest, site.signer()) == manifest
    assert remove_unpublished(repository.store, "harbor", BACKUP_ID) == 0
