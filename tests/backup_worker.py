"""
A worker process that executes one task, and that can be killed by SIGKILL at a moment of the test's choice.

Workers are forked from a clean server process that has everything imported, as Airflow forks its own. The moments are
what a task does to the outside world: a command that starts, gives output or ends, an object that is begun, written to
or finished, a copy, a purge.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import traceback
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from etcdkeep.adapters.kube.exec import PodExec
from etcdkeep.adapters.ssh.node import NodeShell
from etcdkeep.adapters.stores.directory import DirectoryStore
from etcdkeep.adapters.stores.gcs import GcsStore
from etcdkeep_airflow import hooks
from etcdkeep_airflow.operators import backup, verify
from tests.backup_run import BackupRun, execute

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.backup_run import Moment

IMPORTED = (hooks, backup, verify)
"""What a worker needs, imported once in the server."""

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.backup_worker"])
PATIENCE_S = 120


class WorkerFailed(Exception):
    """The task raised; the text is its traceback."""


def work(run: BackupRun, task: str, kill_at: str = "") -> Any:
    """
    Execute a task in a process of its own, and keep its answer in the run.

    :param kill_at: Regular expression for the moment (see :func:`arm`) at which the process is killed.
    """
    receiver, sender = FORKS.Pipe(duplex=False)
    moment = run.moment(task)
    worker = FORKS.Process(
        target=_main, args=(dict(os.environ), run.name, task, run.outputs, moment, kill_at, sender), daemon=True
    )
    worker.start()
    sender.close()
    try:
        answer, failure = receiver.recv()
    except EOFError:
        answer, failure = None, None
    worker.join(PATIENCE_S)
    if kill_at:
        assert worker.exitcode == -signal.SIGKILL, f"{task} never came to {kill_at!r}: {failure}"
        return None
    if worker.exitcode or failure:
        raise WorkerFailed(failure or f"{task} ended with {worker.exitcode}")
    run.assets.update(answer[1])
    run.outputs[task] = answer[0]
    return answer[0]


def _main(
    environment: dict[str, str],
    cluster: str,
    task: str,
    outputs: dict[str, Any],
    moment: Moment,
    kill_at: str,
    sender: Any,
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    if kill_at:
        arm(kill_at)
    try:
        sender.send(((execute(cluster, task, outputs, moment), moment.assets), None))
    except BaseException:  # noqa: BLE001 - the test raises it
        sender.send((None, traceback.format_exc()))


def arm(kill_at: str) -> None:
    """
    Kill this process at the first moment that matches.

    Moments: ``start|chunk|end COMMAND LINE`` and ``begin|write|finish NAME`` of objects, ``before|after copy NAME``,
    ``before|after purge NAME``, ``before|after open NAME``.
    """

    def passes(moment: str) -> None:
        if re.search(kill_at, moment):
            os.kill(os.getpid(), signal.SIGKILL)

    for runner in (PodExec, NodeShell):
        _watch_commands(runner, passes)
    for store in (DirectoryStore, GcsStore):
        store.create = _watched_create(store.create, passes)
        store.copy_from = _watched(store.copy_from, "copy", 2, passes)
        store.purge = _watched(store.purge, "purge", 0, passes)
        store.open = _watched(store.open, "open", 0, passes)


def _watch_commands(runner: Any, passes: Callable[[str], None]) -> None:
    start, run, stream = runner._start, runner.run, runner.stream

    def watched_start(self: Any, argv: Any, *args: Any, **fields: Any) -> Any:
        session = start(self, argv, *args, **fields)
        passes(f"start {' '.join(argv)}")
        return session

    def watched_run(self: Any, argv: Any, *args: Any, **fields: Any) -> Any:
        result = run(self, argv, *args, **fields)
        passes(f"end {' '.join(argv)}")
        return result

    def watched_stream(self: Any, argv: Any, *args: Any, **fields: Any) -> Iterator[bytes]:
        for chunk in stream(self, argv, *args, **fields):
            passes(f"chunk {' '.join(argv)}")
            yield chunk
        passes(f"end {' '.join(argv)}")

    runner._start, runner.run, runner.stream = watched_start, watched_run, watched_stream


def _watched_create(create: Any, passes: Callable[[str], None]) -> Any:
    @contextmanager
    def watched(self: Any, name: str, **fields: Any) -> Iterator[Any]:
        passes(f"begin {name}")
        with create(self, name, **fields) as sink:
            yield _Watched(sink, lambda: passes(f"write {name}"))
        passes(f"finish {name}")

    return watched


def _watched(call: Any, what: str, named: int, passes: Callable[[str], None]) -> Any:
    def watched(self: Any, *args: Any, **fields: Any) -> Any:
        passes(f"before {what} {args[named]}")
        answer = call(self, *args, **fields)
        passes(f"after {what} {args[named]}")
        return answer

    return watched


class _Watched:
    """A sink that tells of each write when it is done."""

    def __init__(self, sink: Any, tell: Callable[[], None]) -> None:
        self._sink = sink
        self._tell = tell

    def write(self, data: bytes) -> int:
        written: int = self._sink.write(data)
        self._tell()
        return written
