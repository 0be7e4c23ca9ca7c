"""Readers of what the probes print, with outputs of a real node."""

from __future__ import annotations

import pytest

from etcdkeep.control_plane.disk_space import parse_df
from etcdkeep.errors import CommandFailed
from etcdkeep.restore.found import nodes as facts
from etcdkeep.restore.found.nodes import EarlierRun

DF = """Filesystem     1024-blocks     Used Available Capacity Mounted on
/dev/vda         264212084 32312972  74077940      31% /var
"""
STATUS = (
    '{"header":{"cluster_id":"17598072645275525853", "member_id":"6508703519787573033", "revision":"2134", "raft_term":"3"}, '
    '"version":"3.5.16", "dbSize":"2498560", "leader":"6508703519787573033", "raftIndex":"1980"}'
)
MOUNTS = r"""515 455 0:233 / / rw,relatime shared:74 - overlay overlay rw
539 515 254:0 /volumes/x/_data /var rw,relatime shared:91 - ext4 /dev/vda rw
540 539 254:0 /etcd\040data /var/lib/etcd rw,relatime - ext4 /dev/vda rw
"""


def test_free_space_and_memory() -> None:
    assert parse_df(DF) == 74077940 * 1024
    assert facts.parse_meminfo("MemTotal: 1 kB\nMemAvailable:   23184120 kB\n") == 23184120 * 1024
    assert facts.parse_meminfo("MemTotal: 1 kB\n") is None


def test_bind_mounts_count_as_mount_points() -> None:
    assert facts.parse_mount_points(MOUNTS) == ("/", "/var", "/var/lib/etcd")
    assert facts.parse_mount_points(r"1 2 0:1 / /a\040b rw - x y z") == ("/a b",)


@pytest.mark.parametrize(
    ("path", "mounts", "base"),
    [
        pytest.param("/var/lib/etcd", ("/", "/var"), "/var/lib/.etcdkeep", id="beside"),
        pytest.param("/var/lib/etcd", ("/", "/var/lib/etcd"), "/var/lib/etcd/.etcdkeep", id="inside-a-mount"),
    ],
)
def test_a_runs_folder_is_where_a_rename_reaches(path: str, mounts: tuple[str, ...], base: str) -> None:
    assert facts.run_base(path, mounts) == base


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        pytest.param("2001:2001 700\n", ("2001:2001", "700"), id="found"),
        pytest.param("", None, id="absent"),
        pytest.param("?:? 700", None, id="odd"),
    ],
)
def test_owner_and_mode(output: str, expected: object) -> None:
    assert facts.parse_stat(output) == expected


@pytest.mark.parametrize(
    ("output", "label"),
    [
        pytest.param("?\n", None, id="no-selinux"),
        pytest.param("", None, id="unsupported"),
        pytest.param(
            "system_u:object_r:container_file_t:s0:c1,c2\n", "system_u:object_r:container_file_t:s0:c1,c2", id="label"
        ),
    ],
)
def test_label(output: str, label: str | None) -> None:
    assert facts.parse_label(output) == label


def test_etcds_own_status() -> None:
    status = facts.parse_etcd_status(STATUS)
    assert (status.cluster_id, status.member_id) == ("f438e9d5112aa2dd", "5a538f5ddd45df29")
    assert (status.revision, status.raft_index, status.version) == (2134, 1980, "3.5.16")


@pytest.mark.parametrize("output", ['{"error":"etcdserver: no leader","code":14}', "", "404 page not found"])
def test_an_error_is_no_status(output: str) -> None:
    with pytest.raises(CommandFailed, match="status is not in the format"):
        facts.parse_etcd_status(output)


@pytest.mark.parametrize(
    ("output", "healthy"),
    [
        pytest.param('{"health":"true","reason":""}', True, id="3.5"),
        pytest.param('{"health":true}', True, id="bool"),
        pytest.param('{"health":"false","reason":"RAFT NO LEADER"}', False, id="no-leader"),
    ],
)
def test_health(output: str, healthy: bool) -> None:
    assert facts.parse_healthy(output) is healthy


def test_names_of_containers() -> None:
    assert facts.parse_container_names('{"containers": [{"metadata": {"name": "etcd", "attempt": 1}}]}') == ("etcd",)
    assert facts.parse_container_names('{"containers": null}') == ()
    with pytest.raises(CommandFailed, match="no JSON"):
        facts.parse_container_names("NAME IMAGE")


def test_what_earlier_restores_left() -> None:
    listing = "\n".join(
        (
            "d\t/var/lib/.etcdkeep/r1\t",
            "l\t/var/lib/.etcdkeep/r1/rolled-back\t/var/lib/.etcdkeep/r1",
            "l\t/var/lib/.etcdkeep/r1/finished\t/var/lib/.etcdkeep/r1",
            "d\t/var/lib/.etcdkeep/r2\t",
            "l\t/var/lib/.etcdkeep/r2/rolled-back\t/var/lib/.etcdkeep/r2",
            "l\t/var/lib/.etcdkeep/active\t/var/lib/.etcdkeep/r3",
            "d\t/var/lib/.etcdkeep/r3\t",
            "d\t/etc/kubernetes/.etcdkeep/r3\t",
            "d\t/etc/kubernetes/.etcdkeep/r3/old\t",
            "d\t/etc/kubernetes/.etcdkeep/r4\t",
        )
    )
    assert facts.parse_earlier_runs(listing) == (
        EarlierRun("/etc/kubernetes/.etcdkeep/r3", "active"),
        EarlierRun("/etc/kubernetes/.etcdkeep/r4", "abandoned"),
        EarlierRun("/var/lib/.etcdkeep/r1", "finished"),
        EarlierRun("/var/lib/.etcdkeep/r2", "rolled-back"),
        EarlierRun("/var/lib/.etcdkeep/r3", "active"),
    )
