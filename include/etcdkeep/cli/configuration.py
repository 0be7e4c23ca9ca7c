"""``config check | schema | example``."""

from __future__ import annotations

from pathlib import Path

import click

from etcdkeep import config_pages
from etcdkeep.cli.say import say
from etcdkeep.config_file import load_config


@click.group()
def config() -> None:
    """Check the configuration file, or print its schema or a sample."""


@config.command()
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False))
def check(file: Path | None) -> None:
    """Check FILE (default: what ETCDKEEP_CONFIG names) and report every problem at once."""
    loaded = load_config(file)
    loaded.raise_for_problems()
    say(f"{loaded.source}: {len(loaded.clusters)} cluster(s), no problem: {', '.join(loaded.clusters)}")


@config.command()
def schema() -> None:
    """Print the JSON Schema of the file."""
    say(config_pages.json_schema(), nl=False)


@config.command()
def example() -> None:
    """Print a sample file with every setting explained."""
    say(config_pages.example(), nl=False)
