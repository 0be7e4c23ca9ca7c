"""What every command prints with: nothing that came from elsewhere reaches a terminal as a control."""

from __future__ import annotations

import logging

import click

from etcdkeep.plain_text import lines


def say(text: object = "", *, err: bool = False, nl: bool = True) -> None:
    """
    Print text for people.

    :param err: To standard error.
    :param nl: End it with a line break.
    """
    click.echo(lines(text), err=err, nl=nl)


class PlainFormatter(logging.Formatter):
    """Formats log records for a terminal, tracebacks included."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's text without anything that a terminal obeys."""
        return lines(super().format(record))


def printable(text: str) -> str:
    """Return the name of an object as a terminal shows it and does not obey it: exact, with escapes."""
    return text if text.isprintable() else text.encode("unicode_escape", "backslashreplace").decode()
