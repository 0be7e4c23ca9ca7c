"""Which member gives the snapshot, and when none may."""

from __future__ import annotations

import pytest

from etcdkeep.backup.discover import Discovery, compare_hashes, etcd_nodes, node_address
from etcdkeep.errors import (
    AccessDenied,
    CommandFailed,
    CommandMissing,
    MembersDisagree,
    MembersUnfit,
    NotFound,
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
    site.kube.faults.add("etcd-cp-1: .*endpoint status", StreamCut("no exit status came"), at=0)
    found = site.discover()
    assert [member.name for member in found.candidates] == ["cp-2", "cp-0"]
    assert found.members[-1].problem == "no exit status came"


@pytest.mark.parametrize("error", [AccessDenied("pods/exec is forbidden"), CommandMissing("no etcdctl in the image")])
def test_what_is_wrong_for_every_member_alike_ends_the_run(make_site, error):
    site = make_site(3)
    site.kube.faults.add("endpoint status", error)
    with pytest.raises(type(error), match=str(error)):
        site.discover()


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
    with pytest.raises(MembersDisagree, match="etcd-cp-2=5") as caught:
        site.discover()
    assert "none was taken" in str(caught.value)


def test_two_clusters_under_one_selector_are_refused(make_site):
    site = make_site(2)
    site.members[1].cluster_id = 0xABC
    with pytest.raises(MembersDisagree, match=r"2 different etcd clusters \(0000000000000abc, cdf818194e3a8c32\)"):
        site.discover()


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
