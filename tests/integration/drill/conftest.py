"""A set to drill, and the command line that drills it."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from lab.tools import etcd_folder
from tests.builders import age_pair, make_entry, make_file, signing_pair
from tests.drill_sets import publish_snapshot
from tests.integration.drill.helpers import save, usual

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def usual_snapshot(tmp_path_factory) -> Path:
    return save(tmp_path_factory.mktemp("usual"), usual)


@pytest.fixture
def found(tmp_path, usual_snapshot):
    return publish_snapshot(tmp_path / "repository", usual_snapshot)


@pytest.fixture
def command(tmp_path, found):
    """Return the call of ``etcdkeep drill`` and its environment; the set is in the configured repository."""
    (tmp_path / "work").mkdir()
    identity = tmp_path / "age.txt"
    identity.write_bytes(age_pair()[0])
    signing_key = tmp_path / "signing.pem"
    signing_key.write_bytes(signing_pair()[0])
    entry = make_entry(
        repository=f"file://{tmp_path}/repository",
        age_identity={"path": str(identity)},
        signing={"key": {"path": str(signing_key)}, "public_keys": [signing_pair()[1]]},
        kubeconfig={"path": "/nowhere"},
        drill={"work_dir": str(tmp_path / "work"), "etcd_dir": str(etcd_folder())},
    )
    (tmp_path / "clusters.yaml").write_text(make_file(entry))
    environment = {
        **os.environ,
        "ETCDKEEP_CONFIG": str(tmp_path / "clusters.yaml"),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    return (sys.executable, "-m", "etcdkeep", "drill"), environment
