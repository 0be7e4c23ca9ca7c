"""``index_recipients``: a key that opens the index of a backup and nothing else of it."""

from __future__ import annotations

import io
import logging

import pytest

from etcdkeep import naming
from etcdkeep.cli import common
from etcdkeep.config.loading import CONFIG_VARIABLE
from etcdkeep.errors import AccessDenied, IdentityMismatch
from etcdkeep.objects.index import open_index
from etcdkeep.sealing.age_keys import parse_identities
from etcdkeep.sealing.seal import unseal
from etcdkeep.sets.results import Index
from etcdkeep.verify.run import verify_set
from tests.builders import BACKUP_ID, age_pair, make_entry, make_file
from tests.object_snapshots import recorded_snapshot

SET = f"harbor/{BACKUP_ID}"
OURS = age_pair()[1]
INDEX_IDENTITY, INDEX_RECIPIENT = age_pair("index")


@pytest.fixture(scope="session")
def database():
    return recorded_snapshot()


@pytest.fixture
def backed_up(make_site):
    """A set whose cluster has a recipient for indexes; not verified yet."""
    site = make_site(index_recipients=[INDEX_RECIPIENT])
    site.backup()
    return site


def verify(site, **changes):
    """Verify as a cluster with these settings would, and return the recorded index."""
    found = site.repository.get("harbor", BACKUP_ID)
    record = verify_set(site.repository, site.cluster.model_copy(update=changes), found, site.identities())
    assert record.ok
    site.repository.record(found, record)
    return record.index


def opens(path, identity=INDEX_IDENTITY):
    """Whether an identity opens a sealed file."""
    try:
        unseal(io.BytesIO(path.read_bytes()), io.BytesIO(), parse_identities(identity), size_limit=2**24)
    except IdentityMismatch:
        return False
    return True


def index_file(site):
    return site.folder / "repository" / SET / naming.INDEX


def test_the_key_opens_the_index_and_no_artifact(backed_up):
    verify(backed_up)
    sealed = sorted((backed_up.folder / "repository").rglob("*.age"))
    names = {path.name for path in sealed}
    assert names >= {"etcd.db.zst.age", "control-plane.tar.zst.age", "access.tar.zst.age", naming.INDEX}
    assert [path.name for path in sealed if opens(path)] == [naming.INDEX]
    assert all(opens(path, age_pair()[0]) for path in sealed)


def test_no_artifact_names_the_key_and_the_index_does(backed_up):
    index = verify(backed_up)
    found = backed_up.repository.get("harbor", BACKUP_ID)
    assert {each.recipients for each in found.manifest.artifacts} == {(OURS,)}
    assert found.index.recipients == index.recipients == (OURS, INDEX_RECIPIENT)


def test_the_key_alone_reads_the_index_as_recorded(backed_up):
    index = verify(backed_up)
    plain = io.BytesIO()
    reader = open_index(backed_up.repository.store, SET, index, parse_identities(INDEX_IDENTITY), plain)
    assert ("Namespace", "shop") in {(entry.kind, entry.name) for entry in reader.entries()}
    with pytest.raises(IdentityMismatch):
        open_index(backed_up.repository.store, SET, index, parse_identities(age_pair("stranger")[0]), io.BytesIO())


def test_commands_that_need_the_index_alone_work_with_the_key_and_others_do_not(backed_up, run, monkeypatch, tmp_path):
    verify(backed_up)
    identity, config = tmp_path / "index-identity.txt", tmp_path / "clusters.yaml"
    identity.write_bytes(INDEX_IDENTITY)
    config.write_text(make_file(make_entry(repository=f"file://{tmp_path}/repository")))
    monkeypatch.setenv(CONFIG_VARIABLE, str(config))
    monkeypatch.setenv(common.IDENTITY_VARIABLE, str(identity))
    assert "namespace/shop" in run("list", "harbor", "-o", "name").out.splitlines()
    assert run("stats", "harbor").code == 0
    for command in (("get", "harbor", "ns", "shop"), ("list", "harbor", "-k", "secrets", "-o", "json")):
        answer = run(*command)
        assert (answer.code, answer.out) == (4, "")


def test_an_index_of_before_is_kept_until_a_recipient_is_added(backed_up):
    verify(backed_up, index_recipients=())
    path = index_file(backed_up)
    first = path.read_bytes()
    assert not opens(path)
    verify(backed_up, index_recipients=())
    assert path.read_bytes() == first
    verify(backed_up)
    assert opens(path)
    again = path.read_bytes()
    verify(backed_up)
    assert path.read_bytes() == again


def test_a_record_of_before_that_names_no_recipients_means_those_of_the_snapshot(backed_up):
    made = verify(backed_up, index_recipients=())
    found = backed_up.repository.get("harbor", BACKUP_ID)
    old = Index.model_validate(made.model_dump(exclude={"recipients"}))
    record = found.verifications[-1].model_copy(update={"index": old})
    backed_up.repository.record(found, record.model_copy(update={"at": record.at.replace(microsecond=1)}))
    first = index_file(backed_up).read_bytes()
    assert verify(backed_up, index_recipients=()).recipients == (OURS,)
    assert index_file(backed_up).read_bytes() == first


def test_a_recipient_that_was_removed_opens_the_index_no_more(backed_up):
    verify(backed_up)
    assert verify(backed_up, index_recipients=()).recipients == (OURS,)
    assert not opens(index_file(backed_up))


def test_an_index_that_may_not_be_replaced_stays_and_says_to_whom_it_is_sealed(backed_up, monkeypatch, caplog):
    verify(backed_up, index_recipients=())

    def refuse(self, name):
        raise AccessDenied(f"{name} may not be deleted")

    monkeypatch.setattr(type(backed_up.repository.store), "delete", refuse)
    with caplog.at_level(logging.WARNING):
        assert verify(backed_up).recipients == (OURS,)
    assert "stays sealed to the recipients of before" in caplog.text
    assert opens(index_file(backed_up), age_pair()[0])
