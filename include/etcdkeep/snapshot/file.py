"""
An open snapshot file.
"""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from etcdkeep.errors import SnapshotUnreadable
from etcdkeep.snapshot.bolt import Image
from etcdkeep.snapshot.report import Progress, SnapshotReport, check_image


class Snapshot:
    """A mapped snapshot file; usable as long as :func:`open_snapshot`'s block lasts."""

    def __init__(self, image: Image) -> None:
        self._image = image

    def check(self, *, trailer: bool = True, progress: Progress | None = None) -> SnapshotReport:
        """
        Check everything that can be checked in the file alone, and return the facts of ``etcdutl snapshot status``.

        Reads every page once; damage is reported, never raised.

        :param trailer: False where the caller has compared the SHA-256 of these very bytes already.
        """
        return check_image(self._image, trailer=trailer, progress=progress)


@contextmanager
def open_snapshot(source: Path | str | int) -> Iterator[Snapshot]:
    """
    Open a snapshot for reading, with its SHA-256 trailer or without.

    :param source: A path, or an open file descriptor, which stays open and may be of an unlinked file.
    :raises SnapshotUnreadable: when the file cannot be opened or is no bbolt file.
    :raises SnapshotDamaged: when neither of its meta pages is valid.
    """
    try:
        descriptor = os.dup(source) if isinstance(source, int) else os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise SnapshotUnreadable(f"snapshot {str(source)!r} cannot be opened: {error.strerror}") from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise SnapshotUnreadable(f"snapshot {str(source)!r} is no regular file")
        mapped = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise SnapshotUnreadable(f"snapshot {str(source)!r} cannot be read: {error}") from error
    finally:
        os.close(descriptor)
    with mapped:
        yield Snapshot(Image(mapped))
