"""Programs in the background: each in a process group of its own, found again by the pid in its file."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

PATIENCE_S = 15.0
PIDS = "*.pid"


@dataclass(frozen=True)
class Service:
    """
    One program.

    :param folder: Holds its pid, as NAME.pid, and what it prints, as NAME.log.
    """

    name: str
    folder: Path
    argv: tuple[str, ...]
    environment: Mapping[str, str]

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    @property
    def pid_file(self) -> Path:
        return self.folder / f"{self.name}.pid"

    @property
    def pid(self) -> int | None:
        """Its process, which leads its group; None when it was not started."""
        return _read_pid(self.pid_file)

    def running(self) -> bool:
        pid = self.pid
        return pid is not None and _alive(pid)

    def start(self) -> None:
        """Start it unless it runs."""
        if self.running():
            return
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                self.argv,
                env=dict(self.environment),
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self.pid_file.write_text(str(process.pid))

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Stop every process of its group: by a signal, and by SIGKILL where that does not help."""
        end_all([self.pid_file], number)


def end_all(files: Iterable[Path], first: int = signal.SIGTERM) -> None:
    """Stop the process groups whose leaders are in these files, all at once, and remove the files."""
    groups = {path: _read_pid(path) for path in files}
    for number in (first, signal.SIGKILL):
        deadline = time.monotonic() + PATIENCE_S
        while (left := _living(filter(None, groups.values()))) and time.monotonic() < deadline:
            for group in left:
                with suppress(ProcessLookupError):
                    os.killpg(group, number)
            time.sleep(0.3)
    for path in groups:
        path.unlink(missing_ok=True)


@cache
def can_mount() -> bool:
    """Return whether we may give a process a mount namespace of its own: needs root."""
    unshare = shutil.which("unshare")
    return unshare is not None and not subprocess.run((unshare, "--mount", "true"), check=False, capture_output=True).returncode  # fmt: skip


def with_mounts(script: str, argv: Iterable[str]) -> tuple[str, ...]:
    """
    Return the command that runs `argv` in a mount namespace of its own.

    :param script: Shell commands that mount there, first; when one fails, `argv` does not run.
    """
    return ("unshare", "--mount", "--", "sh", "-ec", f'{script}\nexec "$@"', "sh", *argv)


def _read_pid(path: Path) -> int | None:
    return int(path.read_text()) if path.exists() else None


def _alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def _living(groups: Iterable[int]) -> set[int]:
    """Return those of the process groups that have a process."""
    wanted, found = set(groups), set()
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] != "Z":
            found.add(int(fields[2]))
    return wanted & found
