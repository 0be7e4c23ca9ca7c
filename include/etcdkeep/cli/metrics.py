"""``metrics``: the numbers of ``check`` for Prometheus."""

from __future__ import annotations

import re
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from etcdkeep.adapters.prometheus import metrics_app, metrics_text, open_server, write_metrics
from etcdkeep.cli.check import check_one
from etcdkeep.config.loading import load_config
from etcdkeep.errors import ConfigError, EtcdkeepError
from etcdkeep.freshness.check import not_checked
from etcdkeep.metrics.families import CONFIGURATION_VALID
from etcdkeep.metrics.readings import Readings
from etcdkeep.metrics.samples import samples_of
from etcdkeep.say import say

if TYPE_CHECKING:
    from collections.abc import Callable

    from etcdkeep.metrics.families import Sample

ADDRESS = re.compile(r"(?:\[(?P<v6>[0-9a-fA-F:.]+)\]|(?P<host>[^\s:/@\[\]]+)):(?P<port>\d{1,5})")


def _address(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, int] | None:
    """Split ``HOST:PORT``; port 0 takes a free one."""
    if value is None:
        return None
    match = ADDRESS.fullmatch(value)
    if match is None or int(match["port"]) > 65535:
        raise click.BadParameter(f"{value!r} is not an address; expected HOST:PORT, such as 127.0.0.1:9847.")
    return match["v6"] or match["host"], int(match["port"])


@click.command()
@click.option(
    "--file", "path", type=click.Path(dir_okay=False, path_type=Path),
    help="Write to this file, whole or not at all; it ends in .prom for node exporter's textfile collector.",
)  # fmt: skip
@click.option("--listen", callback=_address, metavar="HOST:PORT", help="Serve http://HOST:PORT/metrics until stopped.")
@click.option(
    "--cache-s", type=click.FloatRange(min=0), default=300, show_default=True,
    help="With --listen: read the repository again when the numbers are older, in seconds.",
)  # fmt: skip
@click.option(
    "--wait-s", type=click.FloatRange(min=0, min_open=True), default=300, show_default=True,
    help="Without --listen: report a repository that does not answer within so many seconds as not readable.",
)  # fmt: skip
def metrics(path: Path | None, listen: tuple[str, int] | None, cache_s: float, wait_s: float) -> None:
    """
    Print the numbers of `check` in Prometheus's text format, for every configured cluster.

    A repository that cannot be read is reported as etcdkeep_repository_readable 0. The exit code is 0 all the same.
    """
    if path and listen:
        raise click.UsageError("--file and --listen exclude each other; run the command twice.")
    collect = _collector(cache_s if listen else 0)
    if listen:
        _serve(*listen, collect)
    elif path:
        write_metrics(collect(wait_s), path)
    else:
        say(metrics_text(collect(wait_s)), nl=False)


def _collector(cache_s: float) -> Callable[[float], list[Sample]]:
    """Return what measures every configured cluster within some seconds; the configuration is read each time."""
    readings = Readings(_read, lambda name, why: samples_of(not_checked(name, why, datetime.now(UTC))), cache_s)

    def collect(within_s: float) -> list[Sample]:
        try:
            config = load_config()
        except ConfigError as err:
            say(f"error: {err}", err=True)
            return [CONFIGURATION_VALID.sample(0)]
        valid = CONFIGURATION_VALID.sample(bool(config.clusters) and not config.problems)
        return [valid, *readings.get(list(config.clusters), within_s)]

    return collect


def _read(name: str) -> tuple[Sample, ...]:
    checked = check_one(name)
    if checked.stored is None:
        for finding in checked.report.findings:
            say(f"error: cluster {name}: {finding.sentence}", err=True)
    return samples_of(checked)


def _serve(host: str, port: int, collect: Callable[[float], list[Sample]]) -> None:
    try:
        server = open_server(host, port, metrics_app(collect))
    except OSError as err:
        raise EtcdkeepError(f"{host}:{port} cannot be listened on: {err.strerror or err}. Choose a free address of this machine for --listen.") from err  # fmt: skip
    for number in (signal.SIGTERM, signal.SIGINT):  # as the first process of a container, it would ignore them
        signal.signal(number, lambda *_: sys.exit(0))
    shown = f"[{host}]" if ":" in host else host
    say(f"serves http://{shown}:{server.server_port}/metrics")
    with server:
        server.serve_forever()
