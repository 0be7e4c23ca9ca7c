"""This machine as a node, and what is restored on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests import docker_engine
from tests.etcd import running_etcd
from tests.integration.restore.local_node import LocalNode, write_keys_archive

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def unsealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as ``unseal`` leaves it, of an etcd with one key."""
    folder = tmp_path_factory.mktemp("unsealed")
    with running_etcd(folder / "etcd") as etcd:
        etcd.put(b"/registry/configmaps/default/marker", b"as in the backup")
        etcd.snapshot(folder / "etcd.db")
    write_keys_archive(folder / "control-plane-cp-0.tar")
    return folder


@pytest.fixture
def node(tmp_path: Path) -> LocalNode:
    """A node that runs."""
    node = LocalNode(tmp_path / "node")
    node.root.mkdir()
    node.prepare()
    return node


@pytest.fixture(scope="session")
def etcd_util() -> Iterator[str]:
    """The id of `docker_engine.IMAGE`, which the real docker of this machine has while tests run."""
    missing = docker_engine.missing()
    if missing:
        pytest.skip(missing)
    with docker_engine.imported(docker_engine.IMAGE) as image_id:
        yield image_id
