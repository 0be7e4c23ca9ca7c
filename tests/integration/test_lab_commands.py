"""``python -m lab``: starts once, keeps what it made, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lab import Lab
from lab.layout import VIEW_FD
from lab.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator


def run(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "lab", *args], capture_output=True, text=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("own-lab")
    yield path
    Lab(path).down()


def test_a_site_of_its_own(folder: Path) -> None:
    """One story, since every start costs seconds: up, up again, down, up, crash, up, down."""
    first = run("up", "--dir", str(folder), "--detach")
    assert first.returncode == 0, first.stderr
    site = Lab(folder).wait()
    site.clusters["harbor"].kubectl("-n", "default", "create", "configmap", "kept")
    made = fingerprint(folder)
    pid = supervisor(folder)

    assert run("up", "--dir", str(folder), "--detach").returncode == 0
    assert supervisor(folder) == pid
    assert run("status", "--dir", str(folder)).stdout.splitlines()[0].endswith("ready")

    assert run("down", "--dir", str(folder)).returncode == 0
    assert processes(folder) == []
    assert run("status", "--dir", str(folder)).returncode == 3

    site = Lab(folder).up()
    assert fingerprint(folder) == made
    assert site.clusters["harbor"].kubectl("-n", "default", "get", "configmap", "kept").returncode == 0

    os.kill(supervisor(folder), signal.SIGKILL)
    wait_for(lambda: not Lab(folder).running, "the supervisor to be gone")
    assert processes(folder) != []
    Lab(folder).up()
    assert fingerprint(folder) == made
    Lab(folder).down()
    wait_for(lambda: processes(folder) == [], "everything to end", 5)


def fingerprint(folder: Path) -> dict[str, bytes]:
    """Return what must not change from start to start."""
    names = (
        "lab.json",
        "clusters.yaml",
        "keys/age.txt",
        "harbor/kubeconfig",
        "fleet/fleet-cp-1/etc/kubernetes/pki/ca.crt",
    )
    return {name: (folder / name).read_bytes() for name in names}


def supervisor(folder: Path) -> int:
    return int(json.loads((folder / "run/supervisor.pid").read_text())["pid"])


def processes(folder: Path) -> list[str]:
    """Return the command lines of all that runs in or for this site."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            view = os.readlink(entry / "fd" / str(VIEW_FD)) if (entry / "fd" / str(VIEW_FD)).is_symlink() else ""
        except (OSError, ValueError):
            continue
        if view.startswith(str(folder)) or any(str(folder).encode() in word for word in words):
            found.append(b" ".join(words).decode(errors="replace"))
    return found
