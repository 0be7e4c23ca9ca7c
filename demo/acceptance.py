"""
One backup of a real cluster through a private Airflow, opened again with stock tools: what ``make acceptance`` runs.

The backup stays in the repository: it is as good as any other. Nothing else is left: not in the cluster, not in the spool.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import yaml

from demo.airflow import FINISHED, PROJECT, Airflow
from demo.stock_tools import StockTools
from etcdkeep.backup.discover import discover, pod_runner
from etcdkeep.config_file import load_config
from etcdkeep.errors import CommandMissing, EtcdkeepError
from etcdkeep.naming import backup_id, set_prefix
from etcdkeep.ports import StreamLimits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from etcdkeep.adapters.site import Site

HOME = PROJECT / ".airflow-acceptance"
IDENTITY_VARIABLE = "ETCDKEEP_AGE_IDENTITY"
RUN_TIMEOUT_S = 4 * 3600
MEMORY = Path("/dev/shm")


class Report:
    """The checks as they are made: one line each, with what was seen and how long it took."""

    def __init__(self) -> None:
        self.failures = 0

    def check(self, what: str, work: Callable[[], str]) -> bool:
        """Do one check: `work` says what it saw, or raises."""
        began = time.monotonic()
        try:
            seen, good = work(), True
        except (EtcdkeepError, CheckFailed, OSError) as err:
            seen, good = str(err), False
            self.failures += 1
        took_s = time.monotonic() - began
        click.echo(f"{'ok    ' if good else 'FAILED'}  {what:<56} {took_s:6.1f} s  {seen}")
        return good


class CheckFailed(Exception):
    """A check saw something else than it should."""


def accept(config: Path, name: str) -> bool:
    """Back a cluster up, verify it, open it, look for leftovers; print it all, and return whether all is well."""
    load_config(config).cluster(name)
    HOME.mkdir(mode=0o700, exist_ok=True)
    unscheduled = _without_schedules(config, HOME / "clusters.yaml")
    airflow = Airflow(HOME, unscheduled)
    airflow.stop()  # one that a killed acceptance left would know another configuration
    report = Report()
    try:
        click.echo(f"Airflow: starting in {HOME}, a minute or so")
        airflow.start()
        run = _back_up(airflow, name)
    finally:
        airflow.stop()
    if run["state"] != "success":
        click.echo(f"\nThe run ended as {run['state']}. Logs of its tasks: {HOME / 'logs'}")
        return False
    click.echo()
    with _as_airflow(airflow):
        _examine(report, name, run)
    click.echo(
        f"\n{name}: {'accepted' if not report.failures else f'NOT accepted, {report.failures} check(s) failed'}; the backup stays in "
        "the repository."
    )
    return not report.failures


def _back_up(airflow: Airflow, name: str) -> dict[str, Any]:
    """Run the cluster's backup DAG once, telling each task's end, and return the run."""
    dag = f"backup__{name}"
    run_id = airflow.trigger(dag, {"reason": "make acceptance"}, timeout_s=300)
    click.echo(f"{dag}: running ({run_id})")
    told: set[str] = set()
    deadline = time.monotonic() + RUN_TIMEOUT_S
    while True:
        run: dict[str, Any] = airflow.call("GET", f"/dags/{dag}/dagRuns/{run_id}")
        for task_id, task in airflow.tasks(dag, run_id).items():
            if task["end_date"] and task_id not in told and task["state"] not in ("up_for_retry", "running", "queued"):
                told.add(task_id)
                click.echo(
                    f"  {task_id:<10} {task['state']:<16} {task['duration'] or 0:6.1f} s  try {task['try_number']}"
                )
                if task["state"] == "failed":
                    click.echo(_last_words(airflow.log_text(dag, run_id, task_id)))
        if run["state"] in FINISHED:
            click.echo(f"{dag}: {run['state']} after {run['duration']:.1f} s")
            return run
        if time.monotonic() > deadline:
            raise click.ClickException(f"{dag} {run_id} did not end within {RUN_TIMEOUT_S} s")
        time.sleep(1)


def _examine(report: Report, name: str, run: dict[str, Any]) -> None:
    """Check the backup that a run made, and that the run left nothing else."""
    from datetime import datetime

    from etcdkeep_airflow.hooks import open_site  # reads the environment that names the private Airflow

    site = open_site(name)
    when = datetime.fromisoformat(run["logical_date"] or run["run_after"])
    identifier = backup_id(name, when, run["dag_run_id"])
    with _private_folder() as folder:
        identity = _identity_file(site, folder)
        report.check("python -m etcdkeep verify", lambda: _verify(f"{name}/{identifier}", identity))
        found = site.repository.get(name, identifier)
        tools = StockTools(site.repository.store, found, site.cluster.signing.public_keys, identity, folder)
        for what, work in tools.checks():
            report.check(what, lambda work=work: _said(work))
    report.check("nothing is left in the spool", lambda: _spool(site, identifier))
    for member in discover(site.api, site.cluster).candidates:
        report.check(f"nothing is left in pod {member.pod}", lambda pod=member.pod: _pod(site, pod, identifier))


def _verify(name: str, identity: Path) -> str:
    environment = {**os.environ, IDENTITY_VARIABLE: str(identity)}
    argv = [sys.executable, "-m", "etcdkeep", "verify", name, "--json"]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CheckFailed(f"exit code {done.returncode}: {done.stdout}{done.stderr}")
    record = json.loads(done.stdout)
    return ", ".join([*record["levels"], *(f"warning: {warning}" for warning in record["warnings"])])


def _said(work: Callable[[], str]) -> str:
    try:
        return work()
    except subprocess.CalledProcessError as err:
        raise CheckFailed(
            f"{err.cmd[0]} ended with {err.returncode}: {err.stderr.decode(errors='replace')[-500:]}"
        ) from err
    except ValueError as err:
        raise CheckFailed(str(err)) from err


def _spool(site: Site, identifier: str) -> str:
    left = [item.name for item in site.spool(identifier).store.list(set_prefix(site.cluster.name, identifier))]
    if left:
        raise CheckFailed(f"{site.cluster.spool_url} still holds {', '.join(left)}")
    return site.cluster.spool_url


def _pod(site: Site, pod: str, identifier: str) -> str:
    folder = site.cluster.control_plane.snapshot_dir
    try:
        listing = pod_runner(site.api, site.cluster, pod).run(("ls", "-A", folder), StreamLimits(60)).stdout.decode()
    except CommandMissing:
        return f"not looked at: its image has no ls ({folder} of the container)"
    if left := [line for line in listing.splitlines() if identifier in line]:
        raise CheckFailed(f"{folder} still holds {', '.join(left)}")
    return folder


def _identity_file(site: Site, folder: Path) -> Path:
    """Put the age identity where the programs can read it; it goes with the folder."""
    if path := os.environ.get(IDENTITY_VARIABLE):
        return Path(path).resolve()
    if site.cluster.age_identity is None:
        raise click.ClickException(
            f"the backup cannot be opened: set age_identity in the configuration or {IDENTITY_VARIABLE} to its file."
        )
    target = folder / "identity"
    with open(target, "xb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
        file.write(site.credentials.secret(site.cluster.age_identity))
    return target


def _without_schedules(config: Path, target: Path) -> Path:
    """Write the same configuration with no schedule, so that exactly the one run takes place."""
    document = yaml.safe_load(config.read_text())
    for entry in (document.setdefault("defaults", {}), *document["clusters"]):
        entry["schedule"] = None
    target.write_text(yaml.safe_dump(document))
    return target


@contextmanager
def _as_airflow(airflow: Airflow) -> Iterator[None]:
    """Read configuration and connections as the tasks did."""
    before = dict(os.environ)
    os.environ.update(airflow.environment)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _private_folder() -> Iterator[Path]:
    """Make a folder for plain files, 0700, in memory where the machine has such, and remove it whatever happens."""
    with tempfile.TemporaryDirectory(prefix="etcdkeep-", dir=MEMORY if MEMORY.is_dir() else None) as name:
        yield Path(name)


def _last_words(log: str) -> str:
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    words = [
        f"      {line['event']}{''.join(' ' + error['exc_value'] for error in line.get('error_detail') or ())}"
        for line in lines
        if line["level"] in ("error", "critical")
    ]
    return "\n".join(words[-2:])
