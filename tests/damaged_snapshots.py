"""
Every kind of damage to a snapshot that a check of the file alone can see.

:data:`DAMAGES` gives for each kind a function from the sound file of :func:`sample` to a damaged one, and words of what
the check must say. Damage is sealed again, so that the trailer fits, except where the seal itself is damaged.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from etcdkeep.snapshot.bolt import BRANCH_PAGE, FREELIST_PAGE, LEAF_PAGE
from tests.snapshots import (
    Delete,
    Edit,
    Put,
    etcd_buckets,
    make_records,
    make_snapshot,
    record_value,
    revision_key,
    seal,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.snapshots import Entries


class Damage(NamedTuple):
    """A way to damage the sample, and words of what the check must say."""

    apply: Callable[[bytes], bytes]
    says: str


def sample() -> bytes:
    """A sound file of small pages: several levels of branches, a stored freelist, a value over many pages."""
    puts = [Put(b"/registry/pods/default/pod-%03d" % number, b"v" * (number % 90)) for number in range(80)]
    changes = [*puts, Put(b"/registry/secrets/default/large", b"s" * 5000), Delete(b"/registry/pods/default/pod-007")]
    return make_snapshot(make_records(changes), page_size=1024, stored_freelist=True, free_pages=3, fanout=4)


def _edit(change: Callable[[Edit], object]) -> Callable[[bytes], bytes]:
    def apply(snapshot: bytes) -> bytes:
        edit = Edit(snapshot)
        change(edit)
        return edit.seal()

    return apply


def _with_record(key: bytes, value: bytes) -> Callable[[bytes], bytes]:
    """Replace the file by one whose last record is this."""
    records = make_records([Put(b"a", b"1"), Put(b"b", b"2")])
    return lambda _: make_snapshot([*records, (key, value)])


def _leaf(edit: Edit) -> int:
    return edit.big_leaf()


def _branch(edit: Edit) -> int:
    """A branch page whose children are leaves."""
    return next(
        page for page in edit.pages(BRANCH_PAGE) if edit.header(edit.element(page, 0)["child"])["flags"] == LEAF_PAGE
    )


def _freelist(edit: Edit) -> int:
    return edit.pages(FREELIST_PAGE)[0]


def _copy_page(edit: Edit, source: int, target: int) -> None:
    edit.write(edit.at(target), bytes(edit.image[edit.at(source) : edit.at(source + 1)]))


def _swap_pages(edit: Edit) -> None:
    first, second = (edit.element(_branch(edit), index)["child"] for index in (0, 1))
    pages = [bytes(edit.image[edit.at(page) : edit.at(page + 1)]) for page in (first, second)]
    edit.write(edit.at(first), pages[1]).write(edit.at(second), pages[0])
    edit.set_header(first, page_id=first).set_header(second, page_id=second)


def _swap_freelist(edit: Edit) -> None:
    """Free a page that is in use instead of one that is not."""
    numbers = edit.at(_freelist(edit)) + 16
    edit.write(numbers, struct.pack("<Q", 2)).write(numbers + 16, struct.pack("<Q", _leaf(edit)))


def _set_root_bucket(edit: Edit, root: int) -> None:
    """Point bucket ``key`` elsewhere."""
    edit.write(_key_bucket(edit), struct.pack("<Q", root))


def _key_bucket(edit: Edit) -> int:
    """Return where the value of bucket ``key`` stands: its root page."""
    page = edit.meta(0)["root"]
    while edit.header(page)["flags"] == BRANCH_PAGE:
        keys = edit.keys(page)
        page = edit.element(page, max(index for index, key in enumerate(keys) if key <= b"key"))["child"]
    return edit.value_at(page, edit.keys(page).index(b"key"))


def with_smaller_tree(snapshot: bytes) -> bytes:
    """Make the last child of the root of bucket ``key`` its root, under a trailer that fits: all before it is lost."""
    edit = Edit(snapshot)
    (root,) = struct.unpack_from("<Q", edit.image, _key_bucket(edit))
    _set_root_bucket(edit, edit.element(root, edit.header(root)["count"] - 1)["child"])
    return edit.seal()


def _deep(snapshot: bytes) -> bytes:
    """Branch pages with one child each, one below the other."""
    edit = Edit(snapshot)
    first, depth = len(edit.image) // edit.page_size, 70
    for page in range(first, first + depth):
        key = revision_key(2)
        child = page + 1 if page < first + depth - 1 else _leaf(edit)
        body = struct.pack("<QHHI", page, BRANCH_PAGE, 1, 0) + struct.pack("<IIQ", 16, len(key), child) + key
        edit.image += body.ljust(edit.page_size, b"\0")
    edit.set_meta(page_count=first + depth)
    _set_root_bucket(edit, first)
    return edit.seal()


def _bad_bucket(value: bytes, *, at: int = 0, flags: int = 1) -> Callable[[Edit], None]:
    """Damage the value of the inline bucket ``meta``: its header is 16 bytes, its page's header another 16."""

    def change(edit: Edit) -> None:
        for page in edit.pages(LEAF_PAGE):
            if b"meta" in edit.keys(page):
                index = edit.keys(page).index(b"meta")
                edit.write(edit.value_at(page, index) + at, value).set_element(page, index, flags=flags)

    return change


def _buckets(**entries: Entries) -> bytes:
    return make_snapshot(buckets={name.encode(): value for name, value in entries.items()})


_RECORD = record_value(Put(b"c", b"3"), 9)

DAMAGES: dict[str, Damage] = {
    # The file as a whole.
    "bit-in-value": Damage(lambda file: file[:-100] + bytes((file[-100] ^ 1,)) + file[-99:], "SHA-256"),
    "trailer-changed": Damage(lambda file: file[:-1] + bytes((file[-1] ^ 1,)), "SHA-256"),
    "trailer-missing": Damage(lambda file: file[:-32], "no SHA-256 trailer"),
    "truncated-in-page": Damage(lambda file: file[: len(file) // 2 + 100], "no SHA-256 trailer"),
    "truncated-and-sealed": Damage(lambda file: seal(file[:-1056]), "its meta page says"),
    "extended-and-sealed": Damage(lambda file: seal(file[:-32] + bytes(1024)), "its meta page says"),
    # Meta pages.
    "meta-0-flipped": Damage(_edit(lambda edit: edit.flip(60)), "meta page 0 does not match its checksum"),
    "meta-1-flipped": Damage(_edit(lambda edit: edit.flip(edit.at(1) + 50)), "meta page 1 does not match its checksum"),
    "meta-1-zeroed": Damage(_edit(lambda edit: edit.write(edit.at(1), bytes(1024))), "meta page 1 has no bbolt magic"),
    "meta-1-version": Damage(_edit(lambda edit: edit.set_meta(1, version=3)), "meta page 1 has version 3"),
    "meta-1-page-size": Damage(_edit(lambda edit: edit.set_meta(1, page_size=4096)), "page size of 4096"),
    "meta-1-type": Damage(_edit(lambda edit: edit.set_header(1, flags=2)), "type 0x2"),
    "meta-pages-too-many": Damage(_edit(lambda edit: edit.set_meta(page_count=2**62)), "its meta page says"),
    "meta-pages-too-few": Damage(
        _edit(lambda edit: edit.set_meta(page_count=10)), "is referred to; the file has pages"
    ),
    "meta-root-outside": Damage(_edit(lambda edit: edit.set_meta(root=2**63)), "is referred to; the file has pages"),
    "meta-root-is-meta": Damage(_edit(lambda edit: edit.set_meta(root=1)), "is referred to; the file has pages"),
    # Pages.
    "page-zeroed": Damage(_edit(lambda edit: edit.write(edit.at(_leaf(edit)), bytes(1024))), "says that it is page 0"),
    "page-number": Damage(_edit(lambda edit: edit.set_header(_leaf(edit), page_id=999)), "says that it is page 999"),
    "page-type": Damage(_edit(lambda edit: edit.set_header(_leaf(edit), flags=0x10)), "has type 0x10"),
    "page-two-types": Damage(_edit(lambda edit: edit.set_header(_leaf(edit), flags=3)), "has type 0x3"),
    "page-count": Damage(_edit(lambda edit: edit.set_header(_leaf(edit), count=0xFFFF)), "more than fit"),
    "page-overflow": Damage(_edit(lambda edit: edit.set_header(_leaf(edit), overflow=2**32 - 1)), "behind the end"),
    "page-overlaps": Damage(_edit(lambda edit: edit.set_header(2 + 3, overflow=1)), "more than once"),
    "pages-swapped": Damage(_edit(_swap_pages), "out of order"),
    "page-copied-over": Damage(
        _edit(lambda edit: _copy_page(edit, *(edit.element(_branch(edit), index)["child"] for index in (0, 1)))),
        "says that it is page",
    ),
    # Branches.
    "child-twice": Damage(
        _edit(lambda edit: edit.set_element(_branch(edit), 1, child=edit.element(_branch(edit), 0)["child"])),
        "more than once",
    ),
    "cycle": Damage(_edit(lambda edit: edit.set_element(_branch(edit), 0, child=_branch(edit))), "more than once"),
    "child-outside": Damage(_edit(lambda edit: edit.set_element(_branch(edit), 0, child=2**40)), "is referred to"),
    "branch-key-place": Damage(_edit(lambda edit: edit.set_element(_branch(edit), 1, pos=2**31)), "wrong place"),
    "branch-key-size": Damage(_edit(lambda edit: edit.set_element(_branch(edit), 1, key_size=2**31)), "wrong place"),
    "branch-key-larger": Damage(_edit(lambda edit: edit.flip(edit.key_at(_branch(edit), 0), 6)), "out of order"),
    "branch-key-smaller": Damage(
        _edit(lambda edit: edit.write(edit.key_at(_branch(edit), 2), revision_key(1))), "out of order"
    ),
    "branch-without-child": Damage(_edit(lambda edit: edit.set_header(_branch(edit), count=0)), "without a child"),
    "too-deep": Damage(_deep, "more than 64 branch pages"),
    # Leaves.
    "leaf-value-size": Damage(_edit(lambda edit: edit.set_element(_leaf(edit), 0, value_size=2**32 - 1)), "wrong"),
    "leaf-last-value-size": Damage(_edit(lambda edit: edit.set_element(_leaf(edit), 2, value_size=2**31)), "wrong"),
    "leaf-key-size": Damage(_edit(lambda edit: edit.set_element(_leaf(edit), 0, key_size=2**32 - 1)), "first key"),
    "leaf-emptied": Damage(_edit(lambda edit: edit.set_header(_leaf(edit), count=0)), "holds no entry"),
    "leaf-place": Damage(_edit(lambda edit: edit.set_element(_leaf(edit), 1, pos=0)), "wrong type or place"),
    "leaf-type": Damage(_edit(lambda edit: edit.set_element(_leaf(edit), 1, flags=1)), "wrong type or place"),
    "leaf-keys-swapped": Damage(lambda _: make_snapshot(make_records([Put(b"a", b"1")] * 2)[::-1]), "stands behind"),
    "small-bucket-keys-swapped": Damage(lambda _: _buckets(key=[], lease=[(b"2", b""), (b"1", b"")]), "out of order"),
    "small-bucket-key-twice": Damage(lambda _: _buckets(key=[], lease=[(b"1", b""), (b"1", b"")]), "out of order"),
    # Freelist.
    "freelist-swapped": Damage(_edit(_swap_freelist), "is on the freelist and in use"),
    "freelist-outside": Damage(_edit(lambda edit: edit.set_meta(freelist=2**40)), "the freelist is on page"),
    "freelist-is-a-leaf": Damage(_edit(lambda edit: edit.set_meta(freelist=_leaf(edit))), "is not a freelist"),
    "freelist-count": Damage(_edit(lambda edit: edit.set_header(_freelist(edit), count=0xFFFE)), "more than fit"),
    "freelist-long-count": Damage(
        _edit(
            lambda edit: edit.set_header(_freelist(edit), count=0xFFFF).write(
                edit.at(_freelist(edit)) + 16, b"\xff" * 8
            )
        ),
        "more than fit",
    ),
    "freelist-unsorted": Damage(
        _edit(lambda edit: edit.write(edit.at(_freelist(edit)) + 16, struct.pack("<Q", 4))), "the freelist names page"
    ),
    "freelist-overflow": Damage(_edit(lambda edit: edit.set_header(_freelist(edit), overflow=99)), "is not a freelist"),
    "unreachable-page": Damage(
        _edit(lambda edit: edit.set_header(_freelist(edit), count=2)), "neither in use nor free"
    ),
    # Buckets.
    "bucket-root-outside": Damage(_edit(lambda edit: _set_root_bucket(edit, 2**50)), "is referred to"),
    "bucket-root-freed": Damage(_edit(lambda edit: _set_root_bucket(edit, 3)), "wrong"),
    "bucket-is-no-bucket": Damage(_edit(_bad_bucket(b"", flags=0)), "is not a bucket"),
    "inline-page-type": Damage(_edit(_bad_bucket(bytes(24) + b"\x01")), "inline page of bucket 'meta' is damaged"),
    "inline-page-count": Damage(
        _edit(_bad_bucket(bytes(24) + b"\x02\0\xff\xff")), "inline page of bucket 'meta' is damaged"
    ),
    "no-key-bucket": Damage(lambda _: _buckets(meta=[(b"term", bytes(8))]), "no bucket 'key'"),
    "bucket-inside": Damage(_edit(_bad_bucket(struct.pack("<I", 1), at=32)), "holds an entry of type 1"),
    # Records.
    "record-key-size": Damage(_with_record(b"\0" * 16, _RECORD), "is not a revision"),
    "record-key-separator": Damage(_with_record(revision_key(9).replace(b"_", b"-"), _RECORD), "is not a revision"),
    "record-key-negative": Damage(_with_record(b"\xff" * 8 + b"_" + bytes(8), _RECORD), "is not a revision"),
    "record-other-revision": Damage(_with_record(revision_key(8), _RECORD), "mod_revision is 9, expected 8"),
    "record-created-later": Damage(
        _with_record(revision_key(9), record_value(Put(b"c", b"3", create=10), 9)), "create_revision is 10"
    ),
    "record-without-key": Damage(_with_record(revision_key(9), b"\x10\x09\x18\x09\x20\x01"), "has no key"),
    "record-cut-off": Damage(_with_record(revision_key(9), _RECORD[:-1]), "ends inside a field"),
    "record-longer": Damage(_with_record(revision_key(9), _RECORD + b"\x35"), "wire type 5"),
    "record-endless-number": Damage(_with_record(revision_key(9), b"\x0a\x01c\x10" + b"\xff" * 20), "without an end"),
    "record-wire-type": Damage(_with_record(revision_key(9), b"\x0b" + _RECORD), "wire type 3"),
    "tombstone-without-key": Damage(_with_record(revision_key(9, tombstone=True), b""), "has no key"),
}


def many_small_fields(count: int) -> bytes:
    """A snapshot with a record of so many unknown fields."""
    value = b"\x0a\x01c" + b"\x78\x01" * count
    return make_snapshot(buckets=etcd_buckets([(revision_key(9), value)]))
