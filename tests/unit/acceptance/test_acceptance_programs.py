"""Acceptance reads its configuration as the private Airflow does, and opens backups with the programs of whoever started it."""

from __future__ import annotations

import json
import os
import shutil
import sys
from typing import TYPE_CHECKING

from etcdkeep.acceptance.airflow import Airflow
from etcdkeep.acceptance.run import _as_airflow

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_a_program_beside_python_does_not_hide_the_one_on_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, beside_python = (_program(tmp_path / folder / "etcdutl") for folder in ("tools", "venv"))
    monkeypatch.setenv("PATH", os.pathsep.join((str(wanted.parent), str(beside_python.parent))))
    monkeypatch.setattr(sys, "executable", str(beside_python.parent / "python"))
    home = tmp_path / "home"
    home.mkdir()
    (home / "demo.json").write_text(json.dumps({"port": 1, "jwt": "", "passwords": {}}))
    with _as_airflow(Airflow(home, tmp_path / "clusters.yaml")):
        assert os.environ["AIRFLOW_HOME"] == str(home)
        assert shutil.which("etcdutl") == str(wanted)
    assert os.environ.get("AIRFLOW_HOME") != str(home)


def _program(path: Path) -> Path:
    path.parent.mkdir()
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path
