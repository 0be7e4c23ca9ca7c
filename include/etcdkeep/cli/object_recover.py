"""``objects recover``: clean manifests out of a backup, for kubectl."""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from etcdkeep.cli.object_options import parse_selection, selection_options, source_options
from etcdkeep.cli.object_source import Failures, open_source
from etcdkeep.say import printable, say

if TYPE_CHECKING:
    from etcdkeep.recover.draft import Draft
    from etcdkeep.recover.manifests import Manifests

_NOT_IN_A_FILE_NAME = re.compile(r"[^A-Za-z0-9._-]")


@click.command()
@click.argument("name", metavar="SET")
@selection_options
@click.option(
    "--to",
    "target",
    required=True,
    metavar="FOLDER|-",
    help="Write to this new or empty folder, or to - for standard output.",
)
@click.option(
    "--include-left-out", is_flag=True, help="Include objects that the cluster makes by itself, and finished ones."
)
@source_options
def recover(
    name: str,
    target: str,
    include_left_out: bool,
    encryption_file: Path | None,
    kubernetes: str | None,
    prefix: str | None,
    **chosen: Any,
) -> None:
    """
    Write clean manifests of objects of SET, in the order to apply them in: `kubectl apply -f FOLDER`.

    Nothing is applied. The DAG `recover_objects` compares with the live cluster, has it approved, and applies.
    """
    from etcdkeep.recover.gather import gather
    from etcdkeep.recover.manifests import clean_manifests

    selection, failures = parse_selection(**chosen), Failures()
    with open_source(name, encryption_file, kubernetes, prefix) as source:
        gathered = gather(source, selection)
        failures.add(gathered.failures)
        found = clean_manifests(gathered, include_left_out=include_left_out)
        if target == "-":
            _print(found.drafts, source.name)
        else:
            _write(found.drafts, Path(target), source.name)
    _tell(found)
    failures.add(found.failures)
    failures.report()


def _print(drafts: list[Draft], source: str) -> None:
    secrets = sum(draft.kind == "Secret" for draft in drafts)
    if secrets and _is_terminal():
        raise click.UsageError(f"{secrets} Secret(s) are among them, and this is a terminal: give --to FOLDER.")
    for draft in drafts:
        say(_text(draft, source), nl=False)


def _write(drafts: list[Draft], folder: Path, source: str) -> None:
    """Write one file per object, named so that kubectl takes them in order."""
    from etcdkeep.cli.common import private_directory

    width = len(str(len(drafts)))
    with private_directory(folder):
        for number, draft in enumerate(drafts, start=1):
            parts = (f"{number:0{width}}", draft.kind.lower(), draft.namespace, draft.name)
            path = folder / (_NOT_IN_A_FILE_NAME.sub("_", "-".join(filter(None, parts)))[:200] + ".yaml")
            path.touch(mode=0o600)
            path.write_text(_text(draft, source), encoding="utf-8", errors="replace")
    say(f"{len(drafts)} manifests in {folder}: kubectl apply -f {folder}", err=True)


def _text(draft: Draft, source: str) -> str:
    from etcdkeep.objects.decoding import exact_json
    from etcdkeep.recover.approval_page import manifests_yaml

    return "".join(manifests_yaml([(exact_json.dumps(draft.manifest), draft.dropped)], source))


def _tell(found: Manifests) -> None:
    for draft in found.drafts:
        for warning in draft.warnings:
            say(printable(f"note: {draft.label}: {warning}"), err=True)
    for (kind, why), count in sorted(Counter((draft.kind, why) for draft, why in found.left_out).items()):
        say(printable(f"left out: {count} {kind}: {why}"), err=True)


def _is_terminal() -> bool:
    return sys.stdout.isatty()
