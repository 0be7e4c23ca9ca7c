"""The operators' tier: fakes for every client, and Airflow's context as far as our operators look into it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from tests.builders import NOW
from tests.site_fixtures import database, make_site, site

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["database", "make_site", "site"]


class Events(dict[Any, Any]):
    """An event for whichever asset is asked for."""

    def __missing__(self, asset: Any) -> Any:
        return self.setdefault(asset.name, SimpleNamespace(extra={}))


@pytest.fixture
def make_context() -> Callable[..., dict[str, Any]]:
    """Return the context of one try of a run."""

    def make(try_number: int = 1, run_id: str = "scheduled__2026-11-23", **overrides: Any) -> dict[str, Any]:
        return {
            "run_id": run_id,
            "dag_run": SimpleNamespace(
                run_id=run_id, run_type="scheduled", logical_date=NOW, run_after=NOW, dag_id="backup__harbor"
            ),
            "ti": SimpleNamespace(try_number=try_number),
            "params": {"reason": "a test", "pin": True},
            "outlet_events": Events(),
            **overrides,
        }

    return make


@pytest.fixture
def opened(site: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The site that the operators' ``open_site`` gives."""
    monkeypatch.setattr("etcdkeep_airflow.hooks.open_site", lambda cluster: site)
    return site
