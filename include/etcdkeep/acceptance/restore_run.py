"""A restore through Airflow, driven as people do: the form by one, the answers by two others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from etcdkeep.acceptance.gated_run import GatedRun

if TYPE_CHECKING:
    from etcdkeep.acceptance.airflow import Airflow

DAG = "restore"
GATES = ("approve", "approve_second")


@dataclass
class RestoreRun(GatedRun):
    """One run of the DAG `restore`."""

    form: ClassVar[str] = DAG
    plans: ClassVar[str] = "preflight"

    @classmethod
    def start(cls, airflow: Airflow, cluster: str, **form: Any) -> RestoreRun:
        """Fill the form in as `admin`; dry run is off unless given."""
        conf = {"cluster": cluster, "confirm": cluster, "reason": "a test", "dry_run": False, **form}
        return cls(airflow, airflow.trigger(airflow.on_verify_queue(DAG), conf, user="admin", timeout_s=300))

    def approve(self, first: str = "alice", second: str = "bob") -> dict[str, Any]:
        """Have two people approve, and return what the first one was shown."""
        shown = self.answer("approve", first)
        self.answer("approve_second", second)
        return shown
