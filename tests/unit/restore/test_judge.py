"""The judge of a restore: each danger with its own sentence, all at once, and targets where nothing is missing."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from etcdkeep.control_plane.static_pod import EtcdStaticPod
from etcdkeep.restore.circumstances import Circumstances
from etcdkeep.restore.found.nodes import EarlierRun, EtcdStatus, PathFacts
from etcdkeep.restore.found.tools import Tool
from etcdkeep.restore.judge.finding import Finding, blocking_problems
from etcdkeep.restore.judge.judgement import judge
from etcdkeep.restore.options import Options
from etcdkeep.restore.plan.any_cluster import plan_restore
from etcdkeep.sets.backup_set import BackupSet, Doubt
from etcdkeep.sets.results import VERIFICATION, Verification
from tests.builders import make_signed
from tests.unit.restore.builders import PLANNED_AT, make_cluster, make_facts, make_manifest

if TYPE_CHECKING:
    from etcdkeep.restore.options import What

DRILLED = Verification(at=PLANNED_AT, levels=("stored", "sealed", "etcd", "pki", "drill"), complete=True)
OPTIONS = Options("r1", PLANNED_AT)


def make_set(**overrides: Any) -> BackupSet:
    manifest = overrides.pop("manifest", make_manifest())
    records = tuple(make_signed(VERIFICATION, each) for each in overrides.pop("verifications", (DRILLED,)))
    fields: dict[str, Any] = {"records": records} | overrides
    return BackupSet("prod", "20261120T023000Z-1f0c9a3e", manifest, b"", b"", **fields)


def findings(
    found: BackupSet | None = None, options: Options = OPTIONS, known: dict[str, Any] | None = None, **node: Any
) -> tuple[Finding, ...]:
    circumstances = Circumstances(PLANNED_AT, **(known or {}))
    return judge(make_cluster(), found or make_set(), (make_facts(**node),), options, circumstances).findings


def test_a_broken_cluster_and_a_good_backup_leave_one_note() -> None:
    found = findings()
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
            "blocking problem",
            "cannot be trusted (foreign): signed by nobody",
            False,
            id="signature",
        ),
        pytest.param(
            {"found": make_set(verifications=(BAD,))}, "blocking problem", "is bad: etcd: page 7", False, id="bad"
        ),
        pytest.param(
            {"found": make_set(verifications=())},
            "blocking problem",
            "never completely verified",
            True,
            id="unverified",
        ),
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
            "blocking problem",
            "of cluster 'other'",
            False,
            id="other-cluster",
        ),
        pytest.param(
            {"known": {"expires_at": PLANNED_AT}}, "blocking problem", "have expired", True, id="certificates-expired"
        ),
        pytest.param(
            {"known": {"expires_at": PLANNED_AT + timedelta(days=5)}},
            "warning",
            "expire soon",
            True,
            id="certificates-expire",
        ),
        pytest.param(
            {"known": {"running_backup": "manual__1"}},
            "blocking problem",
            "manual__1 of this cluster is running",
            True,
            id="backup-runs",
        ),
        pytest.param(
            {"known": {"live_uid": "uid-9"}},
            "blocking problem",
            "not the cluster of the backup: its kube-system",
            False,
            id="wrong-uid",
        ),
        pytest.param(
            {"known": {"unreachable": {"cp-1": "refused"}}},
            "blocking problem",
            "cp-1 cannot be reached",
            False,
            id="unreachable",
        ),
        pytest.param({"known": {"sealed": "no key"}}, "blocking problem", "here: no key", False, id="sealed"),
        pytest.param({"known": {"locked_by": "r0"}}, "blocking problem", "locked by restore 'r0'", True, id="locked"),
        pytest.param({"ca_sha256": "d" * 64}, "blocking problem", "to another cluster: its CA", False, id="wrong-ca"),
        pytest.param({"ca_sha256": None}, "blocking problem", "cannot confirm", True, id="no-ca"),
        pytest.param(
            {"status": EtcdStatus("f" * 16, "1", "3.5.16", 1, 1)}, "note", "a restore since then", True, id="cluster-id"
        ),
        pytest.param({"etcd_healthy": True}, "blocking problem", "no restore is needed", True, id="healthy"),
        pytest.param(
            {"etcd": EtcdStaticPod("cp-9", "etcd:3.5.16", "/d", None, "", "")},
            "blocking problem",
            "named 'cp-9'",
            True,
            id="other-member",
        ),
        pytest.param(
            {"etcd": EtcdStaticPod("cp-0", "etcd:3.6.1", "/d", None, "", "")},
            "blocking problem",
            "etcd is 3.6.1 now",
            True,
            id="other-version",
        ),
        pytest.param(
            {"etcd": None, "problems": ("etcd.yaml does not exist",), "absent": ("etcd.yaml",)},
            "blocking problem",
            "etcd.yaml does not exist. Put the manifests back first",
            False,
            id="no-manifest",
        ),
        pytest.param(
            {"unknown": ("/v cannot be read: exit code 2",)},
            "blocking problem",
            "/v cannot be read",
            False,
            id="unknown",
        ),
        pytest.param(
            {"known": {"unasked": {"cp-1": "sudo says no"}}},
            "blocking problem",
            "cp-1 cannot run commands",
            False,
            id="unasked",
        ),
        pytest.param({"free_bytes": 10}, "blocking problem", "10 bytes are free", False, id="disk-full"),
        pytest.param({"free_bytes": None}, "warning", "free space is unknown", True, id="space-unknown"),
        pytest.param({"memory_bytes": 10 * MB}, "warning", "bytes of memory", True, id="memory"),
        pytest.param({"tools": ()}, "blocking problem", "nothing found that can restore", False, id="no-tool"),
        pytest.param(
            {"tools": (), "tool_problems": ("docker is ill",)},
            "blocking problem",
            "; docker is ill",
            False,
            id="ill-runtime",
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
        pytest.param(
            {"running": None, "crictl_problem": "cannot run crictl: x"},
            "blocking problem",
            "cp-0: cannot run crictl: x",
            False,
            id="no-crictl",
        ),
        pytest.param(
            {"curl": False, "curl_problem": "cannot run curl: x"},
            "blocking problem",
            "cp-0: cannot run curl: x",
            False,
            id="no-curl",
        ),
        pytest.param(
            {"kubelet_running": None}, "blocking problem", "choose the way `manifests`", False, id="no-systemctl"
        ),
        pytest.param({"kubelet_running": False}, "warning", "does not run now", True, id="kubelet-down"),
        pytest.param(
            {"mount_points": ("/etc/kubernetes/pki",)}, "blocking problem", "mount point", False, id="mounted"
        ),
        pytest.param(
            {"earlier": (EarlierRun("/v/.etcdkeep/r0", "active"),)},
            "blocking problem",
            "restore 'r0' is running",
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
    found = [each for each in findings(**arguments) if words in each.sentence]
    assert [(each.severity, each.overridable) for each in found] == [(severity, overridable)]


def test_all_come_at_once_the_weightiest_first() -> None:
    found = findings(make_set(verifications=()), ca_sha256="d" * 64, tools=(), free_bytes=None, etcd_healthy=True)
    assert len(found) == 6
    assert [each.overridable for each in found if each.severity == "blocking problem"] == [False, False, True, True]
    assert found[-1].severity == "note"


def test_an_override_leaves_what_nobody_may_override() -> None:
    found = findings(make_set(verifications=()), ca_sha256="d" * 64)
    assert len(blocking_problems(found)) == 2
    assert [each.sentence for each in blocking_problems(found, override=True)] == [
        each.sentence for each in found if not each.overridable
    ]


def test_its_own_unfinished_run_is_no_finding() -> None:
    mine = (EarlierRun("/v/.etcdkeep/r1", "active"),)
    assert findings(earlier=mine) == findings()


def test_keys_alone_need_no_tool() -> None:
    assert findings(options=replace(OPTIONS, what=("pki",)), tools=()) == findings()


def test_a_minority_of_healthy_members_is_no_finding() -> None:
    found = make_set(manifest=make_manifest(3))
    nodes = tuple(make_facts(f"cp-{index}", index, etcd_healthy=index == 0) for index in range(3))
    judgement = judge(make_cluster(), found, nodes, OPTIONS, Circumstances(PLANNED_AT))
    sentences = [each.sentence for each in judgement.findings]
    assert not any("no restore is needed" in sentence for sentence in sentences)


def test_manifests_that_cannot_be_read_are_not_to_be_put_back() -> None:
    found = findings(etcd=None, problems=("etcd.yaml cannot be read: exit code 1",))
    assert any("etcd.yaml cannot be read" in each.sentence for each in found)
    assert not any("Put the manifests back" in each.sentence for each in found)


# --- targets: planning cannot fail ---------------------------------------------------------------------------------

FAULTS: dict[str, dict[str, Any]] = {
    "none": {},
    "no-tool": {"tools": (), "tool_problems": ("docker is ill",)},
    "no-etcd": {"etcd": None, "problems": ("etcd.yaml does not exist", "no crictl"), "running": None}
    | {"crictl_problem": "no crictl"},
    "no-apiserver": {"apiserver": None},
    "wal-dir": {"etcd": EtcdStaticPod("cp-0", "etcd:3.5.1", "/var/lib/etcd", "/wal", "cp-0=u", "u")},
    "pki-mounted": {"mount_points": ("/etc/kubernetes/pki",)},
    "manifests-mounted": {"mount_points": ("/etc/kubernetes/manifests",)},
    "nothing-there": {"data": PathFacts("/var/lib/etcd"), "member": PathFacts("/var/lib/etcd/member")},
    "no-kubelet": {"kubelet_running": None},
}
SETS = {
    "whole": make_manifest(2),
    "no-keys-of-the-second": make_manifest(2, artifacts=make_manifest(1).artifacts),
    "no-snapshot": make_manifest(2, artifacts=make_manifest(2).artifacts[1:]),
    "another-cluster": make_manifest(2, cluster="other"),
    "another-profile": make_manifest(2, profile="kubeadm"),
    "no-members": make_manifest(2, members=()),
}
WHAT: list[tuple[What, ...]] = [("etcd", "pki"), ("etcd",), ("pki",), ("etcd", "config"), ("config",), ()]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("kind", SETS)
@pytest.mark.parametrize("what", WHAT, ids="+".join)
def test_there_is_a_plan_or_a_finding_that_nobody_overrides(fault: str, kind: str, what: tuple[What, ...]) -> None:
    nodes = (make_facts("cp-0", 0, **FAULTS[fault]), make_facts("cp-1", 1))
    for way, bump, names in (("kubelet", True, "r1"), ("manifests", False, "r1"), ("kubelet", True, "a b")):
        options = Options(names, PLANNED_AT, what, way, bump)  # type: ignore[arg-type]
        judgement = judge(make_cluster(), make_set(manifest=SETS[kind]), nodes, options, Circumstances(PLANNED_AT))
        if judgement.targets is None:
            assert blocking_problems(judgement.findings, override=True)
        else:
            assert [place.name for place in plan_restore(judgement.targets).places] == ["cp-0", "cp-1"]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fact_is_worded_once(fault: str) -> None:
    said = " ".join(each.sentence for each in findings(**FAULTS[fault]))
    for words in ("etcd.yaml", "no crictl", "can restore", "--wal-dir", "mount point", "the kubelet ", "docker is ill"):
        assert said.count(words) <= 1, words


def test_nodes_without_a_tool_keep_their_data_and_get_their_keys() -> None:
    options = replace(OPTIONS, what=("pki",))
    judgement = judge(make_cluster(), make_set(), (make_facts(tools=()),), options, Circumstances(PLANNED_AT))
    assert judgement.targets is not None
    plan = plan_restore(judgement.targets)
    assert {"place-keys.cp-0"} == {step.name for step in plan.steps if step.name.startswith("place-")}


def test_nodes_that_were_not_read_leave_nothing_to_plan_with() -> None:
    known = Circumstances(PLANNED_AT, unread="no address")
    judgement = judge(make_cluster(), make_set(), None, OPTIONS, known)
    assert judgement.targets is None
    assert (judgement.findings[0].sentence, judgement.findings[0].overridable) == ("no address", False)
