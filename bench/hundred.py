"""
Backups of a hundred clusters in one night: a team's two Celery workers against one machine's LocalExecutor.

Both have four processes for tasks. The clusters are the lab's three under a hundred names, each begun at the minute that
`spread_minutes` gives its name. The two workers serve the same queue, so that the comparison is of executors and not of queues; they have
nothing in common but the repository.
"""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass, field
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

import yaml

from bench.airflow_runs import SAMPLE_S, wait_until_known
from bench.processes import read_processes
from bench.report import Row
from bench.site import filled_lab
from etcdkeep.acceptance.airflow import Airflow
from etcdkeep.acceptance.celery_airflow import CONCURRENCY, CeleryAirflow, Kind, missing_programs
from etcdkeep.config.spreading import spread

if TYPE_CHECKING:
    from pathlib import Path

    from lab.site import Site as LabSite

CLUSTERS = int(os.environ.get("BENCH_CLUSTERS", "100"))
SPREAD_MINUTES = 1
PROCESSES = 4
IN_FLIGHT = 32
"""Airflow's own `parallelism`: how many tasks are with the executor. With Celery some of them wait in the broker, with LocalExecutor each has a process."""
SHARE_MIN = 0.9
TIMEOUT_S = 3600
WORKERS = (Kind("one", ("default",)), Kind("two", ("default",)))


@dataclass
class Night:
    """
    What one executor made of the night.

    :param took_s: From the first trigger to the last end.
    :param seconds: Processor time by part.
    :param peaks: Peak of the resident sets' sum by part, in MiB; pages that processes share count for each.
    """

    good: int
    tasks: int
    failed: int
    again: int
    took_s: float
    seconds: dict[str, float]
    peaks: dict[str, float]


def run(folder: Path) -> list[Row]:
    """Take the night's backups with each executor, one after the other, and return the rows."""
    if missing := missing_programs():
        raise RuntimeError(missing)
    with filled_lab(folder) as lab:
        local = _night(folder, lab, celery=False)
        celery = _night(folder, lab, celery=True)
    share = local.took_s / celery.took_s
    return [
        *_rows(f"LocalExecutor of {PROCESSES}", local),
        *_rows(f"{len(WORKERS)} Celery workers of {CONCURRENCY}", celery),
        Row("throughput with Celery over LocalExecutor's", f"{share:.2f}×", f"≥ {SHARE_MIN}×", share >= SHARE_MIN),
    ]


def _rows(who: str, night: Night) -> list[Row]:
    wrong = night.failed + night.again
    return [
        Row(f"{who}: runs that succeed", f"{night.good}", f"{CLUSTERS}", night.good == CLUSTERS),
        Row(f"{who}: attempts that failed, of {night.tasks} tasks", f"{wrong}", "0", wrong == 0),
        Row(f"{who}: the night", f"{night.took_s:.0f} s, {night.tasks / night.took_s:.2f} tasks a second"),
        *(
            Row(f"{who}: {part}", f"{night.peaks[part]:.0f} MiB, {night.seconds[part] / night.took_s:.2f} cores")
            for part in night.peaks
            if part == "airflow" or part.startswith("worker")
        ),
    ]


def _night(folder: Path, lab: LabSite, *, celery: bool) -> Night:
    home = folder / ("hundred-celery" if celery else "hundred-local")
    shutil.rmtree(home, ignore_errors=True)  # both begin with an empty repository and an empty database
    home.mkdir(mode=0o700)
    names, config = _configure(home, lab)
    airflow: Airflow = (
        CeleryAirflow(home, config, WORKERS, parallelism=IN_FLIGHT)
        if celery
        else Airflow(home, config, parallelism=PROCESSES)
    )
    try:
        airflow.start()
        dags = [f"backup__{name}" for name in names]
        wait_until_known(airflow, dags)
        _warm(airflow, dags[0])
        with _Watch({service.name: int(str(service.pid)) for service in airflow.services()}) as watch:
            began = time.monotonic()
            runs = _begin(airflow, names)
            states = [airflow.wait(dag, run_id, TIMEOUT_S)["state"] for dag, run_id in runs.items()]
            took_s = time.monotonic() - began
        tasks = [task for dag, run_id in runs.items() for task in airflow.tasks(dag, run_id).values()]
    finally:
        airflow.stop()
    failed = sum(task["state"] != "success" for task in tasks)
    again = sum(max(0, task["try_number"] - 1) for task in tasks)
    return Night(states.count("success"), len(tasks), failed, again, took_s, watch.seconds, watch.peaks)


def _warm(airflow: Airflow, dag: str) -> None:
    """Take one backup that does not count: each process imports what it needs at its first task."""
    if (state := airflow.wait(dag, airflow.trigger(dag))["state"]) != "success":
        raise RuntimeError(f"the first run of {dag} ended as {state}")


def _configure(home: Path, lab: LabSite) -> tuple[list[str], Path]:
    document = yaml.safe_load(lab.config.read_text())
    document["defaults"]["repository"] = (home / "repository").as_uri()
    kinds = document["clusters"]
    document["clusters"] = [_named(kinds[number % len(kinds)], number) for number in range(CLUSTERS)]
    path = home / "clusters.yaml"
    path.write_text(yaml.safe_dump(document))
    return [entry["name"] for entry in document["clusters"]], path


def _named(entry: dict[str, Any], number: int) -> dict[str, Any]:
    """Return one of the lab's clusters under another name; what follows from its own name is said."""
    changed: dict[str, Any] = {**entry, "name": f"{entry['name']}-{number:03d}"}
    changed.pop("repository", None)
    if "admin_cluster" in entry:
        changed["admin_cluster"] = f"{entry['admin_cluster']}-000"
        changed["control_plane"] = {**entry["control_plane"], "namespace": entry["name"]}
    return changed


def _begin(airflow: Airflow, names: list[str]) -> dict[str, str]:
    """Begin each run at its minute: those of one schedule, spread."""
    minutes = {name: int(str(spread("0 0 * * *", SPREAD_MINUTES, name)).split()[0]) for name in names}
    began, runs = time.monotonic(), {}
    for name in sorted(names, key=lambda name: (minutes[name], name)):
        time.sleep(max(0.0, began + 60 * minutes[name] - time.monotonic()))
        runs[f"backup__{name}"] = airflow.trigger(f"backup__{name}")
    return runs


@dataclass
class _Watch:
    """Watches the processes below each part's first one."""

    roots: dict[str, int]
    peaks: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    _stop: Event = field(default_factory=Event)

    def __enter__(self) -> _Watch:
        self._before = {name: used for name, (used, _) in _parts(self.roots).items()}
        self._thread = Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.seconds = {name: used - self._before[name] for name, (used, _) in _parts(self.roots).items()}

    def _look(self) -> None:
        while not self._stop.wait(2 * SAMPLE_S):
            for name, (_, resident_mib) in _parts(self.roots).items():
                self.peaks[name] = max(self.peaks.get(name, 0.0), resident_mib)


def _parts(roots: dict[str, int]) -> dict[str, tuple[float, float]]:
    """Return processor seconds, those of ended children too, and resident MiB of all below each root."""
    processes = read_processes()
    found = dict.fromkeys(roots, (0.0, 0.0))
    part_of = {pid: name for name, pid in roots.items()}
    for pid, process in processes.items():
        above = pid
        while above in processes and above not in part_of:
            above = processes[above].parent
        if above in part_of:
            seconds, resident_mib = found[part_of[above]]
            found[part_of[above]] = seconds + process.processor_s, resident_mib + process.resident_mib
    return found
