"""A page over repositories in folders, with a real login of Airflow and people of different rights."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from fastapi.testclient import TestClient

from etcdkeep.overview.fleet import DagFacts
from etcdkeep_airflow.page.app import create_app
from etcdkeep_airflow.page.source import Source
from tests.builders import make_entry, make_file
from tests.shelf import Shelf

if TYPE_CHECKING:
    from pathlib import Path

    import pytest
    from httpx import Response

SEEN_S = 20.0


class Rights(SimpleAuthManager):
    """Airflow's simple login, where a user named after a cluster may read that cluster's backup DAG and no other DAG."""

    def is_authorized_dag(self, *, method: Any, user: Any, access_entity: Any = None, details: Any = None) -> bool:
        if user.username == "everyone":
            return super().is_authorized_dag(method=method, user=user, access_entity=access_entity, details=details)
        if details is None or details.id is None:
            return True  # as FAB answers who may read any DAG at all
        return bool(details.id == f"backup__{user.username}")


@dataclass
class PageSite:
    """
    A page with its clusters.

    :param dags: What Airflow knows of DAGs.
    """

    folder: Path
    rights: Rights
    shelves: dict[str, Shelf] = field(default_factory=dict)
    dags: dict[str, DagFacts] = field(default_factory=dict)
    more: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.app = create_app(Source(), lambda ids: {each: self.dags[each] for each in ids if each in self.dags})
        self.client = TestClient(self.app)

    def add(self, name: str, *days_ago: float, **settings: Any) -> Shelf:
        """Add a cluster with good backups so many days ago; its keys are files that do not exist."""
        shelf = Shelf(self.folder, rehearse=False, schedule="0 2 * * *", name=name, **settings)
        for day in sorted(days_ago, reverse=True):
            shelf.add(day)
        self.shelves[name] = shelf
        self.dags[f"backup__{name}"] = DagFacts(False, datetime.now(UTC) + timedelta(hours=1))
        entry = make_entry(**shelf.settings)
        entry["signing"] = {**entry["signing"], "key": {"path": "/nowhere/signing"}}
        self.more.append({**entry, "age_identity": {"path": "/nowhere/age"}})
        self.write(*self.more)
        return shelf

    def write(self, *entries: dict[str, Any]) -> None:
        (self.folder / "clusters.yaml").write_text(make_file(*entries))

    def get(self, path: str, user: str = "everyone") -> Response:
        """Ask as somebody; `everyone` may read everything."""
        token = self.rights.generate_jwt(SimpleAuthManagerUser(username=user, role="viewer"))
        return self.client.get(path, headers={"Authorization": f"Bearer {token}"})

    def read(self, path: str, user: str = "everyone") -> Any:
        """Ask for JSON until everything has been read."""
        deadline = time.monotonic() + SEEN_S
        while True:
            found = self.get(path, user).json()
            is_read = found["read"] == found["total"] if "total" in found else not found["reading"]
            if is_read or time.monotonic() > deadline:
                return found
            time.sleep(0.05)


def make_page_site(folder: Path, monkeypatch: pytest.MonkeyPatch) -> PageSite:
    """Return a page over no cluster yet."""
    monkeypatch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", "a" * 64)
    monkeypatch.setenv("ETCDKEEP_CONFIG", str(folder / "clusters.yaml"))
    rights = Rights()
    monkeypatch.setattr("airflow.api_fastapi.app._AuthManagerState.instance", rights)
    site = PageSite(folder, rights)
    site.write()
    return site
