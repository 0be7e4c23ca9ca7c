"""The lab for integration tests: one site a session, and no fault left set between tests."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from lab import Lab

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab import Site


@pytest.fixture(scope="session")
def lab_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A running site; LAB_DIR names one that runs already and is left running."""
    folder = os.environ.get("LAB_DIR") or tmp_path_factory.mktemp("lab")
    with Lab(folder) as site:
        yield site


@pytest.fixture
def site(lab_site: Site) -> Iterator[Site]:
    """The site, with every fault cleared after the test."""
    yield lab_site
    lab_site.faults.clear()
