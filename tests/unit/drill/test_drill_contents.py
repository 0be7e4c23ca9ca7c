"""What a database holds, told in few numbers."""

from __future__ import annotations

import google_crc32c
import pytest

from etcdkeep.drill.contents import OTHER, LiveKey, Tallies, read_contents, resource_of
from etcdkeep.snapshot import open_snapshot
from tests.snapshots import Bump, Delete, Put, etcd_buckets, make_records, make_snapshot

A, B, C = (LiveKey(b"/registry/pods/default/%c" % name, 2, 3, 1, 0, b"v") for name in b"abc")


def contents_of(tmp_path, changes, **meta):
    path = tmp_path / "etcd.db"
    path.write_bytes(make_snapshot(buckets=etcd_buckets(make_records(changes), **meta)))
    with open_snapshot(path) as snapshot:
        return read_contents(snapshot)


@pytest.mark.parametrize(
    ("folder", "resource"),
    [
        (b"/registry/pods/default", "pods"),
        (b"/registry/minions", "nodes"),
        (b"/registry/services/specs/default", "services"),
        (b"/registry/onprem.cluster.gke.io/machines/default", "machines.onprem.cluster.gke.io"),
        (b"/registry/masterleases", "masterleases"),
        (b"", OTHER),
        (b"/elsewhere", OTHER),
        (b"/registry/pods/default/too/deep", OTHER),
    ],
)
def test_keys_are_counted_by_resource(folder, resource):
    assert resource_of(folder) == resource


def test_a_tally_does_not_depend_on_the_order_nor_on_the_portions():
    one, other = Tallies(), Tallies()
    one.add([A, B, C])
    for portion in ([C, A], [B]):
        other.add(portion)
    assert one.by_resource == other.by_resource
    assert one.count == 3


@pytest.mark.parametrize("name", LiveKey._fields)
def test_a_tally_sees_every_field_of_a_key(name):
    one, other = Tallies(), Tallies()
    one.add([A])
    other.add([A._replace(**{name: b"/registry/pods/default/z" if isinstance(getattr(A, name), bytes) else 9})])
    assert one.by_resource["pods"].count == other.by_resource["pods"].count
    assert one.by_resource != other.by_resource


def test_a_sample_of_each_resource_is_kept():
    tallies = Tallies()
    node = A._replace(key=b"/registry/minions/n1")
    tallies.add([A, B, node])
    assert tallies.samples == {"pods": A, "nodes": node}


def test_a_snapshot_is_read_at_its_current_revision(tmp_path):
    puts = [Put(b"/registry/pods/default/p%d" % number, b"v") for number in range(3)]
    found = contents_of(tmp_path, [*puts, Put(b"/registry/minions/n1", b"n", lease=7), Delete(puts[0].key)])
    assert found.revision == 6
    assert {resource: tally.count for resource, tally in found.tallies.by_resource.items()} == {"pods": 2, "nodes": 1}
    assert found.tallies.samples["nodes"] == LiveKey(b"/registry/minions/n1", 5, 5, 1, 7, b"n")


KEPT, GONE, LATER = Put(b"/kept", b"1"), Put(b"/gone", b"2"), Put(b"/later", b"3")


@pytest.mark.parametrize(
    ("changes", "compacted", "hashed"),
    [
        pytest.param([KEPT, GONE, LATER], 0, [0, 1, 2], id="nothing-compacted"),
        pytest.param([KEPT, GONE, Delete(GONE.key), LATER], 4, [0, 3], id="a-tombstone-at-the-compaction-counts-not"),
        pytest.param([KEPT, GONE, Delete(GONE.key), LATER], 3, [0, 2, 3], id="replaced-after-the-compaction"),
        pytest.param([KEPT, Delete(KEPT.key)], 3, [0, 1], id="no-key-left-all-counts"),
        pytest.param([KEPT, Bump(10), LATER], 12, [0, 1, 2], id="a-bump-exists"),
        pytest.param([KEPT, Bump(10), Bump(10), LATER], 22, [0, 2, 3], id="only-the-last-bump-exists"),
    ],
)
def test_hash_kv_is_of_the_records_that_a_compaction_keeps(tmp_path, changes, compacted, hashed):
    records = make_records(changes)
    expected = google_crc32c.extend(0, b"key")
    for index in hashed:
        expected = google_crc32c.extend(expected, b"".join(records[index]))
    assert contents_of(tmp_path, changes, compacted=compacted).hash_kv == expected
