"""Our reader against etcdutl and etcdctl, on databases that a real etcd made."""

from __future__ import annotations

import json
import subprocess

import pytest

from etcdkeep.snapshot import open_snapshot
from tests.etcd import b64, etcd_program, running_etcd
from tests.snapshots import Bump, Delete, Put, make_records, make_snapshot


def etcdutl_status(file):
    """What the real tool says of a snapshot."""
    argv = (etcd_program("etcdutl"), "snapshot", "status", "--write-out", "json", str(file))
    return json.loads(subprocess.run(argv, capture_output=True, check=True, timeout=60).stdout)


def live_keys(etcd):
    """How many keys etcd itself has now."""
    answer = etcd.call("kv/range", {"key": b64(b"\0"), "range_end": b64(b"\0"), "count_only": True})
    return int(answer.get("count", 0))


def same_as_etcdutl(file, report):
    assert report.problems == ()
    assert {
        "hash": report.hash,
        "revision": report.revision,
        "totalKey": report.total_keys,
        "totalSize": report.size_bytes,
    } == etcdutl_status(file)


def nothing(etcd):
    pass


def few_keys(etcd):
    etcd.put(b"/registry/a", b"1")


def updates_and_deletes(etcd):
    for number in range(300):
        etcd.put(b"/registry/key-%03d" % (number % 70), b"v" * number)
    for number in range(0, 70, 3):
        etcd.delete(b"/registry/key-%03d" % number)
    etcd.put(b"/registry/key-000", b"again")


def transactions(etcd):
    for batch in range(20):
        etcd.put_all((b"/registry/%d/%d" % (batch, number), b"x" * 500) for number in range(100))


def compaction(etcd):
    updates_and_deletes(etcd)
    etcd.compact(250)


def everything_deleted_and_compacted(etcd):
    etcd.put(b"/registry/a", b"1")
    etcd.put(b"/registry/b", b"2")
    etcd.delete(b"/registry/a")
    etcd.compact(etcd.delete(b"/registry/b"))


def leases(etcd):
    lease = etcd.call("lease/grant", {"TTL": "3600"})["ID"]
    for number in range(50):
        etcd.put(b"/registry/events/%d" % number, b"event", lease=lease)


def defragmented(etcd):
    transactions(etcd)
    etcd.compact(15)
    etcd.call("maintenance/defragment", {})


def auth(etcd):
    etcd.ctl("role", "add", "reader")
    etcd.ctl("role", "grant-permission", "reader", "read", "/registry", "--prefix=true")
    etcd.ctl("user", "add", "root", "--no-password")
    etcd.ctl("user", "grant-role", "root", "root")


def alarm(etcd):
    member = etcd.call("maintenance/status", {})["header"]["member_id"]
    etcd.call("maintenance/alarm", {"action": "ACTIVATE", "memberID": member, "alarm": "NOSPACE"})


def large_values(etcd):
    for size in (4000, 4096, 65_000, 1_000_000):
        etcd.put(b"/registry/size-%d" % size, b"L" * size)


def odd_bytes(etcd):
    etcd.put(bytes(range(256)), bytes(range(256)) * 20)
    etcd.put(b"\xff" * 200, b"")
    etcd.put(b"k" * 20_000, b"long key")


@pytest.mark.parametrize(
    "life",
    [
        nothing,
        few_keys,
        updates_and_deletes,
        transactions,
        compaction,
        everything_deleted_and_compacted,
        leases,
        defragmented,
        auth,
        alarm,
        large_values,
        odd_bytes,
    ],
    ids=lambda life: life.__name__,
)
def test_same_facts_as_etcdutl(tmp_path, life):
    with running_etcd(tmp_path / "data") as etcd:
        life(etcd)
        keys = live_keys(etcd)
        current = int(etcd.call("maintenance/status", {})["header"]["revision"])
        file = etcd.snapshot(tmp_path / "snapshot.db")
    with open_snapshot(file) as snapshot:
        report = snapshot.check()
        live = list(snapshot.live())
    same_as_etcdutl(file, report)
    assert report.live_keys == len(live) == keys
    assert report.current_revision == current
    assert report.cluster_version == "3.5.0"
    assert len(report.members) == 1


def test_state_at_old_revisions_is_what_etcd_gives(tmp_path):
    with running_etcd(tmp_path / "data") as etcd:
        compaction(etcd)
        file = etcd.snapshot(tmp_path / "snapshot.db")
        with open_snapshot(file) as snapshot:
            for revision in (250, 290, 301, 310, snapshot.current_revision):
                body = {"key": b64(b"/"), "range_end": b64(b"0"), "revision": revision}
                wanted = {
                    (pair["key"], pair.get("value", ""), pair["mod_revision"], pair["create_revision"], pair["version"])
                    for pair in etcd.call("kv/range", body)["kvs"]
                }
                assert wanted == {
                    (b64(r.key), b64(snapshot.value(r)), str(r.revision), str(r.create_revision), str(r.version))
                    for r in snapshot.live(revision=revision)
                }
            for record in snapshot.live():
                assert snapshot.get(record.key) == record


@pytest.mark.parametrize("page_size", [1024, 4096, 65536])
@pytest.mark.parametrize("stored_freelist", [False, True], ids=["no-freelist", "freelist"])
def test_etcdutl_reads_the_files_that_tests_make(tmp_path, page_size, stored_freelist):
    changes = [Put(b"/registry/%d" % (number % 40), b"v" * number) for number in range(200)]
    changes += [Delete(b"/registry/7"), Put(b"/registry/large", b"l" * 200_000), Bump(1_000_000)]
    data = make_snapshot(
        make_records(changes), page_size=page_size, stored_freelist=stored_freelist, free_pages=5, fanout=6
    )
    file = tmp_path / "snapshot.db"
    file.write_bytes(data)
    with open_snapshot(file) as snapshot:
        same_as_etcdutl(file, snapshot.check())


def test_etcdutl_restores_a_file_that_tests_make(tmp_path):
    file = tmp_path / "snapshot.db"
    file.write_bytes(make_snapshot(make_records([Put(b"/registry/a", b"1"), Put(b"/registry/b", b"2")])))
    argv = (etcd_program("etcdutl"), "snapshot", "restore", str(file), "--data-dir", str(tmp_path / "restored"))
    subprocess.run(argv, capture_output=True, check=True, timeout=60)
    assert (tmp_path / "restored" / "member" / "snap" / "db").exists()


def test_copied_database_file_is_readable_and_not_good(tmp_path):
    with running_etcd(tmp_path / "data") as etcd:
        updates_and_deletes(etcd)
    with open_snapshot(tmp_path / "data" / "member" / "snap" / "db") as snapshot:
        report = snapshot.check()
        assert report.live_keys == len(list(snapshot.live())) == 47
    assert [problem for problem in report.problems if "no SHA-256 trailer" not in problem] == []
    assert not report.ok
