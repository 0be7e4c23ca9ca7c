"""What df prints on nodes and in containers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etcdkeep.control_plane.disk_space import parse_df

HEADER = "Filesystem     1024-blocks     Used Available Capacity Mounted on\n"
NAMES = st.text(st.characters(categories=("L", "N", "S", "Zs"), include_characters=" .-_"), min_size=1)


@pytest.mark.parametrize(
    ("line", "free_kib"),
    [
        pytest.param("/dev/vda1 123456 23456 100000 20% /", 100000, id="plain"),
        pytest.param("/dev/vdb 10 4 6 40% /mnt/etcd data", 6, id="mount-point-with-spaces"),
        pytest.param("/dev/vdb 10 4 6 40% /mnt/a  b 50% /c", 6, id="mount-point-like-a-line"),
        pytest.param("//nas/my share 10 4 6 40% /mnt/x", 6, id="name-with-spaces"),
        pytest.param("overlay 10 4 6 40% /", 6, id="container"),
        pytest.param("tmpfs 0 0 0 - /run", 0, id="no-capacity"),
        pytest.param("/dev/vdb 10 12 -2 120% /mnt", 0, id="over-full"),
    ],
)
def test_free_room(line: str, free_kib: int) -> None:
    assert parse_df(f"{HEADER}{line}\n") == free_kib * 1024


@pytest.mark.parametrize("output", ["", HEADER, "df: /x: No such file or directory\n", "a b c\n"])
def test_anything_else_is_not_known(output: str) -> None:
    assert parse_df(output) is None


@given(NAMES, NAMES, st.integers(0, 2**50))
def test_names_do_not_matter(device: str, folder: str, free_kib: int) -> None:
    assert parse_df(f"{HEADER}/dev/{device} 9 1 {free_kib} 3% /mnt/{folder}\n") == free_kib * 1024
