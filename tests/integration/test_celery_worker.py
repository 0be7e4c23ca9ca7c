"""A worker as deploy/compose.yaml starts it: with its command and environment, and with no database anywhere."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.deployed import PROJECT, compose

if TYPE_CHECKING:
    from pathlib import Path

START_S = 90
PATH = os.pathsep.join(str(PROJECT / folder) for folder in ("include", "plugins"))
"""As the image sets it."""
AT_HAND = {"AIRFLOW__CELERY__BROKER_URL": "memory://", "AIRFLOW__CELERY__RESULT_BACKEND": "cache+memory://"}


@pytest.mark.slow
@pytest.mark.parametrize("service", ["worker-backup", "worker-verify"])
def test_it_starts_without_a_database(service: str, tmp_path: Path) -> None:
    wanted = compose()["services"][service]
    (tmp_path / "airflow.cfg").touch()  # as in the image
    (tmp_path / "redis_url").write_text("redis://:a-secret@redis:6379/0")
    environment = {name: value.replace("/run/secrets", str(tmp_path)) for name, value in wanted["environment"].items()}
    argv = [str(tmp_path / "worker.pid") if word == "/tmp/worker.pid" else word for word in wanted["command"][1:]]
    with (tmp_path / "log").open("wb") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "airflow", *argv],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": PATH, "HOME": str(tmp_path), "AIRFLOW_HOME": str(tmp_path), **environment, **AT_HAND},
            stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + START_S
        while " ready." not in (text := (tmp_path / "log").read_text()):
            assert worker.poll() is None, text[-3000:]
            assert time.monotonic() < deadline, text[-3000:]
            time.sleep(0.5)
    finally:
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
    for queue in argv[argv.index("--queues") + 1].split(","):
        assert f"exchange={queue}(direct)" in text
    assert "a-secret" not in text
