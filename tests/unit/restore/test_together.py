"""Several checks in one command, also under a sudo that prints by itself."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from etcdkeep.restore.actions import together_argv
from etcdkeep.restore.steps import Check

if TYPE_CHECKING:
    from pathlib import Path

SUDO = ("sudo", "-n")


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        pytest.param(Check((*SUDO, "true"), "nothing"), 0, id="both-hold"),
        pytest.param(Check((*SUDO, "echo", "x"), "nothing"), 1, id="one-prints"),
        pytest.param(Check((*SUDO, "false"), "success"), 1, id="one-fails"),
        pytest.param(Check(("true",), "nothing"), 1, id="not-all-by-sudo"),
    ],
)
def test_a_greeting_of_sudo_is_no_answer_where_all_run_by_it(tmp_path: Path, second: Check, expected: int) -> None:
    sudo = tmp_path / "sudo"
    sudo.write_text('#!/bin/sh\necho Welcome\nshift\nexec "$@"\n')
    sudo.chmod(0o755)
    checks = [Check((*SUDO, "true"), "nothing"), second]
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(together_argv(checks), check=False, capture_output=True, env=path)
    assert done.returncode == expected
