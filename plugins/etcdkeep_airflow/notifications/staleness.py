"""The callback of `housekeeping`: whose backups are too old, unreadable or not kept, and whose are fresh again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from etcdkeep.config.loading import load_config
from etcdkeep.notifications.events import make_event
from etcdkeep_airflow.notifications import telling
from etcdkeep_airflow.notifications.quiet import quietly
from etcdkeep_airflow.notifications.runs import run_link

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from etcdkeep.config.loading import Config

STALE = "stale"


@quietly
def tell_checks(problems: Mapping[str, Sequence[str]], context: Mapping[str, Any]) -> None:
    """
    Tell what a check found; a cluster that was in trouble and has none now has recovered.

    :param problems: Cluster → what a person has to act on; empty where all is well.
    """
    config = load_config()
    for name, found in problems.items():
        _tell_check(config, name, found, context)


@quietly
def _tell_check(config: Config, name: str, problems: Sequence[str], context: Mapping[str, Any]) -> None:
    cluster = config.cluster(name)
    if not cluster.notifications:
        return
    dag_id, run_id = str(context["ti"].dag_id), str(context["run_id"])
    happened = (
        "its backups need attention: too old, not readable, or not kept as configured."
        if problems
        else "its backups are fresh again."
    )
    event = make_event(
        "stale" if problems else "recovered",
        name,
        telling.now(),
        happened,
        details=problems,
        topic=STALE,
        link=run_link(dag_id, run_id),
        dag_id=dag_id,
        run_id=run_id,
    )
    if problems:
        telling.tell_trouble(cluster, STALE, event, context)
    else:
        telling.tell_recovered(cluster, (STALE,), event, context)
