"""The machine's processes, as /proc has them now."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

PAGE_MIB = os.sysconf("SC_PAGE_SIZE") / 2**20
TICKS = os.sysconf("SC_CLK_TCK")


class Process(NamedTuple):
    """
    One process.

    :param processor_s: Processor time, that of its ended children too.
    :param resident_mib: Pages that processes share count for each.
    """

    parent: int
    is_leader: bool
    processor_s: float
    resident_mib: float


def read_processes() -> dict[int, Process]:
    """Return all processes by id; one that ends meanwhile is left out."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            resident_mib = int((folder / "statm").read_text().split()[1]) * PAGE_MIB
        except (OSError, IndexError):  # it has ended meanwhile
            continue
        pid, processor_s = int(folder.name), sum(map(int, fields[11:15])) / TICKS
        found[pid] = Process(int(fields[1]), int(fields[2]) == pid, processor_s, resident_mib)
    return found
