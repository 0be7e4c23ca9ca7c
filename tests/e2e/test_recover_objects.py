"""docs/recover-objects.md through Airflow: a namespace is deleted with kubectl, found in the backup, approved, and back."""

from __future__ import annotations

import json
from base64 import b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from etcdkeep.acceptance.gated_run import ENDED_S, GatedRun
from tests.canaries import canaries, leaks_in_files

if TYPE_CHECKING:
    from collections.abc import Iterator

    from etcdkeep.acceptance.airflow import Airflow
    from lab import Site
    from lab.site import ClusterHandle

DAG = "recover_objects"
NAMESPACE = "bakery"
PASSWORD = "canary-of-the-bakery-91c2"
pytestmark = pytest.mark.timeout(900)


def _named(kind: str, name: str, api_version: str = "v1", **content: Any) -> dict[str, Any]:
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": name, "namespace": NAMESPACE}, **content}


RBAC = "rbac.authorization.k8s.io/v1"
OVENS = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "ovens.bakery.example.com"},
    "spec": {
        "group": "bakery.example.com",
        "scope": "Namespaced",
        "names": {"plural": "ovens", "kind": "Oven", "singular": "oven"},
        "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}}],
    },
}  # fmt: skip
OBJECTS = [
    {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": {"team": "bread"}}},
    OVENS,
    _named("ConfigMap", "settings", data={"color": "brown", "size": "10", "smile": "\U0001f950\u2028"}),
    _named("Secret", "db", type="Opaque", data={"password": b64encode(PASSWORD.encode()).decode()}),
    _named("ServiceAccount", "baker"),
    _named("Role", "baker", RBAC, rules=[{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}]),
    _named("RoleBinding", "baker", RBAC, roleRef={"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "baker"}, subjects=[{"kind": "ServiceAccount", "name": "baker", "namespace": NAMESPACE}]),
    _named("Service", "bread", spec={"selector": {"app": "bread"}, "ports": [{"name": "http", "port": 80}]}),
    _named("Deployment", "bread", "apps/v1", spec={"replicas": 2, "selector": {"matchLabels": {"app": "bread"}}, "template": {"metadata": {"labels": {"app": "bread"}}, "spec": {"containers": [{"name": "bread", "image": "bread:1"}]}}}),
]  # fmt: skip
OVEN = _named("Oven", "first", "bakery.example.com/v1", spec={"degrees": 230})


@dataclass
class Recovery(GatedRun):
    """One run of the DAG."""

    form: ClassVar[str] = DAG
    plans: ClassVar[str] = "plan"

    @classmethod
    def start(cls, airflow: Airflow, **form: Any) -> Recovery:
        """Fill the form in as alice."""
        conf = {"cluster": "harbor", "namespace": NAMESPACE, "reason": "e2e", "dry_run": False, **form}
        return cls(airflow, airflow.trigger(airflow.on_verify_queue(DAG), conf, user="alice"))

    def decide(self, choice: str, user: str = "bob") -> str:
        """Answer the gate, and return what it showed."""
        return str(self.answer("approve", user, choice)["body"])


@pytest.fixture(scope="module")
def harbor(site: Site) -> ClusterHandle:
    return site.clusters["harbor"]


def everything(harbor: ClusterHandle) -> dict[str, Any]:
    """Return what is in the namespace, as far as people wrote it."""
    kinds = "cm,secret,sa,role,rolebinding,svc,deploy,ovens.bakery.example.com"
    items = json.loads(harbor.kubectl("-n", NAMESPACE, "get", kinds, "-o", "json").stdout)["items"]
    found = {}
    for item in items:
        spec = {name: value for name, value in item.get("spec", {}).items() if not name.startswith("clusterIP")}
        content = {name: item[name] for name in ("data", "rules", "subjects", "roleRef", "type") if name in item}
        found[item["kind"], item["metadata"]["name"]] = content | {"spec": spec}
    return found


@pytest.fixture(scope="module")
def backup(airflow: Airflow, harbor: ClusterHandle) -> Iterator[dict[str, Any]]:
    """The namespace as last night's backup has it; gone again after the module."""
    for content in (*OBJECTS, OVEN):
        harbor.kubectl("apply", "-f", "-", stdin=json.dumps(content).encode())
    run_id = airflow.trigger("backup__harbor", {"reason": "e2e"})
    assert airflow.wait("backup__harbor", run_id, ENDED_S)["state"] == "success"
    yield everything(harbor)
    delete_namespace(harbor)


def delete_namespace(harbor: ClusterHandle) -> None:
    harbor.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found")
    harbor.kubectl("delete", "crd", "ovens.bakery.example.com", "--ignore-not-found")
    assert NAMESPACE not in harbor.kubectl("get", "namespaces", "-o", "name").stdout.decode()


def test_a_deleted_namespace_comes_back_after_approval(airflow, harbor, backup):
    delete_namespace(harbor)
    run = Recovery.start(airflow)
    shown = run.decide("Approve")
    for label in (
        f"Namespace {NAMESPACE}",
        "CustomResourceDefinition ovens",
        f"Oven {NAMESPACE}/first",
        f"Secret {NAMESPACE}/db",
    ):
        assert f"**{label}" in shown
    assert run.ended() == "success", run.log("apply")[-3000:]
    assert everything(harbor) == backup
    assert harbor.kubectl("get", "namespace", NAMESPACE, "-o", "jsonpath={.metadata.labels.team}").stdout == b"bread"
    assert f"created     Oven {NAMESPACE}/first" in run.log("apply")


def test_rejected_nothing_is_touched(airflow, harbor, backup):
    harbor.kubectl("-n", NAMESPACE, "delete", "configmap", "settings")
    run = Recovery.start(airflow, kinds="configmap")
    run.decide("Reject")
    assert run.ended() == "success"
    assert run.states()["apply"] == "skipped"
    left = harbor.kubectl("-n", NAMESPACE, "get", "configmaps", "-o", "name").stdout.decode()
    assert "configmap/settings" not in left


def test_a_dry_run_ends_before_anybody_is_asked(airflow, harbor, backup):
    run = Recovery.start(airflow, kinds="configmap", dry_run=True)
    assert run.ended() == "success"
    assert run.states() == {"resolve_backup": "success", "plan": "success", "approve": "skipped", "apply": "skipped"}
    assert f"ConfigMap {NAMESPACE}/settings" in run.log("plan")


def test_what_differs_is_left_without_the_flag_and_overwritten_with_it(airflow, harbor, backup):
    harbor.kubectl("-n", NAMESPACE, "delete", "configmap", "settings", "--ignore-not-found")
    harbor.kubectl("-n", NAMESPACE, "create", "configmap", "settings", "--from-literal=color=white")
    harbor.kubectl("-n", NAMESPACE, "delete", "secret", "db")
    left = Recovery.start(airflow, kinds="configmaps,secrets")
    shown = left.decide("Approve")
    assert "is left unchanged" in shown
    assert left.ended() == "success", left.log("apply")[-3000:]
    settings = everything(harbor)["ConfigMap", "settings"]
    assert settings["data"] == {"color": "white"}
    assert everything(harbor)["Secret", "db"] == backup["Secret", "db"]

    overwritten = Recovery.start(airflow, kinds="configmap", name="settings", overwrite=True)
    shown = overwritten.decide("Approve")
    assert "-  color: white\n+  color: brown" in shown
    assert overwritten.ended() == "success", overwritten.log("apply")[-3000:]
    assert everything(harbor)["ConfigMap", "settings"] == backup["ConfigMap", "settings"]


def test_what_changed_since_it_was_shown_is_refused_and_the_run_fails(airflow, harbor, backup):
    harbor.kubectl(
        "-n", NAMESPACE, "patch", "configmap", "settings", "--type=merge", "-p", '{"data":{"color":"white"}}'
    )
    run = Recovery.start(airflow, kinds="configmap", overwrite=True)
    run.asked("approve")
    harbor.kubectl(
        "-n", NAMESPACE, "patch", "configmap", "settings", "--type=merge", "-p", '{"data":{"color":"black"}}'
    )
    run.decide("Approve")
    assert run.ended() == "failed"
    assert "it was changed after the plan was made" in run.log("apply")
    assert everything(harbor)["ConfigMap", "settings"]["data"]["color"] == "black"


def test_no_secret_is_in_logs_xcom_or_the_repository(airflow, backup, site, config):
    secrets = canaries(site) | {PASSWORD.encode(), b64encode(PASSWORD.encode())}
    assert leaks_in_files([airflow.home, config.parent], secrets) == {}
