"""Keys stay in memory: a process that holds them leaves no core file, to whatever collects those."""

from __future__ import annotations

import ctypes
import logging
import resource

log = logging.getLogger(__name__)

PR_SET_DUMPABLE = 4


def forbid_core_dumps() -> None:
    """
    Forbid core files of this process and of all that it starts; call it before the first key is read.

    The limit alone is not enough where the kernel hands cores to a program (apport, systemd-coredump). Not dumpable, the
    process is also closed to debuggers and to ``/proc/PID/mem`` of the same user; programs that it starts are not.
    """
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl")
    except (OSError, ValueError, AttributeError) as err:  # no Linux, or a sandbox: a backup is worth more
        log.warning("cannot disable core files for this process: %s", err)
