"""What Airflow's database knows of the DAGs: whether they are paused, and when they run next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.models.dag import DagModel
from airflow.utils.session import create_session
from sqlalchemy import select

from etcdkeep.overview.fleet import DagFacts

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

MOST_IN_A_QUERY = 500


def dag_facts(dag_ids: Collection[str]) -> Mapping[str, DagFacts]:
    """Return the facts of those DAGs that Airflow has now."""
    ids, found = sorted(dag_ids), dict[str, DagFacts]()
    with create_session() as session:
        for first in range(0, len(ids), MOST_IN_A_QUERY):
            asked = select(DagModel.dag_id, DagModel.is_paused, DagModel.next_dagrun_create_after).where(
                DagModel.dag_id.in_(ids[first : first + MOST_IN_A_QUERY]), DagModel.is_stale.is_(False)
            )
            found |= {dag_id: DagFacts(paused, next_run) for dag_id, paused, next_run in session.execute(asked)}
    return found
