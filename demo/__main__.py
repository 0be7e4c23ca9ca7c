"""``python -m demo run | up | down | acceptance``: what the Makefile calls."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from demo.airflow import PROJECT, Airflow
from etcdkeep.errors import EtcdkeepError
from lab.site import Lab, kubectl_path

if TYPE_CHECKING:
    from lab.site import Site

LAB = PROJECT / ".lab"
HOME = PROJECT / ".airflow"
DEMO_DAGS = ("backup__harbor", "backup__skiff")


@click.group()
def cli() -> None:
    """A site and an Airflow on this machine's loopback."""


@cli.command()
def up() -> None:
    """Start the lab and Airflow, or find them running."""
    airflow, _ = _start()
    _say_where(airflow)


@cli.command()
def down() -> None:
    """Stop what `up` started; what they keep stays."""
    Airflow(HOME, LAB / "clusters.yaml").stop()
    Lab(LAB).down()
    click.echo(
        "Airflow and the lab are down; `make up` starts them again with what they keep, `make clean` removes it."
    )


@cli.command()
def run() -> None:
    """Back up two clusters through Airflow, and show the result."""
    airflow, site = _start()
    runs = {dag: airflow.trigger(dag, {"reason": "make demo"}) for dag in DEMO_DAGS}
    states = {}
    for dag, run_id in runs.items():
        click.echo(f"{dag}: running ({run_id})")
        states[dag] = airflow.wait(dag, run_id)["state"]
        took = ", ".join(f"{name} {task['duration'] or 0:.1f} s" for name, task in _in_order(airflow, dag, run_id))
        click.echo(f"{dag}: {states[dag]} ({took})")
    click.echo()
    _etcdkeep(site, "list")
    click.echo()
    _say_where(airflow)
    click.echo(
        f"Look      {_command(site)} show harbor\n"
        f"Open      {_command(site)} unseal harbor --to /tmp/harbor   (plain files: keep them safe)\n"
        f"Restore   trigger `restore` in the UI: cluster skiff, a reason, confirm skiff; the dry run shows the plan and changes nothing.\n"
        f"          For real: dry run off, override on (nothing is broken yet); approve as alice, then as bob. docs/restore.md\n"
        f"Drill     trigger `drill__harbor`: a throw-away etcd starts from the backup, and is compared with it\n"
        f"Objects   delete a namespace, and bring it back: docs/recover-objects.md\n"
        f"By hand   trigger backup__fleet in the UI: three members, three nodes\n"
        f"Cluster   {kubectl_path()} --kubeconfig {site.clusters['harbor'].kubeconfig} get pods -A\n"
        f"Stop      make down"
    )
    sys.exit(0 if set(states.values()) == {"success"} else 1)


@cli.command()
@click.option(
    "--config",
    required=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="The site's clusters.yaml.",
)
@click.option("--cluster", required=True, help="The cluster to back up.")
@click.option(
    "--restore",
    type=click.Choice(["yes"]),
    help="Destructive: then restore it from that backup, through the DAG. Exactly `yes`.",
)
def acceptance(config: Path, cluster: str, restore: str | None) -> None:
    """Back up one real cluster, verify it, open every artifact with stock tools, look for leftovers; restore it, if told to."""
    from demo.acceptance import accept  # without it, the demo does not wait for the clients' imports

    try:
        accepted = accept(config.resolve(), cluster, restore=restore == "yes")
    except (EtcdkeepError, OSError) as err:
        raise click.ClickException(str(err)) from err
    sys.exit(0 if accepted else 1)


def _start() -> tuple[Airflow, Site]:
    began = time.monotonic()
    click.echo(f"lab: starting in {LAB.relative_to(PROJECT)}")
    site = Lab(LAB).up()
    airflow = Airflow(HOME, site.config, {"STORAGE_EMULATOR_HOST": site.gcs_url})
    click.echo("Airflow: " + ("running" if airflow.running() else "starting, half a minute or so"))
    airflow.start()
    click.echo(f"both are up after {time.monotonic() - began:.0f} s\n")
    return airflow, site


def _say_where(airflow: Airflow) -> None:
    passwords = airflow.state["passwords"]
    people = ", ".join(f"{user} / {passwords[user]}" for user in ("admin", "alice", "bob"))
    click.echo(f"Airflow   {airflow.url}   {people}")


def _command(site: Site) -> str:
    return f"ETCDKEEP_CONFIG={site.config} STORAGE_EMULATOR_HOST={site.gcs_url} {sys.executable} -m etcdkeep"


def _etcdkeep(site: Site, *arguments: str) -> None:
    environment = {**os.environ, "ETCDKEEP_CONFIG": str(site.config), "STORAGE_EMULATOR_HOST": site.gcs_url}
    subprocess.run([sys.executable, "-m", "etcdkeep", *arguments], env=environment, check=False)


def _in_order(airflow: Airflow, dag: str, run_id: str) -> list[tuple[str, dict[str, object]]]:
    return sorted(airflow.tasks(dag, run_id).items(), key=lambda item: str(item[1]["start_date"]))


if __name__ == "__main__":
    cli()
