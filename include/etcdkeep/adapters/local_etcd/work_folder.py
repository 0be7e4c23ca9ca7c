"""Private folders for plain files that programs must find by name; what a killed worker left is removed by the next."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import shutil
import stat
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from etcdkeep.errors import ConfigError, NoSpace
from etcdkeep.sealing.private_file import TMPFS, TMPFS_SHARE

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logging.getLogger(__name__)

PREFIX = "etcdkeep-drill-"
NAME = re.compile(rf"{PREFIX}(?P<needed>\d{{1,18}})-(?P<since>\d{{1,20}})-.*")


@contextmanager
def work_folder(configured: str | None, needed_bytes: int) -> Iterator[Path]:
    """
    Make a folder that only this user can enter, and remove it with all that is in it when the block ends.

    :param configured: Where to make it; else in memory where it takes a small part of what is free, else where temporary files go.
    :raises ConfigError: when the configured folder is none.
    :raises NoSpace: when there is too little room.
    """
    parents = [Path(configured)] if configured else [TMPFS, Path(tempfile.gettempdir())]
    for parent in parents:
        remove_leftovers(parent)
    folder, lock = _choose(parents, needed_bytes)
    try:
        yield folder
    finally:
        wipe(folder)
        os.close(lock)


def wipe(folder: Path) -> None:
    """Remove a folder, with what appears in it meanwhile."""
    for _ in range(3):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
    log.error("%s could not be removed, and holds a backup in the clear: remove it by hand", folder)


def remove_leftovers(parent: Path) -> None:
    """Remove the folders of those who are gone without having removed them: nobody holds their lock any more."""
    for folder in parent.glob(f"{PREFIX}*"):
        facts = folder.lstat()
        if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid():
            continue
        lock = _lock(folder)
        if lock is not None:
            log.warning("%s: removing the files of a drill that was killed", folder)
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


def _choose(parents: list[Path], needed_bytes: int) -> tuple[Path, int]:
    """Return a new folder in the first of the parents that has room for it, and its lock."""
    *in_memory, last = parents
    for parent in in_memory:
        if parent.is_dir() and os.access(parent, os.W_OK):
            folder, lock, free = _make(parent, needed_bytes)
            if needed_bytes * TMPFS_SHARE < free:
                return folder, lock
            _give_back(folder, lock)
    if not last.is_dir():
        raise ConfigError(f"drill.work_dir {last} is not a folder on this worker. Create it, or remove the setting.")
    folder, lock, free = _make(last, needed_bytes)
    if free < needed_bytes:
        _give_back(folder, lock)
        raise NoSpace(
            f"a drill needs {needed_bytes} bytes in {last}, and {max(free, 0)} are free there, without what other drills still need. Free "
            "space there, give drills a pool (verify_pool), or set drill.work_dir to a larger private folder. The backup is not in doubt."
        )
    return folder, lock


def _make(parent: Path, needed_bytes: int) -> tuple[Path, int, int]:
    """
    Make a folder whose name says what it will need and since when, and return it with its lock and the bytes that are free for it.

    What others need that came before and have not written yet is not free, so that drills which begin together do not all count
    the same room.
    """
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{needed_bytes}-{time.time_ns()}-", dir=parent))
        lock = _lock(folder)
        if lock is not None:
            return folder, lock, _free_bytes(parent) - sum(_still_needed(each) for each in _earlier(folder))
        # Another drill took it for a leftover, and removes it.


def _give_back(folder: Path, lock: int) -> None:
    wipe(folder)
    os.close(lock)


def _free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def _earlier(folder: Path) -> Iterator[Path]:
    """Yield the folders of drills of this user that began before; others' names promise nothing."""
    mine = _made_at(folder)
    others = (each for each in folder.parent.glob(f"{PREFIX}*") if each != folder and _made_at(each) < mine)
    return (each for each in others if _is_held(each))


def _is_held(folder: Path) -> bool:
    """Say whether a living drill of this user has the folder."""
    try:
        if folder.lstat().st_uid != os.getuid():
            return False
    except FileNotFoundError:
        return False
    lock = _lock(folder)
    if lock is None:
        return folder.exists()
    os.close(lock)
    return False


def _made_at(folder: Path) -> tuple[int, str]:
    match = NAME.fullmatch(folder.name)
    return (int(match["since"]) if match else 0), folder.name


def _still_needed(folder: Path) -> int:
    """Return how much of what a folder needs is not on the disk yet."""
    match = NAME.fullmatch(folder.name)
    written = 0
    for place, _, files in os.walk(folder):
        for name in files:
            with suppress(FileNotFoundError):
                written += os.lstat(os.path.join(place, name)).st_blocks * 512
    return max(int(match["needed"]) - written, 0) if match else 0


def _lock(folder: Path) -> int | None:
    """Lock a folder for as long as this process lives; None when another has it, or it is gone."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    if folder.exists():
        return descriptor
    os.close(descriptor)
    return None
