"""``python -m lab.api``: the process behind a ``kube-apiserver`` manifest; takes that program's own flags."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import ssl
from pathlib import Path

from aiohttp import web

from lab.api.defaults import now
from lab.api.registry import Registry
from lab.api.resources import BUILT_IN
from lab.api.sealing import can_read, sealing_keys
from lab.api.server import ApiServer
from lab.api.status import ApiError
from lab.api.store import Conflict, Store, StoreError
from lab.layout import Layout

NO_CHECK_TIME = 0x200000
"""OpenSSL's X509_V_FLAG_NO_CHECK_TIME: like the real one, this server answers an expired client with 401, not in TLS."""
NAMESPACES = ("default", "kube-node-lease", "kube-public", "kube-system")
COMPACT_EVERY_S = 300
LEASE_EVERY_S = 10


def parse_flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="kube-apiserver")
    for flag in (
        "advertise-address", "client-ca-file", "etcd-cafile", "etcd-certfile", "etcd-keyfile", "etcd-servers",
        "tls-cert-file", "tls-private-key-file",
    ):  # fmt: skip
        parser.add_argument(f"--{flag}", required=True)
    parser.add_argument("--secure-port", type=int, default=6443)
    parser.add_argument("--encryption-provider-config")
    return parser.parse_known_args()[0]


def server_tls(flags: argparse.Namespace) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=flags.client_ca_file)
    context.load_cert_chain(flags.tls_cert_file, flags.tls_private_key_file)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.verify_flags |= NO_CHECK_TIME
    return context


def etcd_tls(flags: argparse.Namespace) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=flags.etcd_cafile)
    context.load_cert_chain(flags.etcd_certfile, flags.etcd_keyfile)
    return context


async def main() -> None:
    flags = parse_flags()
    keys = sealing_keys(flags.encryption_provider_config)
    layout = Layout.load(Path(os.environ["LAB_DIR"]))
    store = Store(flags.etcd_servers.split(","), etcd_tls(flags))
    registry = Registry(store)
    address = f"{flags.advertise_address}:{flags.secure_port}"
    server = ApiServer(registry, layout, os.environ["LAB_CLUSTER"], address)
    runner = web.AppRunner(server.application(), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    site = web.TCPSite(runner, flags.advertise_address, flags.secure_port, ssl_context=server_tls(flags))
    await site.start()
    chores = asyncio.create_task(keep_house(server, flags.advertise_address, keys))
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
    chores.cancel()
    server.ready = False
    node = layout.clusters[os.environ["LAB_NODE"].partition("-")[0]].node(os.environ["LAB_NODE"])
    if node.api_ends_late.exists():
        await asyncio.Event().wait()
    await runner.cleanup()
    await store.close()


async def keep_house(server: ApiServer, address: str, keys: list[str]) -> None:
    """Make sure that the data can be read, make the system namespaces, renew the master lease, compact every five minutes."""
    registry = server.registry
    revision = 0
    elapsed = 0
    while True:
        with contextlib.suppress(StoreError, ApiError, Conflict):
            if not await can_read(registry.store, keys):
                print("error: no matching key was found for the provided AES transformer", flush=True)
                await asyncio.sleep(1)
                continue
            await make_namespaces(registry)
            server.ready = True
            await renew_master_lease(registry.store, address)
            if elapsed % COMPACT_EVERY_S == 0:
                if revision:
                    await registry.store.compact(revision)
                revision = await registry.store.revision()
            elapsed += LEASE_EVERY_S
            await asyncio.sleep(LEASE_EVERY_S)
            continue
        await asyncio.sleep(0.2)


async def make_namespaces(registry: Registry) -> None:
    namespaces = next(resource for resource in BUILT_IN if resource.kind == "Namespace")
    for name in NAMESPACES:
        if await registry.store.get(namespaces.key("", name)) is None:
            await registry.create(namespaces, "", {"metadata": {"name": name}}, manager="kube-apiserver")


async def renew_master_lease(store: Store, address: str) -> None:
    """Write the key by which API servers know each other; it holds no object that the API would list."""
    key = f"/registry/masterleases/{address}"
    item = await store.get(key)
    lease = {"kind": "Endpoints", "apiVersion": "v1", "metadata": {"creationTimestamp": None, "annotations": {"renewed": now()}},
             "subsets": [{"addresses": [{"ip": address}]}]}  # fmt: skip
    await store.put(key, json.dumps(lease).encode(), revision=item.revision if item else 0)


if __name__ == "__main__":
    asyncio.run(main())
