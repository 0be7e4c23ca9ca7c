"""What every operator of etcdkeep shares: the cluster it works on, the run's names, and which errors are worth a retry."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator, ExceptionRetryPolicy, RetryAction, RetryRule

from etcdkeep import naming
from etcdkeep.errors import PermanentError, TransientError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context

    from etcdkeep.adapters.site import Site

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
        dag_run = context["dag_run"]
        when: datetime = dag_run.logical_date or dag_run.run_after
        return naming.backup_id(self.cluster, when, dag_run.run_id)


class BackupOperator(ClusterOperator):
    """One step of a backup."""

    ui_color = BACKUP_COLOR
