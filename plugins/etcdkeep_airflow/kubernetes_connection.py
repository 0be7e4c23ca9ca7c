"""
Reads an Airflow connection of type `kubernetes`: which kubeconfig it gives, and which context of it.

Airflow's own hook takes the worker's ``~/.kube/config`` when the extra is empty or a field is mistyped, and so talks to
another cluster. Here each field is known, and exactly one says where the kubeconfig is.
"""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from etcdkeep.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX = "extra__kubernetes__"
"""Airflow before 2.3 wrote it before every field."""

SOURCES = ("kube_config", "kube_config_path", "in_cluster")
OTHERS = (
    "cluster_context",
    "namespace",
    "disable_verify_ssl",
    "disable_tcp_keepalive",
    "xcom_sidecar_container_image",
    "xcom_sidecar_container_resources",
    "xcom_sidecar_container_security_context",
)
TRUE, FALSE = ("true", "1", "yes", "y", "t", "on"), ("false", "0", "no", "n", "f", "off", "")


@dataclass(frozen=True)
class KubernetesConnection:
    """
    What a connection says.

    :param text: The kubeconfig itself, or None.
    :param path: Its file, or None. With neither, it is the pod's own service account.
    """

    text: str | None = field(default=None, repr=False)
    path: str | None = None
    context: str | None = None


def read_connection(connection_id: str, extra: str | None) -> KubernetesConnection:
    """
    Read a connection's extra.

    :raises ConfigError: naming the field that is missing, unknown, or one too many.
    """
    fields = _fields(connection_id, extra)
    in_cluster = _flag(connection_id, fields, "in_cluster")
    if not in_cluster:
        fields.pop("in_cluster", None)
    if _flag(connection_id, fields, "disable_verify_ssl"):
        raise ConfigError(
            f"Airflow connection {connection_id!r} sets disable_verify_ssl, which is not supported. Set insecure-skip-tls-verify "
            "in its kubeconfig, and allow_insecure in the cluster's entry."
        )
    given = [name for name in SOURCES if name in fields]
    if len(given) != 1:
        found = " and ".join(given) if given else ", ".join(sorted(fields)) or "nothing"
        raise ConfigError(
            f"Airflow connection {connection_id!r} does not say which cluster it reaches: expected exactly one of the extra's "
            f"fields {', '.join(SOURCES)}, found {found}. Set it under Admin → Connections."
        )
    context = _text(connection_id, fields, "cluster_context")
    if in_cluster and context:
        raise ConfigError(
            f"Airflow connection {connection_id!r} has both in_cluster and cluster_context; a pod's own account has no "
            "contexts. Remove one."
        )
    text = fields.get("kube_config")
    if isinstance(text, dict):
        text = json.dumps(text)
    elif text is not None:
        text = _text(connection_id, fields, "kube_config")
    return KubernetesConnection(text, _text(connection_id, fields, "kube_config_path"), context)


def _fields(connection_id: str, extra: str | None) -> dict[str, Any]:
    """Return the fields that hold something; the form of Airflow's interface saves empty ones too."""
    try:
        parsed = json.loads(extra) if extra and extra.strip() else {}
    except (ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, dict):
        raise ConfigError(
            f"Airflow connection {connection_id!r}: its extra is not a JSON object. Correct it under Admin → Connections."
        )
    fields: dict[str, Any] = {}
    for full_name, value in parsed.items():
        name = full_name.removeprefix(PREFIX)
        if name not in (*SOURCES, *OTHERS):
            near = difflib.get_close_matches(name.lower(), (*SOURCES, *OTHERS), 1)
            raise ConfigError(
                f"Airflow connection {connection_id!r}: its extra has the unknown field {full_name!r}"
                + (f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join((*SOURCES, *OTHERS))}.")
            )
        if value in (None, "", {}) or (isinstance(value, str) and not value.strip()):
            continue
        if name in fields and fields[name] != value:
            raise ConfigError(
                f"Airflow connection {connection_id!r}: its extra gives {name!r} twice. Remove {PREFIX + name!r}."
            )
        fields[name] = value
    return fields


def _flag(connection_id: str, fields: Mapping[str, Any], name: str) -> bool:
    word = str(fields.get(name, False)).lower()
    if word not in (*TRUE, *FALSE):
        raise ConfigError(f"Airflow connection {connection_id!r}: {name} of its extra is neither true nor false.")
    return word in TRUE


def _text(connection_id: str, fields: Mapping[str, Any], name: str) -> str | None:
    value = fields.get(name)
    if value is not None and not isinstance(value, str):
        raise ConfigError(
            f"Airflow connection {connection_id!r}: {name} of its extra is of the wrong type; expected text."
        )
    return value
