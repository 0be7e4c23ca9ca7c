"""DAG files as Airflow's processor reads them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from airflow.dag_processing.dagbag import DagBag

from etcdkeep.config.loading import CONFIG_VARIABLE
from tests.builders import make_entry, make_file

if TYPE_CHECKING:
    from collections.abc import Callable

DAGS = Path(__file__).parents[2] / "dags"


@pytest.fixture
def read_dags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., DagBag]:
    """Write a configuration, as entries or as text, and read one DAG file, or all, with it."""

    def read(*configuration: dict[str, object] | str, file: str = "") -> DagBag:
        config = tmp_path / "clusters.yaml"
        is_text = len(configuration) == 1 and isinstance(configuration[0], str)
        config.write_text(configuration[0] if is_text else make_file(*configuration))
        monkeypatch.setenv(CONFIG_VARIABLE, str(config))
        return DagBag(DAGS / file)

    return read


@pytest.fixture
def clusters() -> list[dict[str, object]]:
    """Entries of a cluster with one node, one without nodes inside it, and one with three."""
    return [
        make_entry(),
        make_entry(name="skiff", profile="gke-user-kubeception", kubeconfig=None, admin_cluster="harbor", schedule="@daily", tags=["prod"]),
        make_entry(name="fleet", profile="gke-user-controlplane-v2", queue="backup", verify_queue="restore", schedule="15 1 * * 1-5"),
    ]  # fmt: skip
