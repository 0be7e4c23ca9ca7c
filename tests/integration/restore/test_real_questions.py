"""Several questions in one command of a real shell."""

from __future__ import annotations

import subprocess

import pytest

from etcdkeep.restore.actions import together_argv
from etcdkeep.restore.steps import Check

YES = Check(("sh", "-c", "echo 'it is; so'"))
SILENT = Check(("true",), "nothing")


@pytest.mark.parametrize(
    ("checks", "answer"),
    [
        pytest.param([YES, SILENT], True, id="all"),
        pytest.param([YES, Check(("test", "-e", "no such file; echo")), SILENT], False, id="one-fails"),
        pytest.param([YES, Check(("echo", "c1"), "nothing"), YES], False, id="one-says-something"),
        pytest.param([Check(("sh", "-c", "exit 3"), "nothing")], False, id="silent-since-it-failed"),
    ],
)
def test_one_command_for_all(checks: list[Check], answer: bool) -> None:
    done = subprocess.run(together_argv(checks), check=False, capture_output=True)
    assert (done.returncode == 0, done.stdout) == (answer, b"")
