"""
What the plugin loader gets: by the package's entry point, or from the plugins folder. Airflow loads plugins in every component, and
most of them never show a page: the page is imported when it is first asked for.
"""

from __future__ import annotations

import asyncio
from functools import cache
from threading import Lock
from typing import TYPE_CHECKING, Any

from airflow.plugins_manager import AirflowPlugin

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from fastapi import FastAPI

PREFIX = "/etcdkeep"
_BUILDING = Lock()


@cache
def page_app() -> FastAPI:
    """Return the page as this API server shows it."""
    from etcdkeep_airflow.page.airflow_facts import dag_facts
    from etcdkeep_airflow.page.app import create_app
    from etcdkeep_airflow.page.source import Source

    return create_app(Source(), dag_facts)


class LazyApp:
    """An ASGI application that is made when it is first called."""

    async def __call__(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
        send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
    ) -> None:
        app = await asyncio.to_thread(_build)
        await app(scope, receive, send)


class BackupsPage(AirflowPlugin):
    """The page and its JSON."""

    name = "etcdkeep"
    fastapi_apps = [{"app": LazyApp(), "url_prefix": PREFIX, "name": "etcdkeep"}]  # noqa: RUF012 - Airflow's own form
    external_views = [  # noqa: RUF012
        {
            "name": "Backups",
            "href": f"{PREFIX.removeprefix('/')}/",  # relative: Airflow may have a base path
            "destination": "nav",
            "url_route": "backups",
            "category": "browse",
        }
    ]


def _build() -> FastAPI:
    with _BUILDING:
        return page_app()
