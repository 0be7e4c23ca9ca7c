"""
The freelist of a bbolt image: the sorted numbers of the pages that no bucket uses.

Its page holds the count, or 0xFFFF there and the count as the first number, then the numbers (u64). etcd does not write
it at all: then the pages that no bucket reaches are simply free.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

from etcdkeep.snapshot.bolt import FREELIST_PAGE, NO_FREELIST, PAGE_HEADER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from etcdkeep.snapshot.bolt import Image
    from etcdkeep.snapshot.tree import Problems

_PAGE_NUMBER = Struct("<Q")
_COUNT_STANDS_FIRST = 0xFFFF


def check_freelist(image: Image, reached: bytearray, problems: Problems) -> None:
    """
    Check that each page is used or free, exactly once, where a freelist is stored.

    :param reached: 1 for each page that the buckets use; the freelist's own pages and the free ones are added.
    """
    if image.meta.freelist == NO_FREELIST:
        return
    for page in _read(image, reached, problems):
        if reached[page]:
            problems.add(f"page {page} is on the freelist and in use")
        reached[page] = 1
    lost = reached.count(0, 2)
    if lost:
        problems.add(f"{lost} pages are neither in use nor free, the first of them is page {reached.find(0, 2)}")


def _read(image: Image, reached: bytearray, problems: Problems) -> Iterator[int]:
    """Yield the free pages and mark the pages of the list itself as used."""
    first = image.meta.freelist
    if not 2 <= first < image.page_count:
        problems.add(f"the freelist is on page {first}; the file has pages 2 to {image.page_count - 1}")
        return
    offset = first * image.page_size
    page_id, flags, count, overflow = image.unpack(PAGE_HEADER, offset)
    end_page = first + overflow + 1
    if page_id != first or flags != FREELIST_PAGE or end_page > image.page_count:
        problems.add(f"page {first} is not a freelist: it is headed as page {page_id} of type {flags:#x} + {overflow}")
        return
    if reached.find(1, first, end_page) >= 0:
        problems.add(f"the freelist on page {first} is in use by a bucket")
    reached[first:end_page] = b"\1" * (overflow + 1)
    start = offset + PAGE_HEADER.size
    if count == _COUNT_STANDS_FIRST:
        (count,) = image.unpack(_PAGE_NUMBER, start)
        start += _PAGE_NUMBER.size
    if start + count * _PAGE_NUMBER.size > end_page * image.page_size:
        problems.add(f"the freelist on page {first} has {count} entries, more than fit")
        return
    previous = 1
    for (page,) in _PAGE_NUMBER.iter_unpack(image.read(start, start + count * _PAGE_NUMBER.size)):
        if not previous < page < image.page_count:
            problems.add(f"the freelist names page {page} behind page {previous} of {image.page_count}")
            return
        previous = page
        yield page
