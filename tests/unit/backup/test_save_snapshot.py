"""Saving a snapshot in a pod."""

from __future__ import annotations

import pytest

from etcdkeep.backup.snapshot import free_bytes
from etcdkeep.errors import CommandFailed, CommandMissing, MembersUnfit, NoSpace, NotFound, StreamStalled
from etcdkeep.ports import CommandResult, StreamLimits
from tests.builders import BACKUP_ID
from tests.fakes import snapshot_status

STALLED = StreamStalled("etcdctl gave no exit status within 70 s")
REFUSED = CommandFailed("etcdctl ended with exit code 1.", exit_code=1, stderr_tail="connection refused")


def test_the_file_is_saved_under_the_run_s_name_and_described(site):
    saved = site.save(site.discover())
    assert saved.path == f"/tmp/etcdkeep-{BACKUP_ID}-snapshot-1.db"
    assert site.members[0].files == {saved.path: site.members[0].database}
    status = snapshot_status(site.members[0].database)
    assert (saved.snapshot.hash, saved.snapshot.revision) == (status["hash"], status["revision"])
    assert (saved.snapshot.member, saved.snapshot.tool, saved.snapshot.tool_version) == ("cp-0", "etcdctl", "3.5.16")


def test_etcd_3_6_is_described_by_etcdutl(site):
    site.members[0].version = "3.6.6"
    saved = site.save(site.discover())
    assert (saved.snapshot.tool, saved.snapshot.tool_version) == ("etcdutl", "3.6.6")


def test_a_second_try_writes_a_file_of_its_own(site):
    discovery = site.discover()
    first, second = site.save(discovery, attempt=1), site.save(discovery, attempt=2)
    assert first.path != second.path
    assert site.save(discovery, attempt=1).path == first.path


def test_the_time_out_grows_with_the_database(make_site):
    site = make_site(1, limits={"command_s": 10, "slowest_bytes_per_s": 100})
    discovery = site.discover()
    site.save(discovery)
    (call,) = (call for call in site.kube.calls if "snapshot save" in call)
    assert f"--command-timeout={10 + -(-discovery.members[0].db_size_bytes // 100)}s" in call


@pytest.mark.parametrize(
    "error", [STALLED, REFUSED, NotFound("the pod is gone"), NoSpace("full")], ids=lambda error: type(error).__name__
)
def test_the_next_member_is_tried(make_site, error):
    site = make_site(3)
    discovery = site.discover()
    site.kube.faults.add("etcd-cp-1: .*snapshot save", error)
    assert site.save(discovery).pod == "etcd-cp-2"


def test_when_every_member_fails_each_reason_is_told(make_site):
    site = make_site(3)
    discovery = site.discover()
    site.kube.faults.add("snapshot save", STALLED, at=0)
    with pytest.raises(MembersUnfit, match=r"no snapshot from any of 3 member\(s\)") as caught:
        site.save(discovery)
    assert str(caught.value).count(str(STALLED)) == 3


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        pytest.param(STALLED, StreamStalled, id="its-own-error"),
        pytest.param(REFUSED, MembersUnfit, id="restarting"),
        pytest.param(NotFound("the pod is gone"), MembersUnfit, id="pod-replaced"),
    ],
)
def test_a_single_member_gives_its_own_error_which_is_retried_when_it_may_pass(site, error, expected):
    discovery = site.discover()
    site.kube.faults.add("snapshot save", error)
    with pytest.raises(expected, match=str(error)):
        site.save(discovery)


def test_too_little_room_is_seen_before_anything_is_written(site):
    discovery = site.discover()
    site.members[0].free_kib = 1
    with pytest.raises(NoSpace, match=r"/tmp has 1024 bytes free, the snapshot needs \d+; none was taken") as caught:
        site.save(discovery)
    assert "control_plane.snapshot_dir" in str(caught.value)
    assert site.members[0].files == {}


def test_a_disk_that_fills_up_meanwhile_is_told_as_such(site):
    discovery = site.discover()
    site.members[0].free_kib = 1
    site.members[0].programs -= {"df"}
    with pytest.raises(NoSpace, match="does not fit: no space left on device"):
        site.save(discovery)
    site.clean_up(discovery)
    assert site.leftovers() == []


def test_an_image_without_cat_is_told_before_anything_is_written(make_site):
    site = make_site(3)
    for member in site.members:
        member.programs -= {"cat", "df", "rm"}
    with pytest.raises(
        CommandMissing,
        match=r"no cat, so a snapshot cannot be read through exec; none was taken\. Set `copy_out: node`",
    ):
        site.save(site.discover())
    assert not [call for call in site.kube.calls if "snapshot save" in call]


def test_through_the_node_no_cat_is_needed_but_the_node_s_address(make_site):
    site = make_site(1, copy_out="node")
    site.members[0].programs -= {"cat", "df", "rm"}
    assert site.save(site.discover()).pod == "etcd-cp-0"
    site.members[0].files.clear()
    site.kube.nodes.clear()
    with pytest.raises(MembersUnfit, match=r"set ssh\.addresses for that node"):
        site.save(site.discover())
    assert site.members[0].files == {}


class Printer:
    def __init__(self, output):
        self.output = output

    def run(self, argv, limits, *, stdin=b""):
        return CommandResult(self.output)


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        pytest.param(b"Filesystem 1024-blocks Used Available Capacity Mounted on\noverlay 100 40 60 40% /\n", 61440, id="overlay"),
        pytest.param(b"Filesystem           1024-blocks    Used Available Capacity Mounted on\n/dev/my disk 100 40 60  40% /tmp\n", 61440, id="name-with-blank"),
        pytest.param(b"Filesystem 1024-blocks Used Available Capacity Mounted on\ntmpfs 0 0 0 0% /tmp\n", 0, id="full"),
        pytest.param(b"df: something else\n", None, id="unknown"),
        pytest.param(b"", None, id="nothing"),
    ],
)  # fmt: skip
def test_free_room_is_read_from_df(output, expected):
    assert free_bytes(Printer(output), "/tmp", StreamLimits(1)) == expected
