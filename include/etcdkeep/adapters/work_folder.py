"""Private folders for plain files that programs must find by name; what a killed worker left is removed by the next."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import stat
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from etcdkeep.errors import ConfigError, NoSpace
from etcdkeep.private_file import TMPFS, TMPFS_SHARE

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logging.getLogger(__name__)

PREFIX = "etcdkeep-drill-"


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
    parent = _choose(parents, needed_bytes)
    folder, lock = _make(parent)
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
            log.warning("%s: removing what a drill that was killed has left", folder)
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


def _choose(parents: list[Path], needed_bytes: int) -> Path:
    *in_memory, last = parents
    for parent in in_memory:
        if parent.is_dir() and os.access(parent, os.W_OK) and needed_bytes * TMPFS_SHARE < _free_bytes(parent):
            return parent
    if not last.is_dir():
        raise ConfigError(f"drill.work_dir {last} is no folder on this worker; make it, or leave the setting out.")
    if (free := _free_bytes(last)) < needed_bytes:
        raise NoSpace(
            f"a drill needs {needed_bytes} bytes in {last}, and {free} are free there. Make room, or set drill.work_dir to a larger "
            "private folder. The backup is not in doubt."
        )
    return last


def _free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def _make(parent: Path) -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        lock = _lock(folder)
        if lock is not None:
            return folder, lock
        # Another drill took it for a leftover, and removes it.


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
