"""``$(VAR)`` and ``fieldRef`` as a kubelet resolves them when it starts a container."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lab.layout import Node


def environment(spec: Mapping[str, Any], pod: Mapping[str, Any], node: Node) -> dict[str, str]:
    """Return the variables that a container's `spec` sets; one may use those before it."""
    env: dict[str, str] = {}
    for item in spec.get("env", ()):
        reference = item.get("valueFrom", {}).get("fieldRef")
        env[item["name"]] = (
            _field(reference["fieldPath"], pod, node) if reference else expand(item.get("value", ""), env)
        )
    return env


def expand(text: str, env: Mapping[str, str]) -> str:
    """Return `text` with references replaced: ``$$`` is a dollar, and what nothing defines stays."""
    return re.sub(r"\$\$|\$\(([^()]+)\)", lambda found: "$" if found[1] is None else env.get(found[1], found[0]), text)


def _field(path: str, pod: Mapping[str, Any], node: Node) -> str:
    meta = pod["metadata"]
    fields = {
        "metadata.name": meta["name"],
        "metadata.namespace": meta["namespace"],
        "metadata.uid": meta["uid"],
        "spec.nodeName": node.name,
    }
    addresses = dict.fromkeys(("status.podIP", "status.podIPs", "status.hostIP", "status.hostIPs"), node.address)
    return str((fields | addresses)[path])
