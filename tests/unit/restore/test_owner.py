"""Who etcd's data must belong to: what etcd runs as, before what is configured, before what is found."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from etcdkeep.errors import ConfigError
from etcdkeep.restore.found.nodes import PathFacts
from etcdkeep.restore.found.owner import proper_owner, runs_as, static_pod_runs_as
from etcdkeep.restore.options import Options
from etcdkeep.restore.steps import Check, Plan, Run
from tests.unit.restore.builders import PLANNED_AT, make_cluster, make_facts, make_manifest, planned


@pytest.mark.parametrize(
    ("pod", "container", "expected"),
    [
        pytest.param({}, {}, None, id="left-to-the-image"),
        pytest.param({"seccompProfile": {"type": "RuntimeDefault"}}, {}, None, id="kubeadm"),
        pytest.param({"runAsUser": 2001, "runAsGroup": 2002}, {}, "2001:2002", id="of-the-pod"),
        pytest.param({"runAsUser": 1}, {"runAsUser": 2001, "runAsGroup": 2001}, "2001:2001", id="of-the-container"),
        pytest.param({"runAsUser": 2001, "fsGroup": 2003}, {}, "2001:2003", id="fs-group"),
        pytest.param(
            {"runAsUser": 2001, "runAsGroup": 2002, "fsGroup": 2003}, {}, "2001:2002", id="run-as-group-first"
        ),
        pytest.param({"runAsUser": 2001}, {}, "2001:0", id="no-group"),
        pytest.param({"runAsUser": 0}, {}, "0:0", id="root-by-name"),
        pytest.param({"fsGroup": 2001}, {}, None, id="a-group-alone"),
        pytest.param({"runAsUser": "etcd"}, {}, None, id="misshapen"),
        pytest.param({"runAsUser": True}, {}, None, id="no-number"),
        pytest.param({"runAsUser": 2001}, {"runAsUser": None}, "2001:0", id="null-in-the-container"),
    ],
)
def test_who_a_pods_container_runs_as(pod: dict[str, Any], container: dict[str, Any], expected: str | None) -> None:
    assert runs_as({"securityContext": pod}, {"securityContext": container}) == expected
    body = {
        "spec": {
            "securityContext": pod,
            "containers": [{"name": "side"}, {"name": "etcd", "securityContext": container}],
        }
    }
    assert static_pod_runs_as(json.dumps(body).encode(), "etcd.yaml", container="etcd") == expected


def test_a_manifest_without_containers_says_nothing_and_one_that_is_no_yaml_is_named() -> None:
    assert static_pod_runs_as(b"kind: Pod", "etcd.yaml", container="etcd") is None
    with pytest.raises(ConfigError, match=r"etcd\.yaml"):
        static_pod_runs_as(b"a: [", "etcd.yaml", container="etcd")


@pytest.mark.parametrize(
    ("as_pod_says", "known", "found", "expected"),
    [
        pytest.param("2001:2001", None, "0:0", "2001:2001", id="found-is-roots"),
        pytest.param("2001:2002", "3000:3000", "0:0", "2001:2002", id="the-pod-comes-first"),
        pytest.param(None, "2001:2001", "0:0", "2001:2001", id="configured"),
        pytest.param(None, None, "0:0", "0:0", id="as-found"),
        pytest.param("2001:0", "2001:2001", "0:0", "2001:2001", id="group-as-configured"),
        pytest.param("2001:0", None, "2001:2001", "2001:2001", id="group-as-found"),
        pytest.param("2001:0", "3000:3000", "0:0", "2001:0", id="other-users-groups-do-not-fit"),
        pytest.param(None, None, None, None, id="nothing-known"),
    ],
)
def test_the_owner_of_the_data(
    as_pod_says: str | None, known: str | None, found: str | None, expected: str | None
) -> None:
    assert proper_owner(as_pod_says, known, found) == expected


def plan_of(owner: str, runs: str | None, **control_plane: Any) -> Plan:
    facts = make_facts(member=PathFacts("/var/lib/etcd/member", owner, "700"), etcd_runs_as=runs)
    cluster = make_cluster(profile="kubeadm", control_plane=control_plane)
    return planned(cluster, make_manifest(profile="kubeadm"), [facts], Options("r1", PLANNED_AT))


@pytest.mark.parametrize(
    ("runs", "control_plane"),
    [
        pytest.param("2001:2001", {}, id="security-context"),
        pytest.param(None, {"data_owner": "2001:2001"}, id="data-owner"),
    ],
)
def test_data_of_another_owner_are_given_to_who_etcd_runs_as(runs: str | None, control_plane: dict[str, Any]) -> None:
    """The vendor's trouble case: etcd runs as 2001, `member` belongs to root."""
    steps = {step.name: step for step in plan_of("0:0", runs, **control_plane).steps}
    given, remedy = steps["owner.cp-0"].action, steps["etcd-serves.cp-0"].remedy
    assert isinstance(given, Run)
    assert "2001:2001" in given.argv
    assert remedy is not None
    assert remedy.action.argv[-3:] == ("2001:2001", "/var/lib/etcd", "/var/lib/etcd/member")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            '"msg":"failed to create snapshot directory","error":"mkdir /var/lib/etcd/member/snap: permission denied"',
            True,
        ),
        ('"error":"open /var/lib/etcd/member/snap/db: permission denied"', True),
        ('"msg":"cannot access data directory","error":"open /var/lib/etcd/.touch: permission denied"', True),
        ('"error":"open /etc/kubernetes/pki/etcd/server.key: permission denied"', False),
        ('"msg":"ready to serve client requests"', False),
    ],
)
def test_which_lines_of_etcds_log_call_for_the_owner(line: str, expected: bool) -> None:
    remedy = next(step.remedy for step in plan_of("0:0", None).steps if step.remedy)
    assert isinstance(remedy.seen, Check)
    assert bool(re.search(remedy.seen.pattern, line)) == expected
