"""What the comparison after a restore says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from etcdkeep.errors import OutputUnexpected
from etcdkeep.restore.options import Options
from etcdkeep.restore.report import NodeState, RestoreReport, compare, parse_count, parse_pods
from tests.unit.restore.builders import PLANNED_AT, make_cluster, make_facts, make_manifest, node_names, planned

CLUSTER = make_cluster()
PLAN = planned(
    CLUSTER,
    make_manifest(3),
    [make_facts(name, index) for index, name in enumerate(node_names(3))],
    Options("r1", PLANNED_AT),
)
READY = {"conditions": [{"type": "Ready", "status": "True"}]}


def make_state(index: int = 0, **overrides: Any) -> NodeState:
    address = f"10.0.0.{index + 1}"
    state = NodeState(
        f"cp-{index}",
        address,
        "e1",
        PLAN.expected_revision + 5,
        500,
        (address,),
        ("etcd", "kube-apiserver"),
        {"u1": "shop/web"},
    )
    return replace(state, **overrides)


def report(*states: NodeState, **arguments: Any) -> RestoreReport:
    known: dict[str, Any] = {
        "live_keys": 490,
        "pods": [{"metadata": {"uid": "u1"}}],
        "nodes": [{"metadata": {"name": "cp-0"}, "status": READY}],
    }
    return compare(PLAN, CLUSTER, states or (make_state(), make_state(1), make_state(2)), **(known | arguments))


def test_the_count_is_read_from_etcdctls_own_format() -> None:
    assert parse_count('"ClusterID" : 1\n"Revision" : 31\n"More" : false\n"Count" : 3000\n') == 3000
    with pytest.raises(OutputUnexpected, match="counted no keys"):
        parse_count('{"count": 1}')


def test_a_good_restore_has_nothing_to_say() -> None:
    assert report() == RestoreReport((), (), PLAN.expected_revision + 5, 500)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        pytest.param(make_state(1, cluster_id="e2"), "form 2 etcd clusters", id="split"),
        pytest.param(make_state(1, revision=1500), "runs on other data", id="old-data"),
        pytest.param(make_state(1, running=("etcd",)), "kube-apiserver is not running", id="no-apiserver"),
    ],
)
def test_problems(state: NodeState, words: str) -> None:
    found = report(make_state(), state)
    assert len(found.problems) == 1
    assert words in found.problems[0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param({"live_keys": 900}, "holds 500 keys, the backup held 900", id="keys"),
        pytest.param({"pods": []}, "runs 1 pod(s) that the restored cluster does not know: shop/web", id="phantom"),
        pytest.param({"pods": None}, "the API did not answer", id="no-api"),
        pytest.param({"nodes": [{"metadata": {"name": "gone-1"}, "status": {}}]}, "gone-1", id="stale-node"),
    ],
)
def test_notes(arguments: dict[str, Any], words: str) -> None:
    found = report(make_state(), **arguments)
    assert found.problems == ()
    assert [words in note for note in found.notes] == [True]


def test_a_lease_of_a_vanished_api_server_is_noted() -> None:
    found = report(make_state(leases=("10.0.0.1", "10.0.0.99")))
    assert ["10.0.0.99" in note for note in found.notes] == [True]


def test_only_pods_from_the_api_can_be_phantoms() -> None:
    output = """{"items": [
        {"metadata": {"uid": "u1", "name": "web", "namespace": "shop"}, "annotations": {"kubernetes.io/config.source": "api"}},
        {"metadata": {"uid": "u2", "name": "etcd-cp-0", "namespace": "kube-system"}, "annotations": {"kubernetes.io/config.source": "file"}}
    ]}"""
    assert parse_pods(output) == {"u1": "shop/web"}
    assert parse_pods('{"items": null}') == {}
