"""Pods that look like members and are none: they are told apart, and neither backup nor restore stumbles over them."""

from __future__ import annotations

import json
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest

from etcdkeep.restore.judge.finding import blocking_problems
from etcdkeep.sets.manifest import Member
from lab.waiting import wait_for
from tests.integration.restore.lab_restore import AS_BACKED_UP, LabRestore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.site import ClusterHandle
    from tests.integration.conftest import StartRun

NAME = "etcd-fleet-cp-9"
LABELS = {"component": "etcd", "tier": "control-plane"}


@contextmanager
def stranger(cluster: ClusterHandle, status: dict[str, str] | None = None) -> Iterator[None]:
    """An etcd pod of a node that is not there: stuck in deletion, or with that status."""
    container = {"name": "etcd", "image": "registry.k8s.io/etcd:3.5.1-0", "command": ["etcd", "--name=fleet-cp-9"]}
    metadata = {"name": NAME, "namespace": "kube-system", "labels": LABELS}
    spec = {"nodeName": "fleet-cp-9", "containers": [container]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
    cluster.kubectl("create", "-f", "-", stdin=json.dumps(pod).encode())
    try:
        if status:
            patch = json.dumps({"status": status})
            cluster.kubectl(
                "-n", "kube-system", "patch", "pod", NAME, "--subresource=status", "--type=merge", "-p", patch
            )
        else:
            cluster.kubectl("-n", "kube-system", "delete", "pod", NAME, "--wait=false")
        yield
    finally:
        with suppress(Exception):
            cluster.kubectl("-n", "kube-system", "delete", "pod", NAME, "--force", "--grace-period=0", check=False)
        wait_for(lambda: NAME not in _pods(cluster), f"{NAME} to be gone")


def _pods(cluster: ClusterHandle) -> str:
    return cluster.kubectl("-n", "kube-system", "get", "pods", "-o", "name", check=False).stdout.decode()


@pytest.mark.parametrize(
    ("status", "why"),
    [
        pytest.param(None, "the pod is being deleted", id="terminating"),
        pytest.param(
            {"phase": "Failed", "reason": "Evicted"}, "the pod is Failed, not Running (Evicted)", id="evicted"
        ),
        pytest.param({"phase": "Succeeded"}, "the pod is Succeeded, not Running", id="completed"),
    ],
)
def test_the_set_has_etcds_members_and_names_the_pod_that_is_none(
    start_run: StartRun, status: dict[str, str] | None, why: str
) -> None:
    run = start_run("fleet", discovered=False)
    with stranger(run.handle, status):
        found = run.whole()
    assert found.state == "good", found
    assert found.manifest is not None
    assert sorted(member.name for member in found.manifest.members) == ["fleet-cp-0", "fleet-cp-1", "fleet-cp-2"]
    expected = f"pod kube-system/{NAME} on node fleet-cp-9 is not counted as a member: {why}"
    assert expected in found.manifest.notes
    for member in found.manifest.members:
        assert member.peer_urls
        assert member.host_ips == (member.address,)


def test_such_a_set_is_restored_while_the_pod_is_there(start_run: StartRun) -> None:
    run = start_run("fleet", discovered=False)
    with stranger(run.handle):
        restore = LabRestore(run)
        plan = restore.plan()
        with restore.engine(plan) as engine:
            engine.walk()
    restore.expect(AS_BACKED_UP)
    assert restore.report(plan).problems == ()


def with_one_too_many(found: Any) -> Any:
    """The set as a version made it that took every pod for a member."""
    gone = Member(name=NAME, pod=NAME, node="fleet-cp-9", problem="the pod is being deleted")
    manifest = found.manifest.model_copy(update={"members": (*found.manifest.members, gone)})
    return type(found)(**{**found.__dict__, "manifest": manifest})


def test_an_older_set_with_a_member_too_many_is_restored_when_that_is_overridden(start_run: StartRun) -> None:
    restore = LabRestore(start_run("fleet", discovered=False))
    restore.found = with_one_too_many(restore.found)
    restore.ruin()
    prepared = restore.prepare()
    assert blocking_problems(prepared.findings)
    assert not blocking_problems(prepared.findings, override=True)
    assert any(f"member {NAME} of the backup cannot be restored" in each.sentence for each in prepared.findings)
    plan = prepared.plan_to_approve("fleet", override=True)
    with restore.engine(plan) as engine:
        engine.walk()
    restore.expect(AS_BACKED_UP)
    assert restore.report(plan).problems == ()
