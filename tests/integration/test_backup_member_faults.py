"""Pods and members that are full, bare, silent, dead or at odds: another member gives the snapshot, or the error says why none."""

from __future__ import annotations

import pytest

from etcdkeep.errors import CommandMissing, MembersUnfit, NoSpace, PermanentError, StreamStalled
from lab.tools import DISTROLESS
from tests.backup_run import assert_nothing_lost, assert_one_good_set

KEY = "/registry/configmaps/shop/seen-differently"
PATIENT = {"command_s": 8}


def test_a_full_disk_in_the_pod_is_named_and_no_half_snapshot_stays(site, start_run):
    run = start_run("harbor")
    with (
        site.faults.no_space(),
        pytest.raises(NoSpace, match=r"pod kube-system/etcd-harbor-cp-0.*no space left on device") as caught,
    ):
        run.task("snapshot")
    assert "control_plane.snapshot_dir" in str(caught.value)
    assert_nothing_lost(run)


def test_too_little_room_is_seen_before_anything_is_written(site, start_run):
    run = start_run("harbor")
    table = "Filesystem 1024-blocks Used Available Capacity Mounted on\nnone 100 60 40 60% /\n"
    with (
        site.faults.exec_answer(match="^df ", stdout=table),
        site.faults.exec_stream("cut", match="snapshot save") as saving,
    ):
        with pytest.raises(NoSpace, match=r"has 40960 bytes free, the snapshot needs [0-9]+; none was taken"):
            run.task("snapshot")
        assert site.faults.hits(saving.id) == 0
    assert_nothing_lost(run)


@pytest.fixture
def distroless(site):
    node = site.clusters["harbor"].node
    node.set_container_tools("etcd", *DISTROLESS)
    yield
    node.reset_container_tools("etcd")


def test_an_image_without_cat_names_the_setting_that_works_and_it_works(start_run, distroless):
    run = start_run("harbor")
    with pytest.raises(CommandMissing, match=r"its image has no cat.*none was taken.*Set `copy_out: node`"):
        run.task("snapshot")
    assert run.leftovers() == []
    run.reconfigure(copy_out="node")
    run.whole()
    assert_one_good_set(run)


def test_a_member_that_stalls_is_left_for_another(site, start_run):
    run = start_run("fleet")
    run.until("snapshot")
    first = run.outputs["snapshot"]["pod"]
    with site.faults.exec_stream("stall", where=first, match="^cat .*etcdkeep-", after=1000):
        run.task("copy_out")
    assert run.outputs["copy_out"]["saved"]["pod"] != first
    run.whole()
    assert_one_good_set(run)


def test_every_member_that_stalls_is_an_error(site, start_run):
    run = start_run("fleet")
    run.until("snapshot")
    with (
        site.faults.exec_stream("stall", match="^cat .*etcdkeep-", after=1000),
        pytest.raises(StreamStalled, match="gave no output"),
    ):
        run.task("copy_out")
    assert_nothing_lost(run)


def test_a_member_that_is_down_does_not_keep_the_others_from_a_good_set(site, start_run):
    run = start_run("fleet", discovered=False)
    stopped = site.clusters["fleet"].nodes[1]
    with stopped.member.stopped():
        run.until("copy_out")
        assert stopped.name not in run.outputs["copy_out"]["saved"]["pod"]
    run.note_nodes()
    run.whole()
    assert_one_good_set(run)


def test_a_member_that_does_not_answer_is_passed_over_and_named(site, start_run):
    run = start_run("fleet", discovered=False, limits=PATIENT)
    frozen = site.clusters["fleet"].nodes[1]
    with frozen.member.frozen():
        run.until("copy_out")
    problems = {member["pod"]: member["problem"] for member in run.outputs["discover"]["members"]}
    assert problems.pop(f"etcd-{frozen.name}")
    assert set(problems.values()) == {None}
    assert frozen.name not in run.outputs["copy_out"]["saved"]["pod"]
    run.whole()
    assert_one_good_set(run)


def test_no_healthy_member_is_an_error_that_says_why_for_each(site, start_run):
    run = start_run("fleet", discovered=False)
    silent = site.faults.exec_answer(match="endpoint status", stderr="context deadline exceeded", code=1)
    with silent, pytest.raises(MembersUnfit, match=r"none of 3 etcd member\(s\) can give a snapshot") as caught:
        run.task("discover")
    assert all(f"etcd-fleet-cp-{number}: " in str(caught.value) for number in range(3))
    assert_nothing_lost(run)


@pytest.fixture
def diverged(site):
    """A member whose database holds another value than its peers'."""
    fleet = site.clusters["fleet"]
    member = fleet.nodes[2].member
    fleet.etcdctl("put", KEY, "value-of-the-peers")
    with member.stopped():
        assert member.tamper(b"value-of-the-peers", b"VALUE-OF-THE-THIRD")
    yield
    with member.stopped():
        member.tamper(b"VALUE-OF-THE-THIRD", b"value-of-the-peers")
    fleet.etcdctl("del", KEY)


def test_members_that_disagree_give_no_backup(start_run, diverged):
    run = start_run("fleet", discovered=False)
    with pytest.raises(
        PermanentError, match=r"HashKV at revision \d+ differs.*etcd-fleet-cp-2=\d+.*none was taken.*replace it"
    ):
        run.retried("discover")
    assert_nothing_lost(run)
