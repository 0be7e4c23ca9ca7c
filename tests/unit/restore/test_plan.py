"""Plans: what they say, what they never say, and that they stay what was approved."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from etcdkeep.config.access import Ssh
from etcdkeep.control_plane.static_pod import EtcdStaticPod
from etcdkeep.errors import NotApproved, ObjectDamaged
from etcdkeep.restore.found.nodes import EtcdStatus, PathFacts
from etcdkeep.restore.found.tools import Tool
from etcdkeep.restore.options import Options
from etcdkeep.restore.runbook import render_runbook
from etcdkeep.restore.steps import PHASES, Check, Plan, Put, Run, Step, in_order, parse_plan
from tests.unit.restore.builders import PLANNED_AT, judged, make_cluster, make_facts, make_manifest, node_names, planned

if TYPE_CHECKING:
    from etcdkeep.restore.judge.judgement import Judgement

DOCKER = Tool("docker", "etcdctl", "gcr.io/gke-on-prem-release/etcd-util:1.5.0-gke.0", "3.5.16", bumps=True)


def make_plan(nodes: int = 1, manifest: Any = None, options: Any = None, **overrides: Any) -> Plan:
    facts = [make_facts(name, index, **overrides) for index, name in enumerate(node_names(nodes))]
    return planned(make_cluster(), manifest or make_manifest(nodes), facts, options or Options("r1", PLANNED_AT))


def assert_refused(judgement: Judgement, words: str) -> None:
    """There is nothing to plan with, and one finding that nobody may override says why."""
    assert judgement.targets is None
    (said,) = [each for each in judgement.findings if words in each.sentence]
    assert (said.severity, said.overridable) == ("blocking problem", False)


def commands(plan: Plan) -> list[tuple[str, ...]]:
    return [action.argv for step in plan.steps for action in (step.action, step.undo) if isinstance(action, Run)]


def unpack_argv(plan: Plan) -> tuple[str, ...]:
    return next(
        step.action.argv for step in plan.steps if step.name.startswith("unpack") and isinstance(step.action, Run)
    )


def test_a_plan_survives_json_with_its_digest() -> None:
    plan = make_plan(3)
    again = parse_plan(plan.to_json(), approved=plan.digest)
    assert again == plan
    assert make_plan(3).digest == plan.digest


def test_a_plan_that_changed_since_its_approval_is_refused() -> None:
    approved = make_plan().digest
    changed = make_plan(member=PathFacts("/var/lib/etcd/member", "2001:2001", "750"))
    with pytest.raises(NotApproved, match="was approved; nothing was done"):
        parse_plan(changed.to_json(), approved=approved)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("{}", id="empty"),
        pytest.param("no json", id="no-json"),
        pytest.param(json.dumps(json.loads(make_plan().to_json()) | {"force": True}), id="unknown-field"),
    ],
)
def test_what_is_no_plan_is_refused(text: str) -> None:
    with pytest.raises(ObjectDamaged, match="restore plan"):
        parse_plan(text)


@pytest.mark.parametrize("way", ["kubelet", "manifests"])
@pytest.mark.parametrize("tool", [Tool("node", "etcdutl", "", "3.5.16", bumps=True), DOCKER], ids=["node", "docker"])
def test_the_dangerous_commands_of_the_vendors_page_are_nowhere(way: Any, tool: Tool) -> None:
    plan = make_plan(3, options=Options("r1", PLANNED_AT, way=way), tools=(tool,))
    words = [word for argv in commands(plan) for word in argv]
    scripts = " ".join(words)
    programs = {argv[2] for argv in commands(plan)}
    assert not programs & {"rm", "rmdir", "shred", "unlink"}
    assert "a+r" not in scripts
    assert not re.search(r"\brm -\w", scripts)
    assert "skip-hash-check" not in scripts
    assert "*" not in "".join(word for word in words if not word.startswith("^"))
    for page in (render_runbook(plan, Ssh()), plan.to_json()):
        assert not re.search(r"\brm -\w", page)


def test_docker_is_called_without_a_shell_and_sees_one_folder_only() -> None:
    argv = unpack_argv(make_plan(tools=(DOCKER,)))
    assert "sh" not in argv
    assert shlex.join(argv).startswith(
        "sudo -n docker run --rm --name etcdkeep-r1 --network none --user 0:0 -v /var/lib/.etcdkeep/r1:/var/lib/.etcdkeep/r1 "
        "--env ETCDCTL_API=3 gcr.io/gke-on-prem-release/etcd-util:1.5.0-gke.0 etcdctl snapshot restore /var/lib/.etcdkeep/r1/etcd.db"
    )


def test_a_large_snapshot_has_time_to_be_read_wherever_it_is_read_whole() -> None:
    manifest = make_manifest()
    snapshot = manifest.artifacts[0]
    large = snapshot.model_copy(update={"plaintext": snapshot.plaintext.model_copy(update={"size_bytes": 8 * 2**30})})
    plan = make_plan(manifest=manifest.model_copy(update={"artifacts": (large, *manifest.artifacts[1:])}))
    limits = {step.name: step.done.limit_s for step in plan.steps if isinstance(step.done, Check)}
    assert min(limits["snapshot.cp-0"], limits["check.cp-0"]) > 4000
    assert limits["folder.cp-0"] == 60


def test_no_container_is_begun_beside_one_that_a_cut_left_behind() -> None:
    steps = {step.name: step for step in make_plan(tools=(DOCKER,)).steps}
    users = [step for step in steps.values() if "--name etcdkeep-r1" in shlex.join(calls(step))]
    assert [step.name for step in users] == ["unpack.cp-0", "check.cp-0"]
    assert all("remains.cp-0" in step.requires for step in users)


def calls(step: Step) -> tuple[str, ...]:
    action, check = step.action, step.done
    return (*(action.argv if isinstance(action, Run) else ()), *(check.argv if isinstance(check, Check) else ()))


@pytest.mark.parametrize(
    ("what", "said"),
    [
        pytest.param(("etcd", "pki"), f"with etcdctl 3.5.16 in {DOCKER.image} by docker, and checked", id="etcd"),
        pytest.param(("pki",), "certificates and keys are copied to each node", id="pki-alone"),
    ],
)
def test_the_approvers_read_what_is_done_beforehand_and_with_what(what: Any, said: str) -> None:
    plan = make_plan(options=Options("r1", PLANNED_AT, what=what), tools=(DOCKER,))
    assert any(said in line for line in plan.words), plan.words


def test_every_member_is_told_of_all_members_and_of_the_same_new_token() -> None:
    plan = make_plan(3)
    calls = [step.action.argv for step in plan.steps if step.name.startswith("unpack") and isinstance(step.action, Run)]
    peers = "--initial-cluster=cp-0=https://10.0.0.1:2380,cp-1=https://10.0.0.2:2380,cp-2=https://10.0.0.3:2380"
    assert all(peers in argv and f"--initial-cluster-token={plan.token}" in argv for argv in calls)
    assert [flag for argv in calls for flag in argv if flag.startswith("--name=")] == [
        "--name=cp-0",
        "--name=cp-1",
        "--name=cp-2",
    ]
    assert make_plan(3, options=Options("r2", PLANNED_AT)).token != plan.token


def test_three_members_come_from_the_same_snapshot() -> None:
    puts = [step.action for step in make_plan(3).steps if isinstance(step.action, Put)]
    assert len({put.sha256 for put in puts if put.artifact == "etcd.db"}) == 1
    assert [put.artifact for put in puts if put.artifact != "etcd.db"] == [
        f"control-plane-cp-{index}.tar" for index in range(3)
    ]


@pytest.mark.parametrize(
    ("live", "expected"),
    [
        pytest.param(None, 1_000 + 1_000_000_000 + 265_500 * 20_000, id="by-the-clock"),
        pytest.param(9_000_000_000_000, 9_000_000_000_000 + 1_000_000_000, id="past-the-live-revision"),
    ],
)
def test_revisions_go_on_past_all_that_clients_have_seen(live: int | None, expected: int) -> None:
    status = EtcdStatus("1", "2", "3.5.16", live, 5) if live else None
    assert make_plan(status=status).expected_revision == expected


@pytest.mark.parametrize(
    ("tool", "options"),
    [
        pytest.param(Tool("node", "etcdctl", "", "3.4.13"), Options("r1", PLANNED_AT), id="tool-cannot"),
        pytest.param(
            Tool("node", "etcdutl", "", "3.5.16", bumps=True),
            Options("r1", PLANNED_AT, bump_revision=False),
            id="not-wanted",
        ),
    ],
)
def test_without_a_bump_the_plan_says_so(tool: Tool, options: Options) -> None:
    plan = make_plan(tools=(tool,), options=options)
    assert plan.bump_revision == 0
    assert plan.expected_revision == 1000
    assert not any(word.startswith("--bump") for word in unpack_argv(plan))
    assert any("no bump" in line for line in plan.words)


@pytest.mark.parametrize(
    ("entry", "what", "expected"),
    [
        pytest.param({"profile": "kubeadm"}, ("etcd", "pki"), (), id="nothing-more-travels"),
        pytest.param({}, ("etcd",), ("/opt/data/gke-k8s-kms-plugin/generatedkeys",), id="kms-keys"),
        pytest.param(
            {"profile": "kubeadm", "extra_paths": ["/etc/kubernetes/audit/", "/etc/kubernetes/pki/extra"]},
            ("etcd", "pki"),
            ("/etc/kubernetes/audit",),
            id="below-the-pki-it-comes-back",
        ),
        pytest.param(
            {"profile": "kubeadm", "extra_paths": ["/etc/kubernetes/pki/extra"]},
            ("etcd",),
            ("/etc/kubernetes/pki/extra",),
            id="etcd-alone",
        ),
    ],
)
def test_what_travels_and_is_not_put_back_is_named(entry: dict[str, Any], what: Any, expected: tuple[str, ...]) -> None:
    cluster = make_cluster(**entry)
    plan = planned(cluster, make_manifest(profile=cluster.profile), [make_facts()], Options("r1", PLANNED_AT, what))
    named = [line for line in plan.words if line.startswith("Not restored")]
    assert len(named) == bool(expected)
    assert all(f": {', '.join(expected)}." in line for line in named)


def test_owner_mode_and_label_are_the_live_datas() -> None:
    labelled = PathFacts("/var/lib/etcd/member", "2001:2001", "750", "system_u:object_r:etcd_t:s0")
    text = [" ".join(argv) for argv in commands(make_plan(member=labelled))]
    assert any("chown -R 2001:2001 /var/lib/.etcdkeep/r1/data.part/member" in each for each in text)
    assert any("chmod 750" in each for each in text)
    assert any("chcon -R system_u:object_r:etcd_t:s0" in each for each in text)


def test_a_data_folder_that_is_a_mount_point_keeps_the_runs_folder_inside() -> None:
    plan = make_plan(mount_points=("/var/lib/etcd",))
    assert plan.places[0].folder == "/var/lib/etcd/.etcdkeep/r1"


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        pytest.param(
            {"etcd": None, "problems": ("/m/etcd.yaml is not there",)}, "etcd.yaml is not there", id="no-manifest"
        ),
        pytest.param({"tools": ()}, "neither etcdutl nor etcdctl", id="no-tool"),
        pytest.param({"mount_points": ("/etc/kubernetes/pki",)}, "mount point", id="pki-mounted"),
        pytest.param({"mount_points": ("/var/lib/etcd/member",)}, "mount point", id="member-mounted"),
        pytest.param(
            {"etcd": EtcdStaticPod("cp-0", "etcd:3.5.1", "/var/lib/etcd", "/wal", "cp-0=u", "u")},
            "--wal-dir",
            id="wal-dir",
        ),
    ],
)
def test_what_cannot_be_planned_is_refused_with_the_reason(overrides: dict[str, Any], words: str) -> None:
    judgement = judged(make_cluster(), make_manifest(), [make_facts(**overrides)], Options("r1", PLANNED_AT))
    assert_refused(judgement, words)


@pytest.mark.parametrize(
    ("manifest", "options", "words"),
    [
        pytest.param(make_manifest(cluster="other"), None, "not of 'prod'", id="another-cluster"),
        pytest.param(make_manifest(profile="kubeadm"), None, "kubeadm cluster", id="another-kind"),
        pytest.param(None, Options("r1; reboot", PLANNED_AT), "not a name", id="unsafe-name"),
        pytest.param(None, Options("r1", PLANNED_AT, what=()), "nothing is selected", id="nothing"),
        pytest.param(make_manifest(artifacts=make_manifest().artifacts[:1]), None, "no certificates", id="no-keys"),
    ],
)
def test_a_choice_without_sense_is_refused(manifest: Any, options: Any, words: str) -> None:
    options = options or Options("r1", PLANNED_AT)
    assert_refused(judged(make_cluster(), manifest or make_manifest(), [make_facts()], options), words)


def test_down_time_begins_only_when_everything_is_prepared() -> None:
    plan = make_plan(3)
    assert plan.steps == in_order(plan.steps)
    assert (PHASES.index("stage"), PHASES.index("restore_etcd"), PHASES.index("stop")) == (0, 1, 2)
    before = [*plan.phase("stage"), *plan.phase("restore_etcd")]
    ran = [step.action.argv for step in before if isinstance(step.action, Run)]
    assert not [argv for argv in ran if "stop" in argv]
    assert [argv for argv in ran if "restore" in argv], "the snapshot is restored by then"
    brought = {step.action.artifact for step in plan.phase("stage") if isinstance(step.action, Put)}
    assert {"etcd.db", "control-plane-cp-0.tar"} <= brought


def test_manifests_are_parked_outside_their_folder_before_the_containers_are_stopped() -> None:
    plan = make_plan(options=Options("r1", PLANNED_AT, way="manifests"))
    *parked, gone = [step.action for step in plan.phase("stop") if step.action is not None]
    assert {action.target.rpartition("/")[0] for action in parked if action.kind == "move"} == {
        "/etc/kubernetes/.etcdkeep/r1/manifests"
    }
    assert len(parked) == 4
    assert gone.kind == "run"
    assert "crictl stop --timeout 2" in gone.argv[-1], "kube-apiserver would take its 30 seconds otherwise"
    assert "crictl rm" in gone.argv[-1], "an exited container makes the kubelet wait before it starts the next"


def test_steps_have_names_of_their_own() -> None:
    names = [step.name for step in make_plan(3, options=Options("r1", PLANNED_AT, way="manifests")).steps]
    assert len(names) == len(set(names))
    known = set(names)
    for step in make_plan(3).steps:
        assert replace(step).name
        for other in (*step.needed_until, *step.requires, *step.undo_needed_until, *step.undo_requires):
            assert other in known | {each.name for each in make_plan(3).steps}


def test_members_that_share_a_peer_url_cannot_be_planned() -> None:
    facts = [make_facts("cp-0", 0), make_facts("cp-1", 0)]
    judgement = judged(make_cluster(), make_manifest(2), facts, Options("r1", PLANNED_AT))
    assert_refused(judgement, "nodes cp-0, cp-1 have the same peer URL")
