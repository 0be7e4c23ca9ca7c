"""``python -m demo run | up | down``: what the Makefile calls."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click
import yaml

from demo.kinds import kinds_of, split
from etcdkeep.acceptance.airflow import PROJECT, Airflow
from etcdkeep.acceptance.celery_airflow import CeleryAirflow, missing_programs
from etcdkeep.errors import EtcdkeepError
from lab.clusters_yaml import age_identity
from lab.site import Lab, LabError, kubectl_path

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lab.site import Site

LAB = PROJECT / ".lab"
HOMES = {"local": PROJECT / ".airflow", "celery": PROJECT / ".airflow-celery"}
CONFIG, COPIES = LAB / "demo.yaml", f"file://{LAB}/copies"
"""The lab's configuration, with a second copy of `harbor`; and where that is."""
DEMO_DAGS = ("backup__harbor", "backup__skiff")


@click.group()
def cli() -> None:
    """A site and an Airflow on this machine's loopback."""


@cli.command()
@click.option("--executor", type=click.Choice(list(HOMES)), default="local", help="celery: needs PostgreSQL and Redis.")
def up(executor: str) -> None:
    """Start the lab and Airflow, or find them running."""
    airflow, _ = _start(executor)
    _say_where(airflow)


@cli.command()
def down() -> None:
    """Stop what `up` started; what they keep stays."""
    for executor in HOMES:
        _stop(executor)
    Lab(LAB).down()
    click.echo(
        "Airflow and the lab are down; `make up` starts them again with what they keep, `make clean` removes it."
    )


@cli.command()
def run() -> None:
    """Back up two clusters through Airflow, one of them again after a change, and show the result."""
    airflow, site = _start()
    states = _back_up(airflow, DEMO_DAGS, "make demo")
    _change(site)
    states |= _back_up(airflow, DEMO_DAGS[:1], "make demo, after a change")
    click.echo()
    _etcdkeep(site, "list")
    for words in (("prune", "harbor", "--dry-run"), ("check", "harbor"), ("list", "harbor", "--repository", COPIES)):
        click.echo(f"\n$ python -m etcdkeep {' '.join(words)}")
        _etcdkeep(site, *words)
    click.echo()
    _say_where(airflow)
    click.echo(
        f"Page      {airflow.url}/plugin/backups   (Browse → Backups) which cluster is fine, which is not, what to do;\n"
        f"          harbor, its newest backup, *What changed*: the ConfigMap that was changed between its two backups\n"
        f"Look      {_command(site)} show harbor\n"
        f"Open      {_command(site)} unseal harbor --to /tmp/harbor   (plain files: keep them safe)\n"
        f"Restore   trigger `restore` in the UI: cluster skiff, a reason, confirm skiff; the dry run shows the plan and changes nothing.\n"
        f"          For real: dry run off, override on (nothing is broken yet); approve as alice, then as bob. docs/restore.md\n"
        f"Drill     trigger `drill__harbor`: a throw-away etcd starts from the backup, and is compared with it\n"
        f"Keep      trigger `housekeeping`: what would go, and which cluster has no fresh backup (fleet, until you take one). docs/retention.md\n"
        f"Objects   delete a namespace, and bring it back: docs/recover-objects.md\n"
        f"Back up   trigger `backup__fleet` in the UI: three members, three nodes\n"
        f"Cluster   {kubectl_path()} --kubeconfig {site.clusters['harbor'].kubeconfig} get pods -A\n"
        f"Stop      make down"
    )
    sys.exit(0 if states == {"success"} else 1)


def _back_up(airflow: Airflow, dags: Sequence[str], reason: str) -> set[str]:
    """Run these DAGs side by side, say how each ended, and return their states."""
    runs = {dag: airflow.trigger(dag, {"reason": reason}) for dag in dags}
    states = set()
    for dag, run_id in runs.items():
        click.echo(f"{dag}: running ({run_id})")
        state = airflow.wait(dag, run_id)["state"]
        took = ", ".join(f"{name} {task['duration'] or 0:.1f} s" for name, task in _in_order(airflow, dag, run_id))
        click.echo(f"{dag}: {state} ({took})")
        states.add(state)
    return states


def _change(site: Site) -> None:
    """Change one ConfigMap, so that two backups differ in something that a person can find."""
    kubectl = [str(kubectl_path()), "--kubeconfig", str(site.clusters["harbor"].kubeconfig), "-n", "shop"]
    patch = {"data": {"app.properties": f"color=green\nchanged={datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}\n"}}
    subprocess.run([*kubectl, "patch", "configmap", "web-config", "--patch", json.dumps(patch)], check=True)


def _start(executor: str = "local") -> tuple[Airflow, Site]:
    """Start an Airflow with this executor; one with the other is stopped: they read the same configuration."""
    began, celery = time.monotonic(), executor == "celery"
    if celery and (missing := missing_programs()):
        sys.exit(f"EXECUTOR=celery: {missing}")
    for other in HOMES.keys() - {executor}:
        _stop(other)
    click.echo(f"lab: starting in {LAB.relative_to(PROJECT)}")
    site = Lab(LAB).up()
    _write_config(site, celery=celery)
    home, extra = HOMES[executor], {"STORAGE_EMULATOR_HOST": site.gcs_url}
    airflow = CeleryAirflow(home, CONFIG, kinds_of(site), extra) if celery else Airflow(home, CONFIG, extra)
    click.echo("Airflow: " + ("running" if airflow.running() else "starting, half a minute or so"))
    airflow.start()
    click.echo(f"both are up after {time.monotonic() - began:.0f} s\n")
    return airflow, site


def _stop(executor: str) -> None:
    home = HOMES[executor]
    if home.exists():
        (CeleryAirflow(home, CONFIG, ()) if executor == "celery" else Airflow(home, CONFIG)).stop()


def _write_config(site: Site, *, celery: bool) -> None:
    document = yaml.safe_load(site.config.read_text())
    index_key = LAB / "keys" / "index.txt"
    document["defaults"] |= {"index_recipients": [age_identity(index_key)], "index_identity": {"path": str(index_key)}}
    if celery:
        split(document, site)
    for entry in document["clusters"]:
        if entry["name"] == "harbor":
            entry["copies"] = [{"repository": COPIES}]
    CONFIG.write_text(yaml.safe_dump(document))


def _say_where(airflow: Airflow) -> None:
    passwords = airflow.state["passwords"]
    people = ", ".join(f"{user} / {passwords[user]}" for user in ("admin", "alice", "bob"))
    click.echo(f"Airflow   {airflow.url}   {people}")


def _command(site: Site) -> str:
    return f"ETCDKEEP_CONFIG={CONFIG} STORAGE_EMULATOR_HOST={site.gcs_url} {sys.executable} -m etcdkeep"


def _etcdkeep(site: Site, *arguments: str) -> None:
    environment = {**os.environ, "ETCDKEEP_CONFIG": str(CONFIG), "STORAGE_EMULATOR_HOST": site.gcs_url}
    subprocess.run([sys.executable, "-m", "etcdkeep", *arguments], env=environment, check=False)


def _in_order(airflow: Airflow, dag: str, run_id: str) -> list[tuple[str, dict[str, object]]]:
    return sorted(airflow.tasks(dag, run_id).items(), key=lambda item: str(item[1]["start_date"]))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; one of our errors ends it with its message and the next step, never with a traceback."""
    try:
        cli.main(arguments)
    except (EtcdkeepError, LabError) as err:
        sys.exit(f"error: {err}\nWhat was started still runs: run make again to continue, or `make down` to stop it.")


if __name__ == "__main__":
    main()
