"""Reading records: the live state at any revision, one key, its history; against a plain model of etcd."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etcdkeep.errors import PermanentError, SnapshotDamaged
from etcdkeep.snapshot import open_snapshot
from tests.damaged_snapshots import DAMAGES, sample
from tests.snapshots import Bump, Delete, Put, etcd_buckets, make_records, make_snapshot


@contextmanager
def opened(data):
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        with open_snapshot(file.fileno()) as snapshot:
            yield snapshot


def values(snapshot, **options):
    return {record.key: snapshot.value(record) for record in snapshot.live(**options)}


keys = st.sampled_from([b"/a", b"/ab", b"/b", b"/b/c", b"/" + b"k" * 300])
put_fields = st.tuples(keys, st.binary(max_size=40), st.sampled_from([0, 0, 12345678901234]))
puts = put_fields.map(lambda fields: Put(fields[0], fields[1], lease=fields[2]))
transactions = st.lists(st.one_of(puts, keys.map(Delete)), min_size=1, max_size=3, unique_by=lambda change: change.key)


@settings(deadline=None, max_examples=150)
@given(
    history=st.lists(transactions, max_size=25),
    page_size=st.sampled_from([1024, 4096, 65536]),
    fanout=st.integers(2, 6),
    inline=st.booleans(),
    data=st.data(),
)
def test_state_at_any_revision_is_that_of_the_model(history, page_size, fanout, inline, data):
    states = [{}]
    changes_of = {}
    for main, transaction in enumerate(history, start=2):
        state = dict(states[-1])
        for change in transaction:
            changes_of.setdefault(change.key, []).append((main, isinstance(change, Delete)))
            if isinstance(change, Put):
                state[change.key] = change.value
            else:
                state.pop(change.key, None)
        states.append(state)
    wanted = data.draw(st.integers(1, len(states)))
    image = make_snapshot(make_records(history), page_size=page_size, fanout=fanout, inline=inline)
    with opened(image) as snapshot:
        assert snapshot.current_revision == len(states)
        assert values(snapshot) == states[-1]
        assert values(snapshot, revision=wanted) == states[wanted - 1]
        assert values(snapshot, prefix=b"/b") == {key: value for key, value in states[-1].items() if key[:2] == b"/b"}
        assert [(record.revision, record.key) for record in snapshot.records()] == [
            (main, change.key) for main, transaction in enumerate(history, start=2) for change in transaction
        ]
        report = snapshot.check()
        assert report.problems == ()
        assert report.live_keys == len(states[-1])
        for key in (b"/a", b"/b/c", b"/missing", b""):
            assert [(record.revision, record.tombstone) for record in snapshot.history(key)] == changes_of.get(key, [])
            record = snapshot.get(key, wanted)
            assert (record and snapshot.value(record)) == states[wanted - 1].get(key)


def test_live_comes_newest_first_with_every_field():
    changes = [Put(b"a", b"1"), Put(b"b", b"22", lease=5), Put(b"a", b"333", create=2, version=2), Put(b"e", b"")]
    with opened(make_snapshot(make_records(changes))) as snapshot:
        records = list(snapshot.live())
        assert [(r.key, r.revision, r.create_revision, r.version, r.lease) for r in records] == [
            (b"e", 5, 5, 1, 0),
            (b"a", 4, 2, 2, 0),
            (b"b", 3, 3, 1, 5),
        ]
        assert [snapshot.value(record) for record in records] == [b"", b"333", b"22"]


def test_deleted_and_created_again():
    changes = [Put(b"a", b"old"), Delete(b"a"), [Put(b"b", b"x"), Put(b"a", b"new")]]
    with opened(make_snapshot(make_records(changes))) as snapshot:
        assert snapshot.value(snapshot.get(b"a", 2)) == b"old"
        assert snapshot.get(b"a", 3) is None
        assert (snapshot.get(b"a").create_revision, snapshot.value(snapshot.get(b"a"))) == (4, b"new")
        assert [record.tombstone for record in snapshot.history(b"a")] == [False, True, False]


def test_revision_bump_is_no_object():
    with opened(make_snapshot(make_records([Put(b"a", b"1"), Bump(1000), Put(b"b", b"2")]))) as snapshot:
        assert values(snapshot) == {b"a": b"1", b"b": b"2"}
        assert snapshot.current_revision == 1003
        assert values(snapshot, revision=1002) == {b"a": b"1"}


def test_revision_outside_the_snapshot():
    buckets = etcd_buckets(make_records([Put(b"a", b"1"), Put(b"a", b"2"), Put(b"a", b"3")]), compacted=2, scheduled=3)
    with opened(make_snapshot(buckets=buckets)) as snapshot:
        assert snapshot.compacted_revision == 3
        assert values(snapshot, revision=3) == {b"a": b"2"}
        for revision in (0, 2, 5):
            with pytest.raises(PermanentError, match="from revision 3 to 4"):
                list(snapshot.live(revision=revision))
            with pytest.raises(PermanentError, match="from revision"):
                snapshot.get(b"a", revision)


def test_history_ignores_copies_in_free_pages_and_in_values():
    record = b"".join(make_records([Put(b"/a", b"0")])[0])
    changes = [Put(b"/a", b"1"), Put(b"/copy", record * 3), Put(b"/a", b"2", create=2, version=2)]
    image = make_snapshot(make_records(changes), free_pages=1, inline=False)
    with opened(image.replace(b"old bytes".ljust(len(record), b"\0"), record, 1)) as snapshot:
        assert [record.revision for record in snapshot.history(b"/a")] == [2, 4]


def test_history_of_a_key_whose_bytes_stand_everywhere():
    noise = Put(b"noise", (b"\x00_" + b"\x00" * 8 + b"\x0a\x01a") * 20_000)
    with opened(make_snapshot(make_records([Put(b"a", b"1"), noise, Delete(b"a")]), inline=False)) as snapshot:
        assert [record.tombstone for record in snapshot.history(b"a")] == [False, True]


@pytest.mark.parametrize("name", ["page-zeroed", "leaf-value-size", "child-outside", "cycle", "record-cut-off"])
def test_readers_refuse_damage(name):
    with opened(DAMAGES[name].apply(sample())) as snapshot:
        with pytest.raises(SnapshotDamaged):
            list(snapshot.records())
        with pytest.raises(SnapshotDamaged):
            list(snapshot.live())
