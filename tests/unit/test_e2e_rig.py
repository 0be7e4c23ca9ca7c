"""The end-to-end tests share a lab and an Airflow until a test fails; then the next module gets others."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

CONFTEST = """
from contextlib import contextmanager
from itertools import count
from types import SimpleNamespace

from tests.e2e import conftest
from tests.e2e.conftest import rig, rigs

numbers = count(1)

@contextmanager
def running(folders):
    number = next(numbers)
    print("started", number)
    yield SimpleNamespace(number=number, site=SimpleNamespace(faults=SimpleNamespace(clear=lambda: None)))
    print("stopped", number)

conftest.running_rig = running
"""
PASSES = "def test_it(rig):\n    print({name!r}, 'on', rig.number)\n"
FAILS = "\ndef test_what_fails(rig):\n    assert False\n"


def test_a_failure_gives_the_next_module_another_rig(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    for name in ("a", "b", "c", "d"):
        (tmp_path / f"test_{name}.py").write_text(PASSES.format(name=name) + (FAILS if name == "b" else ""))
    line = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-s",
        "-p",
        "no:cacheprovider",
        "--import-mode=importlib",
        "--tb=no",
        ".",
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    told = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment).stdout
    events = re.findall(r"started \d|stopped \d|[a-d] on \d", told)
    assert events == ["started 1", "a on 1", "b on 1", "stopped 1", "started 2", "c on 2", "d on 2", "stopped 2"]
    assert "1 failed, 4 passed" in told
