"""The lab's admin cluster with so much in its etcd, and a configuration whose repository is a directory beside it."""

from __future__ import annotations

import hashlib
import http.client
import json
import random
import ssl
from base64 import b64encode
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import yaml

from etcdkeep.config.loading import parse_config
from lab.site import ClusterHandle, Lab

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from etcdkeep.config.models import Cluster
    from lab.site import Site as LabSite

OBJECT_BYTES = 16 * 1024
OBJECTS_PER_TRANSACTION = 32
PREFIX = "/bench/"


@contextmanager
def filled_lab(folder: Path, harbor_mib: int = 0) -> Iterator[LabSite]:
    """
    Run a lab in `folder`, `harbor` with at least so much data.

    The filled lab is kept from one benchmark to the next; it is stopped in the end unless it ran before.
    """
    with Lab(folder / f"lab-{harbor_mib}") as site:
        _fill(site.clusters["harbor"], harbor_mib)
        yield site


def cluster_with(lab: LabSite, name: str, **settings: object) -> Cluster:
    """Return a cluster of the lab's configuration with some settings of our own."""
    document = yaml.safe_load(lab.config.read_text())
    for entry in document["clusters"]:
        if entry["name"] == name:
            entry.update(settings)
    return parse_config(yaml.safe_dump(document), str(lab.config)).cluster(name)


def _fill(harbor: ClusterHandle, size_mib: int) -> None:
    connection = _connect(harbor)
    span = {"key": _text(PREFIX.encode()), "range_end": _text(PREFIX[:-1].encode() + b"0")}
    there = int(_call(connection, "kv/range", {**span, "count_only": True}).get("count", 0))
    wanted = size_mib * 2**20 // OBJECT_BYTES
    for first in range(there, wanted, OBJECTS_PER_TRANSACTION):
        puts = [
            {"request_put": {"key": _text(f"{PREFIX}{number:09d}".encode()), "value": _text(_object(number))}}
            for number in range(first, min(first + OBJECTS_PER_TRANSACTION, wanted))
        ]
        _call(connection, "kv/txn", {"success": puts})


def _object(number: int) -> bytes:
    """Return a value that compresses about as a control plane's data do: the same fields over and over, other ids in them."""
    chance = random.Random(number)
    lines = []
    size = 0
    while size < OBJECT_BYTES:
        uid = hashlib.sha256(chance.randbytes(8)).hexdigest()
        lines.append(
            f'{{"metadata":{{"name":"web-{uid[:10]}","namespace":"shop-{chance.randrange(400)}","uid":"{uid[10:42]}","resourceVersion":'
            f'"{chance.randrange(10**7)}","labels":{{"app.kubernetes.io/name":"web","pod-template-hash":"{uid[42:52]}"}}}},"spec":'
            f'{{"nodeName":"worker-{chance.randrange(60)}","containers":[{{"name":"web","image":"registry.example.net/shop/web","ports":'
            f'[{{"containerPort":8080,"protocol":"TCP"}}],"resources":{{"requests":{{"cpu":"100m","memory":"128Mi"}}}}}}]}}}}'
        )
        size += len(lines[-1])
    return "".join(lines).encode()[:OBJECT_BYTES]


def _connect(harbor: ClusterHandle) -> http.client.HTTPSConnection:
    authority, certificate, key = harbor.etcd_tls
    context = ssl.create_default_context(cafile=authority)
    context.load_cert_chain(certificate, key)
    where = urlsplit(harbor.etcd_endpoints[0])
    return http.client.HTTPSConnection(str(where.hostname), where.port, context=context, timeout=60)


def _call(connection: http.client.HTTPSConnection, path: str, body: dict[str, object]) -> dict[str, object]:
    connection.request("POST", f"/v3/{path}", json.dumps(body))
    response = connection.getresponse()
    answer: dict[str, object] = json.loads(response.read())
    if response.status != 200:
        raise RuntimeError(f"etcd {path}: {response.status} {str(answer)[:300]}")
    return answer


def _text(data: bytes) -> str:
    return b64encode(data).decode()
