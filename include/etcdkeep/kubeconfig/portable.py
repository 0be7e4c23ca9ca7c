"""A kubeconfig that works on another machine: one context, with every file that it names embedded."""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING, Any

import yaml

from etcdkeep.kubeconfig.reading import KubeAccess, read_access, read_token, select_context

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from etcdkeep.kubeconfig.fields import Material


def embed_files(
    content: Mapping[str, Any], context: str | None, folder: Path | None, read: Callable[[Path, str], bytes]
) -> bytes:
    """
    Return a kubeconfig with one context only, which names no file.

    An exec plugin stays what it is: a program that must be on the machine.

    :param read: Returns a file's bytes; its second argument says where the file is named, for messages.
    :raises KubeconfigProblem: when the kubeconfig cannot be used.
    """
    access = read_access(content, context, folder)
    _, cluster, user = select_context(content, context)
    portable_cluster = dict(cluster.fields)
    _embed(portable_cluster, "certificate-authority", access.authority, read)
    portable_user = dict(user.fields)
    _embed(portable_user, "client-certificate", access.certificate, read)
    _embed(portable_user, "client-key", access.key, read)
    if access.token_file:
        what = f"tokenFile of {user.where}"
        portable_user["token"] = read_token(read(access.token_file, what).decode(errors="replace"), what)
        del portable_user["tokenFile"]
    elif access.token:
        portable_user["token"] = access.token
    if access.plugin:
        portable_user["exec"] = {**portable_user["exec"], "command": access.plugin.command}
    return _dump(content, access, portable_cluster, portable_user)


def _dump(content: Mapping[str, Any], access: KubeAccess, cluster: dict[str, Any], user: dict[str, Any]) -> bytes:
    chosen = next(each for each in content["contexts"] if each["name"] == access.context)["context"]
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": access.context,
        "contexts": [{"name": access.context, "context": chosen}],
        "clusters": [{"name": chosen["cluster"], "cluster": cluster}],
        "users": [{"name": chosen["user"], "user": user}],
    }
    return yaml.safe_dump(document, sort_keys=False).encode()


def _embed(fields: dict[str, Any], name: str, material: Material | None, read: Callable[[Path, str], bytes]) -> None:
    """Put a file's content in place of its path; what stood beside it and did not count is left out."""
    if material is None:
        return
    data = material.data if material.path is None else read(material.path, material.what)
    fields.pop(name, None)
    fields[f"{name}-data"] = b64encode(data or b"").decode()
