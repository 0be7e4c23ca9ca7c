"""Labs for tests: one a session, and no two of this machine choose their ports in the same moment."""

from __future__ import annotations

import fcntl
import os
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lab import Lab

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

    from lab import Site


@contextmanager
def running_lab(folders: pytest.TempPathFactory) -> Iterator[Site]:
    """
    Start a site, and stop it in the end; LAB_DIR names one that runs already and is left running.

    A site chooses ports that are free, and listens there some seconds later. `tools/run_tests.py` starts several, so that
    each waits here until the one before is ready.
    """
    folder = os.environ.get("LAB_DIR") or folders.mktemp("lab")
    with ExitStack() as stack:
        with _one_at_a_time():
            site = stack.enter_context(Lab(folder))
        yield site


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    path = Path(tempfile.gettempdir(), f"etcdkeep-tests-lab-{os.getuid()}.lock")
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
