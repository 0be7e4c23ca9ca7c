"""How objects are printed: columns, names, JSON and YAML, a piece at a time however many there are."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, TypeVar

import click

from etcdkeep.objects import jsonpath
from etcdkeep.objects.decoding import exact_json
from etcdkeep.say import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from etcdkeep.objects.entries import Entry
    from etcdkeep.objects.resources import Resource

Item = TypeVar("Item")
Columns = Sequence[Sequence[str] | Sequence[int]]
"""Cells, column by column; numbers are not below zero."""
NUMBERS = ("size", "revision", "created", "objects", "before", "after")
"""Columns that are set flush right, beside those of numbers alone."""
_LINES_AT_ONCE = 1000
_JSON_INDENT = 4


def print_columns(titles: Sequence[str], found: Sequence[Item], cells: Callable[[Sequence[Item]], Columns]) -> None:
    """
    Print a table; nothing in it is wrapped or cut.

    :param cells: Gives the columns of some rows.
    """
    blocks = [cells(block) for block in _blocks(found)]
    widths = [max(map(_width, column)) for column in zip([[title] for title in titles], *blocks, strict=True)]
    numbers = {
        title for title, column in zip(titles, blocks[0] if blocks else (), strict=False) if isinstance(column[0], int)
    }
    signs = ("" if title in numbers or title in NUMBERS else "-" for title in titles)
    line = "  ".join(f"%{sign}{width}s" for sign, width in zip(signs, widths, strict=True))
    print_lines([line % tuple(title.upper() for title in titles)])
    print_lines(chain.from_iterable(map(line.__mod__, zip(*block, strict=True)) for block in blocks))


def entry_name(entry: Entry) -> str:
    """``pod/web``, ``deployment.apps/web``: what kubectl takes."""
    return entry.key if entry.holds_no_object else resource_name(entry.type, entry.name)


def resource_name(resource: Resource, name: str) -> str:
    """Name one object as kubectl does."""
    kind = (resource.kind or resource.plural).lower()
    return f"{kind}.{resource.group}/{name}" if resource.group else f"{kind}/{name}"


def print_names(entries: Iterable[Entry]) -> None:
    """Print one name per line."""
    print_lines(map(entry_name, entries))


def print_list(objects: Iterable[dict[str, Any]], output: str) -> None:
    """
    Print a ``v1`` ``List``, as kubectl does.

    :param output: ``json`` or ``yaml``.
    """
    if output == "json":
        _print_json_list(objects)
    else:
        _print_yaml_list(objects)


def print_contents(objects: Iterable[dict[str, Any]], output: str | None) -> None:
    """
    Print objects as a list, or what a template makes of that list.

    :param output: ``json``, ``yaml`` or ``jsonpath=TEMPLATE``.
    """
    if output in ("json", "yaml"):
        print_list(objects, output)
    else:
        print_object({"apiVersion": "v1", "kind": "List", "items": list(objects), "metadata": {}}, output or "")


def print_object(content: Any, output: str) -> None:
    """Print one object; `output` is ``json``, ``yaml`` or ``jsonpath=TEMPLATE``."""
    if output.startswith("jsonpath="):
        text = jsonpath.render(jsonpath.parse_template(output.removeprefix("jsonpath=")), content)
        click.echo("\n".join(map(printable, text.split("\n"))), nl=False)
        return
    if output == "json":
        click.echo(exact_json.dumps(content, indent=_JSON_INDENT))
    else:
        click.echo(yaml_of(content), nl=False)


def yaml_of(content: Any) -> str:
    """Return one YAML document."""
    from etcdkeep.objects import yaml_text

    return yaml_text.dumps(content)


def _print_json_list(objects: Iterable[dict[str, Any]]) -> None:
    inner = "\n" + " " * 2 * _JSON_INDENT
    click.echo('{\n    "apiVersion": "v1",\n    "items": [', nl=False)
    separator = inner
    for content in objects:
        click.echo(separator + exact_json.dumps(content, indent=_JSON_INDENT).replace("\n", inner), nl=False)
        separator = "," + inner
    end = "]" if separator == inner else "\n    ]"
    click.echo(end + ',\n    "kind": "List",\n    "metadata": {\n        "resourceVersion": ""\n    }\n}')


def _print_yaml_list(objects: Iterable[dict[str, Any]]) -> None:
    start = "apiVersion: v1\nitems:"
    for content in objects:
        click.echo(f"{start}\n- " + yaml_of(content).rstrip("\n").replace("\n", "\n  "), nl=False)
        start = ""
    click.echo(f"{start} []" if start else "")
    click.echo('kind: List\nmetadata:\n  resourceVersion: ""')


def print_lines(lines: Iterable[str]) -> None:
    """Print lines as they come, so that a terminal shows them and does not obey them."""
    for block in _blocks(lines):
        if not "".join(block).isprintable():
            block = [printable(line) for line in block]
        click.echo("\n".join(map(str.rstrip, block)))


def _width(column: Sequence[Any]) -> int:
    return len(str(max(column))) if isinstance(column[0], int) else max(map(len, column))


def _blocks(found: Iterable[Item]) -> Iterator[list[Item]]:
    waiting = iter(found)
    while block := list(islice(waiting, _LINES_AT_ONCE)):
        yield block
