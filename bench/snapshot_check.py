"""
Our reader against ``etcdutl snapshot status``, on one snapshot of about 400 MB and 200,000 keys.

The status walk does etcdutl's own work: pages, hash, counts. The full check adds the SHA-256 trailer, the page of every
freelist entry and every field of every record. ``python -m etcdkeep status`` is the full check in a fresh process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from multiprocessing import get_context
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from typing import TYPE_CHECKING

from bench.report import Row, interleaved, print_rows
from bench.snapshot_file import KEYS, bench_key, snapshot_file
from etcdkeep.snapshot import open_snapshot
from tests.etcd import etcd_program

if TYPE_CHECKING:
    from collections.abc import Callable

TITLE = "check of a snapshot"
_REPOSITORY = Path(__file__).resolve().parent.parent


def run(_folder: Path) -> list[Row]:
    """Measure and return the rows."""
    file = snapshot_file()
    etcdutl = (etcd_program("etcdutl"), "snapshot", "status", str(file), "--write-out", "json")
    ours = (sys.executable, "-m", "etcdkeep", "status", str(file), "--json")
    keys = (bench_key(number) for number in range(5, KEYS, KEYS // 10))
    with open_snapshot(file) as snapshot:
        theirs_s, status_s, check_s, command_s, get_s, live_s = interleaved(
            lambda: _command_s(etcdutl),
            lambda: _timed_s(snapshot.status),
            lambda: _timed_s(snapshot.check),
            lambda: _command_s(ours),
            lambda: _timed_s(lambda: snapshot.get(next(keys))),
            lambda: _timed_s(lambda: sum(1 for _ in snapshot.live())),
        )
        report = snapshot.check()
    wanted = json.loads(subprocess.run(etcdutl, capture_output=True, check=True).stdout)
    got = {
        "hash": report.hash,
        "revision": report.revision,
        "totalKey": report.total_keys,
        "totalSize": report.size_bytes,
    }
    with get_context("spawn").Pool(1) as pool:
        peak_mib = pool.apply(_peak_mib, (str(file),))
    return [
        Row(
            "file", f"{file.stat().st_size / 1e6:.0f} MB, {report.live_keys:,} live keys, {report.total_keys:,} records"
        ),
        Row("hash, revision, keys, size", str(got == wanted), "as etcdutl", got == wanted and report.ok),
        Row("etcdutl snapshot status", f"{theirs_s:.2f} s"),
        _ratio("status walk", status_s, theirs_s, 1.0),
        _ratio("full check", check_s, theirs_s, 2.0),
        Row("python -m etcdkeep status, whole process", f"{command_s:.2f} s, {command_s / theirs_s:.2f}×"),
        Row("one key from the plain file", f"{get_s:.2f} s", "≤ 0.30 s", get_s <= 0.30),
        _ratio("all live records, newest first", live_s, status_s, 2.0, "× the status walk"),
        Row("peak memory of the full check", f"{peak_mib:.0f} MiB", "≤ 150 MiB", peak_mib <= 150),
    ]


def _ratio(what: str, seconds: float, base_s: float, target: float, unit: str = "×") -> Row:
    ratio = seconds / base_s
    return Row(what, f"{seconds:.2f} s, {ratio:.2f}{unit}", f"≤ {target:.2f}{unit}", ratio <= target)


def _timed_s(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def _command_s(argv: tuple[str, ...]) -> float:
    environment = os.environ | {"PYTHONPATH": str(_REPOSITORY / "include")}
    return _timed_s(lambda: subprocess.run(argv, capture_output=True, check=True, env=environment))


def _peak_mib(file: str) -> float:
    with open_snapshot(file) as snapshot:
        snapshot.check()
    return getrusage(RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    print_rows(TITLE, run(Path()))
