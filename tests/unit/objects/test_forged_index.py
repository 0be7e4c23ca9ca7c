"""An index that somebody else wrote ends in one error, and in a bounded amount of memory."""

from __future__ import annotations

import json

import pytest

from etcdkeep.errors import ObjectDamaged
from etcdkeep.objects.index import COLUMNS, MAX_LINE_BYTES, IndexHeader, _Lines


def lines():

    found = _Lines("harbor/x/index.json.zst.age", b"", lambda rows: list(rows))
    head = {"schema_version": 1, **IndexHeader(1, 0, 1)._asdict(), "columns": COLUMNS}
    found.write(json.dumps(head)[:-1].encode() + b', "objects": [\n')
    return found


def test_a_line_without_end_is_refused_before_it_is_read():
    found = lines()
    for _ in range(MAX_LINE_BYTES // 2**16):
        found.write(b"[" * 2**16)
    with pytest.raises(ObjectDamaged, match="has a line of more than"):
        found.write(b"[")


@pytest.mark.parametrize("block", [b"[1,2,3]", b"[[1],[1],[1]]", b"{}", b"[[[]]]", b"not json"])
def test_a_block_of_another_shape_is_one_error(block):
    with pytest.raises(ObjectDamaged, match="has a block that cannot be read"):
        lines().write(block + b",\n")
