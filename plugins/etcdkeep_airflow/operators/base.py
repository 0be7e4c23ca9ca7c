"""What every operator of etcdkeep shares: the cluster it works on, the run's names, and which errors are worth a retry."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator, ExceptionRetryPolicy, RetryAction, RetryRule

from etcdkeep import naming
from etcdkeep.config import Limits
from etcdkeep.errors import PermanentError, RecordRefused, TransientError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from airflow.sdk import Context

    from etcdkeep.adapters.site import Site
    from etcdkeep.config import Cluster
    from etcdkeep.records import Body, Kind

SIGNED = "signed"
"""Of an XCom value, the field with the signed record."""


def longest_task(clusters: Iterable[Cluster]) -> timedelta:
    """Return the ``limits.task_s`` of a DAG whose cluster is chosen in its form: a task's limit cannot depend on that."""
    return timedelta(seconds=max((cluster.limits.task_s for cluster in clusters), default=Limits().task_s))


BACKUP_COLOR = "#cfe8d5"
VERIFY_COLOR = "#d6e4f5"
CLEANUP_COLOR = "#eeeeee"
RESTORE_COLOR = "#f2cfc9"

RETRIES = ExceptionRetryPolicy(
    rules=[
        RetryRule(
            exception=PermanentError, action=RetryAction.FAIL, reason="same inputs, same failure: a person has to look"
        ),
        RetryRule(
            exception=TransientError,
            action=RetryAction.RETRY,
            retry_delay=timedelta(seconds=30),
            reason="a node, the network or the store misbehaved",
        ),
    ]
)


def filled_in(context: Context) -> dict[str, Any]:
    """Return the params that have a value: a field that was typed into and emptied again comes as null."""
    return {name: value for name, value in context["params"].items() if value is not None}


class ClusterOperator(BaseOperator):
    """
    An operator that works on one configured cluster.

    :param cluster: Its name in the configuration.
    """

    template_fields: Sequence[str] = ("cluster",)

    def __init__(self, *, cluster: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.cluster = cluster

    @cached_property
    def site(self) -> Site:
        """The cluster with its clients; first used in ``execute``."""
        from etcdkeep_airflow.hooks import open_site  # the clients take seconds to import: not at every parse

        return open_site(self.cluster)

    def backup_id(self, context: Context) -> str:
        """Return the id of the set that this run makes, the same in every try."""
        return run_backup_id(self.cluster, context)


def run_backup_id(cluster: str, context: Context) -> str:
    """Return the id that a run's set or recovery of a cluster has, the same in every try."""
    dag_run = context["dag_run"]
    when: datetime = dag_run.logical_date or dag_run.run_after
    return naming.backup_id(cluster, when, dag_run.run_id)


class BackupOperator(ClusterOperator):
    """
    One step of a backup.

    Steps hand documents on by XCom, which others can edit: so they are signed, and believed only by their signature.
    """

    ui_color = BACKUP_COLOR

    def hand_over(self, context: Context, kind: Kind[Body], document: Body) -> dict[str, Any]:
        """Return a document for XCom: its fields for people to read, and the signed record that the next step believes."""
        records, at = self.site.repository.records, context["dag_run"].run_after  # so that a retry hands over the same
        text = records.write_text(kind, self.cluster, self.backup_id(context), document, at)
        return {**document.model_dump(mode="json"), SIGNED: text}

    def receive(self, context: Context, kind: Kind[Body], value: Any) -> Body:
        """
        Return the document that an earlier step of this run handed over.

        :raises RecordRefused: when it is not signed by us, or is of another run.
        """
        text = value.get(SIGNED) if isinstance(value, dict) else None
        if not isinstance(text, str):
            raise RecordRefused(
                f"the {kind.name} of run {self.backup_id(context)!r} is missing: the step before was marked as done, or its XCom was edited. Clear "
                "it, so that it runs.",
                word="unsigned",
            )
        return self.site.repository.records.read_text(kind, text, self.cluster, self.backup_id(context)).body
