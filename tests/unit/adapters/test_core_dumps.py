"""No process that holds keys leaves a core file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from etcdkeep.config.loading import CONFIG_VARIABLE
from tests.builders import make_entry, make_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

ASK = """
import ctypes, os, resource, signal, sys
PR_GET_DUMPABLE = 3
print(resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(PR_GET_DUMPABLE, 0, 0, 0, 0), flush=True)
if "--die" in sys.argv:
    os.kill(os.getpid(), signal.SIGSEGV)
"""
COMMAND = f"from etcdkeep.cli import main\ntry:\n    main(['config', 'example'])\nexcept SystemExit:\n    pass\n{ASK}"
TASK = f"from etcdkeep_airflow.hooks import open_site\nopen_site('harbor')\n{ASK}"


def last_line(script: str, folder: Path, *args: str, ends: Sequence[int] = (0,)) -> str:
    """Run Python where core files are allowed, and return the last line that it printed."""
    (folder / "clusters.yaml").write_text(make_file(make_entry()))
    environment = os.environ | {CONFIG_VARIABLE: str(folder / "clusters.yaml"), "AIRFLOW_HOME": str(folder)}
    done = subprocess.run(
        ["sh", "-c", 'ulimit -S -c "$(ulimit -H -c)"; exec "$0" "$@"', sys.executable, "-c", script, *args],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode in ends, done.stderr
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize("script", [COMMAND, TASK], ids=["command-line", "task"])
def test_a_process_with_keys_forbids_its_core_files(tmp_path: Path, script: str) -> None:
    assert last_line(script, tmp_path) == "(0, 0) 0"


def test_one_that_dies_leaves_none(tmp_path: Path) -> None:
    last_line(COMMAND, tmp_path, "--die", ends=[-signal.SIGSEGV])
    assert [path.name for path in tmp_path.iterdir()] == ["clusters.yaml"]


def test_what_it_needs_of_its_own_descriptors_stays_open_to_it(tmp_path: Path) -> None:
    script = (
        "import os\nfrom etcdkeep.adapters.core_dumps import forbid_core_dumps\n"
        "if os.getuid() == 0:\n    os.setgid(65534); os.setuid(65534)\n"
        "forbid_core_dumps()\nfd = os.memfd_create('kept')\nos.write(fd, b'still read')\n"
        "print(open(f'/proc/self/fd/{fd}').read())"
    )
    assert last_line(script, tmp_path) == "still read"
