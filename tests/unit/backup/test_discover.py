"""Which member gives the snapshot, and when none may."""

from __future__ import annotations

from dataclasses import replace

import pytest

from etcdkeep.backup.discover import Discovery, compare_hashes, etcd_nodes, node_address
from etcdkeep.errors import (
    AccessDenied,
    CommandFailed,
    CommandMissing,
    MembersUnfit,
    NotFound,
    PermanentError,
    StreamCut,
    Unreachable,
)
from tests.builders import make_member
from tests.fakes import COMPACTED

REFUSED = CommandFailed("etcdctl ended with exit code 1.", exit_code=1, stderr_tail="connection refused")
GONE = CommandFailed("etcdctl ended with exit code 1.", exit_code=1, stderr_tail=COMPACTED)


def picked(site):
    return [member.name for member in site.discover().candidates]


def test_one_member_is_described(make_site):
    site = make_site()
    site.members[0].errors = ()
    found = site.discover()
    (member,) = found.members
    assert (member.name, member.pod, member.node, member.address) == ("cp-0", "etcd-cp-0", "cp-0", "10.0.0.1")
    assert (member.leader, member.healthy, member.problem) == (True, True, None)
    assert (member.revision, member.raft_index, member.etcd_version) == (7, 5, "3.5.16")
    assert member.db_size_bytes == len(site.members[0].database) - 32
    assert found.identity.kube_system_uid == "uid-of-kube-system"
    assert found.identity.etcd_cluster_id == "cdf818194e3a8c32"
    assert found.versions == {"kubernetes": "v1.36.2", "etcd": "3.5.16"}
    assert Discovery.model_validate(found.model_dump(mode="json")) == found


def test_of_three_a_follower_is_preferred_and_the_leader_comes_last(make_site):
    site = make_site(3)
    assert picked(site) == ["cp-1", "cp-2", "cp-0"]
    assert [member.hash_kv for member in site.discover().members] == [1266661082] * 3


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        pytest.param({"learner": True}, "it is a learner", id="learner"),
        pytest.param({"phase": "Pending"}, "the pod is Pending, not Running", id="pending"),
        pytest.param({"deleted": True}, "the pod is being deleted", id="deleted"),
        pytest.param({"unhealthy": "context deadline exceeded"}, "context deadline exceeded", id="no-proposal"),
        pytest.param({"errors": ("memberID:2 alarm:CORRUPT ",)}, "it has an alarm: memberID:2 alarm:CORRUPT", id="corrupt"),
        pytest.param({"errors": ("alarm:CORRUPT ",)}, "it has an alarm: alarm:CORRUPT", id="corrupt-somewhere"),
    ],
)  # fmt: skip
def test_an_unfit_member_is_left_out_and_told(make_site, change, problem):
    site = make_site(3)
    for name, value in change.items():
        setattr(site.members[1], name, value)
    found = site.discover()
    assert [member.name for member in found.candidates] == ["cp-2", "cp-0"]
    assert problem in found.members[-1].problem
    assert found.members[-1].hash_kv is None


def test_an_alarm_of_another_member_does_not_make_this_one_unfit(make_site):
    site = make_site(3)
    for member in site.members:
        member.errors = ("memberID:3 alarm:CORRUPT ",)
    assert picked(site) == ["cp-1", "cp-0"]


def test_a_full_etcd_is_backed_up(make_site):
    site = make_site()
    site.members[0].errors = ("memberID:1 alarm:NOSPACE ",)
    assert picked(site) == ["cp-0"]


def test_a_member_that_cannot_be_asked_is_left_out(make_site):
    site = make_site(3)
    site.kube.faults.add("etcd-cp-1: .*endpoint status", StreamCut("no exit status received"), at=0)
    found = site.discover()
    assert [member.name for member in found.candidates] == ["cp-2", "cp-0"]
    assert found.members[-1].problem == "no exit status received"


@pytest.mark.parametrize("error", [AccessDenied("pods/exec is forbidden"), CommandMissing("no etcdctl in the image")])
def test_what_is_wrong_for_every_member_alike_ends_the_run(make_site, error):
    site = make_site(3)
    site.kube.faults.add("endpoint status", error, at=0)
    with pytest.raises(type(error), match=str(error)):
        site.discover()


def test_what_is_wrong_in_one_pod_leaves_the_others(make_site):
    site = make_site(3)
    site.kube.faults.add("etcd-cp-1: .*endpoint status", CommandMissing("no etcdctl in the image"), at=0)
    assert picked(site) == ["cp-2", "cp-0"]


@pytest.mark.parametrize("count", [1, 3])
def test_without_quorum_there_is_no_backup_and_each_reason_is_told(make_site, count):
    site = make_site(count)
    for member in site.members:
        member.unhealthy = "context deadline exceeded"
    with pytest.raises(MembersUnfit, match=rf"none of {count} etcd member\(s\) can give a snapshot") as caught:
        site.discover()
    assert all(f"{member.pod}: " in str(caught.value) for member in site.members)


def test_members_that_disagree_are_shown_and_nothing_is_taken(make_site):
    site = make_site(3)
    site.members[2].hash_kv = 5
    with pytest.raises(PermanentError, match="etcd-cp-2=5") as caught:
        site.discover()
    assert "none was taken" in str(caught.value)


def test_two_clusters_under_one_selector_are_refused(make_site):
    site = make_site(2)
    site.members[1].cluster_id = 0xABC
    with pytest.raises(PermanentError, match=r"2 different etcd clusters \(0000000000000abc, cdf818194e3a8c32\)"):
        site.discover()


def started(member, *, port=2380, name=None):
    """Return the flags with which a pod starts that member."""
    listen = f"--listen-client-urls=https://127.0.0.1:{member.port}"
    peer = f"--initial-advertise-peer-urls=https://10.0.0.{member.member_id}:{port}"
    return ("etcd", f"--name={name or member.name}", peer, listen)


def with_stranger(site, **change):
    """Add an etcd pod of `cp-9`, which etcd does not list."""
    stranger = replace(site.members[0], name="cp-9", member_id=9, leader=False, files={})
    for name, value in change.items():
        setattr(stranger, name, value)
    site.kube.listed, site.kube.members = site.kube.members, (*site.kube.members, stranger)
    return stranger


@pytest.mark.parametrize(
    ("change", "why"),
    [
        pytest.param({"deleted": True}, "the pod is being deleted", id="terminating"),
        pytest.param({"phase": "Failed", "reason": "Evicted"}, "the pod is Failed, not Running (Evicted)", id="evicted"),
        pytest.param({"phase": "Succeeded"}, "the pod is Succeeded, not Running", id="completed"),
        pytest.param({"phase": "Pending"}, "the pod is Pending, not Running", id="pending"),
        pytest.param({}, "etcd's member list has no such member", id="removed-and-running"),
    ],
)  # fmt: skip
def test_a_pod_that_is_no_member_is_a_warning(make_site, caplog, change, why):
    site = make_site(3)
    with_stranger(site, **change)
    found = site.discover()
    assert sorted(member.name for member in found.members) == ["cp-0", "cp-1", "cp-2"]
    assert all(member.problem is None for member in found.members)
    assert found.notes == (f"pod kube-system/etcd-cp-9 on node cp-9 is not counted as a member: {why}",)
    assert found.notes[0] in caplog.text


def test_the_node_of_a_pod_that_is_no_member_may_be_gone(make_site):
    site = make_site(3)
    with_stranger(site, deleted=True)
    assert len(site.discover().members) == 3
    assert etcd_nodes(site.kube, site.cluster) == ["cp-0", "cp-1", "cp-2"]


def test_an_ended_pod_that_claims_a_members_name_does_not_take_its_place(make_site):
    site = make_site(3)
    stranger = with_stranger(site, phase="Failed", reason="Evicted")
    stranger.flags = started(site.members[1], name="cp-1")
    found = site.discover()
    assert {member.name: member.pod for member in found.members}["cp-1"] == "etcd-cp-1"
    assert "etcd-cp-9" in found.notes[0]


def test_the_set_names_what_was_left_out(make_site):
    site = make_site(3)
    with_stranger(site, deleted=True)
    manifest = site.backup().manifest
    assert [member.name for member in manifest.members] == ["cp-1", "cp-2", "cp-0"]
    assert (
        "pod kube-system/etcd-cp-9 on node cp-9 is not counted as a member: the pod is being deleted" in manifest.notes
    )


def test_a_second_etcd_of_its_own_network_is_told_apart_by_what_it_holds(make_site):
    site = make_site(3)
    with_stranger(site, cluster_id=0xABC, holds_objects=False)
    found = site.discover()
    assert found.identity.etcd_cluster_id == "cdf818194e3a8c32"
    assert len(found.members) == 3
    assert "etcd-cp-9 on node cp-9 is not counted as a member: it belongs to another etcd, with cluster id 0000000000000abc" in found.notes[0]  # fmt: skip


def test_of_two_etcds_with_objects_the_api_server_tells_which(make_site):
    site = make_site(2)
    site.members[0].cluster_id, site.members[0].port = 0xABC, 2381
    container = {"name": "kube-apiserver", "command": ["kube-apiserver", "--etcd-servers=https://127.0.0.1:2379"]}
    site.kube.api_servers = [{"metadata": {"name": "a"}, "spec": {"containers": [container]}, "status": {}}]
    site.kube.listed = (site.members[1],)
    with pytest.raises(PermanentError, match="2 different etcd clusters"):
        site.discover()  # both say that they have the member at port 2379
    listed = site.kube.exec
    own = {member.pod: member for member in site.members}

    def exec_in(pod):
        site.kube.listed = (own[pod.pod],)
        return listed(pod)

    site.kube.exec = exec_in
    assert picked(site) == ["cp-1"]


def test_a_second_etcd_on_the_hosts_network_is_not_taken_for_the_one_that_answers_in_it(make_site):
    site = make_site(1)
    main = site.members[0]
    main.flags = started(main)
    events = with_stranger(site, name="events", member_id=1, port=2381)
    events.flags = started(events, port=2382)
    found = site.discover()
    assert [(member.name, member.pod) for member in found.members] == [("cp-0", "etcd-cp-0")]
    assert "etcd-events" in found.notes[0]
    assert "it belongs to another etcd, which listens at https://127.0.0.1:2381" in found.notes[0]


def test_two_pods_in_which_one_member_answers_are_told_apart_by_their_flags(make_site):
    site = make_site(1)
    main = site.members[0]
    main.flags = started(main)
    other = with_stranger(site, name="a", member_id=1)
    other.flags = ("etcd", "--name=other", "--initial-advertise-peer-urls=https://10.0.0.1:3380")
    found = site.discover()
    assert [member.pod for member in found.members] == ["etcd-cp-0"]
    assert "member 0000000000000001, which answered in it, runs in pod etcd-cp-0" in found.notes[0]


def test_a_member_without_a_pod_is_named_and_looked_for_by_its_name(make_site):
    site = make_site(3)
    lost = site.members[2]
    site.kube.listed, site.kube.members = site.kube.members, site.kube.members[:2]
    found = site.discover()
    (member,) = (each for each in found.members if each.name == lost.name)
    assert (member.pod, member.node, member.address) == ("", "cp-2", "10.0.0.3")
    assert member.problem == "no pod of it was found"
    assert found.notes == (
        "etcd member cp-2 (https://10.0.0.3:2380): no pod of it was found. "
        "If it is gone for good: etcdctl member remove 0000000000000003",
    )
    del site.kube.nodes["cp-2"]
    assert [(each.node, each.address) for each in site.discover().members if not each.pod] == [("", None)]


def test_a_member_that_never_started_and_a_learner_are_named(make_site):
    site = make_site(3)
    site.members[1].learner = True
    added = replace(site.members[0], name="", member_id=7)
    site.kube.listed = (*site.kube.members, added)
    found = site.discover()
    assert picked(site) == ["cp-2", "cp-0"]
    assert (
        sum(
            "it was added and never started" in note and "member remove 0000000000000007" in note
            for note in found.notes
        )
        == 1
    )
    assert "etcd member cp-1 is a learner: it does not vote, and gives no snapshot" in found.notes


def test_a_pod_without_the_container_beside_one_with_it_is_left_out_and_named(make_site):
    site = make_site(2)
    pods = site.kube._pods()
    pods[0]["spec"]["containers"] = [{"name": "proxy"}]
    site.kube._pods = lambda: pods
    found = site.discover()
    assert picked(site) == ["cp-1"]
    assert "pod kube-system/etcd-cp-0 has no container 'etcd', only proxy: it is left out" in found.notes


def test_a_member_is_described_with_what_a_restore_needs_of_it(site):
    (member,) = site.discover().members
    assert member.peer_urls == ("https://10.0.0.1:2380",)
    assert (member.host_ips, member.pod_ips) == (("10.0.0.1",), ("10.0.0.1",))


def test_hashes_are_compared_at_the_lowest_revision(make_site):
    site = make_site(3)
    site.members[1].revision = 5
    site.discover()
    asked = [call for call in site.kube.calls if "hashkv" in call]
    assert len(asked) == 3
    assert all("--rev=5" in call for call in asked)


def test_a_compaction_in_between_is_asked_again(make_site):
    site = make_site(3)
    site.kube.faults.add("hashkv", GONE, at=2)
    assert site.discover().members[0].hash_kv is not None
    assert len([call for call in site.kube.calls if "hashkv" in call]) == 2 + 3


def test_hashes_over_different_ranges_say_nothing(make_site):
    site = make_site(2)
    site.members[0].compact_revision, site.members[0].hash_kv = 3, 999
    assert [member.hash_kv for member in site.discover().members] == [None, None]


def test_compactions_that_never_end_do_not_stop_the_backup(make_site, caplog):
    site = make_site(2)
    site.kube.faults.add("hashkv", GONE, at=0)
    assert len(picked(site)) == 2
    assert "HashKV not comparable in 3 tries" in caplog.text


def test_a_member_that_dies_during_the_comparison_is_passing_trouble(make_site):
    site = make_site(2)
    site.kube.faults.add("hashkv", REFUSED, at=2)
    with pytest.raises(MembersUnfit, match="a member stopped answering while their data was compared"):
        site.discover()


def test_no_pod_names_the_settings_to_compare(make_site):
    site = make_site(1, control_plane={"pod_name": "kube-etcd-[0-9]+"})
    with pytest.raises(NotFound, match=r"no etcd pod in namespace 'kube-system'.*kube-etcd-\[0-9\]\+"):
        site.discover()


def test_another_container_name_is_told(make_site):
    site = make_site()
    site.kube.container = "kube-etcd"
    with pytest.raises(NotFound, match=r"has no container 'etcd', only kube-etcd\. Set control_plane\.container"):
        site.discover()


@pytest.mark.parametrize(
    ("addresses", "expected"),
    [
        pytest.param([("InternalIP", "10.0.0.1"), ("ExternalIP", "1.2.3.4")], "1.2.3.4", id="external-first"),
        pytest.param([("Hostname", "cp-0"), ("InternalIP", "10.0.0.1")], "10.0.0.1", id="internal-else"),
        pytest.param([("InternalIP", "fd00::1")], "fd00::1", id="v6"),
    ],
)
def test_a_node_s_address(site, addresses, expected):
    site.kube.nodes["cp-0"] = [{"type": kind, "address": address} for kind, address in addresses]
    assert node_address(site.kube, site.cluster, "cp-0") == expected


def test_a_configured_address_wins(make_site):
    site = make_site(1, ssh={"addresses": {"cp-0": "node.example.net:2222"}})
    assert site.discover().members[0].address == "node.example.net:2222"


def test_a_node_without_an_address_says_which_setting_gives_one(site):
    site.kube.nodes["cp-0"] = [{"type": "Hostname", "address": "cp-0"}]
    with pytest.raises(NotFound, match=r"set ssh\.addresses\.cp-0"):
        node_address(site.kube, site.cluster, "cp-0")
    assert site.discover().members[0].address is None, "only the tasks that need it fail"


def test_a_pod_without_a_node_is_no_reason_to_fail(make_site):
    site = make_site(2)
    pods = site.kube._pods()
    del pods[1]["spec"]["nodeName"]
    pods[1]["status"] = {"phase": "Pending"}
    site.kube._pods = lambda: pods
    assert picked(site) == ["cp-0"]
    assert etcd_nodes(site.kube, site.cluster) == ["cp-0"]


def test_a_kubeception_member_has_no_node_of_its_own(make_site):
    site = make_site(1, profile="gke-user-kubeception", control_plane={"pod_name": "etcd-.*"})
    found = site.discover()
    assert found.members[0].address is None
    assert found.identity.namespace_uid == "uid-of-harbor"
    assert not [call for call in site.kube.calls if "/nodes/" in call]


def test_an_api_that_is_down_is_passing_trouble(site):
    site.kube.faults.add("GET /api", Unreachable("the API server answered 503"))
    with pytest.raises(Unreachable):
        site.discover()


def test_a_comparison_of_one_is_not_made(site):
    assert compare_hashes(site.kube, site.cluster, [make_member("cp-0")]) == {"etcd-cp-0": 1266661082}
    site.kube.calls.clear()
    site.discover()
    assert not [call for call in site.kube.calls if "hashkv" in call]
