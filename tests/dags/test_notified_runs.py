"""Who is notified, by runs of the shipped DAG in Airflow's own runner, with its database and its execution API, in one process."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import structlog
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk.execution_time.supervisor import (
    InProcessSupervisorComms,
    InProcessTestSupervisor,
    set_supervisor_comms,
)

from etcdkeep.config.loading import CONFIG_VARIABLE
from etcdkeep.errors import AccessDenied
from tests.builders import make_cluster, make_database, make_file
from tests.fake_site import FakeSite, write_node
from tests.fakes import make_members
from tests.web_hooks import hook_server

if TYPE_CHECKING:
    from collections.abc import Iterator

DAGS = Path(__file__).parents[2] / "dags"
TOKEN = "canary-6d0f11"
TOLD = ["backup_failed", "recovered"]
"""Without `backup_late`: in Airflow 3.3.2 `dag.test()` cannot end a successful run of a DAG with a deadline."""


@pytest.fixture(scope="module")
def database() -> None:
    """Airflow's metadata database in the private home of the tests."""
    from airflow.utils.db import initdb

    initdb()


@pytest.fixture
def in_process() -> Iterator[None]:
    """What callbacks outside a task talk to in the DAG processor: the execution API, here without a second process."""
    client = InProcessTestSupervisor._api_client()
    supervisor = InProcessTestSupervisor(
        id=uuid.uuid4(),
        pid=os.getpid(),
        process=psutil.Process(),
        process_log=structlog.get_logger("test"),
        client=client,
    )
    supervisor.comms = InProcessSupervisorComms(supervisor=supervisor)
    with set_supervisor_comms(supervisor.comms):
        yield


def only_backup(folder: Path) -> Path:
    """Return a folder of DAG files with one of ours: each run reads them all."""
    (folder / "dags").mkdir()
    shutil.copy(DAGS / "backup.py", folder / "dags")
    return folder / "dags"


def dag_processor_hears_of(run_id: str) -> None:
    """Have the DAG processor's own code execute the callback of a failed run, from the request as its queue keeps it."""
    from airflow.callbacks.callback_requests import DagCallbackRequest, DagRunContext
    from airflow.dag_processing.processor import _execute_dag_callbacks
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        dag_run = session.scalar(select(DagRun).where(DagRun.run_id == run_id))
        (last,) = dag_run.get_task_instances(state=["failed"], session=session)
        request = DagCallbackRequest(
            filepath="backup.py",
            dag_id=dag_run.dag_id,
            run_id=run_id,
            bundle_name="etcdkeep",
            bundle_version=None,
            context_from_server=DagRunContext(dag_run=dag_run, last_ti=last),
            is_failure_callback=True,
            msg="task_failure",
        )
        kept = request.model_dump_json()
    _execute_dag_callbacks(
        DagBag(DAGS / "backup.py"), DagCallbackRequest.model_validate_json(kept), structlog.get_logger("test")
    )


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_runs_that_succeed_fail_fail_succeed_and_one_whose_switch_hangs(database, in_process, tmp_path, monkeypatch):
    with hook_server() as hooks:
        layout = write_node(tmp_path)
        settings: dict[str, Any] = {
            "schedule": None,
            "control_plane": layout,
            "rehearse": False,
            "notifications": [
                {"name": "chat", "webhook": {"connection": "chat"}, "events": TOLD},
                {"name": "hangs", "webhook": {"url": f"{hooks.url}/tarpit"}, "timeout_s": 1, "events": TOLD},
            ],
            "ping": {"url": f"{hooks.url}/ping", "timeout_s": 3},
        }
        hooks.answers["/tarpit"] = "hang"
        cluster = make_cluster(**settings)
        (tmp_path / "clusters.yaml").write_text(make_file(cluster.model_dump(mode="json", exclude_unset=True)))
        monkeypatch.setenv(CONFIG_VARIABLE, str(tmp_path / "clusters.yaml"))
        bundle = {
            "name": "etcdkeep",
            "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
            "kwargs": {"path": str(only_backup(tmp_path))},
        }
        monkeypatch.setenv("AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST", json.dumps([bundle]))
        monkeypatch.setenv("AIRFLOW_CONN_CHAT", f'{{"conn_type": "generic", "password": "{hooks.url}/chat/{TOKEN}"}}')
        site = FakeSite(tmp_path, cluster, *make_members(1, make_database()))
        monkeypatch.setattr("etcdkeep_airflow.hooks.open_site", lambda name: site)
        dag = DagBag(DAGS / "backup.py").dags["backup__harbor"]

        ran: list[str] = []

        def run(error: Exception | None) -> list[str]:
            before = len(hooks.paths("/ping"))
            site.api_error = error
            ended = dag.test()
            ran.append(ended.run_id)
            return [str(ended.state), *(path for path, _ in groupby(hooks.paths("/ping")[before:]))]

        refused = AccessDenied("the API server refused the client certificate. Renew it.")
        assert run(None) == ["success", "/ping/start", "/ping"]
        assert run(refused) == ["failed", "/ping/start", "/ping/fail"]
        assert run(refused) == ["failed", "/ping/start", "/ping/fail"]
        assert run(None) == ["success", "/ping/start", "/ping"]
        failed, recovered = hooks.events("/chat")
        assert (failed["event"], recovered["event"]) == ("backup_failed", "recovered")
        assert failed["facts"]["failed_tasks"] == ["discover"]
        assert "Task discover: the API server refused the client certificate. Renew it." in failed["text"]
        dag_processor_hears_of(ran[1])
        assert hooks.events("/chat")[2]["text"].splitlines()[1:] == failed["text"].splitlines()[1:], (
            "the same in the DAG processor"
        )
        hooks.answers["/ping"] = "hang"
        assert run(None)[0] == "success", "a switch that hangs fails no backup"
        assert [event["event"] for event in hooks.events("/chat")][3:] == ["recovered"]
