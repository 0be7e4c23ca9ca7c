"""Copies as operators see them: what `replicate` does and fails with, and which repository drills and restores read."""

from __future__ import annotations

import json
import shutil

import pytest
from airflow.sdk import DAG

from etcdkeep import naming
from etcdkeep.adapters.stores.directory import DirectoryStore
from etcdkeep.errors import ConfigError, NeedsAttention, NotFound, TransientError
from etcdkeep_airflow.operators.drill import DrillOperator
from etcdkeep_airflow.operators.replicate import ReplicateOperator
from etcdkeep_airflow.operators.restore import ResolveBackupOperator
from tests.fake_site import FakeSite
from tests.shelf import Shelf


@pytest.fixture
def copy(tmp_path):
    return Shelf(tmp_path / "of-copy", DirectoryStore(tmp_path / "copy"))


@pytest.fixture
def shelf(tmp_path, copy, monkeypatch):
    made = Shelf(tmp_path, copies=[{"repository": copy.store.url}])
    for day in (1, 0):
        made.add(day)
    monkeypatch.setattr("etcdkeep_airflow.hooks.open_site", lambda name: FakeSite(tmp_path, made.cluster))
    return made


def task(kind, **fields):
    with DAG(dag_id="a_dag", schedule=None):
        return kind(task_id="a_task", cluster="harbor", **fields)


def replicate(context):
    return json.loads(json.dumps(task(ReplicateOperator).execute(context)))


def test_it_copies_what_is_missing_and_a_retry_finds_it_done(shelf, copy, make_context):
    answer = replicate(make_context())
    assert answer == {copy.store.url: {"copied": shelf.ids()[::-1], "healed": []}}
    assert copy.ids() == shelf.ids()
    assert copy.get(shelf.ids()[0]).copied.body.by == "a_dag scheduled__2026-11-23"
    assert replicate(make_context(try_number=2)) == {copy.store.url: {"copied": [], "healed": []}}


def test_a_copy_that_fails_fails_the_task_and_not_the_backup(shelf, copy, make_context):
    newest = shelf.ids()[-1]
    with copy.store.create(f"harbor/{newest}/{naming.MANIFEST}") as sink:
        sink.write(b"another")
    with pytest.raises(NeedsAttention, match=f"harbor/{newest} to {copy.store.url}"):
        replicate(make_context())
    assert shelf.get(newest).state == "good"
    assert shelf.ids()[0] in copy.ids(), "the other one is copied"


def test_passing_trouble_is_retried(shelf, copy, make_context, monkeypatch):
    from etcdkeep.errors import StoreUnavailable

    def down(self, *args, **kwargs):
        raise StoreUnavailable("no answer")

    monkeypatch.setattr("etcdkeep.copies.replicate.copy_set", down)
    with pytest.raises(TransientError):
        replicate(make_context())


def choose(site, context, **fields):
    operator = task(DrillOperator, **fields)
    operator.__dict__["site"] = site
    return operator._choose(context)


def test_a_drill_uses_a_copy_where_the_set_is_gone_and_says_so(shelf, copy, make_context, caplog):
    replicate(make_context())
    gone = shelf.ids()[0]
    shutil.rmtree(shelf.store.root / "harbor" / gone)
    site = FakeSite(shelf.folder, shelf.cluster)
    assert choose(site, make_context(), backup=gone).backup_id == gone
    assert site.repository.store.url == copy.store.url, "read, and recorded, there"
    site = FakeSite(shelf.folder, shelf.cluster)
    assert choose(site, make_context(), backup=shelf.ids()[0]).backup_id == shelf.ids()[0]
    assert site.repository.store.url == shelf.store.url


def restore_form(backup):
    form = {"cluster": "harbor", "confirm": "harbor", "reason": "a test", "what": "etcd", "backup": backup}
    return {"params": form}


def test_a_restore_reads_the_repository_of_its_form(shelf, copy, make_context):
    replicate(make_context())
    gone = shelf.ids()[0]
    shutil.rmtree(shelf.store.root / "harbor" / gone)
    with pytest.raises(NotFound, match=f"Copies of the backups are in {copy.store.url}: start again"):
        task(ResolveBackupOperator).execute(make_context(**restore_form(gone)))
    answer = task(ResolveBackupOperator, repository=copy.store.url).execute(make_context(**restore_form(gone)))
    assert answer["backup_id"] == gone


@pytest.mark.parametrize("kind", [DrillOperator, ResolveBackupOperator])
def test_the_repository_is_a_field_that_is_filled_in(kind):
    assert "repository" in kind.template_fields


def test_a_form_cannot_name_another_place(shelf, make_context, monkeypatch):
    from etcdkeep.site.credentials import FileCredentials
    from etcdkeep.site.site import Site

    monkeypatch.setattr("etcdkeep_airflow.hooks.open_site", lambda name: Site(shelf.cluster, FileCredentials()))
    with pytest.raises(ConfigError, match="is not a repository of cluster 'harbor'"):
        task(ResolveBackupOperator, repository="s3://theirs/x").execute(make_context(**restore_form("")))
