"""Makes a cluster's database big, for tests and benchmarks that need bytes rather than objects."""

from __future__ import annotations

import base64
import json
import os
import ssl
import urllib.parse
from http import HTTPStatus
from http.client import HTTPSConnection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

OBJECT_BYTES = 512 * 1024
"""Below etcd's limit of 1.5 MiB for one request."""


def fill_with_configmaps(endpoint: str, tls: tuple[Path, Path, Path], namespace: str, size_bytes: int) -> None:
    """
    Write ConfigMaps of random text until `size_bytes` are in.

    They are there for the API as well, though their namespace is not made.
    """
    ca, cert, key = tls
    context = ssl.create_default_context(cafile=str(ca))
    context.load_cert_chain(cert, key)
    address = urllib.parse.urlsplit(endpoint)
    connection = HTTPSConnection(address.hostname or "", address.port, context=context, timeout=60)
    for number in range(max(1, size_bytes // OBJECT_BYTES)):
        name = f"bulk-{number:06}"
        stored = {
            "kind": "ConfigMap",
            "apiVersion": "v1",
            "metadata": {"name": name, "namespace": namespace, "uid": f"00000000-0000-4000-8000-{number:012}"},
            "data": {"noise": base64.b64encode(os.urandom(OBJECT_BYTES * 3 // 4)).decode()},
        }
        body = {"key": _b64(f"/registry/configmaps/{namespace}/{name}"), "value": _b64(json.dumps(stored))}
        connection.request("POST", "/v3/kv/put", json.dumps(body))
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != HTTPStatus.OK:
            raise OSError(f"{endpoint} answered {answer.status} to a put of {name}: {text.decode(errors='replace')}")
    connection.close()


def _b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
