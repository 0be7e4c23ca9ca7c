"""One run of the restore DAG against a site of fakes, task by task, as Airflow would."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG

from etcdkeep.restore.record import RestoreRecord
from etcdkeep_airflow.operators.restore import (
    DockerEtcdRestoreOperator,
    FetchKubeconfigOperator,
    PreflightOperator,
    ResolveBackupOperator,
    RestoreApproval,
    RollbackOperator,
    StageOperator,
    SwapOperator,
    VerifyRestoreOperator,
    restore_name,
)
from tests.gate import approve
from tests.unit.restore.builders import PLANNED_AT

if TYPE_CHECKING:
    from tests.restore_site import RestoreSite

RUN = "manual__2026-11-23"
BACKUP = "20261120T023000Z-1f0c9a3e"
WALK = {
    "stage": StageOperator,
    "restore_etcd": DockerEtcdRestoreOperator,
    "swap": SwapOperator,
    "verify": VerifyRestoreOperator,
    "rollback": RollbackOperator,
    "fetch_kubeconfig": FetchKubeconfigOperator,
}
FORWARD = ("stage", "restore_etcd", "swap", "verify")
PEOPLE = {"approve": "alice", "approve_second": "bob"}
FORM = {"cluster": "prod", "confirm": "prod", "reason": "a test", "dry_run": False}


class Ran:
    """One run of the DAG against a site, task by task."""

    def __init__(self, site: RestoreSite, **form: Any) -> None:
        self.site = site
        self.params = FORM | form
        self.backups = 0
        self.pushed: dict[str, Any] = {}
        self.run_id = RUN

    @property
    def record(self) -> RestoreRecord:
        return RestoreRecord(self.site.repository.records, "prod", restore_name("prod", self.context()))

    def context(self) -> dict[str, Any]:
        ti = SimpleNamespace(
            xcom_push=lambda key, value: self.pushed.update({key: value}),
            get_dr_count=lambda dag_id, states: self.backups,
            map_index=-1,
        )
        task = SimpleNamespace(get_flat_relatives=lambda upstream: [EmptyOperator(task_id="approve")])
        dag_run = SimpleNamespace(
            run_id=self.run_id, dag_id="restore", run_after=PLANNED_AT, triggering_user_name="carol"
        )
        return {"run_id": self.run_id, "dag_run": dag_run, "ti": ti, "params": self.params, "task": task}

    def task(self, operator: Any, **arguments: Any) -> Any:
        with DAG(dag_id="restore", schedule=None):
            made = operator(task_id="task", cluster="prod", **arguments)
        return json.loads(json.dumps(made.execute(self.context())))

    def resolve(self) -> Any:
        return self.task(ResolveBackupOperator)

    def preflight(self) -> Any:
        return self.task(PreflightOperator, backup=BACKUP)

    def walk(self, *tasks: str) -> Any:
        return [self.task(WALK[name]) for name in tasks][-1]

    def gates(self, people: dict[str, str] = PEOPLE, **gate: Any) -> None:
        approve(RestoreApproval, "prod", self.context(), people, **gate)

    def approve(self) -> None:
        self.preflight()
        self.gates()
