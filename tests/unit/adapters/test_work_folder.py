"""Folders of drills: room that is counted once, and leftovers."""

from __future__ import annotations

import pytest

from etcdkeep.adapters.local_etcd import work_folder as module
from etcdkeep.adapters.local_etcd.work_folder import PREFIX, work_folder
from etcdkeep.errors import NoSpace

MIB = 2**20


@pytest.fixture
def room(monkeypatch):
    """Say how many bytes are free on the disk."""

    def set_free(free):
        monkeypatch.setattr(module, "_free_bytes", lambda folder: free)

    return set_free


def test_drills_that_begin_together_do_not_count_the_same_room(tmp_path, room):
    room(10 * MIB)
    with work_folder(str(tmp_path), 6 * MIB):
        with (
            pytest.raises(NoSpace, match=f"needs {6 * MIB} bytes .* {4 * MIB} are free"),
            work_folder(str(tmp_path), 6 * MIB),
        ):
            pass
        with work_folder(str(tmp_path), 4 * MIB):
            pass
    with work_folder(str(tmp_path), 6 * MIB):
        pass
    assert list(tmp_path.iterdir()) == []


def test_what_another_drill_has_written_already_is_not_counted_twice(tmp_path, room):
    room(10 * MIB)
    with work_folder(str(tmp_path), 6 * MIB) as first:
        (first / "etcd.db").write_bytes(b"x" * 6 * MIB)
        room(4 * MIB)  # as the disk now says
        with work_folder(str(tmp_path), 4 * MIB):
            pass


def test_of_two_that_see_each_other_the_first_has_the_room(tmp_path, room):
    room(10 * MIB)
    with work_folder(str(tmp_path), 6 * MIB) as first:
        later = tmp_path / f"{PREFIX}{6 * MIB}-{10**19}-later"
        later.mkdir()
        assert list(module._earlier(first)) == []
        assert list(module._earlier(later)) == [first]


def test_a_drill_that_was_killed_holds_no_room(tmp_path, room):
    room(10 * MIB)
    left = tmp_path / f"{PREFIX}{9 * MIB}-1-abc"
    left.mkdir()
    with work_folder(str(tmp_path), 6 * MIB):
        assert not left.exists()
