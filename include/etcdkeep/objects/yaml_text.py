"""
Objects as YAML that every reader takes for the same values, Go's and Python's: what looks like a number, a date or a
boolean to either of them is quoted, and numbers keep the text they were stored with.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from etcdkeep.objects.exact_json import ExactNumber

_FLOAT, _INTEGER, _TEXT = (f"tag:yaml.org,2002:{name}" for name in ("float", "int", "str"))
_PLAIN = re.compile(r"[A-Za-z/][\w./ @%+=-]*[\w/]|[A-MO-XZa-mo-xz]")
_BLOCK = re.compile(r"\S.*\n.*(?<!\n\n)", re.DOTALL)
_JSON_FLOAT = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?$")


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_text(self, text: str) -> yaml.ScalarNode:
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
    return yaml.dump(value, Dumper=_Dumper, sort_keys=True, allow_unicode=True, width=1 << 20, default_flow_style=False)
