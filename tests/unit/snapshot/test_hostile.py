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
INLINE = make_snapshot(make_records([Put(b"/a", b"1"), Put(b"/b", b"2")]), page_size=1024)
LIMIT_S = 10.0

edges = st.sampled_from([0, 1, 2, 3, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 2**31, 2**32 - 1, 2**63, 2**64 - 1])
numbers = st.one_of(edges, st.integers(0, 2**64 - 1))


def read_everything(data):
    """Use the whole interface; return the report of the check, or None when the file was refused."""
    started = time.monotonic()
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
    assert time.monotonic() - started < LIMIT_S
    return report


@st.composite
def overwritten(draw):
    """A sound file with some bytes overwritten, mostly where the structure is; and whether it was sealed again."""
    image = bytearray(draw(st.sampled_from([SOUND, INLINE]))[:-32])
    for _ in range(draw(st.integers(1, 6))):
        page = draw(st.integers(0, len(image) // 1024 - 1))
        offset = page * 1024 + draw(st.one_of(st.integers(0, 80), st.integers(0, 1016)))
        width = draw(st.sampled_from([1, 2, 4, 8]))
        image[offset : offset + width] = (draw(numbers) % 2 ** (8 * width)).to_bytes(width, "little")
    return bytes(image)


@settings(deadline=None, max_examples=400)
@given(overwritten())
def test_overwritten_bytes_under_a_new_trailer(image):
    read_everything(seal(image))


@settings(deadline=None, max_examples=100)
@given(overwritten())
def test_no_changed_byte_passes_under_the_old_trailer(image):
    for sound in (SOUND, INLINE):
        if len(image) == len(sound) - 32 and image != sound[:-32]:
            report = read_everything(image + sound[-32:])
            assert report is None or not report.ok


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
