"""The command ``objects`` in a process of its own."""

from __future__ import annotations

import subprocess
import sys


def objects(*args: object, code: int = 0) -> str:
    """Run ``python -m etcdkeep objects …`` and return what it printed."""
    argv = [sys.executable, "-m", "etcdkeep", "objects", *map(str, args)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr
