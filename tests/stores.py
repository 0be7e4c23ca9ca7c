"""Stores to test against: a directory, a bucket on our strict stub, a bucket on the stock emulator."""

from __future__ import annotations

import subprocess
import time
from contextlib import contextmanager
from http.client import HTTPConnection
from socket import create_server
from typing import TYPE_CHECKING

from google.auth.credentials import AnonymousCredentials
from google.cloud import storage

from etcdkeep.adapters.stores.gcs import RETRY, GcsStore
from lab.tools import gcs_emulator
from tests.gcs_stub import BUCKET

if TYPE_CHECKING:
    from collections.abc import Iterator

CHUNK_BYTES = 256 * 2**10
"""The least that GCS takes, so that small objects already have several chunks."""

QUICK_RETRY = RETRY.with_delay(initial=0.01, maximum=0.02).with_timeout(0.5)


def bucket_store(url: str, prefix: str = "", bucket: str = BUCKET, chunk_bytes: int = CHUNK_BYTES) -> GcsStore:
    """Return a store on a bucket server at `url`, with little patience."""
    client = storage.Client(project=None, credentials=AnonymousCredentials(), client_options={"api_endpoint": url})
    return GcsStore(client, bucket, prefix, retry=QUICK_RETRY, chunk_bytes=chunk_bytes)


@contextmanager
def running_emulator() -> Iterator[str]:
    """Run the stock emulator with one empty bucket, and give its address. It ignores most preconditions."""
    with create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    argv = (
        gcs_emulator(),
        "-scheme",
        "http",
        "-host",
        "127.0.0.1",
        "-port",
        str(port),
        "-backend",
        "memory",
        "-log-level",
        "error",
    )
    # Not a pipe: nobody would drain it, and the emulator would stop when it is full.
    process = subprocess.Popen(
        (*argv, "-external-url", f"http://127.0.0.1:{port}"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _make_bucket(port, process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def _make_bucket(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while True:
        connection = HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("POST", "/storage/v1/b?project=test", f'{{"name": "{BUCKET}"}}')
            status = connection.getresponse().status
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            if status != 200:
                raise RuntimeError(f"the emulator made no bucket: {status}")
            return
        finally:
            connection.close()
