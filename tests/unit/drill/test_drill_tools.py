"""The etcd programs of a drill: versions and calls."""

from __future__ import annotations

from pathlib import Path

import pytest

from etcdkeep.drill.tools import (
    CredentialFiles,
    Program,
    check_versions,
    choose_restore,
    etcd_argv,
    needed_bytes,
    parse_program_version,
    restore_argv,
)
from etcdkeep.errors import DrillImpossible
from tests.fake_workshop import make_programs

ETCDUTL = Program(Path("/opt/etcdutl"), "3.6.1")


def etcdctl(version):
    return Program(Path("/opt/etcdctl"), version)


@pytest.mark.parametrize(
    ("output", "version"),
    [
        pytest.param("etcd Version: 3.5.1\nGit SHA: e8732fb5f\n", "3.5.1", id="etcd"),
        pytest.param("etcdutl version: 3.6.0-rc.3\nAPI version: 3.6\n", "3.6.0-rc.3", id="etcdutl"),
        pytest.param("etcdctl version: 3.4.27\nAPI version: 3.4\n", "3.4.27", id="etcdctl"),
        pytest.param("usage: something else 3.5.1", None, id="another-program"),
    ],
)
def test_versions_are_read(output, version):
    assert parse_program_version(output) == version


@pytest.mark.parametrize(
    ("found", "chosen"),
    [
        pytest.param(ETCDUTL, ETCDUTL, id="etcdutl"),
        pytest.param(etcdctl("3.4.27"), etcdctl("3.4.27"), id="an-etcdctl-that-still-can"),
    ],
)
def test_what_restores(found, chosen):
    assert choose_restore(found) == chosen


@pytest.mark.parametrize(
    ("found", "said"),
    [
        pytest.param(None, "there is no etcdutl on this worker. Put", id="nothing"),
        pytest.param(etcdctl("3.6.1"), "etcdctl 3.6.1 no longer has `snapshot restore`", id="etcdctl-3.6"),
    ],
)
def test_nothing_that_restores(found, said):
    with pytest.raises(DrillImpossible, match=said):
        choose_restore(found)


@pytest.mark.parametrize(
    ("etcd", "restore", "cluster", "warned"),
    [
        pytest.param("3.5.21", "3.5.21", "3.5.16", False, id="one-release"),
        pytest.param("3.5.1", "3.5.1", "3.5.16", False, id="older-patch"),
        pytest.param("3.6.4", "3.5.21", "3.5.16", True, id="newer"),
        pytest.param("3.5.1", "3.5.1", "", False, id="unknown"),
    ],
)
def test_versions_that_will_do(etcd, restore, cluster, warned):
    warnings = check_versions(make_programs(etcd, restore), cluster)
    assert bool(warnings) is warned
    assert not warned or "drilled with etcd 3.6.4, but the cluster runs 3.5.16" in warnings[0]


@pytest.mark.parametrize(
    ("etcd", "restore", "said"),
    [
        pytest.param("3.5.1", "3.5.1", "the backup is of etcd 3.6.4, and /opt/etcd is 3.5.1: .* of one 3.6 release", id="older"),
        pytest.param("3.6.4", "3.5.1", "and /opt/etcdutl is 3.5.1", id="older-tool"),
        pytest.param("3.5.1", "3.6.4", "etcdutl 3.6.4 makes data directories that etcd 3.5.1 may be unable to read", id="mixed"),
    ],
)  # fmt: skip
def test_versions_that_will_not_do_name_the_fix(etcd, restore, said):
    with pytest.raises(DrillImpossible, match=said) as failure:
        check_versions(make_programs(etcd, restore), "3.6.4")
    assert "drill.etcd_dir" in str(failure.value)
    assert str(failure.value).endswith("The backup is not in doubt.")


def test_both_calls_name_the_same_member_and_peer():
    programs, folder, peer = make_programs(), Path("/w"), "https://127.0.0.1:7"
    restore = restore_argv(programs, folder / "snapshot.db", folder / "data", peer)
    serve = etcd_argv(
        programs, folder / "data", CredentialFiles(folder / "ca", folder / "crt", folder / "key"), peer, 8, 9
    )
    assert restore[:4] == ("/opt/etcdutl", "snapshot", "restore", "/w/snapshot.db")
    for flag in (
        "--name=drill",
        f"--initial-cluster=drill={peer}",
        f"--initial-advertise-peer-urls={peer}",
        "--data-dir=/w/data",
    ):
        assert flag in restore
        assert flag in serve


def test_etcd_listens_on_loopback_only_and_asks_for_certificates():
    files = CredentialFiles(Path("/w/ca"), Path("/w/crt"), Path("/w/key"))
    argv = etcd_argv(make_programs(), Path("/w/data"), files, "https://127.0.0.1:7", 8, 9)
    assert [word for word in argv if "listen" in word] == [
        "--listen-client-urls=https://127.0.0.1:8",
        "--listen-peer-urls=https://127.0.0.1:9",
    ]
    assert {
        "--client-cert-auth",
        "--peer-client-cert-auth",
        "--trusted-ca-file=/w/ca",
        "--peer-trusted-ca-file=/w/ca",
    } <= set(argv)


def test_room_is_needed_for_the_snapshot_and_the_directory_made_of_it():
    assert needed_bytes(10**9) > 2 * 10**9
