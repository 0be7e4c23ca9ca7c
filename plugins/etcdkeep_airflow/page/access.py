"""
Who may read what: Airflow's login, and Airflow's right to read the DAG `backup__CLUSTER`. Restores and recoveries need the right
to read their DAG besides.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Annotated

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.core_api.security import GetUserDep
from airflow.models.dag import DagModel
from fastapi import Depends, HTTPException, Request

from etcdkeep.plain_text import one_line

if TYPE_CHECKING:
    from collections.abc import Collection, Container, Iterable

    from airflow.api_fastapi.auth.managers.models.base_user import BaseUser


class Reader:
    """
    A person who has logged in.

    :param user: As Airflow knows them.
    """

    def __init__(self, user: BaseUser) -> None:
        self._user = user

    @property
    def name(self) -> str:
        """Tells this person from others, and from what is read for nobody in particular."""
        return f"user {self._user.get_id()}"

    def readable(self, dag_ids: Iterable[str]) -> set[str]:
        """Return those of the DAGs that the person may read; PostgreSQL refuses to be asked of a NUL, which no id has."""
        ids = sorted({each for each in dag_ids if each.isprintable()})
        if not ids:
            return set()
        manager, teams = get_auth_manager(), DagModel.get_dag_id_to_team_name_mapping(ids)
        of_team: defaultdict[str | None, set[str]] = defaultdict(set)
        for dag_id in ids:
            of_team[teams.get(dag_id)].add(dag_id)
        allowed: set[str] = set()
        for team, those in of_team.items():
            allowed |= manager.filter_authorized_dag_ids(dag_ids=those, user=self._user, method="GET", team_name=team)
        return allowed

    def clusters(self, names: Iterable[str]) -> set[str]:
        """Return those of the clusters that the person may read."""
        return {each.removeprefix("backup__") for each in self.readable(f"backup__{name}" for name in names)}

    def reads_all(self, names: Collection[str]) -> bool:
        """Say whether the person may read all of the clusters; not by a right to list DAGs, which one DAG may give."""
        return bool(names) and self.clusters(names) == set(names)


def _reader(user: GetUserDep) -> Reader:
    return Reader(user)


ReaderDep = Annotated[Reader, Depends(_reader)]


def check_configured(clusters: Container[str], cluster: str) -> None:
    """:raises HTTPException: 404 for a cluster that is not among the usable ones."""
    if cluster not in clusters:
        raise HTTPException(404, f"There is no usable cluster {one_line(cluster)} in the configuration.")


def check_access(request: Request, reader: ReaderDep) -> None:
    """
    Let a request through that is logged in and may read the cluster in its path. Every route has this dependency.

    An address that names a parameter twice could be read in two ways; so could one that names in its query what its path names.

    :raises HTTPException: 401 without a login, 403 without the right, 400 for such an address.
    """
    cluster = request.path_params.get("cluster")
    if cluster is not None and not reader.clusters([cluster]):
        raise HTTPException(
            403, f"You may not read the DAG backup__{one_line(cluster)}. Ask an administrator of Airflow."
        )
    names = Counter(name for name, _ in request.query_params.multi_items()) + Counter(request.path_params.keys())
    if twice := next((name for name, count in names.items() if count > 1), None):
        raise HTTPException(400, f"The address gives {one_line(twice, 100)} more than once. Give it once.")
