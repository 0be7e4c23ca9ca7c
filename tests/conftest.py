"""For every tier: a private Airflow home, and no skipped test in CI."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING, TypeVar

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)

pytest.register_assert_rewrite("tests.backup_run")
HOME = tempfile.TemporaryDirectory(prefix="etcdkeep-tests-airflow-")
os.environ["AIRFLOW_HOME"] = HOME.name
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
os.environ.pop("ETCDKEEP_CONFIG", None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Elsewhere a skip says what is missing; in CI everything is there, so that a skip is a failure."""
    report = yield
    return _strict(report, item.nodeid)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for a whole file."""
    report = yield
    return _strict(report, collector.nodeid)


def _strict(report: Report, name: str) -> Report:
    if os.environ.get("CI") == "true" and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{name} was skipped, and CI skips nothing: {report.longrepr}"
    return report
