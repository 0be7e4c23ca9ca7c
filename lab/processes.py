"""Ends what the lab started and nothing else: a pid counts only with the start time that was noted beside it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.runtime import container_states, tree_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.layout import Layout, Node

END_S = 15.0


def process_stamp(pid: int) -> dict[str, int]:
    """Return a pid with the start time that tells it from a later process of the same number."""
    return {"pid": pid, "started": _start_time(pid)}


def is_alive(stamp: dict[str, int]) -> bool:
    return _start_time(stamp["pid"]) == stamp["started"] != 0


def read_stamp(path: Path) -> dict[str, int] | None:
    try:
        stamp: dict[str, int] = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return None
    return stamp


def end(stamp: dict[str, int], grace_s: float = END_S) -> None:
    """End one process, politely first."""
    for number, seconds in ((signal.SIGTERM, grace_s), (signal.SIGKILL, END_S)):
        deadline = time.monotonic() + seconds
        with contextlib.suppress(ProcessLookupError):
            if is_alive(stamp):
                os.kill(stamp["pid"], number)
        while is_alive(stamp):
            if time.monotonic() > deadline:
                break
            time.sleep(0.02)
        else:
            return


def end_leftovers(layout: Layout) -> None:
    """End what a supervisor left that was killed itself."""
    for stamp in _leftovers(layout):
        end(stamp, grace_s=2.0)


def end_node(node: Node) -> None:
    """End every process of a node at once: its containers, and the commands of whoever is logged in."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and tree_of(int(entry.name)) == str(node.root):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(entry.name), signal.SIGKILL)


def _leftovers(layout: Layout) -> Iterator[dict[str, int]]:
    for path in sorted((layout.root / "run").glob("*.pid")):
        stamp = read_stamp(path)
        if stamp and stamp["pid"] != os.getpid() and is_alive(stamp):
            yield stamp
    for node in layout.nodes:
        for state in container_states(node):
            if state.running and tree_of(state.pid) == str(node.root):
                yield process_stamp(state.pid)


def _start_time(pid: int) -> int:
    """Return a process's start time in clock ticks; 0 when there is none, or only its remains."""
    try:
        fields: list[Any] = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] == "Z" else int(fields[19])
