"""A move in a real shell: one command, whatever stands there, with GNU's mv and with a shell's own numbering."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from etcdkeep.restore.actions import NOTHING_THERE, move_argv
from etcdkeep.restore.steps import Move

if TYPE_CHECKING:
    from pathlib import Path

MOVES = [pytest.param(("env",), id="on-a-node"), pytest.param((), id="in-a-pod")]


def move(folder: Path, prefix: tuple[str, ...], displaced: str = "it's stray") -> int:
    """Move ``new folder`` to ``live``, and return the exit code."""
    names = (str(folder / name) for name in ("new folder", "live", displaced))
    return subprocess.run(move_argv(Move(*names, prefix)), check=False, capture_output=True).returncode


def contents(folder: Path) -> dict[str, str]:
    """Return what each thing holds: a folder its one file, a link its target."""
    return {
        path.name: str(path.readlink()) if path.is_symlink() else (path / "file").read_text()
        for path in folder.iterdir()
    }


def put(folder: Path, name: str, content: str) -> None:
    """Make a folder with something in it."""
    (folder / name).mkdir()
    (folder / name / "file").write_text(content)


@pytest.mark.parametrize("prefix", MOVES)
class TestMove:
    def test_what_stands_in_the_way_is_kept_each_time(self, tmp_path: Path, prefix: tuple[str, ...]) -> None:
        for content in ("first", "second", "third"):
            put(tmp_path, "new folder", content)
            assert move(tmp_path, prefix) == 0
        assert contents(tmp_path) == {"live": "third", "it's stray": "first", "it's stray.~1~": "second"} | (
            {} if not prefix else {"it's stray": "second", "it's stray.~1~": "first"}
        )

    def test_a_dangling_link_is_something_too(self, tmp_path: Path, prefix: tuple[str, ...]) -> None:
        put(tmp_path, "new folder", "new")
        (tmp_path / "live").symlink_to("nowhere")
        assert move(tmp_path, prefix) == 0
        assert contents(tmp_path) == {"live": "new", "it's stray": "nowhere"}

    def test_a_move_made_already_stays(self, tmp_path: Path, prefix: tuple[str, ...]) -> None:
        put(tmp_path, "live", "moved")
        assert move(tmp_path, prefix) == 0
        assert contents(tmp_path) == {"live": "moved"}

    def test_nothing_at_both_names_is_told(self, tmp_path: Path, prefix: tuple[str, ...]) -> None:
        assert move(tmp_path, prefix) == NOTHING_THERE

    def test_the_live_one_stays_when_it_cannot_be_set_aside(self, tmp_path: Path, prefix: tuple[str, ...]) -> None:
        put(tmp_path, "new folder", "new")
        put(tmp_path, "live", "old")
        assert move(tmp_path, prefix, "no such folder/stray") not in (0, NOTHING_THERE)
        assert contents(tmp_path) == {"new folder": "new", "live": "old"}
