"""Names of stored objects: what every store takes, and what none does."""

from __future__ import annotations

from etcdkeep.errors import UnsafeName

PART_SUFFIX = ".part"
SEGMENT_BYTES_MAX = 200
"""File systems take 255; the rest is for the name of a file while it is being written."""

NAME_BYTES_MAX = 1024


def is_part(segment: str) -> bool:
    """Tell whether a file is one still being written, or what a killed writer left."""
    return segment.startswith(".") and segment.endswith(PART_SUFFIX)


def check_name(name: str) -> str:
    """
    Return the name when it is one.

    :raises UnsafeName: for what would lead elsewhere (``..``, ``/etc``), or that one of the stores could not keep.
    """
    segments = name.split("/")
    problem = None
    if any(segment in ("", ".", "..") for segment in segments):
        problem = "no part between slashes may be empty, . or .."
    elif not name.isprintable() or "\\" in name:
        problem = "it holds a backslash or a character that cannot be printed"
    elif len(name.encode()) > NAME_BYTES_MAX or any(len(segment.encode()) > SEGMENT_BYTES_MAX for segment in segments):
        problem = f"it is longer than {NAME_BYTES_MAX} bytes, or {SEGMENT_BYTES_MAX} between slashes"
    elif is_part(segments[-1]):
        problem = f"names like .x{PART_SUFFIX} are for files being written"
    if problem:
        raise UnsafeName(f"object name {name!r} is refused: {problem}.")
    return name


def check_folder(prefix: str) -> str:
    """
    Return a folder's name, ending in a slash.

    :raises UnsafeName: as :func:`check_name`; also for the empty prefix, which would mean the whole store.
    """
    return check_name(prefix.removesuffix("/")) + "/"
