"""Sound snapshots of every shape are sound; every kind of damage is found and named."""

from __future__ import annotations

import os
import tempfile

import pytest

from etcdkeep.errors import SnapshotDamaged, SnapshotUnreadable
from etcdkeep.snapshot import EncryptionUse, open_snapshot
from tests.damaged_snapshots import DAMAGES, many_small_fields, sample, with_smaller_tree
from tests.snapshots import Bump, Delete, Edit, Put, etcd_buckets, make_records, make_snapshot, meta_page, seal


@pytest.fixture
def check(tmp_path):
    def check(data, **options):
        file = tmp_path / "snapshot.db"
        file.write_bytes(data)
        with open_snapshot(file) as snapshot:
            return snapshot.check(**options)

    return check


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_found(check, name):
    damage = DAMAGES[name]
    report = check(damage.apply(sample()))
    assert not report.ok
    assert any(damage.says in problem for problem in report.problems), report.problems


PUTS = [Put(b"/registry/pods/default/pod-%03d" % number, b"v" * 30) for number in range(80)]


def plain(**options) -> bytes:
    """As etcd writes it: without a freelist, and with pages that are free."""
    buckets = etcd_buckets(make_records(PUTS), **options)
    return make_snapshot(buckets=buckets, page_size=1024, fanout=4, free_pages=3)


@pytest.mark.parametrize("pages", range(3, len(plain()) // 1024))
def test_a_file_that_is_cut_off_is_not_called_another_program_s(check, pages):
    report = check(plain()[: pages * 1024])
    assert any("it is cut off" in problem for problem in report.problems)
    assert not any("not of etcd" in problem for problem in report.problems)


def test_a_tree_that_was_replaced_by_a_smaller_one_is_told(check):
    assert check(plain()).hints == ()
    report = check(with_smaller_tree(plain()))
    assert report.problems == ()
    (hint,) = report.hints
    assert "hold records that no compaction removed" in hint


def test_records_that_a_compaction_removed_are_not_missed(check):
    assert check(with_smaller_tree(plain(compacted=70))).hints == ()


def test_sample_is_sound(check):
    assert check(sample()).problems == ()


@pytest.mark.parametrize("page_size", [1024 << shift for shift in range(7)])
@pytest.mark.parametrize("stored_freelist", [False, True], ids=["no-freelist", "freelist"])
@pytest.mark.parametrize("fanout", [2, 100], ids=["deep", "flat"])
@pytest.mark.parametrize("inline", [False, True], ids=["pages", "inline"])
def test_every_shape_is_sound(check, page_size, stored_freelist, fanout, inline):
    changes = [Put(b"/registry/key-%03d" % (number % 30), b"v" * number * 20) for number in range(40)]
    changes += [Delete(b"/registry/key-003"), Put(b"/registry/large", b"l" * 200_000, lease=7), Bump(1_000_000)]
    report = check(
        make_snapshot(
            make_records(changes),
            page_size=page_size,
            stored_freelist=stored_freelist,
            free_pages=5,
            fanout=fanout,
            inline=inline,
        )
    )
    assert report.problems == ()
    assert (report.revision, report.live_keys, report.total_keys) == (1_000_043, 31, 43 + 5)
    assert report.page_size == page_size


@pytest.mark.parametrize("free_pages", [0xFFFE, 0xFFFF])
def test_freelist_of_any_length_is_sound(check, free_pages):
    data = make_snapshot([], page_size=1024, stored_freelist=True, free_pages=free_pages)
    assert check(data).problems == ()


def test_empty_etcd(check):
    report = check(make_snapshot([]))
    assert report.ok
    assert (report.revision, report.current_revision, report.live_keys, report.total_keys) == (0, 1, 0, 5)


def test_facts(check):
    records = make_records([Put(b"/a", b"1"), Put(b"/b", b"2")])
    report = check(make_snapshot(buckets=etcd_buckets(records, compacted=12, scheduled=15)))
    assert report.members == ("8e9e05c52164694d",)
    assert (report.consistent_index, report.term, report.cluster_version, report.storage_version) == (
        42,
        3,
        "3.5.0",
        "",
    )
    assert (report.revision, report.current_revision, report.compacted_revision) == (3, 15, 15)


def test_json_has_the_fixed_keys(check):
    sound = check(sample()).to_json()
    assert list(sound) == [
        "hash",
        "revision",
        "total_keys",
        "live_keys",
        "size_bytes",
        "page_size",
        "ok",
        "problems",
    ]
    assert sound["ok"] is True
    assert sound["problems"] == []
    damaged = check(DAMAGES["page-zeroed"].apply(sample())).to_json()
    assert damaged["ok"] is False
    assert damaged["hash"] is damaged["live_keys"] is None
    assert damaged["size_bytes"] == sound["size_bytes"]


def test_live_keys_as_etcdutl_3_6_counts_them(check):
    changes = [Put(b"a", b"1"), Put(b"b", b"1"), Delete(b"a"), Put(b"c", b"1"), Delete(b"c"), Put(b"c", b"2")]
    assert check(make_snapshot(make_records(changes))).live_keys == 2
    assert check(make_snapshot(make_records([*changes, Bump(100)]))).live_keys == 3


def test_encryption_at_rest_is_seen_in_live_and_old_values(check):
    changes = [
        Put(b"/registry/secrets/a", b"k8s:enc:aescbc:v1:key1:" + bytes(40)),
        Put(b"/registry/secrets/a", b"k8s:enc:aesgcm:v1:key2:" + bytes(40), create=2, version=2),
        Put(b"/registry/secrets/b", b"k8s:enc:kms:v2:vault:" + bytes(40), lease=9),
        Put(b"/registry/secrets/c", b"k8s:enc:new-thing"),
        Put(b"/registry/configmaps/d", b"text about k8s:enc:secretbox:v1:key3: and more"),
    ]
    assert check(make_snapshot(make_records(changes))).encryption == {
        EncryptionUse("aescbc", "key1"),
        EncryptionUse("aesgcm", "key2"),
        EncryptionUse("kms", "vault"),
        EncryptionUse("unknown", ""),
    }


def test_damage_beyond_counting_ends_the_check(check):
    edit = Edit(sample())
    for page in edit.pages(2):
        edit.set_header(page, page_id=0)
    changes = [Put(b"k%d" % number, b"", create=10**6) for number in range(500)]
    report = check(make_snapshot(make_records(changes)))
    assert len(report.problems) == 101
    assert report.problems[-1] == "the check ended after 100 problems"
    assert report.revision is None


def test_record_of_endless_fields_is_refused_at_once(check):
    assert "ends inside a field" in check(many_small_fields(200_000)).problems[0]


def test_known_trailer_is_not_computed_again(check):
    data = DAMAGES["trailer-changed"].apply(sample())
    assert not check(data).ok
    assert check(data, trailer=False).ok


def test_progress_ends_at_the_end(check):
    seen = []
    size_bytes = check(sample(), progress=lambda done, total: seen.append((done, total))).size_bytes
    assert seen == [(size_bytes, size_bytes)]


def test_status_does_not_look_into_records(tmp_path):
    file = tmp_path / "snapshot.db"
    file.write_bytes(DAMAGES["record-created-later"].apply(b""))
    with open_snapshot(file) as snapshot:
        status, report = snapshot.status(), snapshot.check()
    assert status.ok
    assert not report.ok
    assert (status.revision, status.total_keys) == (9, 3 + 5)


def test_open_file_without_a_name(tmp_path):
    with tempfile.TemporaryFile(dir=tmp_path) as file:
        file.write(sample())
        file.flush()
        with open_snapshot(file.fileno()) as snapshot:
            assert snapshot.check().ok
        assert file.tell() == len(sample())


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\0" * 40, id="short"),
        pytest.param(b"\x7fELF" + bytes(100_000), id="other-file"),
        pytest.param(b"{}" * 50_000, id="text"),
    ],
)
def test_other_files_are_unreadable(check, data):
    with pytest.raises(SnapshotUnreadable):
        check(data)


def test_missing_file_and_directory_are_unreadable(tmp_path):
    for path in (tmp_path / "missing.db", tmp_path):
        with pytest.raises(SnapshotUnreadable, match=path.name), open_snapshot(path):
            pass
    read_end, write_end = os.pipe()
    with pytest.raises(SnapshotUnreadable, match="regular file"), open_snapshot(read_end):
        pass
    os.close(read_end)
    os.close(write_end)


def test_both_metas_damaged(check):
    edit = Edit(sample()).flip(60).flip(1024 + 60)
    with pytest.raises(SnapshotDamaged, match="both meta pages"):
        check(edit.seal())


@pytest.mark.parametrize("page_size", [1024, 4096, 65536])
def test_second_meta_is_found_when_the_first_is_gone(check, page_size):
    data = make_snapshot(make_records([Put(b"a", b"1")]), page_size=page_size)
    report = check(seal(bytes(page_size) + data[page_size:-32]))
    assert report.problems == ("meta page 0 has no bbolt magic",)
    assert report.revision == 2


def test_file_of_metas_only(check):
    metas = meta_page(0, 1024, 2, 3, 4, 1) + meta_page(1, 1024, 2, 3, 4, 2)
    assert any("page 2 is referred to" in problem for problem in check(seal(metas)).problems)
