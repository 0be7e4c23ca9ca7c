"""The unchanged engine on the lab's clusters: forth, back, and forth again; and with the API down."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.restore.lab_restore import AS_BACKED_UP, SPOILED, LabRestore

if TYPE_CHECKING:
    from tests.integration.conftest import StartRun

EVERY_KIND = [
    pytest.param("harbor", {"way": "kubelet"}, id="one-member-kubelet"),
    pytest.param("harbor", {"way": "manifests"}, id="one-member-manifests"),
    pytest.param("fleet", {"way": "kubelet"}, id="three-members-kubelet"),
    pytest.param("fleet", {"way": "manifests"}, id="three-members-manifests"),
    pytest.param("skiff", {}, id="kubeception"),
]


@pytest.mark.parametrize(("cluster", "choices"), EVERY_KIND)
def test_a_cluster_goes_back_and_forth(start_run: StartRun, cluster: str, choices: dict[str, Any]) -> None:
    restore = LabRestore(start_run(cluster, discovered=False))
    first = restore.prepare(**choices)
    assert first.plan is not None
    with restore.engine(first.plan) as engine:
        engine.walk()
        restore.expect(AS_BACKED_UP)
        assert restore.report(first.plan).problems == ()
        engine.roll_back()
        restore.expect(SPOILED)
    second = restore.prepare(**choices)
    assert not [each for each in second.findings if not each.overridable], second.findings
    assert second.plan is not None
    with restore.engine(second.plan) as engine:
        engine.walk()
    restore.expect(AS_BACKED_UP)
    assert restore.report(second.plan).problems == ()


@pytest.mark.parametrize("cluster", ["harbor", "fleet", "skiff"])
def test_a_ruined_cluster_is_restored_with_its_api_down(start_run: StartRun, cluster: str) -> None:
    restore = LabRestore(start_run(cluster, discovered=False))
    restore.ruin()
    with restore.engine(restore.plan()) as engine:
        engine.walk()
    restore.expect(AS_BACKED_UP)


def test_a_second_restore_right_after_the_first_works(start_run: StartRun) -> None:
    restore = LabRestore(start_run("harbor", discovered=False))
    for _ in range(2):
        with restore.engine(restore.plan()) as engine:
            engine.walk()
        restore.expect(AS_BACKED_UP)
        restore.markers.spoil()


@pytest.mark.parametrize("tool", ["etcdctl", "docker", "nerdctl", "ctr"])
def test_whatever_tool_the_node_has_is_used(start_run: StartRun, tool: str) -> None:
    restore = LabRestore(start_run("harbor", discovered=False))
    node = restore.cluster.node
    node.set_tools(tool)
    try:
        prepared = restore.prepare()
        assert prepared.plan is not None, prepared.findings
        (found, *_) = prepared.facts or ()
        assert {each.runtime for each in found.tools} == {"node" if tool == "etcdctl" else tool}
        with restore.engine(prepared.plan) as engine:
            engine.walk(("stage", "restore_etcd"))
            engine.roll_back()
    finally:
        node.set_tools("etcdctl", "etcdutl")
    restore.expect(SPOILED)


def test_a_bare_node_cannot_be_restored(start_run: StartRun) -> None:
    restore = LabRestore(start_run("harbor", discovered=False))
    restore.cluster.node.set_tools()
    try:
        prepared = restore.prepare()
    finally:
        restore.cluster.node.set_tools("etcdctl", "etcdutl")
    assert prepared.plan is None
    assert any("nothing found that can restore" in each.sentence for each in prepared.findings)
