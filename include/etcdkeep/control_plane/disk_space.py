"""How much room a file system has, asked of ``df`` as POSIX has it."""

from __future__ import annotations

import re

LINE = re.compile(r"\s\d+\s+\d+\s+(?P<free>-?\d+)\s+(?:\d+%|-)\s+/[^\n]*\s*\Z")
"""Blocks, used, available, capacity, mount point; name and mount point may hold spaces."""


def df_argv(path: str) -> tuple[str, ...]:
    """Return the call that describes the file system of a path, for :func:`parse_df`."""
    return ("df", "-P", "-k", path)


def parse_df(output: str) -> int | None:
    """Return the free bytes that ``df -P -k`` printed; None when it printed something else."""
    found = LINE.search(output)
    return max(0, int(found["free"])) * 1024 if found else None
