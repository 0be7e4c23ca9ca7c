"""Planning the pruning of one cluster in a repository of 200,000 objects."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

from bench.report import Row
from etcdkeep import naming
from tests.shelf import Shelf

if TYPE_CHECKING:
    from collections.abc import Iterator

OBJECTS = 200_000
NIGHTS = 400
CLUSTERS = 100
TOMBSTONES = 5_000
PLAN_MAX_S = 2.0
GROWTH_MAX_MIB = 20
RUNS = 5
RULES = {"daily": 14, "weekly": 8, "monthly": 12, "max_remove_share": 1}

PLAN = """
import resource, sys, time
from datetime import UTC, datetime
from etcdkeep.cli.common import open_cluster
from etcdkeep.retention.prune import plan_cluster
site = open_cluster("harbor")
began, worked = time.monotonic(), time.process_time()
plan, _ = plan_cluster(site.repository, site.cluster, datetime.now(UTC))
print(time.monotonic() - began, time.process_time() - worked, len(plan.verdicts), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def run(folder: Path) -> list[Row]:
    """Measure and return the rows."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        shelf = Shelf(Path(name), retention=RULES, rehearse=False)
        with patch("os.fsync"):  # of a repository that only this bench reads
            for day in range(NIGHTS):
                shelf.add(day)
        config = shelf.write_config()
        alone = [_plan(config) for _ in range(RUNS)]
        objects = _fill(Path(name) / "repository")
        among = [_plan(config) for _ in range(RUNS)]
        dry_run_s = statistics.median(_dry_run_s(config) for _ in range(RUNS))
    plan_s = min(wall_s for wall_s, _, _ in among)
    grown_mib = max(peak for _, _, peak in among) - max(peak for _, _, peak in alone)
    return [
        Row("repository", f"{objects:,} objects; of the cluster: {NIGHTS} sets, {TOMBSTONES:,} tombstones"),
        Row("processor time of a plan, the cluster alone in the repository", f"{_processor_s(alone):.2f} s"),
        Row("processor time of a plan, the cluster among all", f"{_processor_s(among):.2f} s"),
        Row(f"plan of one cluster among all, best of {RUNS}", f"{plan_s:.2f} s", f"< {PLAN_MAX_S:.0f} s", plan_s < PLAN_MAX_S),
        Row("peak memory, alone → among all", f"{grown_mib:+.1f} MiB", f"< +{GROWTH_MAX_MIB} MiB", grown_mib < GROWTH_MAX_MIB),
        Row("processor time of `python -m etcdkeep prune CLUSTER --dry-run`, whole process", f"{dry_run_s:.2f} s"),
    ]  # fmt: skip


def _processor_s(plans: list[tuple[float, float, float]]) -> float:
    return statistics.median(processor_s for _, processor_s, _ in plans)


def _fill(repository: Path) -> int:
    """Add what years of other clusters and of removals leave, and return how many objects there are."""
    had = sum(len(files) for _, _, files in os.walk(repository))
    names = _names(repository)
    for _ in range(had, OBJECTS):
        path = next(names)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return OBJECTS


def _names(repository: Path) -> Iterator[Path]:
    for number in range(TOMBSTONES):
        yield repository / f"harbor/removed/20200101T0000{number % 60:02}Z-{number:08x}/20200101T000000.000000Z.json"
    for number in range(OBJECTS):
        cluster = repository / f"cluster-{number % CLUSTERS:03}"
        folder = cluster / f"20260101T0000{number % 60:02}Z-{number:08x}"
        yield from (
            folder / name for name in (naming.MANIFEST, naming.SIGNATURE, naming.ETCD_ARTIFACT, "verification/x.json")
        )
        yield cluster / f"attempts/{folder.name}.json"


def _plan(config: Path) -> tuple[float, float, float]:
    """Return seconds, processor seconds and peak MiB of one plan in a fresh process."""
    done = subprocess.run([sys.executable, "-c", PLAN], env=_environment(config), capture_output=True, text=True, check=True)  # fmt: skip
    wall_s, processor_s, sets, peak_mib = done.stdout.split()
    if int(sets) != NIGHTS:
        raise RuntimeError(f"{sets} sets were planned, expected {NIGHTS}")
    return float(wall_s), float(processor_s), float(peak_mib)


def _dry_run_s(config: Path) -> float:
    argv = [sys.executable, "-m", "etcdkeep", "prune", "harbor", "--dry-run", "--json"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(argv, env=_environment(config), capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _environment(config: Path) -> dict[str, str]:
    return {**os.environ, "ETCDKEEP_CONFIG": str(config)}
