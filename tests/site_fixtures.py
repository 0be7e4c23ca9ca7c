"""Fixtures of a site made of fakes, for the conftest of each tier that wants them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.builders import make_cluster, make_database
from tests.fake_site import FakeSite, write_node
from tests.fakes import make_members

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(scope="session")
def database() -> bytes:
    """A small snapshot at revision 8."""
    return make_database()


@pytest.fixture
def make_site(tmp_path: Path, database: bytes) -> Callable[..., FakeSite]:
    """Build a kubeadm site with that many members; other arguments are settings of the cluster."""

    def make(count: int = 1, **overrides: object) -> FakeSite:
        layout = {**write_node(tmp_path), **overrides.pop("control_plane", {})}
        cluster = make_cluster(control_plane=layout, **overrides)
        return FakeSite(tmp_path, cluster, *make_members(count, database))

    return make


@pytest.fixture
def site(make_site: Callable[..., FakeSite]) -> FakeSite:
    """A kubeadm site with one member."""
    return make_site()
