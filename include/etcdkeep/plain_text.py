"""
Text that others wrote, made safe to show: on a terminal, in a log, in a form.

Names, reasons and problems come from clusters, nodes and stored documents. Shown raw, they could move a terminal's
cursor, set its title, turn the direction of reading, or begin a line that looks like one of ours. Nothing here is for
JSON: there such characters are escaped, and the text stays exact.
"""

from __future__ import annotations

import re
import unicodedata

LINE_CHARS = 4_000
"""What one line shows at most: a path, a digest and a sentence fit well."""
TEXT_CHARS = 400_000
NUMBER_LIMIT = 2**64
"""What etcd, Kubernetes and files count is below this."""
OUT_OF_RANGE = "out of range"
CUT = "…"

_SEQUENCE = re.compile(
    "(?:\x1b[\\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c\r\n]{0,4000}(?:\x07|\x1b\\\\|\x9c)"  # OSC, DCS, SOS, PM, APC
    "|(?:\x1b\\[|\x9b)[0-?]{0,100}[ -/]{0,100}[@-~]"  # CSI: colours, cursor
    "|\x1b[ -/]{0,10}[0-~]"  # the short ones
)
"""Sequences that a terminal obeys, whole. One that never ends is no sequence: its beginning goes, its text stays."""
_DROPPED = ("Cc", "Cf")
"""Controls; and what is invisible or turns the direction of reading."""
_LINE_END = re.compile("\r\n|[\r\x0b\x0c\x85\u2028\u2029]")
_LONG_NUMBER = re.compile(r"[0-9]{65,}")
"""Longer than any number that is meant; a SHA-256 has 64 digits."""
_MARKDOWN = "\\`*_~[]<>|#&"
_MARKS_A_BLOCK = re.compile(r"[-+=]|\d{1,9}(?=[.)])")


def one_line(text: object, limit: int = LINE_CHARS) -> str:
    """
    Return text as one line without anything that a terminal obeys; every kind of line end is a space.

    :param limit: Characters; what is longer is cut.
    """
    shown = _LONG_NUMBER.sub(_shortened, " ".join(_without_controls(_LINE_END.sub("\n", str(text))).split()))
    return shown if len(shown) <= limit else shown[:limit] + CUT


def lines(text: object, limit: int = TEXT_CHARS) -> str:
    """Return text of several lines without anything that a terminal obeys; its line breaks and indents stay."""
    shown = str(text)
    if not shown.isprintable():
        # Only a line break is one: what else might begin a line would let a name speak for us.
        shown = "\n".join(map(_without_controls, _LINE_END.sub(" ", shown.replace("\r\n", "\n")).split("\n")))
    shown = _LONG_NUMBER.sub(_shortened, shown)
    return shown if len(shown) <= limit else shown[:limit] + CUT


def number(value: int | None) -> str:
    """Return a number for people; one that cannot be a count of anything is not printed."""
    if value is None:
        return "-"
    return str(value) if abs(value) < NUMBER_LIMIT else OUT_OF_RANGE


def markdown(text: object, limit: int = LINE_CHARS) -> str:
    """Return text that Markdown shows as it is: one line, no mark-up, no table cell's end, no entity."""
    escaped = "".join(f"\\{letter}" if letter in _MARKDOWN else letter for letter in one_line(text, limit))
    return _MARKS_A_BLOCK.sub(_escape_mark, escaped, count=1) if _MARKS_A_BLOCK.match(escaped) else escaped


def markdown_code(text: object, limit: int = LINE_CHARS) -> str:
    """Return text as a Markdown code span, which no character of it can end; not for a table's cell."""
    shown = one_line(text, limit)
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", shown)), default=0))
    edge = " " if shown.startswith("`") or shown.endswith("`") else ""
    return f"{fence}{edge}{shown}{edge}{fence}"


def _escape_mark(found: re.Match[str]) -> str:
    mark = found[0]
    return f"\\{mark}" if not mark.isdecimal() else f"{mark}\\"


def _shortened(found: re.Match[str]) -> str:
    return f"{found[0][:20]}{CUT} ({len(found[0])} digits)"


def _without_controls(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(map(_shown, _SEQUENCE.sub("", text)))


def _shown(letter: str) -> str:
    if letter.isprintable():
        return letter
    kind = unicodedata.category(letter)
    if letter in "\t\n" or kind.startswith("Z"):
        return " "
    return "" if kind in _DROPPED else "\N{REPLACEMENT CHARACTER}"
