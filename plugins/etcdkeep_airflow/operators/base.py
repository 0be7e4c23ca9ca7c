"""What every operator of etcdkeep shares: the cluster it works on, the run's names, and which errors are worth a retry."""

from __future__ import annotations

import gc
import os
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator, ExceptionRetryPolicy, Param, RetryAction, RetryRule, get_parsing_context

from etcdkeep import naming
from etcdkeep.config.loading import load_cluster, load_config
from etcdkeep.config.models import Limits
from etcdkeep.copies.fallback import LOST
from etcdkeep.errors import PermanentError, RecordRefused, RequestRefused, TransientError
from etcdkeep.records import CLOCK_SKEW

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from airflow.sdk import Context

    from etcdkeep.config.models import Cluster
    from etcdkeep.records import Body, Kind
    from etcdkeep.site.site import Site

SIGNED = "signed"
"""Of an XCom value, the field with the signed record."""


def clusters_with(dag_prefix: str) -> Iterator[Cluster]:
    """
    Yield the clusters whose DAGs are made here: all, or that of the one DAG whose task starts in this process.

    The garbage collector rests meanwhile: of a thousand DAGs nothing is garbage, and looking for it takes a quarter of the parse.
    """
    wanted = get_parsing_context().dag_id
    collects = gc.isenabled()
    gc.disable()
    try:
        if wanted is None:
            yield from load_config().clusters.values()
        elif wanted.startswith(dag_prefix):
            yield load_cluster(wanted.removeprefix(dag_prefix))
    finally:
        if collects:
            gc.enable()


def longest_task(clusters: Iterable[Cluster]) -> timedelta:
    """Return the ``limits.task_s`` of a DAG whose cluster is chosen in its form: a task's limit cannot depend on that."""
    return timedelta(seconds=max((cluster.limits.task_s for cluster in clusters), default=Limits().task_s))


def by_verify_queue(clusters: Iterable[Cluster]) -> dict[str | None, list[Cluster]]:
    """
    Return clusters by the queue of their tasks that need the age identity.

    A DAG whose cluster is chosen in its form is made once for each queue: a task's queue cannot depend on a form.
    """
    found: dict[str | None, list[Cluster]] = {}
    for cluster in clusters:
        found.setdefault(cluster.verify_queue or cluster.queue, []).append(cluster)
    return found


def on_queue(name: str, queue: str | None) -> str:
    """Return the name of a DAG or task of a queue; that of the default queue has no suffix."""
    return f"{name}__{queue}" if queue else name


POD_TEMPLATES = "ETCDKEEP_POD_TEMPLATES"
"""Variable of the DAG processor: folder on the scheduler with a pod template for each queue."""


def placed_on(queue: str | None, pool: str | None = None, executor: str | None = None) -> dict[str, Any]:
    """
    Return what brings a task to the workers of a queue, when a pool has room.

    CeleryExecutor goes by the queue. KubernetesExecutor knows none: there the queue chooses the pod template, and with it the keys
    that are mounted.
    """
    folder = os.environ.get(POD_TEMPLATES)
    template = {"pod_template_file": f"{folder}/{queue}.yaml"} if folder and queue else None
    chosen = {"queue": queue, "executor_config": template, "pool": pool, "executor": executor}
    return {name: value for name, value in chosen.items() if value}


def placed(cluster: Cluster) -> dict[str, Any]:
    """Return where a cluster's tasks run that read the cluster."""
    return placed_on(cluster.queue, cluster.pool, cluster.executor)


def placed_with_keys(cluster: Cluster) -> dict[str, Any]:
    """Return where a cluster's tasks run that read whole backups."""
    return placed_on(cluster.verify_queue or cluster.queue, cluster.verify_pool or cluster.pool, cluster.executor)


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


def at_repository(site: Site, repository: str) -> Site:
    """
    Return the site, with the repository that a form names in place of its own.

    :raises ConfigError: when that is none of the cluster's.
    """
    if repository:
        site.use(repository)
    return site


@contextmanager
def naming_copies(cluster: Cluster, repository: str) -> Iterator[None]:
    """Add to an error about a set that cannot be had where copies of it are: a person chooses, not a task by itself."""
    try:
        yield
    except LOST as err:
        if repository or not cluster.copies:
            raise
        copies = ", ".join(copy.repository for copy in cluster.copies)
        raise type(err)(
            f"{err} Copies of the backups are in {copies}: start again with one of them in the field `repository`."
        ) from err


def repository_param(clusters: Iterable[Cluster]) -> dict[str, Param]:
    """Return the field of a form that chooses a repository; one that clusters without copies need not see is left out."""
    found = list(clusters)
    if not any(cluster.copies for cluster in found):
        return {}
    urls = dict.fromkeys(url for each in found for url in (each.repository, *(copy.repository for copy in each.copies)))
    text = "Where the backup is read from: the cluster's own repository, or a copy. Empty: its own one."
    return {
        "repository": Param("", type=["string", "null"], enum=["", *urls, None], title="Repository", description=text)
    }


class ClusterOperator(BaseOperator):
    """
    An operator that works on one configured cluster.

    :param cluster: Its name in the configuration.
    :param repository: One of its repositories, its own or a copy; empty for its own.
    """

    template_fields: Sequence[str] = ("cluster", "repository")

    def __init__(self, *, cluster: str, repository: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.cluster = cluster
        self.repository = repository

    @cached_property
    def site(self) -> Site:
        """The cluster with its clients; first used in ``execute``."""
        from etcdkeep_airflow.hooks import open_site  # the clients take seconds to import: not at every parse

        return at_repository(open_site(self.cluster), self.repository)

    def backup_id(self, context: Context) -> str:
        """Return the id of the set that this run makes, the same in every try."""
        return run_backup_id(self.cluster, context)


def run_backup_id(cluster: str, context: Context) -> str:
    """
    Return the id that a run's set or recovery of a cluster has, the same in every try.

    :raises RequestRefused: when the run is of the future: its set would hide all that are taken before then.
    """
    dag_run = context["dag_run"]
    when: datetime = dag_run.logical_date or dag_run.run_after
    if when > datetime.now(UTC) + CLOCK_SKEW:
        raise RequestRefused(
            f"run {dag_run.run_id!r} has the logical date {when:%Y-%m-%d %H:%M} UTC, which is in the future. Nothing was done. Trigger a run "
            "without a logical date; if this one has none, correct the worker's clock."
        )
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
