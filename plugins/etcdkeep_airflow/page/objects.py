"""The routes of objects: a backup's objects to search, what changed since the backup before, one object over all nights."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import Depends, HTTPException, Query, Request
from fastapi.responses import HTMLResponse

from etcdkeep.naming import is_backup_id
from etcdkeep.objects import catalog
from etcdkeep_airflow.page.access import ReaderDep, check_configured
from etcdkeep_airflow.page.answers import Answer, answer
from etcdkeep_airflow.page.objects_source import ObjectsSource, history_key, plain

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from fastapi import FastAPI

    from etcdkeep.objects.catalog import Catalog
    from etcdkeep.objects.changes import SetChanges
    from etcdkeep_airflow.page.access import Reader
    from etcdkeep_airflow.page.answers import View
    from etcdkeep_airflow.page.readings import Known, Readings
    from etcdkeep_airflow.page.source import Source

WAIT_S = 1.0
PAGE_ROWS = 100
NAMES_SHOWN = COUNTS_SHOWN = 500
Text = Annotated[str, Query(max_length=300)]
Number = Annotated[int, Query(ge=1, le=100_000)]
What = Literal["", "added", "removed", "changed", "recreated"]
_PLAIN = re.compile(r"[a-z0-9.:-]*")
"""Searches that find the same as a pattern of the form."""
NO_KEY = "No key for indexes is configured here: see index_identity and index_recipients in docs/objects.md."


@dataclass(frozen=True)
class Searched:
    """What of a backup's objects is asked for; namespace ``-`` means objects without one."""

    search: str = ""
    kind: str = ""
    namespace: str = ""
    sort: catalog.SortKey = "kind"
    descending: bool = False
    page: int = 1


@dataclass(frozen=True)
class Compared:
    """Which changes of a backup are asked for; all counts where `what` and `kind` are empty."""

    before: str = ""
    what: What = ""
    kind: str = ""
    namespace: str = ""


def _searched_for(
    search: Text = "",
    kind: Text = "",
    namespace: Text = "",
    sort: catalog.SortKey = "kind",
    descending: bool = False,
    page: Number = 1,
) -> Searched:
    return Searched(search, kind, namespace, sort, descending, page)


def _compared(before: Text = "", what: What = "", kind: Text = "", namespace: Text = "") -> Compared:
    return Compared(before, what, kind, namespace)


SearchedDep = Annotated[Searched, Depends(_searched_for)]
ComparedDep = Annotated[Compared, Depends(_compared)]


def add_objects(app: FastAPI, source: Source, render: Callable[..., str]) -> None:
    """
    Add the routes to the page.

    :param render: Makes a page of a template.
    """
    routes = _Routes(source, ObjectsSource(source), render)
    of_set, of_cluster = "/clusters/{cluster}/sets/{backup_id}", "/clusters/{cluster}"
    app.get(f"/api{of_set}/objects", response_model=Answer[dict[str, Any]])(routes.objects)
    app.get(f"/api{of_set}/changes", response_model=Answer[dict[str, Any]])(routes.changes)
    app.get(f"/api{of_cluster}/history", response_model=Answer[dict[str, Any]])(routes.history)
    hidden: dict[str, Any] = {"include_in_schema": False, "response_class": HTMLResponse}
    app.get(f"{of_set}/objects", **hidden)(routes.objects_page)
    app.get(f"{of_set}/changes", **hidden)(routes.changes_page)
    app.get(f"{of_cluster}/history", **hidden)(routes.history_page)


class _Routes:
    """What the routes do: JSON, and the same as pages."""

    def __init__(self, source: Source, objects: ObjectsSource, render: Callable[..., str]) -> None:
        self._source = source
        self._objects = objects
        self._render = render

    def objects(self, reader: ReaderDep, cluster: str, backup_id: str, asked: SearchedDep) -> Answer[dict[str, Any]]:
        """Return the objects of a backup that a search finds, 100 a page: names, sizes and revisions, no content."""
        return self._ask(reader, cluster, backup_id, self._objects.catalogs, lambda found: _searched(found, asked))

    def objects_page(
        self, request: Request, reader: ReaderDep, cluster: str, backup_id: str, asked: SearchedDep
    ) -> str:
        found = self.objects(reader, cluster, backup_id, asked)
        view = self._source.clusters.get(cluster, WAIT_S, reader.name).value
        dag_id = view.recover_dag if view and reader.readable([view.recover_dag]) else ""
        values = _recovery(cluster, backup_id, asked, found.data or {})
        return self._page(request, "objects.html", cluster, found, backup_id=backup_id, asked=asked, dag_id=dag_id, values=values)  # fmt: skip

    def changes(self, reader: ReaderDep, cluster: str, backup_id: str, asked: ComparedDep) -> Answer[dict[str, Any]]:
        """Return what changed since the good backup before, or since `before`: counts; the names of a kind when asked for."""
        if asked.before and not is_backup_id(asked.before):
            raise HTTPException(404, "This is not the id of a backup.")
        key = f"{backup_id}/{asked.before}" if asked.before else backup_id
        return self._ask(reader, cluster, backup_id, self._objects.changes, lambda found: _changed(found, asked), key)

    def changes_page(
        self, request: Request, reader: ReaderDep, cluster: str, backup_id: str, asked: ComparedDep
    ) -> str:
        found = self.changes(reader, cluster, backup_id, asked)
        return self._page(request, "changes.html", cluster, found, backup_id=backup_id, asked=asked)

    def history(
        self, reader: ReaderDep, cluster: str, kind: Text = "", name: Text = "", namespace: Text = ""
    ) -> Answer[dict[str, Any]]:
        """Return one object over all backups: first seen, changed, recreated, gone; what could not be read is named."""
        check_configured(self._source.configured().clusters, cluster)
        if not kind or not name:
            return Answer(None, problem="Name an object: its kind and its name.")
        if not self._objects.has_key(cluster):
            return Answer(None, problem=NO_KEY)
        known = self._objects.histories.get(history_key(cluster, kind, namespace, name), WAIT_S, reader.name)
        return _answer(known, lambda found: found.as_json())

    def history_page(
        self, request: Request, reader: ReaderDep, cluster: str, kind: Text = "", name: Text = "", namespace: Text = ""
    ) -> str:
        asked = {"kind": kind, "name": name, "namespace": namespace}
        found = self.history(reader, cluster, kind, name, namespace)
        return self._page(request, "history.html", cluster, found, asked=plain(asked))

    def _ask(
        self,
        reader: Reader,
        cluster: str,
        backup_id: str,
        readings: Readings[Any],
        make: Callable[[Any], dict[str, Any]],
        key: str = "",
    ) -> Answer[dict[str, Any]]:
        check_configured(self._source.configured().clusters, cluster)
        if not is_backup_id(backup_id):
            raise HTTPException(404, "This is not the id of a backup.")
        if not self._objects.has_key(cluster):
            return Answer(None, problem=NO_KEY)
        return _answer(readings.get(f"{cluster}/{key or backup_id}", WAIT_S, reader.name), make)

    def _page(self, request: Request, template: str, cluster: str, found: Answer[Any], **values: Any) -> str:
        has_key = self._objects.has_key(cluster)
        return self._render(template, request, cluster=cluster, found=found, has_key=has_key, **values)


def _answer(known: Known[View], make: Callable[[View], dict[str, Any]]) -> Answer[dict[str, Any]]:
    found = answer(known)
    data = None if found.data is None else plain(make(found.data))
    return Answer(data, found.age_s, found.problem, found.reading)


def _searched(found: Catalog, asked: Searched) -> dict[str, Any]:
    kinds = {each.full_name: count for each, count in found.kinds}
    spaces = {name or "-": count for name, count in found.namespaces}
    places = tuple("" if name == "-" else name for name in _named(asked.namespace, spaces))
    first = (asked.page - 1) * PAGE_ROWS
    query = catalog.Query(
        asked.search, _named(asked.kind, kinds), places, asked.sort, asked.descending, first, PAGE_ROWS
    )
    offered = {"kinds": _offered(kinds), "namespaces": _offered(spaces)}
    return {**found.search(query).as_json(), "all": len(found), **offered}


def _offered(counts: Mapping[str, int]) -> list[dict[str, Any]]:
    return [{"name": name, "objects": count} for name, count in islice(counts.items(), NAMES_SHOWN)]


def _named(word: str, names: Collection[str]) -> tuple[str, ...]:
    """Return the name that a word is, else those that it is a part of: it may not be typed to its end."""
    if not word or word in names:
        return (word,) if word else ()
    return tuple(name for name in names if word.lower() in name) or (word,)


def _changed(found: SetChanges, asked: Compared) -> dict[str, Any]:
    if not (asked.what or asked.kind):
        return found.as_json(counts=COUNTS_SHOWN)
    space = None if not asked.namespace else "" if asked.namespace == "-" else asked.namespace
    total, named = found.named(what=asked.what or None, kind=asked.kind or None, namespace=space, limit=NAMES_SHOWN)
    return {**found.as_json(named, counts=COUNTS_SHOWN), "named": total}


def _recovery(cluster: str, backup_id: str, asked: Searched, found: Mapping[str, Any]) -> str:
    """Return what the form of `recover_objects` takes to recover what is shown, and no more; empty where no form says that."""
    whole = all(
        not word or word in {each["name"] for each in found.get(offered, ())}
        for word, offered in ((asked.kind, "kinds"), (asked.namespace, "namespaces"))
    )
    if not whole or asked.namespace == "-" or not _PLAIN.fullmatch(asked.search):
        return ""
    values = {
        "cluster": cluster,
        "backup": backup_id,
        "namespace": asked.namespace,
        "kinds": asked.kind,
        "name": f"*{asked.search}*" if asked.search else "",
        "dry_run": True,
        "reason": "",
    }
    return json.dumps(values, indent=2)
