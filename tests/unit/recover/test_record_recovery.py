"""The record of a recovery in the repository, and the form that it starts with."""

from __future__ import annotations

import hashlib

import pytest
from pydantic import ValidationError

from etcdkeep.adapters.directory import DirectoryStore
from etcdkeep.age_keys import parse_identities
from etcdkeep.errors import NotFound, ObjectDamaged, PlanChanged, RecoveryRefused
from etcdkeep.recover.applying import apply_plan
from etcdkeep.recover.form import RecoveryForm, choose_set
from etcdkeep.recover.plan import parse_plan
from etcdkeep.recover.record import RecoveryRecord
from tests.builders import BACKUP_ID, age_pair, make_verification
from tests.live_api import LiveApi, named
from tests.shop import SETTINGS, SHOP

CANARY = "Y2FuYXJ5LW9mLWEtc2VjcmV0"
OURS = parse_identities(age_pair()[0])


@pytest.fixture
def store(tmp_path):
    return DirectoryStore(tmp_path / "repository")


@pytest.fixture
def record(store):
    return RecoveryRecord(store, "harbor", BACKUP_ID, [age_pair()[1]])


@pytest.fixture
def made(plan):
    return plan(LiveApi(SHOP), SHOP, SETTINGS, named("Secret", "db", "shop", data={"password": CANARY}))


def stored(store):
    found = {}
    for item in store.list():
        with store.open(item.name) as stream:
            found[item.name] = stream.read()
    return found


def test_a_plan_comes_back_as_it_was_and_lies_sealed(store, record, made):
    digest = record.keep_plan(made, OURS)
    assert record.plan(digest, OURS) == made
    assert sorted(name.rpartition("/")[2].partition("-")[0] for name in stored(store)) == ["manifests", "plan", "plan"]
    assert all(data.startswith(b"age-encryption.org/v1\n") for data in stored(store).values())
    assert CANARY.encode() not in b"".join(stored(store).values())


def test_keeping_the_same_again_changes_nothing(store, record, made):
    record.keep_plan(made, OURS)
    before = stored(store)
    record.keep_plan(made, OURS)
    assert stored(store) == before


@pytest.mark.parametrize("left", [b"", b"age-encryption.org/v1\nhalf"], ids=["empty", "cut"])
def test_what_a_killed_try_left_is_replaced(store, record, made, left):
    digest = record.keep_plan(made, OURS)
    for name in stored(store):
        store.delete(name)
        with store.create(name) as stream:
            stream.write(left)
    record.keep_plan(made, OURS)
    assert record.plan(digest, OURS) == made


def test_a_plan_under_another_ones_name_is_not_taken(store, record, made, plan):
    digest = record.keep_plan(made, OURS)
    other = record.keep_plan(plan(LiveApi(SHOP), SHOP, SETTINGS), OURS)
    names = [name for name in stored(store) if "/plan-" in name and ".json" in name]
    approved, another = (next(name for name in names if each[:16] in name) for each in (digest, other))
    store.delete(approved)
    store.copy(another, approved)
    with pytest.raises(PlanChanged, match="nothing was applied"):
        record.plan(digest, OURS)


def test_a_plan_that_is_gone_is_told(record):
    with pytest.raises(PlanChanged, match="is not stored"):
        record.plan("f" * 64, OURS)


def test_a_document_of_another_version_is_no_plan(made):
    data = made.to_bytes().replace(b'"schema_version": 1', b'"schema_version": 9')
    with pytest.raises(ObjectDamaged, match="no plan of schema_version 1"):
        parse_plan(data, hashlib.sha256(data).hexdigest())


def test_two_tries_with_one_report_leave_one(store, record, made):
    api = LiveApi(SHOP)
    names = {record.keep_report(apply_plan(api, made), OURS) for _ in range(2)}
    assert len(names) == len(stored(store)) == 1


def test_the_form_needs_a_reason():
    with pytest.raises(ValidationError):
        RecoveryForm(cluster="harbor", reason="  ")


def test_the_form_says_what_is_meant():
    form = RecoveryForm(cluster="harbor", reason="x", namespace="shop, web", kinds="cm", name=" a-* ", labels="app=web")
    assert form.meant == "namespace shop, web, kinds cm, labels app=web, name a-*"
    selection = form.selection()
    assert (selection.namespaces, selection.kinds, selection.name) == (("shop", "web"), ("cm",), "a-*")
    assert [each.key for each in selection.labels] == ["app"]


def test_a_label_selector_that_is_none_is_told():
    with pytest.raises(RecoveryRefused, match="is no label selector"):
        RecoveryForm(cluster="harbor", reason="x", labels="a b").selection()


def test_which_set_is_meant(site):
    def form(backup=""):
        return RecoveryForm(cluster="harbor", reason="x", backup=backup)

    found = site.backup()
    with pytest.raises(NotFound, match="no verified backup"):
        choose_set(site.repository, form())
    assert choose_set(site.repository, form(found.backup_id)).name == found.name
    site.repository.record(found, make_verification())
    assert choose_set(site.repository, form()).name == found.name
    with pytest.raises(RecoveryRefused, match="is of cluster 'fleet'"):
        choose_set(site.repository, form(f"fleet/{found.backup_id}"))
    site.repository.record(found, make_verification(problems=("altered",), at="2026-11-24T00:00:00Z"))
    with pytest.raises(RecoveryRefused, match="marked bad"):
        choose_set(site.repository, form(found.backup_id))
