"""Drills with the real etcd, on databases that a real etcd made."""

from __future__ import annotations

import signal
import stat
import subprocess

import pytest

from etcdkeep.adapters.local_etcd.programs import LocalEtcd
from etcdkeep.adapters.local_etcd.work_folder import PREFIX
from etcdkeep.drill.run import PHASES, drill_set
from etcdkeep.errors import ConfigError, DrillImpossible, NoSpace
from lab.tools import fill_bin
from tests.drill_sets import identities, open_repository, publish_snapshot
from tests.etcd import etcd_program
from tests.integration import test_snapshot_real_etcd as shapes
from tests.integration.drill.helpers import (
    CANARY,
    drill,
    fake_program,
    large,
    left_over,
    processes_in,
    save,
    settings,
    usual,
    with_an_alarm,
    with_users,
)
from tests.snapshots import Bump, Delete, Put, etcd_buckets, make_records, make_snapshot


@pytest.mark.parametrize(
    "make",
    [
        shapes.nothing,
        shapes.few_keys,
        shapes.updates_and_deletes,
        shapes.compaction,
        shapes.everything_deleted_and_compacted,
        shapes.leases,
        shapes.defragmented,
        usual,
        large,
        with_users,
        with_an_alarm,
    ],
)
def test_a_sound_backup_restores(tmp_path, make):
    found = publish_snapshot(tmp_path / "repository", save(tmp_path, make))
    record = drill(tmp_path, found)
    assert record.problems == ()
    assert record.levels == ("drill",)
    assert tuple(record.seconds) == PHASES
    assert record.drill.etcd_version == "3.5.1"


@pytest.mark.parametrize(
    ("changes", "meta"),
    [
        pytest.param([Put(b"/registry/a", b"1"), Bump(10**9), Put(b"/registry/b", b"2")], {}, id="bumped"),
        pytest.param([Put(b"/registry/a", b"1"), Bump(10**9), Bump(5), Put(b"/registry/b", b"2")], {"compacted": 10**9 + 7}, id="bumped-twice-and-compacted"),
        pytest.param([Put(b"/a", b"1"), Put(b"/b", b"1"), Delete(b"/b"), Put(b"/c", b"2")], {"compacted": 4}, id="compacted-at-a-tombstone"),
        pytest.param([Put(b"/a", b"1"), Put(b"/b", b"1"), Delete(b"/b"), Put(b"/c", b"2")], {"scheduled": 4}, id="compaction-not-finished"),
    ],
)  # fmt: skip
def test_our_hash_kv_is_etcd_s_on_records_made_for_it(tmp_path, changes, meta):
    path = tmp_path / "etcd.db"
    path.write_bytes(make_snapshot(buckets=etcd_buckets(make_records(changes), **meta)))
    assert drill(tmp_path, publish_snapshot(tmp_path / "repository", path)).problems == ()


def test_an_etcdctl_that_still_can_restores(tmp_path, found):
    fill_bin(tmp_path / "bin", ("etcd", "etcdctl"))
    record = drill(tmp_path, found, etcd_dir=str(tmp_path / "bin"))
    assert record.ok
    assert record.drill.tool == "etcdctl 3.5.1"


@pytest.mark.parametrize(
    ("reported", "said"),
    [
        pytest.param({"revision": 41}, "but member cp-0 reported 41", id="revision"),
        pytest.param({"hash": 7}, "but member cp-0 reported 7 ", id="hash"),
        pytest.param({"total_keys": 7}, "but member cp-0 reported 7 ", id="keys"),
    ],
)
def test_a_backup_that_is_not_what_its_manifest_says(tmp_path, usual_snapshot, reported, said):
    found = publish_snapshot(tmp_path / "repository", usual_snapshot, reported=reported)
    record = drill(tmp_path, found)
    assert (record.levels, len(record.problems)) == ((), 1)
    assert said in record.problems[0]


def test_a_snapshot_that_etcdutl_refuses(tmp_path, usual_snapshot):
    data = bytearray(usual_snapshot.read_bytes())
    data[-1] ^= 1
    (tmp_path / "etcd.db").write_bytes(data)
    record = drill(tmp_path, publish_snapshot(tmp_path / "repository", tmp_path / "etcd.db"))
    assert record.levels == ()
    assert "etcdutl 3.5.1 snapshot restore ended with code 1: Error: expected sha256" in record.problems[0]


def test_a_snapshot_that_etcd_does_not_start_from(tmp_path):
    records = make_records([Put(b"/registry/a", b"1"), Put(b"/registry/b", b"2")])
    records[1] = (records[1][0], b"\xff" + records[1][1])
    (tmp_path / "etcd.db").write_bytes(make_snapshot(buckets=etcd_buckets(records)))
    record = drill(tmp_path, publish_snapshot(tmp_path / "repository", tmp_path / "etcd.db"))
    assert record.problems[0].startswith("a real etcd does not start from it: etcd 3.5.1 ended with code ")
    assert set(record.seconds) == {"unseal", "restore"}


@pytest.mark.parametrize(
    ("name", "script", "error", "said"),
    [
        pytest.param("etcd", "echo 'Error: no loopback here'; exit 1", DrillImpossible, "not even without the backup: .*no loopback here", id="etcd-starts-nowhere"),
        pytest.param("etcd", "kill -9 $$", DrillImpossible, "etcd 3.5.1 was killed by SIGKILL", id="etcd-killed"),
        pytest.param("etcd", "sleep 60", DrillImpossible, "did not end within 2 s", id="etcd-hangs"),
        pytest.param("etcd", "echo '{\"level\":\"fatal\",\"msg\":\"failed\",\"error\":\"write wal: no space left on device\"}'; exit 1", NoSpace, "failed: write wal: no space", id="etcd-without-room"),
        pytest.param("etcdutl", "sleep 60", DrillImpossible, "did not end within 2 s", id="etcdutl-hangs"),
        pytest.param("etcdutl", "kill -9 $$", DrillImpossible, "etcdutl 3.5.1 snapshot restore was killed by SIGKILL", id="etcdutl-killed"),
        pytest.param("etcdutl", "echo 'Error: no space left on device'; exit 1", NoSpace, "no space left on device", id="etcdutl-without-room"),
    ],
)  # fmt: skip
def test_a_machine_that_cannot_drill_is_blamed_and_not_the_set(tmp_path, found, name, script, error, said):
    fill_bin(tmp_path / "bin", ("etcd", "etcdutl"))
    fake_program(tmp_path / "bin", name, script)
    with pytest.raises(error, match=said) as failure:
        drill(tmp_path, found, etcd_dir=str(tmp_path / "bin"), time_limit_s=2)
    assert "The backup is not in doubt" in str(failure.value)


@pytest.mark.parametrize(
    ("tools", "said"),
    [
        pytest.param((), "there is no etcd in ", id="no-etcd"),
        pytest.param(("etcd",), "there is no etcdutl on this worker", id="no-etcdutl"),
    ],
)
def test_a_machine_without_the_programs(tmp_path, found, tools, said):
    fill_bin(tmp_path / "bin", tools)
    with pytest.raises(DrillImpossible, match=said):
        drill(tmp_path, found, etcd_dir=str(tmp_path / "bin"))


def test_a_work_folder_that_is_none(tmp_path, found):
    with pytest.raises(ConfigError, match=r"drill\.work_dir .*nowhere is not a folder"):
        drill(tmp_path, found, work_dir=str(tmp_path / "nowhere"))


def test_too_little_room_is_told_before_anything_is_written(tmp_path, found, monkeypatch):
    monkeypatch.setattr("etcdkeep.adapters.local_etcd.work_folder._free_bytes", lambda folder: 2**20)
    with pytest.raises(NoSpace, match=r"a drill needs \d+ bytes in .*, and 1048576 are free there"):
        drill(tmp_path, found)


def test_the_worker_s_own_etcd_settings_do_not_reach_the_drill(tmp_path, found, monkeypatch):
    for name, value in {"ETCD_DATA_DIR": "/nowhere", "ETCD_LISTEN_CLIENT_URLS": "http://0.0.0.0:1", "ETCDCTL_ENDPOINTS": "http://10.0.0.1:2379", "ETCD_NAME": "other"}.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    assert drill(tmp_path, found).ok


def test_nobody_else_can_look_in_meanwhile(tmp_path, found):
    """While etcd serves: private folder and files, no snapshot file any more, and no answer without the drill's certificate."""
    seen = {}

    def look(phase):
        if phase != "read":
            return
        (folder,) = (tmp_path / "work").iterdir()
        seen["modes"] = {path: stat.S_IMODE(path.stat().st_mode) & 0o077 for path in [folder, *folder.rglob("*")]}
        seen["snapshot"] = (folder / "snapshot.db").exists()
        seen["argv"] = "\n".join(processes_in(tmp_path))
        port = next(
            word.rpartition(":")[2] for word in seen["argv"].split() if word.startswith("--listen-client-urls=")
        )
        argv = (etcd_program("etcdctl"), f"--endpoints=https://127.0.0.1:{port}", "--insecure-skip-tls-verify", "--command-timeout=2s", "--dial-timeout=2s", "get", "", "--prefix")  # fmt: skip
        seen["stranger"] = subprocess.run(argv, capture_output=True, check=False)

    record = drill(tmp_path, found, look)
    assert record.ok
    assert set(seen["modes"].values()) == {0}
    assert not seen["snapshot"]
    assert "--listen-client-urls=https://127.0.0.1:" in seen["argv"]
    assert seen["stranger"].returncode != 0
    assert CANARY not in seen["stranger"].stdout
    assert CANARY.decode() not in record.model_dump_json()


def test_what_looks_like_a_leftover_and_is_none_stays(tmp_path, found):
    settings(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file").touch()
    (tmp_path / "work" / f"{PREFIX}link").symlink_to(tmp_path / "mine")
    (tmp_path / "work" / f"{PREFIX}file").touch()
    with LocalEtcd(settings(tmp_path)).open(1000):
        pass
    assert (tmp_path / "mine/file").exists()
    assert {path.name for path in (tmp_path / "work").iterdir()} == {f"{PREFIX}link", f"{PREFIX}file"}


def test_stop_removes_everything_at_once(tmp_path, found):
    """What Airflow calls, in the main thread's midst, before it kills a task."""
    local_etcd = LocalEtcd(settings(tmp_path))
    before = signal.signal(signal.SIGUSR1, lambda number, frame: (local_etcd.stop(), gone.extend(left_over(tmp_path))))
    gone: list[str] = []
    repository = open_repository(tmp_path / "repository")

    def begun(phase):
        if phase == "read":
            signal.raise_signal(signal.SIGUSR1)

    try:
        with pytest.raises(DrillImpossible, match="the drill was stopped from outside"):
            drill_set(repository, found, identities(), local_etcd.open, begun)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert gone == []
    assert left_over(tmp_path) == []
