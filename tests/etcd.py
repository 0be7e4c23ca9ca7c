"""
A real etcd for tests and benchmarks: one member on loopback, plain HTTP, gone with its data when the block ends.
"""

from __future__ import annotations

import base64
import http.client
import json
import subprocess
import time
from contextlib import ExitStack, contextmanager
from socket import create_server
from typing import TYPE_CHECKING, Any

from lab.tools import etcd_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path


def etcd_program(name: str) -> str:
    """Path of the real ``etcd``, ``etcdctl`` or ``etcdutl`` of the Python environment."""
    return str(etcd_folder() / name)


class Etcd:
    """A running member and the few calls that tests make."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self._http = http.client.HTTPConnection(endpoint.removeprefix("http://"), timeout=60)

    def ctl(self, *argv: str, stdin: str | None = None) -> str:
        """Run etcdctl and return its output."""
        command = (etcd_program("etcdctl"), "--endpoints", self.endpoint, *argv)
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            raise RuntimeError(f"{argv}: exit code {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def call(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """POST to the JSON gateway: ``call("kv/put", {...})``; bytes go as base64."""
        try:
            self._http.request("POST", f"/v3/{path}", json.dumps(body))
            response = self._http.getresponse()
            answer = json.loads(response.read())
        except BaseException:
            self._http.close()
            raise
        if response.status != 200:
            raise RuntimeError(f"{path}: {answer}")
        return dict(answer)

    def put(self, key: bytes, value: bytes, **fields: object) -> int:
        """Put one key; return the revision."""
        return int(self.call("kv/put", {"key": b64(key), "value": b64(value), **fields})["header"]["revision"])

    def delete(self, key: bytes) -> int:
        """Delete one key; return the revision."""
        return int(self.call("kv/deleterange", {"key": b64(key)})["header"]["revision"])

    def compact(self, revision: int) -> None:
        """Compact and wait until the records are gone."""
        self.call("kv/compaction", {"revision": revision, "physical": True})

    def put_all(self, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        """Put many keys in one transaction: one main revision, many sub revisions."""
        puts = [{"request_put": {"key": b64(key), "value": b64(value)}} for key, value in pairs]
        self.call("kv/txn", {"success": puts})

    def snapshot(self, target: Path) -> Path:
        """``etcdctl snapshot save``."""
        self.ctl("snapshot", "save", str(target))
        return target


def b64(data: bytes) -> str:
    """Bytes as the JSON gateway takes them."""
    return base64.b64encode(data).decode()


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on now."""
    with ExitStack() as sockets:
        return [sockets.enter_context(create_server(("127.0.0.1", 0))).getsockname()[1] for _ in range(count)]


@contextmanager
def running_etcd(data_dir: Path, *flags: str) -> Iterator[Etcd]:
    """
    Run one member with its data in `data_dir`.

    :raises RuntimeError: with the end of its log, when it does not serve within 20 seconds.
    """
    client, peer = (f"http://127.0.0.1:{port}" for port in free_ports(2))
    argv = (etcd_program("etcd"), "--data-dir", str(data_dir), "--unsafe-no-fsync", "--log-level", "error")
    argv += ("--listen-client-urls", client, "--advertise-client-urls", client)
    argv += ("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}")
    log = data_dir.with_name(data_dir.name + ".log")
    with log.open("wb") as stderr, subprocess.Popen((*argv, *flags), stdout=stderr, stderr=stderr) as process:
        try:
            etcd = Etcd(client)
            _wait_until_it_serves(etcd, process, log)
            yield etcd
        finally:
            process.terminate()


def _wait_until_it_serves(etcd: Etcd, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(400):
        if process.poll() is not None:
            break
        try:
            etcd.call("maintenance/status", {})
        except (OSError, RuntimeError):
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"etcd does not serve on {etcd.endpoint}: {log.read_text()[-500:]}")
