"""``drill``: restore a backup into a throw-away etcd on this machine, and read all of it back."""

from __future__ import annotations

import logging
import signal
import sys
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from etcdkeep.cli.common import find_set, keep_result, print_findings, repository_option, who
from etcdkeep.cli.output import json_option, print_json
from etcdkeep.config.models import Drill
from etcdkeep.drill.hold import held
from etcdkeep.drill.run import drill_set
from etcdkeep.say import say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

log = logging.getLogger(__name__)


@click.command()
@click.argument("name", metavar="CLUSTER[/ID]")
@click.option("--no-record", is_flag=True, help="Write nothing beside the set: no result, and not that it is in use.")
@repository_option
@json_option
def drill(name: str, no_record: bool, as_json: bool) -> None:
    """
    Restore a backup into a throw-away etcd on this machine, read every key and compare. Without ID: the newest good one.

    Needs etcd and etcdutl on PATH (or drill.etcd_dir) and the age identity. Nothing in the clear stays on this machine.
    """
    from etcdkeep.adapters.local_etcd.programs import LocalEtcd

    site, found = find_set(name)
    limit_s = (site.cluster.drill or Drill()).time_limit_s
    with (
        _unwinding_when_terminated(),
        _status(found.name) as begun,
        nullcontext() if no_record else held(site.repository, found, f"a drill of {who()}", limit_s),
    ):
        record = drill_set(site.repository, found, site.identities(), LocalEtcd(site.cluster.drill).open, begun)
    if not no_record:
        keep_result(site, found, record)
    if as_json:
        facts = record.model_dump(mode="json", exclude={"complete", "index"})
        print_json({"cluster": found.cluster, "backup_id": found.backup_id, "ok": record.ok, **facts})
    else:
        say(f"{found.name}: {'restores' if record.ok else 'DOES NOT RESTORE'}")
        for phase, seconds in record.seconds.items():
            say(f"  {phase:<8} {seconds:8.2f} s")
        if record.drill and record.drill.restore_s is not None:
            say(
                f"  from the sealed snapshot to a serving etcd {record.drill.etcd_version}: {record.drill.restore_s:.2f} s"
            )
        print_findings(record)
    sys.exit(0 if record.ok else 3)


@contextmanager
def _unwinding_when_terminated() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the block as Ctrl-C does: what is in the clear is removed on the way out."""

    def leave(number: int, frame: Any) -> None:
        sys.exit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _status(name: str) -> Iterator[Callable[[str], None]]:
    """Show the phase on a terminal's standard error, and log it."""
    console = Console(stderr=True)
    with console.status(name) as status:

        def begun(phase: str) -> None:
            log.info("%s: %s", name, phase)
            status.update(f"{name}: {phase}")

        yield begun
