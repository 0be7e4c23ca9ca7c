"""``make demo`` and ``make up`` on a machine where something does not start."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import yaml

from demo import __main__ as demo
from etcdkeep.acceptance.airflow import Airflow
from etcdkeep.errors import PermanentError

if TYPE_CHECKING:
    from pathlib import Path


def test_an_airflow_that_is_slow_to_start_is_an_error_with_a_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start() -> None:
        raise PermanentError("Airflow did not start within 240 s. Read its logs /x/*.log.")

    site = SimpleNamespace(config=tmp_path / "clusters.yaml", gcs_url="http://127.0.0.1:1")
    site.config.write_text("{defaults: {}, clusters: []}\n")
    (tmp_path / "keys").mkdir()
    airflow = SimpleNamespace(running=lambda: False, start=start)
    monkeypatch.setattr(demo, "HOMES", {"local": tmp_path / "none"})
    monkeypatch.setattr(demo, "LAB", tmp_path)
    monkeypatch.setattr(demo, "PROJECT", tmp_path)
    monkeypatch.setattr(demo, "CONFIG", tmp_path / "demo.yaml")
    monkeypatch.setattr(demo, "Lab", lambda folder: SimpleNamespace(up=lambda: site))
    monkeypatch.setattr(demo, "Airflow", lambda *arguments: airflow)
    with pytest.raises(SystemExit) as ended:
        demo.main(["run"])
    written = yaml.safe_load((tmp_path / "demo.yaml").read_text())["defaults"]
    assert written["index_identity"] == {"path": str(tmp_path / "keys" / "index.txt")}, "for the page's objects"
    assert written["index_recipients"][0].startswith("age1")
    assert str(ended.value).startswith("error: Airflow did not start within 240 s.")
    assert str(ended.value).endswith("run make again to continue, or `make down` to stop it.")


def test_a_run_that_does_not_end_is_told_by_the_states_of_its_tasks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = [
        {"task_id": "verify", "state": "running"},
        {"task_id": "rehearse", "state": None, "rendered_fields": "x" * 9999},
    ]
    (tmp_path / "demo.json").write_text('{"port": 1, "passwords": {}, "jwt": ""}')
    airflow = Airflow(tmp_path, tmp_path / "clusters.yaml", {})
    monkeypatch.setattr(Airflow, "call", lambda self, method, path: {"state": "running", "task_instances": tasks})
    with pytest.raises(
        PermanentError, match=r"did not end within 0 s: verify running, rehearse not started\. Its page: http"
    ) as told:
        airflow.wait("backup__harbor", "manual__1", timeout_s=0)
    assert len(str(told.value)) < 300
