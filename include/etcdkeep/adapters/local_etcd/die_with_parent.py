"""
``python die_with_parent.py PARENT PROGRAM [ARGUMENT…]``: becomes the program, which Linux kills when the parent dies.

So no etcd outlives a drill, not even one whose worker was killed. Python's own means, a function between fork and exec,
is unsafe beside threads.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(sys.argv[1]):  # it died before
        sys.exit(1)
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606 - no shell is wanted
