"""Plaintext on disk: in files that only this process can reach."""

from __future__ import annotations

import errno
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from etcdkeep.errors import NoSpace

if TYPE_CHECKING:
    from collections.abc import Iterator

TMPFS = Path("/dev/shm")  # noqa: S108 - only unlinked files are made there
TMPFS_SHARE = 4
"""Plaintext goes to memory only when it takes less than one part in so many of what is free there."""

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def private_file(size_bytes: int) -> Iterator[IO[bytes]]:
    """
    Open a file that only this process can reach: without a name from the start, and gone when the process ends.

    :param size_bytes: What it will hold; in memory where that fits well, else in the temporary directory.
    :raises NoSpace: when it does not fit.
    """
    in_memory = TMPFS.is_dir() and size_bytes * TMPFS_SHARE < shutil.disk_usage(TMPFS).free
    folder = TMPFS if in_memory else Path(tempfile.gettempdir())
    with telling_full_disk(folder, size_bytes), tempfile.TemporaryFile(dir=folder) as file:
        yield file


@contextmanager
def telling_full_disk(folder: Path, size_bytes: int) -> Iterator[None]:
    """
    Translate the error of a full disk.

    :raises NoSpace: in its place.
    """
    try:
        yield
    except OSError as err:
        if err.errno not in FULL:
            raise
        raise NoSpace(
            f"{folder} has no space for {size_bytes} bytes of plaintext ({err.strerror}). Free space there, or set TMPDIR to a "
            "larger private folder."
        ) from err
