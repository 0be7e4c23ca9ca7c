"""``status FILE``: our reader on any snapshot file."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from etcdkeep.cli.output import json_option, print_json, progress, size
from etcdkeep.snapshot import open_snapshot


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@json_option
def status(file: Path, as_json: bool) -> None:
    """Check a plain snapshot file and say what is in it. Exit code 0: sound, 3: damaged, 2: not readable."""
    with progress(file.name) as tick, open_snapshot(file) as snapshot:
        report = snapshot.check(progress=tick)
    if as_json:
        print_json(report.to_json())
    else:
        for name, value in report.to_json().items():
            if name != "problems":
                click.echo(f"{name:<12} {value}" + (f" ({size(value)})" if name == "size_bytes" else ""))
        for problem in report.problems:
            click.echo(f"damaged: {problem}", err=True)
    sys.exit(0 if report.ok else 3)
