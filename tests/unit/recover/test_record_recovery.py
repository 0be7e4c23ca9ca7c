"""The record of a recovery in the repository, and the form that it starts with."""

from __future__ import annotations

import hashlib
from datetime import timedelta

import pytest
from pydantic import ValidationError

from etcdkeep.adapters.stores.directory import DirectoryStore
from etcdkeep.approval.answers import AirflowRun
from etcdkeep.errors import NotApproved, NotFound, ObjectDamaged, RequestRefused, VerificationFailed
from etcdkeep.recover.applying import apply_plan
from etcdkeep.recover.form import OPENED, RecoveryForm
from etcdkeep.recover.plan import parse_plan
from etcdkeep.recover.record import RecoveryProposal, RecoveryRecord
from etcdkeep.sealing.age_keys import parse_identities
from etcdkeep.sets.choosing import choose_set
from tests.builders import BACKUP_ID, NOW, age_pair, make_records, make_verification
from tests.live_api import LiveApi, named
from tests.shop import SETTINGS, SHOP

CANARY = "Y2FuYXJ5LW9mLWEtc2VjcmV0"
OURS = parse_identities(age_pair()[0])


@pytest.fixture
def store(tmp_path):
    return DirectoryStore(tmp_path / "repository")


@pytest.fixture
def record(store):
    return RecoveryRecord(make_records(store), "harbor", BACKUP_ID, [age_pair()[1]])


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
    record.keep_plan(made, OURS)
    assert record.plan(made.digest, OURS) == made
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
    record.keep_plan(made, OURS)
    for name in stored(store):
        store.delete(name)
        with store.create(name) as stream:
            stream.write(left)
    record.keep_plan(made, OURS)
    assert record.plan(made.digest, OURS) == made


def test_a_plan_under_another_ones_name_is_not_taken(store, record, made, plan):
    another_plan = plan(LiveApi(SHOP), SHOP, SETTINGS)
    for each in (made, another_plan):
        record.keep_plan(each, OURS)
    digest, other = made.digest, another_plan.digest
    names = [name for name in stored(store) if "/plan-" in name and ".json" in name]
    approved, another = (next(name for name in names if each[:16] in name) for each in (digest, other))
    store.delete(approved)
    store.copy(another, approved)
    with pytest.raises(NotApproved, match="nothing was applied"):
        record.plan(digest, OURS)


def test_a_plan_that_is_gone_is_told(record):
    with pytest.raises(NotApproved, match="is no longer stored"):
        record.plan("f" * 64, OURS)


def test_a_document_of_another_version_is_no_plan(made):
    data = made.to_bytes().replace(b'"schema_version": 1', b'"schema_version": 9')
    with pytest.raises(ObjectDamaged, match="not a plan of schema_version 1"):
        parse_plan(data, hashlib.sha256(data).hexdigest())


def propose(record, made):
    run = AirflowRun(airflow="", dag_id="recover_objects", run_id="manual__1")
    return record.propose(
        RecoveryProposal(
            run=run, backup_id=BACKUP_ID, plan_sha256=made.digest, page_sha256="0" * 64, requested_by="carol"
        )
    )


def test_two_tries_with_one_report_leave_one_sealed_and_spend_the_approval(store, record, made):
    api, proposal = LiveApi(SHOP), propose(record, made)
    assert record.applied(proposal) is None
    names = {record.keep_report(proposal, apply_plan(api, made), OURS, complete=True) for _ in range(2)}
    assert len(names) == len([name for name in stored(store) if name.endswith(".age")]) == 1
    assert record.applied(proposal) is not None
    assert record.applied(propose(record, made)) is None, (
        "another proposal needs its own approval, and has it for itself"
    )


def test_what_was_proposed_last_counts_and_a_forged_one_does_not(store, record, made):
    first, second = propose(record, made), propose(record, made)
    assert record.proposal().digest == second.digest != first.digest
    forged = record.proposal().name.replace("/2", "/3", 1)
    with store.create(forged) as sink:
        sink.write(b"{}")
    assert record.proposal().digest == second.digest
    with pytest.raises(RequestRefused, match="no signed plan"):
        RecoveryRecord(make_records(store), "harbor", "another", []).proposal()


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
    with pytest.raises(RequestRefused, match="is not a label selector"):
        RecoveryForm(cluster="harbor", reason="x", labels="a b").selection()


def test_which_set_is_meant(site):
    def choose(backup=""):
        return choose_set(site.repository, "harbor", backup, allow=OPENED)

    found = site.backup()
    with pytest.raises(NotFound, match="has no good backup"):
        choose()
    assert choose(found.backup_id).name == found.name
    site.repository.record(found, make_verification())
    assert choose().name == found.name
    with pytest.raises(NotFound, match="is of cluster 'fleet'"):
        choose(f"fleet/{found.backup_id}")
    site.repository.record(found, make_verification(problems=("altered",), at=NOW + timedelta(minutes=1)))
    with pytest.raises(VerificationFailed, match=r"is bad and cannot be used(?s:.*)altered"):
        choose(found.backup_id)
