"""
JSON that comes out as it went in: numbers keep the text they were written with.

Values that the API server stores without looking inside (a ControllerRevision's data, a driver's parameters) are
served byte for byte, ``1.50`` and ``1E+2`` included; a float would give ``1.5`` and ``100.0``.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_quote = json.encoder.encode_basestring_ascii


class ExactNumber(float):
    """
    A number whose text says more than its value.

    :ivar text: The number as it was written.
    """

    text: str

    def __new__(cls, text: str) -> ExactNumber:
        number = super().__new__(cls, text)
        number.text = text
        return number

    def __reduce__(self) -> tuple[type[ExactNumber], tuple[str]]:
        return ExactNumber, (self.text,)


def loads(data: str | bytes) -> Any:
    """
    Parse JSON.

    :raises ValueError: when it is none, or nested deeper than Python's recursion limit.
    """
    try:
        return json.loads(data, parse_float=_number, parse_int=_integer, parse_constant=_refuse)
    except RecursionError as err:
        raise ValueError("it is nested too deeply") from err


def dumps(value: Any, *, indent: int | None = None) -> str:
    """
    Write JSON, pure ASCII; the opposite of :func:`loads`.

    :param indent: Spaces per level; None for one line without spaces.
    """
    return "".join(_write(value, "" if indent is None else "\n", indent or 0))


def _number(text: str) -> float:
    number = float(text)
    return number if repr(number) == text else ExactNumber(text)


def _integer(text: str) -> int | float:
    # A JSON number has no length limit, Python's int() does, and it has no -0.
    return ExactNumber(text) if text == "-0" or len(text) > 400 else int(text)


def _refuse(text: str) -> Any:
    raise ValueError(f"{text} is no JSON number")


def _write(value: Any, newline: str, indent: int) -> Iterator[str]:
    if isinstance(value, ExactNumber):
        yield value.text
    elif isinstance(value, dict):
        entries = ((_quote(key) + (": " if newline else ":"), entry) for key, entry in value.items())
        yield from _write_all("{}", entries, newline, indent)
    elif isinstance(value, list | tuple):
        yield from _write_all("[]", (("", entry) for entry in value), newline, indent)
    elif isinstance(value, str):
        yield _quote(value)
    else:
        yield json.dumps(value)


def _write_all(brackets: str, entries: Iterator[tuple[str, Any]], newline: str, indent: int) -> Iterator[str]:
    inner = newline and newline + " " * indent
    separator = brackets[0] + inner
    for label, entry in entries:
        yield separator + label
        yield from _write(entry, inner, indent)
        separator = "," + inner
    if separator[0] == brackets[0]:
        yield brackets
    else:
        yield newline + brackets[1]
