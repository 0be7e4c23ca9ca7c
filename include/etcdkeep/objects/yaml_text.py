"""
Objects as YAML that every reader takes for the same values, Go's and Python's: what looks like a number, a date or a
boolean to either of them is quoted, and numbers keep the text they were stored with.
"""

from __future__ import annotations

import re
import sys
from typing import Any

import yaml

from etcdkeep.objects.decoding.exact_json import ExactNumber

_FLOAT, _INTEGER, _TEXT = (f"tag:yaml.org,2002:{name}" for name in ("float", "int", "str"))
_PLAIN = re.compile(r"[A-Za-z/][\w./ @%+=-]*[\w/]|[A-MO-XZa-mo-xz]")
_BLOCK = re.compile(r"\S.*\n.*(?<!\n\n)", re.DOTALL)
_JSON_FLOAT = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?$")


_SURROGATE = re.compile("[\ud800-\udfff]")
_DIRECTION = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""What makes a terminal show text in another order than it is in; written as an escape."""
_RECURSION_LIMIT = 200_000


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_text(self, text: str) -> yaml.ScalarNode:
        if not text.isascii():
            text = _SURROGATE.sub("\ufffd", text)  # kubectl refuses it, written in whatever way
        is_shown = text.replace("\n", "").isprintable()
        if is_shown and _BLOCK.fullmatch(text) and " \n" not in text:
            return self.represent_scalar(_TEXT, text, "|")
        return self.represent_scalar(_TEXT, text, None if _PLAIN.fullmatch(text) else '"')

    def write_double_quoted(self, text: str, split: bool = True) -> None:
        """Spell out what a terminal would obey, such as a change of the direction of reading, which YAML allows raw."""
        self.allow_unicode = text.replace("\n", "").isprintable()
        super().write_double_quoted(text, split)
        self.allow_unicode = True

    def represent_exact(self, number: ExactNumber) -> yaml.ScalarNode:
        is_integer = number.text.lstrip("-").isdecimal()
        return self.represent_scalar(_INTEGER if is_integer else _FLOAT, number.text)


_Dumper.add_representer(str, _Dumper.represent_text)
_Dumper.add_representer(ExactNumber, _Dumper.represent_exact)
_Dumper.add_implicit_resolver(_FLOAT, _JSON_FLOAT, list("-0123456789"))


def dumps(value: Any) -> str:
    """Write one YAML document, keys sorted as kubectl sorts them, without a leading ``---``."""
    limit = sys.getrecursionlimit()
    # PyYAML recurses a few times a level, in Python alone: that takes memory and no stack.
    sys.setrecursionlimit(max(limit, _RECURSION_LIMIT))
    try:
        text: str = yaml.dump(
            value, Dumper=_Dumper, sort_keys=True, allow_unicode=True, width=1 << 20, default_flow_style=False
        )
    finally:
        sys.setrecursionlimit(limit)
    return text if text.isascii() else _DIRECTION.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
