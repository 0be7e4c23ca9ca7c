"""Objections: each danger with its own sentence, all at once."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from etcdkeep.repository import VERIFICATION, BackupSet, Doubt, Verification
from etcdkeep.restore.facts import EarlierRun, EtcdStatus
from etcdkeep.restore.planning import Options
from etcdkeep.restore.preflight import Circumstances, Objection, blocking, preflight
from etcdkeep.restore.tools import Tool
from etcdkeep.static_pod import EtcdStaticPod
from tests.builders import make_signed
from tests.unit.restore.builders import PLANNED_AT, make_cluster, make_facts, make_manifest

DRILLED = Verification(at=PLANNED_AT, levels=("stored", "sealed", "etcd", "pki", "drill"), complete=True)
OPTIONS = Options("r1", PLANNED_AT)


def make_set(**overrides: Any) -> BackupSet:
    manifest = overrides.pop("manifest", make_manifest())
    records = tuple(make_signed(VERIFICATION, each) for each in overrides.pop("verifications", (DRILLED,)))
    fields: dict[str, Any] = {"records": records} | overrides
    return BackupSet("prod", "20261120T023000Z-1f0c9a3e", manifest, b"", b"", **fields)


def objections(
    found: BackupSet | None = None, options: Options = OPTIONS, known: dict[str, Any] | None = None, **node: Any
) -> tuple[Objection, ...]:
    circumstances = Circumstances(PLANNED_AT, **(known or {}))
    return preflight(make_cluster(), found or make_set(), [make_facts(**node)], options, circumstances)


def test_a_broken_cluster_and_a_good_backup_leave_one_note() -> None:
    found = objections()
    assert [each.severity for each in found] == ["note"]
    assert "will be lost" in found[0].sentence


MB = 10**6
BAD = Verification(at=PLANNED_AT, complete=True, problems=("etcd: page 7 is damaged",))
NO_DRILL = Verification(at=PLANNED_AT, levels=("stored",), complete=True)


@pytest.mark.parametrize(
    ("arguments", "severity", "words", "overridable"),
    [
        pytest.param(
            {"found": make_set(manifest=None, doubt=Doubt("foreign", "signed by nobody"))},
            "stop",
            "cannot be trusted (foreign): signed by nobody",
            False,
            id="signature",
        ),
        pytest.param({"found": make_set(verifications=(BAD,))}, "stop", "is bad: etcd: page 7", False, id="bad"),
        pytest.param({"found": make_set(verifications=())}, "stop", "never fully verified", True, id="unverified"),
        pytest.param({"found": make_set(verifications=(NO_DRILL,))}, "warning", "no drill", True, id="no-drill"),
        pytest.param(
            {"found": make_set(manifest=make_manifest(taken_at=PLANNED_AT - timedelta(days=30)))},
            "warning",
            "30.0 days old",
            True,
            id="old",
        ),
        pytest.param(
            {"found": make_set(manifest=make_manifest(cluster="other"))},
            "stop",
            "of cluster 'other'",
            False,
            id="other-cluster",
        ),
        pytest.param({"known": {"expires_at": PLANNED_AT}}, "stop", "have expired", True, id="certificates-expired"),
        pytest.param(
            {"known": {"expires_at": PLANNED_AT + timedelta(days=5)}},
            "warning",
            "expire soon",
            True,
            id="certificates-expire",
        ),
        pytest.param(
            {"known": {"running_backup": "manual__1"}},
            "stop",
            "manual__1 of this cluster is under way",
            True,
            id="backup-runs",
        ),
        pytest.param({"known": {"live_uid": "uid-9"}}, "stop", "another one: its kube-system", False, id="wrong-uid"),
        pytest.param(
            {"known": {"unreachable": {"cp-1": "refused"}}}, "stop", "cp-1 cannot be reached", False, id="unreachable"
        ),
        pytest.param({"ca_sha256": "d" * 64}, "stop", "of another cluster: its CA", False, id="wrong-ca"),
        pytest.param({"ca_sha256": None}, "stop", "cannot be proven", True, id="no-ca"),
        pytest.param(
            {"status": EtcdStatus("f" * 16, "1", "3.5.16", 1, 1)}, "note", "a restore in between", True, id="cluster-id"
        ),
        pytest.param({"etcd_healthy": True}, "stop", "no restore is needed", True, id="healthy"),
        pytest.param(
            {"etcd": EtcdStaticPod("cp-9", "etcd:3.5.16", "/d", None, "", "")},
            "stop",
            "named 'cp-9'",
            True,
            id="other-member",
        ),
        pytest.param(
            {"etcd": EtcdStaticPod("cp-0", "etcd:3.6.1", "/d", None, "", "")},
            "stop",
            "etcd is 3.6.1 now",
            True,
            id="other-version",
        ),
        pytest.param(
            {"etcd": None, "problems": ("etcd.yaml does not exist",), "absent": ("etcd.yaml",)},
            "stop",
            "etcd.yaml does not exist. Put the manifests back first",
            False,
            id="no-manifest",
        ),
        pytest.param(
            {"unknown": ("/v cannot be read: exit code 2",)}, "stop", "/v cannot be read", False, id="unknown"
        ),
        pytest.param(
            {"known": {"unasked": {"cp-1": "sudo says no"}}}, "stop", "cp-1 cannot be asked", False, id="unasked"
        ),
        pytest.param({"free_bytes": 10}, "stop", "10 bytes are free", False, id="disk-full"),
        pytest.param({"free_bytes": None}, "warning", "free space is not known", True, id="space-unknown"),
        pytest.param({"memory_bytes": 10 * MB}, "warning", "bytes of memory", True, id="memory"),
        pytest.param({"tools": ()}, "stop", "nothing found that can restore", False, id="no-tool"),
        pytest.param(
            {"tools": (), "tool_problems": ("docker is ill",)}, "stop", "; docker is ill", False, id="ill-runtime"
        ),
        pytest.param(
            {"tools": (Tool("node", "etcdctl", "", "3.5.1"),)},
            "warning",
            "cannot raise the revision",
            True,
            id="no-bump",
        ),
        pytest.param(
            {"tools": (Tool("node", "etcdutl", "", "3.6.1", bumps=True),)},
            "warning",
            "restores for etcd 3.5.16",
            True,
            id="tool-version",
        ),
        pytest.param({"running": None}, "stop", "cannot run crictl", False, id="no-crictl"),
        pytest.param({"curl": False}, "stop", "cannot run curl", False, id="no-curl"),
        pytest.param({"kubelet_running": None}, "stop", "choose the way `manifests`", False, id="no-systemctl"),
        pytest.param({"kubelet_running": False}, "warning", "does not run now", True, id="kubelet-down"),
        pytest.param({"mount_points": ("/etc/kubernetes/pki",)}, "stop", "mount point", False, id="mounted"),
        pytest.param(
            {"earlier": (EarlierRun("/v/.etcdkeep/r0", "active"),)},
            "stop",
            "restore 'r0' is under way",
            False,
            id="two-restores",
        ),
        pytest.param(
            {"earlier": (EarlierRun("/v/.etcdkeep/r0", "finished"),)},
            "note",
            "left the old state behind: r0",
            True,
            id="leftovers",
        ),
    ],
)
def test_each_danger_has_its_sentence(arguments: dict[str, Any], severity: str, words: str, overridable: bool) -> None:
    found = [each for each in objections(**arguments) if words in each.sentence]
    assert [(each.severity, each.overridable) for each in found] == [(severity, overridable)]


def test_all_come_at_once_the_weightiest_first() -> None:
    found = objections(make_set(verifications=()), ca_sha256="d" * 64, tools=(), free_bytes=None, etcd_healthy=True)
    assert len(found) == 6
    assert [each.overridable for each in found if each.severity == "stop"] == [False, False, True, True]
    assert found[-1].severity == "note"


def test_an_override_passes_over_what_may_be_passed_over() -> None:
    found = objections(make_set(verifications=()), ca_sha256="d" * 64)
    assert len(blocking(found)) == 2
    assert [each.sentence for each in blocking(found, override=True)] == [
        each.sentence for each in found if not each.overridable
    ]


def test_its_own_unfinished_run_is_no_objection() -> None:
    mine = (EarlierRun("/v/.etcdkeep/r1", "active"),)
    assert objections(earlier=mine) == objections()


def test_keys_alone_need_no_tool() -> None:
    assert objections(options=replace(OPTIONS, what=("pki",)), tools=()) == objections()


def test_a_minority_of_healthy_members_is_no_objection() -> None:
    found = make_set(manifest=make_manifest(3))
    nodes = [make_facts(f"cp-{index}", index, etcd_healthy=index == 0) for index in range(3)]
    sentences = [each.sentence for each in preflight(make_cluster(), found, nodes, OPTIONS, Circumstances(PLANNED_AT))]
    assert not any("no restore is needed" in sentence for sentence in sentences)


def test_manifests_that_cannot_be_read_are_not_to_be_put_back() -> None:
    found = objections(etcd=None, problems=("etcd.yaml cannot be read: exit code 1",))
    assert any("etcd.yaml cannot be read" in each.sentence for each in found)
    assert not any("Put the manifests back" in each.sentence for each in found)
