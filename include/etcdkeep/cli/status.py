"""``status FILE``: our reader on any snapshot file."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from etcdkeep.cli.output import json_option, print_json, progress, size
from etcdkeep.errors import SnapshotDamaged
from etcdkeep.say import say
from etcdkeep.snapshot import open_snapshot

FACTS = ("hash", "revision", "total_keys", "live_keys", "size_bytes", "page_size")


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@json_option
def status(file: Path, as_json: bool) -> None:
    """Check a plain snapshot file and say what is in it. Exit code 0: sound, 3: damaged, 2: not readable."""
    try:
        with progress(file.name) as tick, open_snapshot(file) as snapshot:
            report = snapshot.check(progress=tick)
        facts, hints = report.to_json(), report.hints
    except SnapshotDamaged as err:  # so damaged that nothing in it can be read
        facts, hints = {**dict.fromkeys(FACTS), "ok": False, "problems": [str(err)]}, ()
    if as_json:
        print_json(facts)
    else:
        for name in (*FACTS, "ok"):
            value = "unknown" if facts[name] is None else facts[name]
            say(f"{name:<12} {value}" + (f" ({size(facts[name])})" if name == "size_bytes" else ""))
        for problem in facts["problems"]:
            say(f"damaged: {problem}", err=True)
    for hint in hints:
        say(f"warning: {hint}", err=True)
    sys.exit(0 if facts["ok"] else 3)
