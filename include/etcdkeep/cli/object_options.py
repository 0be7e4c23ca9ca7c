"""Options that several ``objects`` commands take."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from etcdkeep.objects.labels import parse_selector
from etcdkeep.objects.selection import Selection

if TYPE_CHECKING:
    from collections.abc import Callable

Command = TypeVar("Command", bound="Callable[..., Any]")


prefix_option = click.option(
    "--prefix",
    metavar="PREFIX",
    help="The API server's --etcd-prefix, where the snapshot has several; a backup knows its own.",
)


def source_options(command: Command) -> Command:
    """Add what a plain snapshot file cannot tell of itself."""
    encryption = click.option(
        "--encryption-config",
        "encryption_file",
        type=click.Path(path_type=Path, dir_okay=False),
        help="The API server's EncryptionConfiguration, for encrypted values; a backup brings its own.",
    )
    kubernetes = click.option(
        "--kubernetes",
        metavar="VERSION",
        help="Print as the API server of that version does, such as 1.30; a backup knows its own.",
    )
    return encryption(kubernetes(prefix_option(command)))


def selection_options(command: Command) -> Command:
    """Add the options that choose objects."""
    options = (
        click.option("-n", "--namespace", "namespaces", multiple=True, metavar="NS", help="Only in this namespace."),
        click.option(
            "-k",
            "--kind",
            "kinds",
            multiple=True,
            metavar="KIND",
            help="Only of this kind: pod, pods, po, deployments.apps; several with commas.",
        ),
        click.option(
            "-l", "--selector", default="", metavar="LABELS", help="As kubectl: app=web,tier in (a,b),!canary."
        ),
        click.option("--name", "glob", default="", metavar="GLOB", help="Only with such a name: 'web-*'."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def parse_selection(
    *, namespaces: tuple[str, ...], kinds: tuple[str, ...], selector: str, glob: str, other: bool = False
) -> Selection:
    """
    Return what the options choose.

    :raises click.BadParameter: when the label selector is none.
    """
    try:
        labels = parse_selector(selector)
    except ValueError as err:
        raise click.BadParameter(str(err), param_hint="-l") from err
    every = tuple(kind.strip() for each in kinds for kind in each.split(",") if kind.strip())
    return Selection(namespaces, every, glob, labels, other)
