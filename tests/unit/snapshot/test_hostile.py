"""Whatever the bytes: a report or one of our errors, soon; and no changed byte passes under an old trailer."""

from __future__ import annotations

import tempfile
import time

from hypothesis import given, settings
from hypothesis import strategies as st

from etcdkeep.errors import EtcdkeepError
from etcdkeep.snapshot import open_snapshot
from tests.damaged_snapshots import sample
from tests.snapshots import Edit, Put, make_records, make_snapshot, seal

SOUND = sample()
FILES = {
    "deep": SOUND,
    "inline": make_snapshot(make_records([Put(b"/a", b"1"), Put(b"/b", b"2")]), page_size=1024),
}
LIMIT_CPU_S = 10.0

edges = st.sampled_from([0, 1, 2, 3, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 2**31, 2**32 - 1, 2**63, 2**64 - 1])
numbers = st.one_of(edges, st.integers(0, 2**64 - 1))


def read_everything(data):
    """Use the whole interface; return the report of the check, or None when the file was refused."""
    started = time.process_time()
    report = None
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        try:
            with open_snapshot(file.fileno()) as snapshot:
                report = snapshot.check()
                for read in (
                    lambda: list(snapshot.records()),
                    lambda: [snapshot.value(record) for record in snapshot.live(b"/registry/")],
                    lambda: snapshot.history(b"/registry/pods/default/pod-007"),
                    lambda: snapshot.get(b"/a"),
                    lambda: snapshot.get(b"/a", snapshot.current_revision),
                    lambda: snapshot.status(),
                ):
                    try:
                        read()
                    except EtcdkeepError:
                        continue
        except EtcdkeepError:
            pass
    assert time.process_time() - started < LIMIT_CPU_S
    return report


overwrites = st.lists(
    st.tuples(
        st.integers(0, 2**20),
        st.one_of(st.integers(0, 80), st.integers(0, 1016)),
        st.sampled_from([1, 2, 4, 8]),
        numbers,
    ),
    min_size=1,
    max_size=6,
)
"""Page, offset in it, width and number: mostly where the structure is."""


def overwritten(sound, changes):
    """The image of a file with numbers written over its bytes."""
    image = bytearray(sound[:-32])
    for page, offset, width, number in changes:
        start = page * 1024 % len(image) + offset
        image[start : start + width] = (number % 2 ** (8 * width)).to_bytes(width, "little")
    return bytes(image)


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(sorted(FILES)), overwrites)
def test_overwritten_bytes_under_a_new_trailer(name, changes):
    read_everything(seal(overwritten(FILES[name], changes)))


@settings(deadline=None, max_examples=100)
@given(st.sampled_from(sorted(FILES)), overwrites)
def test_no_changed_byte_passes_under_the_old_trailer(name, changes):
    sound = FILES[name]
    image = overwritten(sound, changes)
    report = read_everything(image + sound[-32:])
    assert report is None or report.ok == (image == sound[:-32])


@settings(deadline=None, max_examples=100)
@given(st.dictionaries(st.sampled_from(["root", "freelist", "page_count", "page_size", "transaction"]), numbers))
def test_lying_metas(fields):
    lies = {name: value % 2**32 if name == "page_size" else value for name, value in fields.items()}
    read_everything(Edit(SOUND).set_meta(**lies).seal())


@settings(deadline=None, max_examples=100)
@given(st.integers(0, len(SOUND)), st.booleans())
def test_cut_anywhere(length, sealed):
    data = SOUND[:length]
    report = read_everything(seal(data) if sealed else data)
    assert report is None or not report.ok or data == SOUND


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=5000))
def test_any_bytes(data):
    read_everything(data)
