"""The lab for integration tests: one site a session, and no fault left set between tests."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from etcdkeep.backup.discover import Discovery
from etcdkeep.backup.handover import DISCOVERY
from tests.backup_run import BackupRun, copy_sets, write_config
from tests.labs import running_lab

if TYPE_CHECKING:
    from pathlib import Path

    from lab import Site

StartRun = Callable[..., BackupRun]


@pytest.fixture(scope="session")
def lab_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A running site."""
    with running_lab(tmp_path_factory) as site:
        yield site


@pytest.fixture
def site(lab_site: Site) -> Iterator[Site]:
    """The site, known to run before the test, with every fault cleared after it."""
    lab_site.check()
    yield lab_site
    lab_site.faults.clear()


class OlderRuns:
    """Finished runs, one per cluster, in a repository that no test touches; made when first asked for."""

    def __init__(self, site: Site, folder: Path) -> None:
        self.url = f"file://{folder}/repository"
        self._site = site
        self._config = folder / "clusters.yaml"
        self._runs: dict[str, BackupRun] = {}

    def __call__(self, cluster: str) -> BackupRun:
        if cluster not in self._runs:
            write_config(self._config, self._site, {"repository": self.url})
            with pytest.MonkeyPatch.context() as environment:
                environment.setenv("ETCDKEEP_CONFIG", str(self._config))
                self._runs[cluster] = BackupRun(self._site, cluster)
                self._runs[cluster].whole()
        return self._runs[cluster]


@pytest.fixture(scope="session")
def older_run(lab_site: Site, tmp_path_factory: pytest.TempPathFactory) -> OlderRuns:
    """Give a cluster's finished run."""
    return OlderRuns(lab_site, tmp_path_factory.mktemp("older"))


@pytest.fixture
def start_run(site: Site, older_run: OlderRuns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StartRun:
    """
    Begin a run of a cluster, in a repository of the test's own that holds an older good set.

    :param bucket: Whether the repository is a bucket's prefix instead of a directory.
    :param discovered: Whether the run starts after `discover`, with what it found.
    :param changes: Laid over the cluster's configuration.
    """

    def start(cluster: str, *, bucket: bool = False, discovered: bool = True, **changes: Any) -> BackupRun:
        repository = f"gs://{site.bucket}/{uuid.uuid4().hex}" if bucket else f"file://{tmp_path}/repository"
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", site.gcs_url)
        older = older_run(cluster)
        write_config(tmp_path / "clusters.yaml", site, {"repository": repository, **changes})
        monkeypatch.setenv("ETCDKEEP_CONFIG", str(tmp_path / "clusters.yaml"))
        copy_sets(older_run.url, repository, cluster)
        run = BackupRun(site, cluster)
        if discovered:
            run.hand_over("discover", DISCOVERY, Discovery.model_validate(older.outputs["discover"]))
        return run

    return start
