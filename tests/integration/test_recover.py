"""A recovery against the lab: planned from a real backup, applied through an API that fails in between, and compared."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from etcdkeep.adapters.kube.client import KubeApiClient, open_kubeconfig
from etcdkeep.errors import Unreachable
from etcdkeep.objects.selection import Selection
from etcdkeep.objects.stored_set import StoredSet
from etcdkeep.recover.applying import apply_plan
from etcdkeep.recover.gather import gather
from etcdkeep.recover.planning import check_same_cluster, plan_recovery
from etcdkeep.sealing.age_keys import parse_identities
from lab.samples import SECRET_CANARY

if TYPE_CHECKING:
    from collections.abc import Callable

    from etcdkeep.recover.plan import RecoveryPlan
    from lab import Site
    from tests.backup_run import BackupRun

SPACE = "recovered"
NAMES = [f"settings-{number}" for number in range(4)]


@pytest.fixture
def run(site: Site, start_run: Callable[..., BackupRun]) -> BackupRun:
    """A backup that has the namespace, which is deleted again."""
    run = start_run("harbor")
    kubectl = site.clusters["harbor"].kubectl
    kubectl("create", "namespace", SPACE)
    for name in NAMES:
        kubectl("-n", SPACE, "create", "configmap", name, f"--from-literal=name={name}")
    kubectl("-n", SPACE, "create", "secret", "generic", "db", f"--from-literal=password={SECRET_CANARY}")
    kubectl("-n", SPACE, "create", "deployment", "web", "--image=web:1", "--replicas=2")
    run.whole()
    kubectl("delete", "namespace", SPACE)
    return run


@pytest.fixture
def api(site: Site) -> KubeApiClient:
    return KubeApiClient(open_kubeconfig(site.clusters["harbor"].kubeconfig.read_bytes()))


def planned(run: BackupRun, api: KubeApiClient) -> RecoveryPlan:
    repository = run.repository
    identities = parse_identities(Path(run.cluster.age_identity.path).read_bytes())
    found = repository.get(run.name, run.identifier)
    with ExitStack() as stack:
        source = StoredSet(stack, repository.store, found, lambda: identities)
        check_same_cluster(api, source)
        return plan_recovery(
            api,
            gather(source, Selection(namespaces=(SPACE,))),
            cluster=run.name,
            backup_id=run.identifier,
            recovery_id=run.identifier,
            reason="a test",
            meant=f"namespace {SPACE}",
            overwrite=False,
            include_left_out=False,
        )


def test_an_api_that_fails_at_every_object_costs_only_tries(site: Site, run: BackupRun, api: KubeApiClient) -> None:
    kubectl = site.clusters["harbor"].kubectl
    try:
        plan = planned(run, api)
        assert SECRET_CANARY not in json.dumps([each.model_dump(exclude={"manifest"}) for each in plan.objects])
        writes = [each for each in plan.objects if each.action == "create"]
        assert {each.label for each in writes} >= {
            f"Namespace {SPACE}",
            f"Secret {SPACE}/db",
            f"Deployment {SPACE}/web",
            *(f"ConfigMap {SPACE}/{name}" for name in NAMES),
        }
        for each in writes:
            with site.faults.api(503, match=f"^PATCH {each.path}\\?"), pytest.raises(Unreachable):
                apply_plan(api, plan)
        report = apply_plan(api, plan)
        assert report.failures(plan) == ()
        assert {each.outcome for each in report.objects} == {"created", "skipped"}
        assert apply_plan(api, plan) == report
        assert planned(run, api).counts.keys() <= {"unchanged", "skip"}
    finally:
        kubectl("delete", "namespace", SPACE)


def test_an_answer_that_is_lost_is_not_taken_for_somebody_elses_work(
    site: Site, run: BackupRun, api: KubeApiClient
) -> None:
    kubectl = site.clusters["harbor"].kubectl
    try:
        plan = planned(run, api)
        apply_plan(api, plan)
        kubectl("-n", SPACE, "label", "configmap", NAMES[0], "since=then")
        assert apply_plan(api, plan).failures(plan) == ()
        labels = api.get(f"/api/v1/namespaces/{SPACE}/configmaps/{NAMES[0]}")["metadata"]["labels"]
        assert labels == {"since": "then"}
    finally:
        kubectl("delete", "namespace", SPACE)
