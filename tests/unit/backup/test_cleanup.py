"""Nothing of a run stays, however it ended."""

from __future__ import annotations

import pytest

from etcdkeep import naming
from etcdkeep.errors import SecretUnavailable, StoreUnavailable, StreamCut, TransientError, Unreachable
from tests.builders import BACKUP_ID


def test_after_a_good_run_only_the_set_stays(site):
    site.backup()
    assert site.leftovers() != []
    assert site.clean_up(site.discover()) > 0
    assert site.leftovers() == []
    assert len(list(site.repository.sets("harbor"))) == 1
    assert site.clean_up(site.discover()) == 0


@pytest.mark.parametrize("copy_out", ["exec", "node"])
def test_every_file_that_any_try_left_is_removed_and_no_other(make_site, copy_out):
    site = make_site(3, copy_out=copy_out)
    for member in site.members:
        member.files.update(dict.fromkeys(naming.pod_leftovers("/tmp", BACKUP_ID), b"x"))
        member.files["/tmp/etcdkeep-20261122T023000Z-00000000-snapshot-1.db"] = b"of another run"
    site.clean_up(site.discover())
    assert [list(member.files.values()) for member in site.members] == [[b"of another run"]] * 3


def test_an_unpublished_set_goes_and_a_published_one_stays(site):
    manifest = site.compose()
    with site.repository.store.create(naming.set_prefix("harbor", BACKUP_ID) + naming.ETCD_ARTIFACT) as stored:
        stored.write(b"half")
    site.clean_up(site.discover())
    assert site.leftovers() == []
    assert list(site.repository.sets("harbor")) == []
    assert manifest.backup_id == BACKUP_ID


def test_a_run_that_failed_before_it_knew_the_members_has_no_pod_to_clean(site):
    site.api_error = Unreachable("the API server is down")
    assert site.clean_up(None) == 0


def test_a_pod_that_is_gone_took_its_files_with_it(make_site, monkeypatch):
    site = make_site(2)
    discovery = site.discover()
    site.members[0].deleted = True
    site.save(discovery)
    site.clean_up(discovery)
    assert site.leftovers() == []


@pytest.mark.parametrize(
    "error", [StreamCut("cut"), Unreachable("503"), SecretUnavailable("no key")], ids=lambda error: type(error).__name__
)
def test_one_pod_that_cannot_be_cleaned_does_not_keep_the_others_from_it(make_site, error):
    site = make_site(3)
    discovery = site.discover()
    for member in site.members:
        member.files[naming.pod_snapshot("/tmp", BACKUP_ID, "snapshot", 1)] = b"x"
    site.kube.faults.add("etcd-cp-1: rm", error)
    with pytest.raises(
        TransientError, match=r"remove them by hand: pod kube-system/etcd-cp-1, /tmp/etcdkeep-"
    ) as caught:
        site.clean_up(discovery)
    assert str(error) in str(caught.value)
    assert [bool(member.files) for member in site.members] == [False, True, False]
    site.clean_up(discovery)
    assert site.leftovers() == []


@pytest.mark.parametrize("where", ["spool", "repository"])
def test_a_store_that_is_down_does_not_keep_the_pods_from_it(site, monkeypatch, where):
    discovery = site.discover()
    site.save(discovery)
    down = StoreUnavailable("the store answered 503")

    def purge(prefix):
        raise down

    spool, repository = site.spool(BACKUP_ID), site.repository
    monkeypatch.setattr((spool if where == "spool" else repository).store, "purge", purge)
    monkeypatch.setattr(site, "spool", lambda identifier: spool)
    monkeypatch.setattr(type(site), "repository", repository)
    with pytest.raises(TransientError, match="the store answered 503"):
        site.clean_up(discovery)
    assert site.members[0].files == {}
