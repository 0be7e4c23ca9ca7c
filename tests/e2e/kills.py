"""kill -9 of what executes a task."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil

from etcdkeep.acceptance.celery_airflow import CeleryAirflow

if TYPE_CHECKING:
    from etcdkeep.acceptance.airflow import Airflow


def kill_worker(airflow: Airflow, dag_id: str, run_id: str, task_id: str) -> None:
    """
    Kill the worker that executes a task.

    With Celery that is a worker with all its tasks, which is started again: nobody reports the tasks' end. With LocalExecutor it is the
    task's own process.
    """
    task = airflow.tasks(dag_id, run_id)[task_id]
    if isinstance(airflow, CeleryAirflow):
        (kind,) = [kind for kind in airflow.kinds if task["queue"] in kind.queues]
        worker = airflow.worker(kind)
        assert worker.pid, f"{worker.name} does not run"
        end_at_once(psutil.Process(worker.pid))
        worker.start()
    else:
        os.kill(int(task["pid"]), signal.SIGKILL)


def end_at_once(process: psutil.Process) -> None:
    """End a process and all below it, as when their machine is gone: each task is a process group of its own."""
    gone = [process, *process.children(recursive=True)]
    for each in gone:
        with suppress(psutil.NoSuchProcess):
            each.kill()
    psutil.wait_procs(gone)
