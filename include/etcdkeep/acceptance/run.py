"""
One backup of a real cluster through a private Airflow, opened again with stock tools: what ``python -m etcdkeep acceptance`` runs. With
``--restore yes`` the cluster is then restored from it (:mod:`etcdkeep.acceptance.restoration`).

The backup stays in the repository: it is as good as any other. Nothing else is left: not in the cluster, not in the spool.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import yaml

from etcdkeep.acceptance.airflow import Airflow
from etcdkeep.acceptance.restoration import Restoration, announce
from etcdkeep.acceptance.restore_run import DAG
from etcdkeep.acceptance.stock_tools import StockTools
from etcdkeep.acceptance.telling import AcceptanceReport, CheckFailed, follow
from etcdkeep.backup.discover import discover, pod_runner
from etcdkeep.config.loading import load_cluster
from etcdkeep.errors import CommandMissing
from etcdkeep.naming import backup_id, set_prefix
from etcdkeep.ports import StreamLimits
from etcdkeep.say import say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from etcdkeep.site.site import Site

HOME = Path(".airflow-acceptance")
"""In the folder where it was started."""
IDENTITY_VARIABLE = "ETCDKEEP_AGE_IDENTITY"
MEMORY = Path("/dev/shm")  # noqa: S108 - only a private folder is made there


def accept(config: Path, name: str, *, restore: bool = False) -> bool:
    """
    Back a cluster up, verify it, open it, look for leftovers; print it all, and return whether all is well.

    :param restore: Then restore it from that backup: its control plane goes down.
    """
    load_cluster(name, config)
    if restore:
        say(f"{announce(name)}\n")
    HOME.mkdir(mode=0o700, exist_ok=True)
    airflow = Airflow(HOME, _without_schedules(config, HOME / "clusters.yaml"))
    _refuse_beside_a_restore(airflow)
    airflow.stop()  # one that a killed acceptance left would know another configuration
    report, restoration = AcceptanceReport(), None
    try:
        say(f"Airflow: starting in {HOME}, a minute or so")
        airflow.start()
        with _as_airflow(airflow), _private_folder() as folder:
            # Only now: it reads the environment that names the private Airflow.
            site: Site = importlib.import_module("etcdkeep_airflow.hooks").open_site(name)
            identity = _identity_file(site, folder)
            if not restore:
                back_up(airflow, site, identity, report)
            else:
                restoration = Restoration(airflow, site, identity, folder, report)
                restoration.go(lambda: back_up(airflow, site, identity, report))
    finally:
        if restoration is not None and restoration.under_way():
            say(f"\n{restoration.standing()}")
        else:
            airflow.stop()
    words = "accepted" if not report.failures else f"NOT accepted, {report.failures} check(s) failed"
    say(f"\n{name}: {words}; backups stay in the repository.")
    return not report.failures


def _refuse_beside_a_restore(airflow: Airflow) -> None:
    """An earlier acceptance may have been ended while Airflow goes on with its restore: stopping that would leave it half done."""
    if airflow.running() and airflow.call("GET", f"/dags/{DAG}/dagRuns?state=running&state=queued")["total_entries"]:
        raise click.ClickException(
            f"an earlier acceptance's restore is running at {airflow.url}/dags/{DAG}; wait until it ends (passwords: "
            f"{airflow.home / 'passwords.json'}), then start again."
        )


def back_up(airflow: Airflow, site: Site, identity: Path, report: AcceptanceReport) -> str | None:
    """Run the backup DAG once, check what it made, and return the backup's id; None when the run failed or a check did."""
    name = site.cluster.name
    dag, before = f"backup__{name}", report.failures
    run_id = airflow.trigger(dag, {"reason": "make acceptance"}, timeout_s=300)
    say(f"{dag}: running ({run_id})")
    run = follow(airflow, dag, run_id)
    say()
    if not report.check("the backup's run", lambda: _succeeded(run)):
        return None
    when = datetime.fromisoformat(run["logical_date"] or run["run_after"])
    identifier = backup_id(name, when, run_id)
    _examine(report, site, identifier, identity)
    return identifier if report.failures == before else None


def _succeeded(run: dict[str, Any]) -> str:
    if run["state"] != "success":
        raise CheckFailed(f"ended as {run['state']}; logs of its tasks: {HOME / 'logs'}")
    return str(run["dag_run_id"])


def _examine(report: AcceptanceReport, site: Site, identifier: str, identity: Path) -> None:
    """Check the backup that a run made, and that the run left nothing else."""
    name = site.cluster.name
    with _private_folder() as folder:
        report.check("python -m etcdkeep verify", lambda: _verify(f"{name}/{identifier}", identity))
        found = site.repository.get(name, identifier)
        tools = StockTools(site.repository.store, found, site.cluster.signing.public_keys, identity, folder)
        for what, work in tools.checks():
            report.check(what, partial(_said, work))
    report.check("nothing is left in the spool", lambda: _spool(site, identifier))
    for member in discover(site.api, site.cluster).candidates:
        report.check(f"nothing is left in pod {member.pod}", partial(_pod, site, member.pod, identifier))


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
        return f"not checked: its image has no ls ({folder} of the container)"
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
    """
    Write the same configuration with no schedule, so that exactly the one run takes place.

    Nor has it queues: this Airflow is one machine, and a restore's DAG is named after its queue.
    """
    document = yaml.safe_load(config.read_text())
    for entry in (document.setdefault("defaults", {}), *document["clusters"]):
        entry["schedule"] = entry["queue"] = entry["verify_queue"] = None
    target.write_text(yaml.safe_dump(document))
    return target


@contextmanager
def _as_airflow(airflow: Airflow) -> Iterator[None]:
    """Read configuration and connections as the tasks did; programs stay those of the caller's PATH."""
    before = dict(os.environ)
    os.environ.update(airflow.environment | {"PATH": before["PATH"]})
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
