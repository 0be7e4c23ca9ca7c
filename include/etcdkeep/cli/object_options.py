"""Options that several ``objects`` commands take."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from etcdkeep.objects.jsonpath import parse_template
from etcdkeep.objects.labels import parse_selector
from etcdkeep.objects.selection import Selection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

if TYPE_CHECKING:
    _TextType = click.ParamType[str]
else:  # older versions of click cannot be asked for the type's own parameter
    _TextType = click.ParamType

Command = TypeVar("Command", bound="Callable[..., Any]")


_FIELD = re.compile(r"metadata\.(name|namespace)\s*(==?|!=)\s*(\S*)")
sort_option = click.option(
    "--sort-by", default="", metavar="JSONPATH", help="Sort by this path, such as .metadata.creationTimestamp."
)
show_labels_option = click.option("--show-labels", is_flag=True, help="Show the labels in the last column.")
prefix_option = click.option(
    "--prefix",
    metavar="PREFIX",
    help="The API server's --etcd-prefix, if the snapshot has several; a backup records its own.",
)


def source_options(command: Command) -> Command:
    """Add what a plain snapshot file cannot tell of itself."""
    encryption = click.option(
        "--encryption-config",
        "encryption_file",
        type=click.Path(path_type=Path, dir_okay=False),
        help="The API server's EncryptionConfiguration, for encrypted values; a backup contains its own.",
    )
    kubernetes = click.option(
        "--kubernetes",
        metavar="VERSION",
        help="Print as the API server of this version does, such as 1.30; a backup records its own.",
    )
    return encryption(kubernetes(prefix_option(command)))


def selection_options(command: Command) -> Command:
    """Add the options that choose objects."""
    options = (
        click.option(
            "-n",
            "--namespace",
            "namespaces",
            multiple=True,
            metavar="NS",
            help="Only in this namespace; several with commas.",
        ),
        click.option("-A", "--all-namespaces", is_flag=True, help="In all namespaces, as without -n."),
        click.option(
            "-k",
            "--kind",
            "kinds",
            multiple=True,
            metavar="KIND",
            help="Only objects of this kind: pod, pods, po, deployments.apps; several with commas.",
        ),
        click.option(
            "-l",
            "--selector",
            default="",
            metavar="LABELS",
            help="Label selector as in kubectl: app=web,tier in (a,b),!canary.",
        ),
        click.option(
            "--field-selector",
            default="",
            metavar="FIELDS",
            help="metadata.name=web,metadata.namespace!=kube-system; no other fields.",
        ),
        click.option("--name", "glob", default="", metavar="GLOB", help="Only objects with such a name: 'web-*'."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def parse_selection(
    *,
    namespaces: tuple[str, ...],
    kinds: tuple[str, ...],
    selector: str,
    glob: str,
    all_namespaces: bool = False,
    field_selector: str = "",
    other: bool = False,
) -> Selection:
    """
    Return what the options choose.

    :raises click.BadParameter: when a selector is none.
    """
    try:
        labels = parse_selector(selector)
    except ValueError as err:
        raise click.BadParameter(str(err), param_hint="-l") from err
    places = () if all_namespaces else split(namespaces)
    return Selection(places, split(kinds), glob, labels, other, parse_fields(field_selector))


def split(given: Iterable[str]) -> tuple[str, ...]:
    """Return the words of an option that may be given several times, and with commas."""
    return tuple(word.strip() for each in given for word in each.split(",") if word.strip())


def parse_fields(text: str) -> tuple[tuple[str, bool, str], ...]:
    """
    Read a field selector.

    :raises click.BadParameter: when it is none, or of other fields than every kind has.
    """
    found = []
    for part in split([text]):
        match = _FIELD.fullmatch(part)
        if match is None:
            raise click.BadParameter(
                f"{part!r} is not supported: only metadata.name and metadata.namespace, with =, == or !=.",
                param_hint="--field-selector",
            )
        found.append((match[1], match[2] != "!=", match[3]))
    return tuple(found)


class OutputForm(_TextType):
    """One of some words, or ``jsonpath=TEMPLATE``, which is read at once."""

    name = "output"

    def __init__(self, *words: str) -> None:
        self._words = words

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """Return what the help shows."""
        return f"[{'|'.join(self._words)}|jsonpath=TEMPLATE]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check it."""
        text = str(value)
        kind, equals, template = text.partition("=")
        if text in self._words:
            return text
        if kind != "jsonpath" or not equals:
            self.fail(f"{value!r} is none of {', '.join(self._words)}, jsonpath=TEMPLATE.", param, ctx)
        try:
            parse_template(template)
        except ValueError as err:
            self.fail(f"{err}.", param, ctx)
        return text
