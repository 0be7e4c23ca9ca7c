"""Kubeception: facts from the API, and the plan walked in a simulated admin cluster, with faults at any call."""

from __future__ import annotations

import copy
import subprocess
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etcdkeep.config.access import Ssh
from etcdkeep.errors import EtcdkeepError, RequestRefused, RollbackIncomplete, StepFailed
from etcdkeep.restore.circumstances import Circumstances
from etcdkeep.restore.engine import Engine
from etcdkeep.restore.found.tools import Tool
from etcdkeep.restore.judge.judgement import judge
from etcdkeep.restore.node_memory import check_memory
from etcdkeep.restore.options import Options
from etcdkeep.restore.plan.release import plan_release
from etcdkeep.restore.plan.utility_pod import AS_ROOT
from etcdkeep.restore.probe.pods import gather_pods
from etcdkeep.restore.runbook import render_runbook
from etcdkeep.restore.steps import OUTAGE, PHASES, Call, Check, Plan, Run
from etcdkeep.sets.backup_set import BackupSet
from etcdkeep.sets.manifest import Identity, Manifest
from tests.unit.restore.admin_api import APPS, BUDGET, ETCD, PODS, AdminApi, PodWorld
from tests.unit.restore.builders import PLANNED_AT, make_cluster, make_manifest, planned
from tests.unit.restore.machine import Fault, Killed
from tests.unit.restore.test_engine import Clock

if TYPE_CHECKING:
    from pathlib import Path

    from etcdkeep.restore.found.pods import PodFacts
    from etcdkeep.restore.judge.finding import Finding

CLUSTER = make_cluster(name="user-1", profile="gke-user-kubeception")


def manifest(members: int) -> Manifest:
    return make_manifest(members, cluster="user-1", profile="gke-user-kubeception")


def make_plan(api: AdminApi, **options: Any) -> Plan:
    facts = gather_pods(api, CLUSTER, manifest(api.members))
    return planned(CLUSTER, manifest(api.members), facts, Options("r1", PLANNED_AT, what=("etcd",), **options))


def make_engine(plan: Plan, api: AdminApi) -> Engine:
    clock = Clock()
    return Engine(plan, PodWorld(api), sleep=clock.sleep, clock=lambda: clock.now)


def state(api: AdminApi) -> dict[str, Any]:
    """What somebody sees who knows nothing of restores."""
    objects = copy.deepcopy(api.objects)
    objects[BUDGET]["metadata"] = {"name": objects[BUDGET]["metadata"]["name"]}
    objects[BUDGET].pop("apiVersion", None)
    objects[BUDGET].pop("kind", None)
    files = {
        name: {path: text for path, text in claim.files.items() if ".etcdkeep" not in path}
        for name, claim in api.claims.items()
    }
    return {"objects": objects, "files": files}


def expect_restored(api: AdminApi, plan: Plan) -> None:
    for claim in api.claims.values():
        assert claim.files["/var/lib/etcd/data/member/snap/db"] == f"restored data@{plan.expected_revision}"
        assert f"live data of {claim.name}@1500" in claim.files.values()
    assert api.objects[ETCD]["spec"]["replicas"] == api.members
    assert api.objects[f"{APPS}/statefulsets/kube-apiserver"]["spec"]["replicas"] == 3
    assert api.objects[f"{APPS}/deployments/gke-master-etcd-maintenance"]["spec"]["replicas"] == 1
    assert api.objects[BUDGET]["spec"] == {"minAvailable": 1}
    assert not [path for path in api.objects if "utility" in path]


def test_what_is_found() -> None:
    facts = gather_pods(AdminApi(3), CLUSTER, manifest(3))
    assert [(each.name, each.claim, each.peer_urls) for each in facts.members][1] == (
        "kube-etcd-1",
        "data-kube-etcd-1",
        "https://kube-etcd-1.kube-etcd:2380",
    )
    assert (facts.data_dir, facts.mount, facts.replicas, facts.revision) == (
        "/var/lib/etcd/data",
        "/var/lib/etcd",
        3,
        1500,
    )
    assert facts.live.owner == "2001:2001"
    assert facts.tool.bumps
    assert facts.unfinished == ""


@pytest.mark.parametrize(
    "args",
    [
        pytest.param(["--data-dir", "/var/lib/etcd/data"], id="two-words"),
        pytest.param(["-data-dir=/var/lib/etcd/data"], id="one-dash"),
        pytest.param(["sh", "-ec", 'exec etcd --client-cert-auth --data-dir "/var/lib/etcd/data"; true'], id="shell"),
        pytest.param([], id="variable"),
    ],
)
def test_the_data_directory_is_found_however_it_is_given(args: list[str]) -> None:
    api = AdminApi(1)
    container = api.objects[ETCD]["spec"]["template"]["spec"]["containers"][0]
    container["args"], container["command"] = args, []
    if not args:
        container["env"] = [*container.get("env", []), {"name": "ETCD_DATA_DIR", "value": "/var/lib/etcd/data"}]
    assert gather_pods(api, CLUSTER, manifest(1)).data_dir == "/var/lib/etcd/data"


def test_without_a_shell_in_etcds_image_the_profiles_is_taken_as_a_node_has_it() -> None:
    api = AdminApi(shell=False)
    with pytest.raises(RequestRefused, match=r"control_plane\.restore_image"):
        gather_pods(api, CLUSTER, manifest(1))
    image = "gcr.io/gke-on-prem-release/etcd-util:1.5.0-gke.0"
    api.objects["/api/v1/nodes/n"] = {
        "metadata": {"name": "n"},
        "status": {"images": [{"names": ["busybox:1", image]}]},
    }
    facts = gather_pods(api, CLUSTER, manifest(1))
    assert facts.image == image
    assert not facts.tool.bumps


def test_an_etcd_that_crashes_again_and_again_is_not_asked() -> None:
    api = AdminApi(crashing=True)
    image = "gcr.io/gke-on-prem-release/etcd-util:1.5.0-gke.0"
    api.objects["/api/v1/nodes/n"] = {"metadata": {"name": "n"}, "status": {"images": [{"names": [image]}]}}
    facts = gather_pods(api, CLUSTER, manifest(1))
    assert (facts.image, facts.live.owner, facts.revision) == (image, None, None)
    assert not facts.members[0].healthy


def test_data_get_the_live_ones_owner_also_where_etcd_could_not_be_asked(tmp_path: Path) -> None:
    api = AdminApi(crashing=True)
    image = "gcr.io/gke-on-prem-release/etcd-util:1.5.0-gke.0"
    api.objects["/api/v1/nodes/n"] = {"metadata": {"name": "n"}, "status": {"images": [{"names": [image]}]}}
    step = next(step for step in make_plan(api).steps if step.name == "owner.kube-etcd-0")
    assert isinstance(step.action, Run)
    assert isinstance(step.done, Check)
    for live, new in (("data/member", "new/member"), ("wiped/member", "new/member")):
        (tmp_path / live).parent.mkdir()
        (tmp_path / new / "snap").mkdir(parents=True, exist_ok=True)
        (tmp_path / new / "snap/db").touch()
        for argv in (step.action.argv, step.done.argv):
            subprocess.run([*argv[:-2], tmp_path / live, tmp_path / new], check=True)
    assert step.action.argv[-2:] == ("/var/lib/etcd/data/member", "/var/lib/etcd/.etcdkeep/r1/data.part/member")


@pytest.mark.parametrize("members", [1, 3])
def test_it_ends_restored_and_can_be_taken_back(members: int) -> None:
    api = AdminApi(members)
    before = state(api)
    plan = make_plan(api)
    engine = make_engine(plan, api)
    engine.walk()
    expect_restored(api, plan)
    engine.roll_back()
    assert state(api) == before
    engine.walk()
    expect_restored(api, plan)


def test_it_can_be_rolled_back_until_it_is_closed() -> None:
    api = AdminApi(1)
    plan = make_plan(api)
    engine = make_engine(plan, api)
    engine.walk(PHASES[:-1])
    check_memory(PodWorld(api), plan, ())
    engine.walk(("close",))
    for phases in ((), ("stage",), OUTAGE):
        with pytest.raises(RequestRefused, match="has ended well"):
            check_memory(PodWorld(api), plan, phases)
    check_memory(PodWorld(api), plan, ("verify", "close"))


def test_a_second_restore_right_after_works_too() -> None:
    api = AdminApi(3)
    make_engine(make_plan(api), api).walk()
    facts = gather_pods(api, CLUSTER, manifest(3))
    again = planned(CLUSTER, manifest(3), facts, Options("r2", PLANNED_AT, what=("etcd",)))
    make_engine(again, api).walk()
    expect_restored(api, again)


def test_an_unfinished_restore_shows_in_the_facts() -> None:
    api = AdminApi()
    api.patch(ETCD, {"metadata": {"annotations": {"etcdkeep-restore": "r1"}}})
    assert gather_pods(api, CLUSTER, manifest(1)).unfinished == "r1"
    api.patch(ETCD, {"metadata": {"annotations": {"etcdkeep-restored": "r1"}}})
    assert gather_pods(api, CLUSTER, manifest(1)).unfinished == ""


UNIDENTIFIED = {"kube_system_uid": "uid-1", "namespace_uid": "uid-2", "etcd_cluster_id": "e"}


def findings(found: BackupSet, facts: PodFacts, run: str) -> tuple[Finding, ...]:
    options = Options(run, PLANNED_AT, what=("etcd",))
    return judge(CLUSTER, found, facts, options, Circumstances(PLANNED_AT)).findings


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param({"kube_system_uid": "uid-9"}, "another admin cluster", id="other-admin-cluster"),
        pytest.param({"namespace_uid": "uid-9"}, "is another one", id="namespace-made-anew"),
        pytest.param({"unfinished": "r0"}, "restore 'r0' is running", id="two-restores"),
        pytest.param({"tool": Tool("node", "etcdctl", prefix=())}, "cannot raise the revision", id="no-bump"),
        pytest.param({"members": ()}, "the backup has 1 member(s)", id="other-size"),
    ],
)
def test_findings(changes: dict[str, Any], words: str) -> None:
    facts = replace(gather_pods(AdminApi(), CLUSTER, manifest(1)), **changes)
    found = BackupSet(
        "user-1", "x", manifest(1).model_copy(update={"identity": Identity(**UNIDENTIFIED)}), b"", b"", ()
    )
    sentences = [each.sentence for each in findings(found, facts, "r1")]
    assert sum(words in sentence for sentence in sentences) == 1
    if facts.members:
        assert any("no restore is needed" in sentence for sentence in sentences)


LOSSES = ("drain", "lost", "evicted", "terminating")
FAULTS = st.tuples(st.sampled_from(["kill", "cut", *LOSSES]), st.integers(1, 220), st.booleans())


def links(api: AdminApi) -> list[str]:
    """Return the claims that a restore holds."""
    return [name for name, claim in api.claims.items() if "/var/lib/etcd/.etcdkeep/active" in claim.files]


def holds(api: AdminApi) -> list[str]:
    """Return the annotations that say so."""
    return [name for name in api.objects[ETCD]["metadata"]["annotations"] if name.startswith("etcdkeep-hold")]


@pytest.mark.parametrize("how", LOSSES)
@pytest.mark.parametrize("before", [True, False], ids=["no-effect", "after-its-effect"])
def test_a_utility_pod_lost_at_any_call_is_made_again_by_the_same_walk(how: str, before: bool) -> None:
    whole = AdminApi()
    plan = make_plan(whole)
    begun = whole.count
    make_engine(plan, whole).walk(["stage", "restore_etcd"])
    for at in range(1, whole.count - begun + 1):
        api = AdminApi()
        plan = make_plan(api)
        api.fault = Fault(api.count + at, how, before)
        make_engine(plan, api).walk()
        expect_restored(api, plan)
        assert (links(api), holds(api)) == ([], []), f"call {at}"


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("until", ["stage", "restore_etcd"])
def test_a_rollback_releases_the_claim_also_where_the_utility_pod_is_gone(members: int, until: Any) -> None:
    api = AdminApi(members)
    start, plan = state(api), make_plan(api)
    make_engine(plan, api).walk(["stage", "restore_etcd"][: 1 + (until == "restore_etcd")])
    assert len(links(api)) == members
    api.lose_utility_pods("lost")
    make_engine(plan, api).roll_back()
    assert (links(api), holds(api), state(api)) == ([], [], start)
    assert make_engine(plan, api).remaining() == ()


def test_a_claim_that_was_released_needs_no_pod_again() -> None:
    api = AdminApi(3)
    plan = make_plan(api)
    make_engine(plan, api).walk(["stage"])
    make_engine(plan, api).roll_back()
    api.nodes_down = True
    make_engine(plan, api).roll_back()
    assert not [path for path in api.objects if "utility" in path]


def test_a_rollback_that_cannot_release_the_claim_says_so_and_releases_it_later() -> None:
    api = AdminApi()
    start, plan = state(api), make_plan(api)
    make_engine(plan, api).walk(["stage", "restore_etcd"])
    api.lose_utility_pods("lost")
    api.nodes_down = True
    with pytest.raises(RollbackIncomplete) as caught:
        make_engine(plan, api).roll_back()
    assert "claim.kube-etcd-0" in caught.value.remaining
    assert gather_pods(api, CLUSTER, manifest(1)).holders == {"r1": ("kube-etcd-0",)}
    api.nodes_down = False
    make_engine(plan, api).roll_back()
    assert (links(api), holds(api), state(api)) == ([], [], start)


@pytest.mark.parametrize("by", ["link", "annotation"])
def test_preflight_names_who_holds_a_claim_and_the_command_that_releases_it(by: str) -> None:
    api = AdminApi(3)
    make_engine(make_plan(api), api).walk(["stage"])
    api.lose_utility_pods("lost")
    if by == "link":
        api.patch(ETCD, {"metadata": {"annotations": dict.fromkeys(holds(api))}})
    else:
        for claim in api.claims.values():
            del claim.files["/var/lib/etcd/.etcdkeep/active"]
    facts = gather_pods(api, CLUSTER, manifest(3))
    found = BackupSet("user-1", "x", manifest(3), b"", b"", ())
    [stop] = [each for each in findings(found, facts, "r2") if "'r1'" in each.sentence]
    assert "kube-etcd-0, kube-etcd-1, kube-etcd-2" in stop.sentence
    assert "python -m etcdkeep restore-leftovers user-1 --release r1" in stop.sentence
    assert (stop.severity, stop.overridable) == ("blocking problem", False)
    own = findings(found, facts, "r1")
    assert not [each for each in own if "'r1'" in each.sentence]

    release = plan_release(CLUSTER, manifest(3), facts, Options("r1", PLANNED_AT, what=("etcd",)))
    make_engine(release, api).roll_back()
    assert (links(api), holds(api)) == ([], [])
    assert not [path for path in api.objects if "utility" in path]
    with pytest.raises(RequestRefused, match="it holds no claim"):
        plan_release(CLUSTER, manifest(3), gather_pods(api, CLUSTER, manifest(3)), Options("r1", PLANNED_AT))
    again = planned(CLUSTER, manifest(3), gather_pods(api, CLUSTER, manifest(3)), Options("r2", PLANNED_AT, ("etcd",)))
    make_engine(again, api).walk()
    expect_restored(api, again)


def test_what_has_stopped_or_swapped_something_is_rolled_back_and_not_released() -> None:
    api = AdminApi()
    make_engine(make_plan(api), api).walk(["stage"])
    facts = gather_pods(api, CLUSTER, manifest(1))
    clients = dict.fromkeys(facts.clients, 0)
    for changes, words in (
        ({"unfinished": "r1"}, "begun to swap data"),
        ({"scaled_to": 0}, "kube-etcd is scaled to zero"),
        ({"clients": clients}, "kube-apiserver, gke-master-etcd-maintenance is scaled to zero"),
    ):
        with pytest.raises(RequestRefused, match=words):
            plan_release(CLUSTER, manifest(1), replace(facts, **changes), Options("r1", PLANNED_AT))


def test_a_second_restore_neither_takes_nor_loses_anothers_claim() -> None:
    api = AdminApi()
    first = make_plan(api)
    make_engine(first, api).walk(["stage"])
    second = planned(CLUSTER, manifest(1), gather_pods(api, CLUSTER, manifest(1)), Options("r2", PLANNED_AT, ("etcd",)))
    with pytest.raises(StepFailed, match=r"locked by .*/r1.*restore-leftovers user-1"):
        make_engine(second, api).walk()
    make_engine(second, api).roll_back()
    assert links(api) == ["data-kube-etcd-0"]
    make_engine(first, api).roll_back()
    assert (links(api), holds(api)) == ([], [])


def contexts(api: AdminApi, **security: Any) -> None:
    """Have etcd's pod run as somebody."""
    template = copy.deepcopy(api.objects[ETCD]["spec"]["template"])
    template["spec"]["securityContext"] = security
    api.objects[ETCD] = {**api.objects[ETCD], "spec": {**api.objects[ETCD]["spec"], "template": template}}


def utility_context(plan: Plan) -> Any:
    body = next(
        step.action.body for step in plan.steps if isinstance(step.action, Call) and step.name.startswith("utility.")
    )
    assert body is not None
    return body["spec"]["containers"][0].get("securityContext")


@pytest.mark.parametrize(
    ("user", "restricted", "expected"),
    [
        pytest.param(2001, False, None, id="its-own-data"),
        pytest.param(3000, False, AS_ROOT, id="anothers-data"),
        pytest.param(3000, True, None, id="root-is-not-admitted"),
        pytest.param(0, False, None, id="root-anyway"),
    ],
)
def test_a_utility_pod_is_root_only_where_etcds_user_could_not_rename_the_data(
    user: int, restricted: bool, expected: Any
) -> None:
    api = AdminApi()
    contexts(api, runAsUser=user, fsGroup=2001)
    if restricted:
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        api.patch("/api/v1/namespaces/user-1", {"metadata": {"labels": labels}})
    plan = make_plan(api)
    assert utility_context(plan) == expected
    owner = next(step.action for step in plan.steps if step.name == "owner.kube-etcd-0")
    assert isinstance(owner, Run)
    assert f"{user}:2001" in owner.argv


@given(st.sampled_from([1, 3]), FAULTS)
@settings(deadline=None, max_examples=75)
def test_a_broken_walk_goes_on_to_the_end(members: int, fault: tuple[str, int, bool]) -> None:
    api = AdminApi(members)
    plan = make_plan(api)
    kind, at, before = fault
    api.fault = Fault(api.count + at, kind, before)
    with suppress(Killed, EtcdkeepError):
        make_engine(plan, api).walk()
    api.fault = None
    make_engine(plan, api).walk()
    expect_restored(api, plan)


@given(st.sampled_from([1, 3]), FAULTS, st.booleans())
@settings(deadline=None, max_examples=75)
def test_a_broken_walk_can_be_taken_back(members: int, fault: tuple[str, int, bool], for_good: bool) -> None:
    api = AdminApi(members)
    plan, start = make_plan(api), state(api)
    kind, at, before = fault
    api.fault = Fault(api.count + at, "fail" if for_good else kind, before)
    with suppress(Killed, EtcdkeepError):
        make_engine(plan, api).walk()
    api.fault = None
    make_engine(plan, api).roll_back()
    assert state(api) == start


def test_a_utility_pod_gets_what_it_needs_and_no_more() -> None:
    plan = make_plan(AdminApi(3))
    body = next(
        step.action.body for step in plan.steps if isinstance(step.action, Call) and step.name == "utility.kube-etcd-1"
    )
    assert body is not None
    spec = body["spec"]
    assert spec["nodeName"] == "node-1"
    assert spec["volumes"] == [{"name": "data", "persistentVolumeClaim": {"claimName": "data-kube-etcd-1"}}]
    assert spec["securityContext"] == {"fsGroup": 2001}
    assert spec["tolerations"] == [{"operator": "Exists"}]
    assert spec["automountServiceAccountToken"] is False
    assert spec["restartPolicy"] == "Always", "its node may reboot"


def test_the_runbook_speaks_kubectl() -> None:
    page = render_runbook(make_plan(AdminApi(1)), Ssh())
    assert '"${KUBECTL[@]}" patch -n user-1 statefulsets/kube-etcd --type=merge -p' in page
    assert '"${KUBECTL[@]}" create -f -' in page
    assert "away -n user-1 pods/kube-etcd-0" in page
    assert PODS not in page
