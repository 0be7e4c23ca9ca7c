"""Clusters of the lab that are restored through Airflow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from etcdkeep.acceptance.gated_run import ENDED_S, READING_S
from etcdkeep.acceptance.restore_run import DAG, RestoreRun
from lab.site import LabError
from lab.waiting import wait_for
from tests.integration.restore.lab_restore import SETTLED_S

if TYPE_CHECKING:
    from tests.integration.restore.lab_restore import Markers

__all__ = ["DAG", "ENDED_S", "READING_S", "RestoreRun", "Spoiled"]


@dataclass
class Spoiled:
    """A backed-up cluster whose objects were changed afterwards."""

    markers: Markers

    def shows(self, seen: tuple[str, bool]) -> bool:
        """Whether the cluster settles on this within a minute."""

        def looks() -> bool:
            try:
                return self.markers.seen() == seen
            except LabError:
                return False

        wait_for(looks, f"{self.markers.cluster.name} to show {seen}", SETTLED_S)
        return True

    def ruin(self) -> None:
        """Damage every member's database: etcd ends at each start, and the API is gone."""
        cluster = self.markers.cluster
        for member in cluster.members:
            member.ruin()
        wait_for(lambda: cluster.kubectl("get", "--raw=/readyz", check=False).returncode, "the API to be gone")
