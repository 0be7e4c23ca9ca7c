"""
Backups through Airflow: one run of harbor, and fifty clusters at once.

A task's own work is the time inside ``execute``: in its log, from the end of Airflow's group ``Pre Execute`` to the begin of
``Post Execute``. The time between tasks is Airflow's: scheduling, starting processes, parsing the DAG file, keeping
state.
"""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

import yaml

from bench.processes import read_processes
from bench.report import Row
from bench.site import filled_lab
from etcdkeep.acceptance.airflow import Airflow

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bench.processes import Process
    from lab.site import Site as LabSite

ORCHESTRATION_MAX_S = 10
MEMORY_MAX_MIB = 4096
RUNS = 3
CLUSTERS = 50
PARALLELISM = 4
"""Two tasks a core."""

SAMPLE_S = 0.5
FIFTY_TIMEOUT_S = 3600


def one_run(folder: Path) -> list[Row]:
    """Back up harbor a few times, one run after the other, and return the rows of the median."""
    with filled_lab(folder) as lab, running_airflow(folder, lab, ["harbor"]) as airflow:
        runs = [_run(airflow, "backup__harbor") for _ in range(RUNS + 1)][1:]  # the first warms caches
    wall_s, work_s = sorted(runs, key=lambda run: run[0] - run[1])[RUNS // 2]
    rest_s = wall_s - work_s
    return [
        Row("one backup of harbor, from start to end of the run", f"{wall_s:.1f} s"),
        Row("of it, some task at its own work", f"{work_s:.1f} s"),
        Row("the rest: orchestration", f"{rest_s:.1f} s", f"< {ORCHESTRATION_MAX_S} s", rest_s < ORCHESTRATION_MAX_S),
    ]


def fifty(folder: Path) -> list[Row]:
    """Trigger fifty clusters' backups together and return the rows."""
    names = [f"harbor-{number:02d}" for number in range(CLUSTERS)]
    with filled_lab(folder) as lab, running_airflow(folder, lab, names) as airflow:
        dags = [f"backup__{name}" for name in names]
        wait_until_known(airflow, dags)
        with _watched_memory(int((airflow.home / "airflow.pid").read_text())) as peaks:
            began = time.monotonic()
            runs = {dag: airflow.trigger(dag) for dag in dags}
            states = [airflow.wait(dag, run_id, FIFTY_TIMEOUT_S)["state"] for dag, run_id in runs.items()]
            took_s = time.monotonic() - began
        tasks = [task for dag, run_id in runs.items() for task in airflow.tasks(dag, run_id).values()]
    good = states.count("success")
    failed = sum(task["state"] != "success" for task in tasks)
    again = sum(task["try_number"] > 1 for task in tasks)
    return [
        Row(f"{CLUSTERS} clusters triggered together: runs that succeed", f"{good}", f"{CLUSTERS}", good == CLUSTERS),
        Row(f"tasks that failed, of {len(tasks)}", f"{failed}, {again} needed a retry", "0", failed == 0),
        Row(f"from the first trigger to the last end, {PARALLELISM} tasks at a time", f"{took_s:.0f} s"),
        Row(
            "peak memory of task processes, in sum",
            f"{peaks['tasks']:.0f} MiB",
            f"< {MEMORY_MAX_MIB} MiB",
            peaks["tasks"] < MEMORY_MAX_MIB,
        ),
        Row("the same with the executor's workers, scheduler, DAG processor and API", f"{peaks['all']:.0f} MiB"),
    ]


@contextmanager
def running_airflow(folder: Path, lab: LabSite, names: list[str]) -> Iterator[Airflow]:
    """Run an Airflow of its own on a configuration of so many clusters, all of them harbor."""
    document = yaml.safe_load(lab.config.read_text())
    harbor = next(entry for entry in document["clusters"] if entry["name"] == "harbor")
    changed = {"repository": (folder / "airflow-repository").as_uri(), "schedule": None}
    document["clusters"] = [{**harbor, **changed, "name": name} for name in names]
    home = folder / f"airflow-{len(names)}"
    home.mkdir(mode=0o700, exist_ok=True)
    config = home / "clusters.yaml"
    config.write_text(yaml.safe_dump(document))
    airflow = Airflow(home, config, parallelism=PARALLELISM)
    try:
        airflow.start()
        yield airflow
    finally:
        airflow.stop()


def wait_until_known(airflow: Airflow, dags: list[str]) -> None:
    """Return when the DAG processor has read them all."""
    deadline = time.monotonic() + 300
    while any(known := [dag for dag in dags if not _is_known(airflow, dag)]):
        if time.monotonic() > deadline:
            raise RuntimeError(f"Airflow does not know {known[0]} and {len(known) - 1} more")
        time.sleep(1)


def _is_known(airflow: Airflow, dag: str) -> bool:
    return bool(airflow.call("GET", f"/dags?dag_id_pattern={dag}")["total_entries"])


@contextmanager
def _watched_memory(standalone: int) -> Iterator[dict[str, float]]:
    """Sample the resident sets of Airflow's processes, and give the peaks of their sums in MiB."""
    peaks = {"tasks": 0.0, "all": 0.0}
    stop = Event()

    def watch() -> None:
        while not stop.wait(SAMPLE_S):
            for kind, now in _resident_mib(standalone).items():
                peaks[kind] = max(peaks[kind], now)

    thread = Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peaks
    finally:
        stop.set()
        thread.join()


def _resident_mib(standalone: int) -> dict[str, float]:
    """Return the resident sets' sum of all below `standalone`, and of those that run a task: pages they share count for each."""
    processes = read_processes()
    above = {pid: _ancestors(pid, processes) for pid in processes}
    ours = {pid for pid in processes if standalone in above[pid]}
    # Airflow makes the process that runs a task leader of a group of its own.
    leaders = {pid for pid in ours if processes[pid].is_leader}
    tasks = {pid for pid in ours if leaders & ({pid} | above[pid])}
    return {kind: sum(processes[pid].resident_mib for pid in pids) for kind, pids in (("tasks", tasks), ("all", ours))}


def _ancestors(pid: int, processes: dict[int, Process]) -> set[int]:
    found: set[int] = set()
    while pid in processes and (pid := processes[pid].parent) and pid not in found:
        found.add(pid)
    return found


def _run(airflow: Airflow, dag: str) -> tuple[float, float]:
    """Return the run's wall time, and how long at least one task was at its own work, in seconds."""
    run_id = airflow.trigger(dag)
    run = airflow.wait(dag, run_id)
    if run["state"] != "success":
        raise RuntimeError(f"{dag} {run_id} ended as {run['state']}")
    spans = [own_work(airflow.log_text(dag, run_id, task)) for task in airflow.tasks(dag, run_id)]
    return (_time(run["end_date"]) - _time(run["start_date"])).total_seconds(), covered_s(spans)


def own_work(log: str) -> tuple[datetime, datetime]:
    """Return when one task's ``execute`` began and ended, by its log."""
    lines: list[dict[str, Any]] = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    begins = next(line for line in lines if line["event"] == "::endgroup::")
    ends = next(line for line in lines if line["event"] == "::group::Post Execute")
    return _time(begins["timestamp"]), _time(ends["timestamp"])


def covered_s(spans: list[tuple[datetime, datetime]]) -> float:
    """Return the seconds that at least one span covers."""
    covered, reached = 0.0, datetime.min.replace(tzinfo=UTC)
    for begins, ends in sorted(spans):
        covered += max(0.0, (ends - max(begins, reached)).total_seconds())
        reached = max(reached, ends)
    return covered


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
