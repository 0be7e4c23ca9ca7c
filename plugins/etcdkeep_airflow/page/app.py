"""
The routes: pages, their JSON, and two static files. Every one demands a login, and the right to read the DAG of the cluster in
its path; none changes anything.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from jinja2 import Environment, PackageLoader, StrictUndefined

from etcdkeep import __version__
from etcdkeep.naming import is_backup_id
from etcdkeep.overview.backup_set import SetRow, SetView, with_copies
from etcdkeep.overview.cluster import ClusterView
from etcdkeep.overview.copies import copy_row
from etcdkeep.overview.restores import RestoreView
from etcdkeep_airflow.page import drawing
from etcdkeep_airflow.page.access import ReaderDep, check_access, check_configured
from etcdkeep_airflow.page.answers import Answer, Asked, Fleet, FleetMaker, Sort, answer, copies_of, with_row
from etcdkeep_airflow.page.forms import forms
from etcdkeep_airflow.page.objects import add_objects

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping

    from etcdkeep.overview.fleet import DagFacts
    from etcdkeep_airflow.page.access import Reader
    from etcdkeep_airflow.page.source import Source

WAIT_S = 1.0
"""How long a page waits for what nobody has read yet, before it shows progress."""
UNNAMED_USER = "a restore, recovery or drill"
"""What uses a backup, for those who may not read which."""
SAFE = frozenset({"GET", "HEAD"})
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
STATIC = {"page.css": "text/css", "theme.js": "text/javascript", "page.js": "text/javascript"}


def create_app(source: Source, dags: Callable[[Collection[str]], Mapping[str, DagFacts]]) -> FastAPI:
    """
    Return the application.

    :param dags: Asks Airflow of DAGs.
    """
    app = FastAPI(
        title="etcdkeep: backups",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,  # served below, behind the login like everything else
        redirect_slashes=False,  # it would name the host of the request, before the login
        dependencies=[Depends(check_access)],
    )
    app.middleware("http")(_guard)
    app.exception_handler(HTTPException)(_error)
    app.exception_handler(RequestValidationError)(_wrong)
    app.state.source = source
    routes = _Routes(source, FleetMaker(source, dags))
    app.get("/api/fleet", response_model=Fleet)(routes.fleet)
    app.get("/api/clusters/{cluster}", response_model=Answer[ClusterView])(routes.cluster)
    app.get("/api/clusters/{cluster}/sets/{backup_id}", response_model=Answer[SetView])(routes.backup_set)
    app.get("/api/clusters/{cluster}/restores/{restore}", response_model=Answer[RestoreView])(routes.restore)
    hidden: dict[str, Any] = {"include_in_schema": False, "response_class": HTMLResponse}
    app.get("/", **hidden)(routes.fleet_page)
    app.get("/clusters/{cluster}", **hidden)(routes.cluster_page)
    app.get("/clusters/{cluster}/sets/{backup_id}", **hidden)(routes.set_page)
    app.get("/clusters/{cluster}/restores/{restore}", **hidden)(routes.restore_page)
    add_objects(app, source, render)
    app.get("/static/{name}", include_in_schema=False)(_static)
    app.get("/api/openapi.json", include_in_schema=False)(lambda: app.openapi())
    return app


async def _guard(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    """Refuse what would change something, whatever route it is for, and give every answer its headers."""
    if request.method not in SAFE:
        response: Response = JSONResponse({"detail": "This page only reads: use GET."}, 405, {"Allow": "GET, HEAD"})
    else:
        response = await call_next(request)
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    return response


def _error(request: Request, error: Exception) -> Response:
    """Answer an error as JSON below ``/api``, as a page elsewhere."""
    status, detail = (error.status_code, error.detail) if isinstance(error, HTTPException) else (500, "")
    if "/api/" in request.url.path:
        return JSONResponse({"detail": detail}, status)
    return HTMLResponse(render("error.html", request, status=status, detail=detail), status)


def _wrong(request: Request, error: Exception) -> Response:
    return _error(request, HTTPException(422, "A parameter of the address has a value that it cannot have."))


def _static(name: str) -> Response:
    if name not in STATIC:
        raise HTTPException(404, "There is no such file.")
    content = files("etcdkeep_airflow.page").joinpath("static", name).read_bytes()
    return Response(content, media_type=STATIC[name], headers={"Cache-Control": "private, max-age=300"})


@cache
def _templates() -> Environment:
    made = Environment(
        loader=PackageLoader("etcdkeep_airflow.page"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )  # fmt: skip
    words = (drawing.age, drawing.until, drawing.span, drawing.size, drawing.moment, drawing.count, drawing.strip, drawing.sparkline, drawing.month_grid, drawing.stacked)  # fmt: skip
    made.filters |= {each.__name__: each for each in words}
    made.filters["sum_of"] = lambda seconds: sum(seconds.values())
    return made


def render(template: str, request: Request, **values: Any) -> str:
    """
    Return a page.

    Its links are relative, so that it works behind any base path: ``home`` leads to the page of the fleet, ``airflow`` to Airflow.
    """
    path = request.url.path.removeprefix(request.scope.get("root_path", ""))
    depth = path.lstrip("/").count("/")
    home = "../" * depth or "./"
    return _templates().get_template(template).render(home=home, airflow=f"{home}../", version=__version__, **values)


class _Routes:
    """What the routes do: JSON, and the same as pages."""

    def __init__(self, source: Source, fleet: FleetMaker) -> None:
        self._source = source
        self._fleet = fleet

    def fleet(
        self,
        reader: ReaderDep,
        state: str = "",
        tag: str = "",
        search: Annotated[str, Query(max_length=200)] = "",
        sort: Sort = "risk",
        page: Annotated[int, Query(ge=1)] = 1,
    ) -> Fleet:
        """Return the clusters that the person may read, the one at most risk first; 100 a page."""
        return self._fleet.make(reader, Asked(state, tag, search, sort, page))

    def fleet_page(
        self,
        request: Request,
        reader: ReaderDep,
        state: str = "",
        tag: str = "",
        search: Annotated[str, Query(max_length=200)] = "",
        sort: Sort = "risk",
        page: Annotated[int, Query(ge=1)] = 1,
    ) -> str:
        asked = Asked(state, tag, search, sort, page)
        return render("fleet.html", request, fleet=self._fleet.make(reader, asked), asked=asked)

    def cluster(self, reader: ReaderDep, cluster: str) -> Answer[ClusterView]:
        """Return one cluster: its backups and what keeps each, attempts, drills, members, certificates, restores."""
        check_configured(self._source.configured().clusters, cluster)
        found = with_row(answer(self._source.clusters.get(cluster, WAIT_S, reader.name)), self._fleet.row(cluster))
        if found.data is None:
            return found
        copies = copies_of(self._source, cluster, reader.name)
        sets = tuple(with_copies(each, copies) for each in found.data.sets)
        view = replace(found.data, sets=sets, copies=tuple(map(copy_row, copies)))
        return replace(found, data=_allowed(view, reader))

    def cluster_page(self, request: Request, reader: ReaderDep, cluster: str) -> str:
        found = self.cluster(reader, cluster)
        offered = forms(found.data, self._offered(found.data, reader)) if found.data else []
        return render("cluster.html", request, cluster=cluster, found=found, forms=offered)

    def backup_set(self, reader: ReaderDep, cluster: str, backup_id: str) -> Answer[SetView]:
        """Return one backup: manifest, levels, verifications, artifacts with digests, commands that open it."""
        check_configured(self._source.configured().clusters, cluster)
        if not is_backup_id(backup_id):
            raise HTTPException(404, "This is not the id of a backup.")
        found = answer(self._source.sets.get(f"{cluster}/{backup_id}", WAIT_S, reader.name))
        view = self._source.clusters.get(cluster, who=reader.name).value
        if found.data is None:
            return found
        sets = _allowed(view, reader).sets if view else ()
        of_cluster = next((each for each in sets if each.backup_id == backup_id), None)
        row = _with_retention(found.data.row, of_cluster) if of_cluster else _without_user(found.data.row)
        row = with_copies(row, copies_of(self._source, cluster, reader.name))
        return replace(found, data=replace(found.data, row=row))

    def set_page(self, request: Request, reader: ReaderDep, cluster: str, backup_id: str) -> str:
        found, view = (
            self.backup_set(reader, cluster, backup_id),
            self._source.clusters.get(cluster, WAIT_S, reader.name).value,
        )
        offered = forms(view, self._offered(view, reader), backup_id) if view else []
        return render("set.html", request, cluster=cluster, backup_id=backup_id, found=found, forms=offered)

    def restore(self, reader: ReaderDep, cluster: str, restore: str) -> Answer[RestoreView]:
        """Return one restore or recovery: plan, approvals, steps with their times, outcome."""
        check_configured(self._source.configured().clusters, cluster)
        found = answer(self._source.restores.get(f"{cluster}/{restore}", WAIT_S, reader.name))
        if found.data and not self._may_read(found.data.row.dag_id, reader):
            which = f"the DAG {found.data.row.dag_id}" if found.data.row.dag_id else "every cluster's DAG"
            raise HTTPException(403, f"You may not read {which}. Ask an administrator of Airflow.")
        return found

    def restore_page(self, request: Request, reader: ReaderDep, cluster: str, restore: str) -> str:
        return render("restore.html", request, cluster=cluster, restore=restore, found=self.restore(reader, cluster, restore))  # fmt: skip

    def _may_read(self, dag_id: str, reader: Reader) -> bool:
        """Say whether a restore may be shown; one that is not believed names no DAG that could be asked for."""
        return bool(reader.readable([dag_id])) if dag_id else reader.reads_all(self._source.configured().clusters)

    def _offered(self, view: ClusterView, reader: Reader) -> set[str]:
        dag_ids = (f"backup__{view.row.cluster}", view.drill_dag, view.restore_dag, view.recover_dag)
        return reader.readable(each for each in dag_ids if each)


def _with_retention(row: SetRow, of_cluster: SetRow) -> SetRow:
    """Return a backup's line with what only the cluster's reading knows; the rest is the backup's own, which may be newer."""
    return replace(
        row,
        in_use=of_cluster.in_use,
        kept=of_cluster.kept,
        why_kept=of_cluster.why_kept,
        kept_until=of_cluster.kept_until,
    )


def _allowed(view: ClusterView, reader: Reader) -> ClusterView:
    """Leave out the restores whose DAG the person may not read, and their names where they use a backup."""
    dags = {each.name: each.dag_id or view.restore_dag for each in view.restores}
    own = {view.restore_dag, view.recover_dag}
    allowed = reader.readable({*dags.values(), *own})
    named = {name for name, dag in dags.items() if dag in allowed}
    sets = tuple(
        each if _may_name_user(each, dags, named, own <= allowed) else _without_user(each) for each in view.sets
    )
    restores = tuple(each for each in view.restores if each.name in named)
    return replace(view, restores=restores, older_restores=view.older_restores if own <= allowed else 0, sets=sets)


def _may_name_user(row: SetRow, known: Collection[str], named: Collection[str], otherwise: bool) -> bool:
    """
    Say whether the person may read what uses a backup.

    :param known: Names of all restores and recoveries that are listed; `named` those that the person may read.
    :param otherwise: The answer for what is not listed.
    """
    if row.in_use is None:
        return True
    user = row.in_use.removeprefix("recovery ")
    return user in named if user in known else otherwise


def _without_user(row: SetRow) -> SetRow:
    """Return a backup's line that says at most that it is in use."""
    if row.in_use is None:
        return row
    reasons = tuple("in use" if each.startswith("in use by ") else each for each in row.why_kept)
    return replace(row, in_use=UNNAMED_USER, why_kept=reasons)
