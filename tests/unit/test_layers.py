"""The arrows of the design, seen in a fresh process."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import pytest

import etcdkeep

OUTER = ("etcdkeep.adapters", "etcdkeep.cli", "etcdkeep.__main__")
CLIENTS = (
    "airflow", "asyncssh", "boto3", "botocore", "google.cloud", "google.auth", "kubernetes", "paramiko", "prometheus_client", "requests", "websocket",
)  # fmt: skip


def modules() -> list[str]:
    """Return every module of the package."""
    return [found.name for found in pkgutil.walk_packages(etcdkeep.__path__, "etcdkeep.")]


def loaded_clients(names: list[str]) -> set[str]:
    """Import the modules in a fresh process and return which clients that loaded."""
    code = f"import sys\nfor name in {names!r}: __import__(name)\nprint(*(set({CLIENTS!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_the_pure_core_loads_no_client():
    pure = [name for name in modules() if not name.startswith(OUTER)]
    assert len(pure) > 40
    assert loaded_clients(pure) == set()


def test_the_command_line_starts_without_a_client():
    assert loaded_clients(["etcdkeep.cli", "etcdkeep.__main__", "etcdkeep.cli.object_set"]) == set()


@pytest.mark.parametrize("name", ["etcdkeep.adapters.kube.client", "etcdkeep.adapters.ssh.node"])
def test_the_adapters_load_their_own_and_never_airflow(name):
    found = loaded_clients([name])
    assert found
    assert "airflow" not in found
