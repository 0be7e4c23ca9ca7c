"""``config check | schema | example``."""

from __future__ import annotations

import importlib
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import click

from etcdkeep.cli import Group
from etcdkeep.config import pages as config_pages
from etcdkeep.config.loading import CONFIG_VARIABLE, load_cluster, load_config
from etcdkeep.errors import ConfigError
from etcdkeep.say import say

if TYPE_CHECKING:
    from etcdkeep.config.loading import Config
    from etcdkeep.config.models import Cluster
    from etcdkeep.site.credentials import Credentials
    from etcdkeep.site.try_connections import Tried

AT_ONCE = 8
"""Clusters that are tried at the same time."""

WORDS = {True: "ok", False: "failed", None: "not tried"}


@click.group(cls=Group)
def config() -> None:
    """Check the configuration file, or print its schema or a sample."""


@config.command()
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False))
@click.option("--connections", is_flag=True, help="Also try every connection, key and store, where Airflow runs.")
@click.option("--cluster", "only", multiple=True, help="With --connections: this cluster alone; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="With --connections: print JSON for programs.")
def check(file: Path | None, connections: bool, only: tuple[str, ...], as_json: bool) -> None:
    """Check FILE (default: what ETCDKEEP_CONFIG names) and report every problem at once."""
    loaded = load_config(file)
    loaded.raise_for_problems()
    _check_notifiers(loaded)
    if not connections:
        if only or as_json:
            raise click.UsageError("--cluster and --json go with --connections.")
        say(f"{loaded.source}: {len(loaded.clusters)} cluster(s), no problem: {', '.join(loaded.clusters)}")
        return
    os.environ[CONFIG_VARIABLE] = loaded.source  # what a message about a connection refers to
    sys.exit(_try_all([loaded.cluster(name) for name in only or loaded.clusters], as_json=as_json))


def _check_notifiers(loaded: Config) -> None:
    """
    Check that each notifier can be made, where Airflow is.

    :raises ConfigError: when one cannot, such as for a provider that is not installed.
    """
    if not any(entry.notifier for cluster in loaded.clusters.values() for entry in cluster.notifications):
        return
    try:
        notifiers = importlib.import_module("etcdkeep_airflow.notifications.notifiers")
    except ModuleNotFoundError as err:
        say(
            f"warning: notifiers were not checked: no Airflow here ({err.name}). Run this where Airflow runs.", err=True
        )
        return
    notifiers.check_notifiers(loaded.clusters.values(), loaded.source)


def _try_all(clusters: list[Cluster], *, as_json: bool) -> int:
    """Print one line for each thing that was tried, and return the exit code."""
    from etcdkeep.cli.common import credentials_here
    from etcdkeep.cli.output import print_json, print_table

    credentials = credentials_here()
    with ThreadPoolExecutor(AT_ONCE) as threads:
        tried = list(threads.map(lambda cluster: _try_one(cluster, credentials), clusters))
    lines = [(cluster.name, each) for cluster, found in zip(clusters, tried, strict=True) for each in found]
    if as_json:
        print_json([_facts(name, each) for name, each in lines])
    else:
        rows = [(name, each.what, each.by, WORDS[each.ok], each.said) for name, each in lines]
        print_table(("cluster", "tried", "from", "result", "found"), rows)
        for name, each in lines:
            if each.error is not None:
                say(f"error: {name}: {each.what}: " + str(each.error).replace("\n", "\n  "), err=True)
    return _exit_code([each for _, each in lines])


def _try_one(cluster: Cluster, credentials: Credentials) -> list[Tried]:
    from etcdkeep.site.site import Site
    from etcdkeep.site.try_connections import try_connections

    return list(try_connections(Site(cluster, credentials)))


def _facts(cluster: str, tried: Tried) -> dict[str, str]:
    return {"cluster": cluster, "tried": tried.what, "from": tried.by, "result": WORDS[tried.ok], "found": tried.said}


def _exit_code(tried: list[Tried]) -> int:
    """Return 0 when nothing failed, the code of the failures when they have one in common, else 1."""
    from etcdkeep.cli import exit_code

    codes = {exit_code(each.error) for each in tried if each.error is not None}
    return codes.pop() if len(codes) == 1 else 1 if codes else 0


@config.command()
@click.argument("cluster")
def notify(cluster: str) -> None:
    """Send a test message to everybody in CLUSTER's `notifications`, where Airflow runs."""
    configured = load_cluster(cluster)
    try:
        telling = importlib.import_module("etcdkeep_airflow.notifications.telling")
    except ModuleNotFoundError as err:
        raise ConfigError(f"cannot notify anybody: no Airflow here ({err.name}). Run this where Airflow runs.") from err
    missed = telling.send_test(configured)
    for entry in configured.notifications:
        say(f"{entry.name}: {WORDS[entry.name not in missed]}")
    if not configured.notifications:
        say(f"cluster {cluster} has no notifications")
    sys.exit(1 if missed else 0)


@config.command()
def schema() -> None:
    """Print the JSON Schema of the file."""
    say(config_pages.json_schema(), nl=False)


@config.command()
def example() -> None:
    """Print a sample file with every setting explained."""
    say(config_pages.example(), nl=False)
