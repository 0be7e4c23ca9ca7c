"""``acceptance``: one backup of a real cluster through a private Airflow, opened with stock tools; its restore, if told to."""

from __future__ import annotations

import sys

import click

from etcdkeep.acceptance.run import accept
from etcdkeep.config.loading import config_path


@click.command()
@click.argument("cluster")
@click.option(
    "--restore",
    type=click.Choice(["yes"]),
    help="Destructive: then restore it from that backup, through the DAG. Exactly `yes`.",
)
def acceptance(cluster: str, restore: str | None) -> None:
    """
    Back up one real cluster, verify it, open every artifact with stock tools, look for leftovers; restore it, if told to.

    Needs Airflow, and age, zstd, openssl and etcdutl on PATH; with --restore also kubectl. Airflow's files and logs are in
    .airflow-acceptance.
    """
    if not accept(config_path().resolve(), cluster, restore=restore == "yes"):
        sys.exit(1)
