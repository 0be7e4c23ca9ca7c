"""The steps of a recovery as operators: a whole run, each step twice, and what is refused."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from io import BytesIO
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG
from airflow.sdk.exceptions import DownstreamTasksSkipped

from etcdkeep.errors import NeedsAttention, NotApproved, NotFound, RequestRefused, SecretUnavailable, VerificationFailed
from etcdkeep.sealing.seal import seal, unseal
from etcdkeep.sets.results import Verification
from etcdkeep_airflow.operators.recover import (
    ApplyRecoveryOperator,
    ChooseSetOperator,
    PlanRecoveryOperator,
    RecoveryApproval,
)
from tests.builders import BACKUP_ID, NOW, make_cluster
from tests.fake_site import FakeSite, write_node
from tests.fakes import make_members
from tests.gate import Gate, approve
from tests.live_api import KUBE_SYSTEM_UID, LiveApi, config_map, named, snapshot_of

if TYPE_CHECKING:
    from pathlib import Path

CANARY = "Y2FuYXJ5LW9mLWEtc2VjcmV0"
SHOP = named("Namespace", "shop")
OBJECTS = (
    named("Namespace", "kube-system", metadata={"uid": KUBE_SYSTEM_UID}),
    SHOP,
    config_map("settings", color="blue"),
    named("Secret", "db", "shop", type="Opaque", data={"password": CANARY}),
)
SETTINGS_PATH = "/api/v1/namespaces/shop/configmaps/settings"
FORM = {"cluster": "harbor", "backup": BACKUP_ID, "namespace": "shop", "dry_run": False, "reason": "a test"}


class Site(FakeSite):
    """A cluster that has one backup, and a live API to recover into."""

    def __init__(self, folder: Path, **overrides: Any) -> None:
        cluster = make_cluster(control_plane=write_node(folder), **overrides)
        super().__init__(folder, cluster, *make_members(1, snapshot_of(OBJECTS)))
        self.backup()
        self.live = LiveApi()

    @property
    def api(self) -> Any:
        return getattr(self, "live", self.kube)

    def verified(self, *problems: str) -> None:
        """Put on record what a verification found."""
        found = self.repository.get("harbor", BACKUP_ID)
        self.repository.record(
            found, Verification(at=datetime.now(UTC), levels=("stored",), complete=True, problems=problems)
        )

    def stored(self) -> dict[str, bytes]:
        """Return what lies under recoveries/."""
        store = self.repository.store
        found = {}
        for item in store.list("harbor/recoveries/"):
            with store.open(item.name) as stream:
                found[item.name.rpartition("/")[2]] = stream.read()
        return found

    def opened(self, start: str) -> bytes:
        """Return the plaintext of the one sealed object whose name starts so."""
        (sealed,) = [data for name, data in self.stored().items() if name.startswith(start)]
        plain = BytesIO()
        unseal(BytesIO(sealed), plain, self.identities(), size_limit=2**20)
        return plain.getvalue()


class Ran:
    """One run of the DAG, task by task."""

    def __init__(self, site: Site, **form: Any) -> None:
        self.site = site
        self.params = FORM | form
        self.pushed: dict[str, Any] = {}

    def context(self) -> dict[str, Any]:
        ti = SimpleNamespace(xcom_push=lambda key, value: self.pushed.update({key: value}), map_index=-1)
        task = SimpleNamespace(get_flat_relatives=lambda upstream: [EmptyOperator(task_id="approve")])
        dag_run = SimpleNamespace(
            run_id="manual", dag_id="recover_objects", logical_date=NOW, run_after=NOW, triggering_user_name="carol"
        )
        return {"run_id": "manual", "dag_run": dag_run, "ti": ti, "params": self.params, "task": task}

    def task(self, operator: Any, **arguments: Any) -> Any:
        with DAG(dag_id="recover_objects", schedule=None):
            made = operator(task_id="task", cluster="harbor", **arguments)
        return json.loads(json.dumps(made.execute(self.context())))

    def plan(self) -> Any:
        return self.task(PlanRecoveryOperator, backup=self.task(ChooseSetOperator)["backup_id"])

    def approve(self, person: str = "bob", try_number: int = 1) -> None:
        approve(RecoveryApproval, "harbor", self.context(), {"approve": person}, try_number=try_number)

    def apply(self) -> Any:
        return self.task(ApplyRecoveryOperator)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    made = Site(tmp_path)
    monkeypatch.setattr("etcdkeep_airflow.hooks.open_site", lambda cluster: made)
    return made


def test_a_whole_run(site: Site) -> None:
    run = Ran(site)
    planned = run.plan()
    assert planned["create"] == 3
    assert site.live.applied == []
    assert "**Secret shop/db**" in run.pushed["page"]
    assert planned["plan"] in run.pushed["page"]
    run.approve()
    applied = run.apply()
    assert applied["created"] == 3
    assert site.live.get(SETTINGS_PATH)["data"] == {"color": "blue"}
    report = json.loads(site.opened("report-"))
    assert [each["outcome"] for each in report["objects"]] == ["created"] * 3
    assert CANARY.encode() in site.opened("manifests-")
    assert CANARY not in json.dumps([planned, applied, run.pushed])
    assert all(CANARY.encode() not in data for data in site.stored().values())


def sealed(site: Site) -> dict[str, bytes]:
    return {name: data for name, data in site.stored().items() if name.endswith(".age")}


def test_a_second_try_plans_the_same_and_asks_anew(site: Site) -> None:
    run = Ran(site)
    first, before = run.plan(), sealed(site)
    second = run.plan()
    assert (second["plan"], sealed(site)) == (first["plan"], before)
    assert second["proposal"] != first["proposal"]


def test_an_approval_is_spent_when_the_plan_was_applied(site: Site) -> None:
    run = Ran(site)
    run.plan()
    run.approve()
    first, before = run.apply(), len(site.live.applied)
    assert run.apply() == first, "a worker may have died right after it"
    assert len(site.live.applied) == before
    assert len([name for name in site.stored() if name.startswith("report-")]) == 1


def test_an_approval_is_spent_though_some_objects_were_refused(site: Site) -> None:
    run = Ran(site)
    run.plan()
    run.approve()
    site.live.put(named("Namespace", "shop", metadata={"labels": {"kubernetes.io/metadata.name": "shop"}}))
    site.live.put(config_map("settings", color="red"))
    with pytest.raises(NeedsAttention):
        run.apply()
    before = len(site.live.applied)
    with pytest.raises(NotApproved, match="its approval is spent"):
        run.apply()
    assert len(site.live.applied) == before


def test_a_bad_set_that_was_put_into_xcom_is_not_planned_from(site: Site) -> None:
    site.verified("etcd.db.zst.age: SHA-256 differs")
    with pytest.raises(VerificationFailed, match="is bad"):
        Ran(site).task(PlanRecoveryOperator, backup=BACKUP_ID)


def test_the_gate_shows_the_page_of_the_signed_plan_whatever_xcom_says(site: Site) -> None:
    run = Ran(site)
    run.plan()
    gate = Gate(RecoveryApproval, "approve", "harbor", run.context())
    gate.ask()
    assert gate.shown["body"] == run.pushed["page"]
    assert gate.shown["subject"] == f"Recover objects of cluster harbor from backup {BACKUP_ID}?"


def test_a_plan_made_after_the_answer_is_not_applied(site: Site) -> None:
    run = Ran(site)
    run.plan()
    run.approve()
    run.plan()
    with pytest.raises(NotApproved, match="asked about another plan"):
        run.apply()
    assert site.live.applied == []


def test_a_plan_of_another_version_of_etcdkeep_is_not_applied(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Ran(site)
    run.plan()
    run.approve()
    monkeypatch.setattr("etcdkeep.approval.answers.__version__", "99")
    with pytest.raises(NotApproved, match="this is etcdkeep 99"):
        run.apply()
    run.plan()
    run.approve(try_number=2)
    run.apply()


def test_a_planted_plan_is_not_applied(site: Site) -> None:
    run = Ran(site)
    digest = run.plan()["plan"]
    run.approve()
    store = site.repository.store
    (name,) = [item.name for item in store.list("harbor/recoveries/") if f"plan-{digest[:16]}.json" in item.name]
    store.delete(name)
    with store.create(name) as sink:
        seal([b'{"objects": []}'], sink, site.cluster.age_recipients)
    with pytest.raises(NotApproved, match="nothing was applied"):
        run.apply()
    assert site.live.applied == []


def test_a_half_written_plan_is_written_anew(site: Site) -> None:
    run = Ran(site)
    digest = run.plan()["plan"]
    (name,) = [
        item.name
        for item in site.repository.store.list("harbor/recoveries/")
        if "/plan-" in item.name and "json" in item.name
    ]
    site.repository.store.delete(name)
    with site.repository.store.create(name) as stream:
        stream.write(b"something else")
    assert run.plan()["plan"] == digest
    run.approve()
    assert run.apply()["created"] == 3


@pytest.mark.parametrize("form", [{"dry_run": True}, {"kinds": "configmaps"}], ids=["dry-run", "nothing-to-do"])
def test_a_run_with_nothing_to_apply_ends_after_the_plan(site: Site, form: dict[str, Any]) -> None:
    site.live.put(SHOP)
    site.live.put(config_map("settings", color="blue"))
    run = Ran(site, **form)
    with pytest.raises(DownstreamTasksSkipped):
        run.plan()
    assert run.pushed["page"]
    assert site.live.applied == []


def test_without_an_approval_nothing_is_applied(site: Site) -> None:
    run = Ran(site)
    run.plan()
    with pytest.raises(NotApproved, match="was skipped or marked as done"):
        run.apply()
    assert site.live.applied == []


def test_what_could_not_be_recovered_fails_the_task_after_the_rest_was(site: Site) -> None:
    run = Ran(site)
    run.plan()
    run.approve()
    site.live.put(named("Namespace", "shop", metadata={"labels": {"kubernetes.io/metadata.name": "shop"}}))
    site.live.put(config_map("settings", color="red"))
    with pytest.raises(NeedsAttention, match="1 of 3 objects") as caught:
        run.apply()
    assert caught.value.problems[0].startswith("ConfigMap shop/settings: it was created after the plan, and differs")
    assert site.live.get("/api/v1/namespaces/shop/secrets/db")["data"] == {"password": CANARY}
    assert b"it was created after the plan" in site.opened("report-")


def test_the_newest_good_backup_is_meant_unless_one_is_named(site: Site) -> None:
    run = Ran(site, backup="")
    with pytest.raises(NotFound, match="has no good backup"):
        run.task(ChooseSetOperator)
    site.verified()
    assert run.task(ChooseSetOperator) == {"backup_id": BACKUP_ID, "state": "good"}
    assert Ran(site, backup=f"harbor/{BACKUP_ID}").task(ChooseSetOperator)["backup_id"] == BACKUP_ID


@pytest.mark.parametrize(
    ("form", "error", "said"),
    [
        pytest.param({"backup": f"fleet/{BACKUP_ID}"}, NotFound, "is of cluster 'fleet'", id="other-cluster"),
        pytest.param({"labels": "a b"}, RequestRefused, "not a label selector", id="labels"),
    ],
)
def test_refused_at_once(site: Site, form: dict[str, str], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        Ran(site, **form).task(ChooseSetOperator)


def test_a_set_that_is_bad_or_forged_is_refused(site: Site) -> None:
    site.verified("etcd.db.zst.age: SHA-256 differs")
    with pytest.raises(VerificationFailed, match="is bad"):
        Ran(site).task(ChooseSetOperator)
    signature = next((site.folder / "repository" / "harbor" / BACKUP_ID).glob("*.sig"))
    signature.chmod(0o600)
    signature.write_bytes(bytes(64))
    with pytest.raises(VerificationFailed, match="is foreign"):
        Ran(site).task(ChooseSetOperator)


def test_a_backup_of_another_cluster_is_refused(site: Site) -> None:
    site.live.objects["/api/v1/namespaces/kube-system"]["metadata"]["uid"] = "another"
    with pytest.raises(RequestRefused, match="belongs to another cluster"):
        Ran(site).plan()


def test_without_an_identity_nothing_can_be_read(site: Site) -> None:
    site.has_identity = False
    with pytest.raises(SecretUnavailable, match="age_identity"):
        Ran(site).plan()


def test_the_answer_is_recorded(site: Site) -> None:
    run = Ran(site)
    run.plan()
    run.approve()
    (name,) = [
        name for name in site.stored() if name.endswith("-approve.json") and b'\\"choice\\"' in site.stored()[name]
    ]
    assert json.loads(json.loads(site.stored()[name])["payload"])["body"]["user_id"] == "bob"


@pytest.mark.parametrize(
    ("operator", "fields"),
    [
        (ChooseSetOperator, {"cluster"}),
        (PlanRecoveryOperator, {"cluster", "backup"}),
        (ApplyRecoveryOperator, {"cluster"}),
        (RecoveryApproval, {"cluster"}),
    ],
)
def test_template_fields(operator: Any, fields: set[str]) -> None:
    assert fields <= set(operator.template_fields)
