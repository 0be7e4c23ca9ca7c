"""
Canaries: strings that only the secrets of a site hold. Whoever finds one elsewhere has found a leak.

The real bytes serve: each line of every private key and its base64, the keys inside kubeconfigs, the values of Secrets.
"""

from __future__ import annotations

import base64
import os
import re
import threading
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from lab.samples import SECRET_CANARY

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lab import Site

PRIVATE = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----\n(.*?)-----END", re.DOTALL)
KUBECONFIG = re.compile(rb"""kind"?: "?Config\b""")
LONG_ENOUGH = 24
SAMPLE_EVERY_S = 0.02
LOOKS = 10
"""A process that has just been forked still shows its parent's command line."""


def canaries(site: Site) -> frozenset[bytes]:
    """Return every canary of a site."""
    folders = [node.root / "etc/kubernetes" for cluster in site.clusters.values() for node in cluster.nodes]
    files = [path for folder in (*folders, site.root / "skiff") for path in folder.rglob("*")]
    files += [cluster.kubeconfig for cluster in site.clusters.values()]
    files += (site.root / "keys").glob("*")
    found = {SECRET_CANARY.encode(), base64.b64encode(SECRET_CANARY.encode())}
    for path in filter(Path.is_file, files):
        if ".etcdkeep" in path.parts:  # what a restore set aside on the node: the same secrets, and archives of them
            continue
        found |= _of_file(path.read_bytes())
    return frozenset(found)


def _of_file(data: bytes) -> set[bytes]:
    found: set[bytes] = set()
    for pem in PRIVATE.findall(data):
        found |= {line.strip() for line in pem.splitlines() if len(line.strip()) >= LONG_ENOUGH}
    if b"AGE-SECRET-KEY-" in data:
        found |= {line for line in data.split() if line.startswith(b"AGE-SECRET-KEY-")}
    if KUBECONFIG.search(data):
        for user in yaml.safe_load(data)["users"]:
            for name in ("client-key-data", "token"):
                if name in user["user"]:
                    found |= {user["user"][name].encode()[:200], *_of_file(base64.b64decode(user["user"][name]))}
    for pem in PRIVATE.finditer(data):
        found.add(base64.b64encode(data[pem.start() : pem.end()])[60:160])
    return found


def leaks(data: bytes, wanted: Iterable[bytes]) -> list[bytes]:
    """Return the canaries that stand in `data`."""
    return [canary for canary in wanted if canary in data]


def leaks_in_files(folders: Iterable[Path], wanted: frozenset[bytes]) -> dict[str, list[bytes]]:
    """Return the files below `folders` that hold a canary, with the canaries."""
    found = {}
    for path in (path for folder in folders for path in folder.rglob("*") if path.is_file() and not path.is_symlink()):
        if held := leaks(path.read_bytes(), wanted):
            found[str(path)] = held
    return found


@dataclass
class ArgvWatch:
    """Collects the command line of every process on this machine while the block runs."""

    seen: set[bytes] = field(default_factory=set)
    _ended: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> ArgvWatch:
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self) -> None:
        looks: Counter[str] = Counter()
        while not self._ended.wait(SAMPLE_EVERY_S):
            running = set(filter(str.isdigit, os.listdir("/proc")))
            for entry in (pid for pid in running if looks[pid] < LOOKS):
                looks[entry] += 1
                with suppress(OSError):
                    self.seen.add(Path("/proc", entry, "cmdline").read_bytes())
            for gone in looks.keys() - running:
                del looks[gone]
