"""The etcdctl calls, and reading what 3.4 to 3.6 print."""

from __future__ import annotations

import json
import shlex
import subprocess

import pytest

from etcdkeep.config.profiles import ControlPlane, EtcdTls
from etcdkeep.errors import TransientError
from etcdkeep.etcd import etcdctl
from tests.etcd import etcd_program

LAYOUT = ControlPlane(
    etcdctl=("env", "ETCDCTL_API=3", "etcdctl"),
    endpoint="https://127.0.0.1:2379",
    tls=EtcdTls(ca="/ca.crt", cert="/tls.crt", key="/tls.key"),
)
PREFIX = (
    "env ETCDCTL_API=3 etcdctl --endpoints=https://127.0.0.1:2379 --cacert=/ca.crt --cert=/tls.crt --key=/tls.key "
    "--command-timeout="
)
HEADER = {"cluster_id": 17854234562145205241, "member_id": 3866534694498385052, "revision": 23, "raft_term": 2}
STATUS = {
    "header": HEADER,
    "version": "3.5.1",
    "dbSize": 2539520,
    "leader": 3866534694498385052,
    "raftIndex": 28,
    "raftTerm": 2,
    "raftAppliedIndex": 28,
    "dbSizeInUse": 2535424,
}
NOSPACE = "memberID:3866534694498385052 alarm:NOSPACE "


def test_every_call_asks_one_member_with_a_time_out_and_no_shell():
    calls = {
        etcdctl.endpoint_status_argv(LAYOUT, 60): "60s endpoint status -w json",
        etcdctl.endpoint_health_argv(LAYOUT, 60): "60s endpoint health",
        etcdctl.hash_kv_argv(LAYOUT, 7, 59.2): "60s endpoint hashkv --rev=7 -w json",
        etcdctl.member_list_argv(LAYOUT, 60): "60s member list -w json",
        etcdctl.get_key_argv(LAYOUT, "/registry/x", 60): "60s get /registry/x --keys-only",
        etcdctl.snapshot_save_argv(LAYOUT, "/tmp/a b", 0.5): "1s snapshot save '/tmp/a b'",
    }
    for argv, expected in calls.items():
        assert shlex.join(argv) == PREFIX + expected


@pytest.mark.parametrize(
    ("version", "tool"),
    [("3.4.27", "env ETCDCTL_API=3 etcdctl"), ("3.5.16", "env ETCDCTL_API=3 etcdctl"), ("3.6.1", "etcdutl"), ("3.10.0", "etcdutl")],
)  # fmt: skip
def test_the_tool_that_describes_a_file_goes_by_the_version(version, tool):
    assert shlex.join(etcdctl.snapshot_status_argv(LAYOUT, "/f", version)) == f"{tool} snapshot status /f -w json"


def test_the_real_etcdctl_takes_the_flags_and_its_outputs_are_read(tmp_path, database):
    layout = LAYOUT.model_copy(update={"etcdctl": (etcd_program("etcdctl"),)})
    file = tmp_path / "snapshot.db"
    file.write_bytes(database)

    def run(argv):
        return subprocess.run(argv, capture_output=True, check=True).stdout

    version = etcdctl.parse_version(run(etcdctl.version_argv(layout)))
    assert etcdctl.version_tuple(version) == (3, 5)
    status = etcdctl.parse_snapshot_status(run(etcdctl.snapshot_status_argv(layout, str(file), version)))
    assert (status.revision, status.size_bytes) == (8, len(database) - 32)
    refused = subprocess.run(etcdctl.endpoint_status_argv(layout, 1), capture_output=True, check=False)
    assert b"unknown flag" not in refused.stderr


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        pytest.param({}, {"leader": True, "learner": False, "errors": ()}, id="3.5-leader"),
        pytest.param({"leader": 7}, {"leader": False}, id="follower"),
        pytest.param({"isLearner": True, "leader": 7}, {"learner": True}, id="learner"),
        pytest.param({"errors": [NOSPACE]}, {"errors": (NOSPACE,)}, id="alarm"),
        pytest.param({"errors": None}, {"errors": ()}, id="errors-null"),
        pytest.param({"leader": 0, "errors": ["etcdserver: no leader"]}, {"leader": False}, id="no-leader"),
        pytest.param({"version": "3.4.27"}, {"version": "3.4.27"}, id="3.4"),
        pytest.param(
            {"version": "3.6.6", "storageVersion": "3.6.0", "dbSizeQuota": 2147483648, "downgradeInfo": {}},
            {"version": "3.6.6", "revision": 23, "db_size_bytes": 2539520},
            id="3.6",
        ),
        pytest.param({"header": {**HEADER, "cluster_id": 1, "member_id": 2}, "leader": 2}, {"cluster_id": "0000000000000001", "member_id": "0000000000000002", "leader": True}, id="small-ids"),
    ],
)  # fmt: skip
def test_endpoint_status_is_read(extra, expected):
    output = json.dumps([{"Endpoint": "https://127.0.0.1:2379", "Status": {**STATUS, **extra}}]).encode()
    found = etcdctl.parse_endpoint_status(output)
    assert {name: getattr(found, name) for name in expected} == expected
    assert found.raft_index == 28


def test_an_empty_etcd_leaves_out_what_is_zero():
    header = {"cluster_id": 5, "member_id": 6, "raft_term": 2}
    output = json.dumps([{"Status": {"header": header, "version": "3.5.1", "leader": 6}}]).encode()
    found = etcdctl.parse_endpoint_status(output)
    assert (found.revision, found.raft_index, found.db_size_bytes) == (0, 0, 0)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        pytest.param({"hash": 1266661082, "compact_revision": -1}, (1266661082, -1), id="never-compacted"),
        pytest.param({"hash": 7, "compact_revision": 5, "hash_revision": 9}, (7, 5), id="3.6"),
        pytest.param({"hash": 7}, (7, 0), id="zero-left-out"),
    ],
)
def test_hash_kv_is_read(answer, expected):
    found = etcdctl.parse_hash_kv(json.dumps([{"HashKV": {"header": HEADER, **answer}}]).encode())
    assert (found.hash, found.compact_revision) == expected


def test_member_list_is_read_and_one_that_never_started_has_no_name():
    members = [
        {"ID": 10, "name": "cp-0", "peerURLs": ["https://a:2380"], "clientURLs": ["https://a:2379"]},
        {"ID": 11, "peerURLs": ["https://b:2380"]},
        {"ID": 12, "name": "cp-2", "peerURLs": None, "isLearner": True},
    ]
    output = json.dumps({"header": HEADER, "members": members}).encode()
    assert etcdctl.parse_member_list(output) == (
        etcdctl.ListedMember("000000000000000a", "cp-0", ("https://a:2380",), ("https://a:2379",)),
        etcdctl.ListedMember("000000000000000b", "", ("https://b:2380",)),
        etcdctl.ListedMember("000000000000000c", "cp-2", learner=True),
    )


@pytest.mark.parametrize("extra", [{}, {"version": "3.6.0"}], ids=["3.5", "3.6"])
def test_snapshot_status_is_read(extra):
    output = json.dumps({"hash": 647590838, "revision": 23, "totalKey": 29, "totalSize": 2539520, **extra}).encode()
    assert etcdctl.parse_snapshot_status(output) == etcdctl.SnapshotStatus(647590838, 23, 29, 2539520)


@pytest.mark.parametrize(
    ("output", "version"),
    [(b"etcdctl version: 3.5.1\nAPI version: 3.5\n", "3.5.1"), (b"etcdctl version: 3.6.6-gke.1\n", "3.6.6-gke.1")],
)
def test_the_version_is_read(output, version):
    assert etcdctl.parse_version(output) == version


@pytest.mark.parametrize(
    "parse",
    [etcdctl.parse_version, etcdctl.parse_endpoint_status, etcdctl.parse_hash_kv, etcdctl.parse_member_list, etcdctl.parse_snapshot_status],
)  # fmt: skip
@pytest.mark.parametrize(
    "output", [b"", b"[]", b"{}", b"null", b"[1]", b'[{"Status":null},{}]', b"Unknown stream id 1", b"\xff"]
)
def test_anything_else_is_an_error_that_shows_it(parse, output):
    with pytest.raises(TransientError, match="expected the JSON of etcdctl") as caught:
        parse(output)
    assert repr(output) in str(caught.value)


@pytest.mark.parametrize("text", ["", "latest", "x3.5"])
def test_a_version_that_is_none_is_an_error(text):
    with pytest.raises(TransientError, match=r"expected a version such as 3\.5\.16"):
        etcdctl.version_tuple(text)
