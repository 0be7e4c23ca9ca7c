"""Differences that may be shown: of a Secret, which keys differ, and never their values."""

from __future__ import annotations

from difflib import unified_diff
from typing import TYPE_CHECKING, Any

from etcdkeep.objects import yaml_text
from etcdkeep.objects.decoding import exact_json
from etcdkeep.recover.plan import state_of

if TYPE_CHECKING:
    from collections.abc import Iterator

_REPEATS_THE_OBJECT = "kubectl.kubernetes.io/last-applied-configuration"
_CONTEXT_LINES = 2


def shown_diff(live: dict[str, Any], result: dict[str, Any]) -> str:
    """Return what applying changes in a live object, as a unified diff of YAML."""
    before, after = _copy(state_of(live)), _copy(state_of(result))
    _hide(before["metadata"].get("annotations"), after["metadata"].get("annotations"), only=_REPEATS_THE_OBJECT)
    if live.get("kind") == "Secret":
        for field in ("data", "stringData"):
            _hide(before.get(field), after.get(field))
    old, new = (yaml_text.dumps(each).splitlines(keepends=True) for each in (before, after))
    return "".join(unified_diff(old, new, "live", "after", n=_CONTEXT_LINES))


def _copy(state: dict[str, Any]) -> dict[str, Any]:
    copied: dict[str, Any] = exact_json.loads(exact_json.dumps(state))
    return copied


def _hide(before: dict[str, Any] | None, after: dict[str, Any] | None, only: str = "") -> None:
    """Put words in the place of values, which still tell whether they differ."""
    old, new = before or {}, after or {}
    for name in [only] if only else old.keys() | new.keys():
        same = old.get(name) == new.get(name)
        for values, text in ((old, "live"), (new, "the backup's")):
            if name in values:
                values[name] = "(hidden)" if same else f"(hidden, {text})"


def only_in(live: Any, wanted: Any, path: str = "") -> Iterator[str]:
    """Yield the fields of a live object that a manifest does not speak of; lists are looked at as a whole."""
    ahead = [(live, wanted, path)]
    while ahead:
        live, wanted, path = ahead.pop()
        if isinstance(live, dict) and isinstance(wanted, dict):
            for name, value in live.items():
                inner = f"{path}.{name}" if path else str(name)
                if name in wanted:
                    ahead.append((value, wanted[name], inner))
                else:
                    yield inner
