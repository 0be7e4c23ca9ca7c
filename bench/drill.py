"""
A drill of a 200 MiB snapshot against the bare commands: ``etcdutl snapshot restore``, start etcd, wait until it is healthy.

The drill also unseals the snapshot, reads it and every key of the etcd, compares, and wipes; both work in the same folder.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from bench.report import Row, interleaved
from bench.snapshot_file import snapshot_file
from etcdkeep.adapters.local_etcd.programs import LocalEtcd
from etcdkeep.config.models import Drill
from etcdkeep.drill.run import PHASES, drill_set
from lab.tools import etcd_folder
from tests.drill_sets import identities, open_repository, publish_snapshot
from tests.etcd import etcd_program, running_etcd

TITLE = "drill of a 200 MiB snapshot"
KEYS = 92_000
TARGET = 2.0


def run(folder: Path) -> list[Row]:
    """Measure and return the rows."""
    file = snapshot_file(KEYS)
    with tempfile.TemporaryDirectory(dir=folder) as work:
        found = publish_snapshot(Path(work, "repository"), file)
        settings = Drill(etcd_dir=str(etcd_folder()))
        seconds: dict[str, list[float]] = {phase: [] for phase in PHASES}

        def drill() -> float:
            began = time.monotonic()
            repository = open_repository(Path(work, "repository"))
            record = drill_set(repository, found, identities(), LocalEtcd(settings).open)
            took_s = time.monotonic() - began
            if not record.ok:
                raise RuntimeError(f"the drill failed: {record.problems}")
            for phase, value in record.seconds.items():
                seconds[phase].append(value)
            return took_s

        drill_s, bare_s = interleaved(drill, lambda: _bare(file))
    ratio = drill_s / bare_s
    phases = ", ".join(f"{phase} {sorted(values)[len(values) // 2]:.2f}" for phase, values in seconds.items())
    return [
        Row("file", f"{file.stat().st_size / 2**20:.0f} MiB, {KEYS:,} keys put"),
        Row("`etcdutl snapshot restore`, start, `etcdctl endpoint health`", f"{bare_s:.2f} s"),
        Row("drill: unseal, restore, start, read, compare, wipe", f"{drill_s:.2f} s ({phases})"),
        Row("drill over the bare commands", f"{ratio:.2f}×", f"≤ {TARGET:.1f}×", ratio <= TARGET),
    ]


def _bare(file: Path) -> float:
    """Time what a person would type, in memory as the drill."""
    work = Path(tempfile.mkdtemp(dir="/dev/shm"))
    try:
        began = time.monotonic()
        argv = (etcd_program("etcdutl"), "snapshot", "restore", str(file), "--data-dir", str(work / "data"))
        subprocess.run(argv, check=True, capture_output=True)
        with running_etcd(work / "data") as etcd:
            etcd.ctl("endpoint", "health")
            return time.monotonic() - began
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    from bench.report import print_rows
    from bench.snapshot_file import bench_dir

    print_rows(TITLE, run(bench_dir()))
