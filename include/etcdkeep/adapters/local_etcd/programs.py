"""The etcd programs of this machine, run for one drill in a private folder; none outlives it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from socket import create_server
from typing import TYPE_CHECKING

from etcdkeep.adapters.local_etcd.client import EtcdClient
from etcdkeep.adapters.local_etcd.work_folder import wipe, work_folder
from etcdkeep.config.models import Drill
from etcdkeep.drill.credentials import DrillCredentials, make_credentials
from etcdkeep.drill.tools import (
    RESTORE_PROGRAMS,
    CredentialFiles,
    Program,
    Programs,
    choose_restore,
    etcd_argv,
    how_to_install,
    needed_bytes,
    parse_program_version,
    restore_argv,
)
from etcdkeep.errors import CommandFailed, DrillImpossible, NoSpace, OutputUnexpected, Unreachable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from etcdkeep.drill.contents import LiveKey

LAUNCHER = Path(__file__).with_name("die_with_parent.py")
VERSION_S = 30.0
END_S = 5.0
PORT_TRIES = 5
TAIL_BYTES = 64 * 2**10
SHOWN_CHARACTERS = 400
_FULL = re.compile(r"no space left on device|disk quota exceeded", re.IGNORECASE)
_PORT_TAKEN = "address already in use"
ENDED_AT_ONCE_S = 2.0


class LocalEtcd:
    """
    Opens a :class:`~etcdkeep.drill.run.Workshop` on this machine.

    :param settings: The cluster's; defaults where it has none.
    """

    def __init__(self, settings: Drill | None) -> None:
        self._settings = settings or Drill()
        self._open: _Workshop | None = None

    @contextmanager
    def open(self, snapshot_bytes: int) -> Iterator[_Workshop]:
        """
        Open a workshop for a snapshot of that size; nothing of it is left when the block ends.

        :raises DrillImpossible: when an etcd program is missing.
        :raises NoSpace: when there is too little room.
        """
        programs = find_programs(self._settings.etcd_dir)
        with work_folder(self._settings.work_dir, needed_bytes(snapshot_bytes)) as folder:
            self._open = _Workshop(folder, programs, self._settings.time_limit_s)
            try:
                yield self._open
            except Exception as err:
                if self._open.is_stopped:
                    raise DrillImpossible("the drill was stopped from outside. The backup is not in doubt.") from err
                raise
            finally:
                self._open.end_process()
                self._open = None

    def stop(self) -> None:
        """Kill what runs and remove what is there, now: for a process that is about to be killed."""
        if self._open is not None:
            self._open.stop()


class _Workshop:
    def __init__(self, folder: Path, programs: Programs, time_limit_s: float) -> None:
        self.folder = folder
        self.programs = programs
        self.is_stopped = False
        self._time_limit_s = time_limit_s
        self._ends_at = time.monotonic() + time_limit_s
        self._process: subprocess.Popen[bytes] | None = None
        self._credentials = make_credentials(datetime.now(UTC))
        self._files = _write_credentials(folder, self._credentials)
        self._peer_url = f"https://127.0.0.1:{_free_ports(1)[0]}"

    def restore(self, snapshot: Path) -> None:
        """Make the data directory."""
        argv = restore_argv(self.programs, snapshot, self.folder / "data", self._peer_url)
        log = self.folder / "restore.log"
        process = self._launch(argv, log)
        try:
            process.wait(self.left_s())
        except subprocess.TimeoutExpired:
            self.end_process()
            raise self._out_of_time() from None
        self._check_end(f"{self.programs.restore.words} snapshot restore", process, log)

    @contextmanager
    def serve(self, *, empty: bool = False) -> Iterator[_Server]:
        """Run an etcd on the data directory, or on a new one."""
        data = self.folder / ("empty" if empty else "data")
        with ExitStack() as stack:
            stack.callback(self.end_process)
            for _ in range(PORT_TRIES):
                client_port, peer_port = _free_ports(2)
                log = self.folder / f"etcd-{client_port}.log"
                argv = etcd_argv(self.programs, data, self._files, self._peer_url, client_port, peer_port)
                process = self._launch(argv, log)
                client = EtcdClient(client_port, self._credentials, self.left_s)
                stack.callback(client.close)
                server = _Server(self, client, process, log)
                if server.starts():
                    break
            else:
                raise DrillImpossible(f"etcd found no free port in {PORT_TRIES} tries. The backup is not in doubt.")
            yield server

    def left_s(self) -> float:
        """
        Return the seconds left.

        :raises DrillImpossible: when there are none.
        """
        left_s = self._ends_at - time.monotonic()
        if left_s <= 0:
            raise self._out_of_time()
        return left_s

    def end_process(self) -> None:
        """Kill what runs: nothing that it could still write is wanted."""
        if self._process is not None:
            self._process.kill()
            with suppress(subprocess.TimeoutExpired):  # a wait without an end could wait for itself in a signal handler
                self._process.wait(END_S)

    def stop(self) -> None:
        """Kill what runs, and remove what is there."""
        self.is_stopped = True
        self.end_process()
        wipe(self.folder)

    def check_end(self, process: subprocess.Popen[bytes], log: Path) -> None:
        """Raise what an etcd that has ended died of."""
        self._check_end(f"etcd {self.programs.etcd.version}", process, log)
        said = _last_words(log)
        raise OutputUnexpected(
            f"etcd {self.programs.etcd.version} stopped without being asked, with code 0: {said}", said=said
        )

    def _launch(self, argv: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
        launcher = (sys.executable, "-I", "-S", str(LAUNCHER), str(os.getpid()))
        with open(log, "wb", opener=_private) as output:
            self._process = subprocess.Popen(
                (*launcher, *argv),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=_environment(self.folder),
                cwd=self.folder,
                start_new_session=True,
                umask=0o077,
            )
        return self._process

    def _check_end(self, what: str, process: subprocess.Popen[bytes], log: Path) -> None:
        """
        Judge how a program ended.

        :raises NoSpace: when the disk was full.
        :raises DrillImpossible: when it was killed.
        :raises CommandFailed: when it failed.
        """
        code = process.returncode
        if code == 0:
            return
        said = _last_words(log)
        if _FULL.search(said):
            raise NoSpace(
                f"{what}: {said}. Free space in {self.folder.parent}, or set drill.work_dir. The backup is not in doubt."
            )
        if code < 0:
            raise DrillImpossible(
                f"{what} was killed by {signal.Signals(-code).name} (out of memory?): {said or 'it printed nothing'}. The backup is not in doubt."
            )
        raise CommandFailed(f"{what} ended with code {code}: {said}", exit_code=code, stderr_tail=said)

    def _out_of_time(self) -> DrillImpossible:
        return DrillImpossible(
            f"the drill did not end within {self._time_limit_s:.0f} s. Raise drill.time_limit_s, or give the worker more resources. The backup is not "
            "in doubt."
        )


class _Server:
    """A running etcd of a drill."""

    def __init__(self, workshop: _Workshop, client: EtcdClient, process: subprocess.Popen[bytes], log: Path) -> None:
        self._workshop = workshop
        self._client = client
        self._process = process
        self._log = log

    def starts(self) -> bool:
        """Wait until it serves, and return True; False when somebody else had taken a port of it."""
        try:
            self._client.wait(lambda: self._process.poll() is None)
        except Unreachable as err:
            if self._has_ended() and _PORT_TAKEN in _tail(self._log):
                return False
            self._raise(err)
        return True

    def revision(self) -> int:
        """Return the current revision."""
        with self._watched():
            return self._client.revision()

    def keys(self, revision: int) -> Iterator[Sequence[LiveKey]]:
        """Yield every key that exists, some at a time."""
        with self._watched():
            yield from self._client.keys(revision)

    def hash_kv(self) -> int:
        """Return HashKV at the current revision."""
        with self._watched():
            return self._client.hash_kv()

    @contextmanager
    def _watched(self) -> Iterator[None]:
        try:
            yield
        except Unreachable as err:
            self._raise(err)

    def _has_ended(self) -> bool:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(ENDED_AT_ONCE_S)
        return self._process.returncode is not None

    def _raise(self, err: Unreachable) -> None:
        if self._has_ended():
            self._workshop.check_end(self._process, self._log)
        self._workshop.left_s()
        raise DrillImpossible(f"etcd runs but does not answer: {err} The backup is not in doubt.") from err


def find_programs(folder: str | None) -> Programs:
    """
    Return etcd and what restores, with their versions.

    :param folder: Where they are; PATH when None.
    :raises DrillImpossible: when one is missing.
    """
    etcd = _find("etcd", ("--version",), folder)
    if etcd is None:
        raise DrillImpossible(f"there is no etcd {f'in {folder}' if folder else 'on PATH'} here. {how_to_install()}")
    found = (program for name in RESTORE_PROGRAMS if (program := _find(name, ("version",), folder)))
    return Programs(etcd, choose_restore(next(found, None)))


def _find(name: str, argv: Sequence[str], folder: str | None) -> Program | None:
    found = shutil.which(name, path=folder)
    if found is None:
        return None
    try:
        done = subprocess.run(
            (found, *argv), env=_environment(None), capture_output=True, text=True, timeout=VERSION_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as err:
        raise DrillImpossible(f"{found} cannot be run: {err}. {how_to_install()}") from err
    version = parse_program_version(done.stdout)
    if version is None:
        raise DrillImpossible(
            f"{found} {' '.join(argv)} printed no version (exit code {done.returncode}). {how_to_install()}"
        )
    return Program(Path(found).absolute(), version)


def _environment(folder: Path | None) -> dict[str, str]:
    """Return the environment of the programs: nothing that would configure them (``ETCD_…``, ``ETCDCTL_…``) of the worker's own."""
    home = {"HOME": str(folder), "TMPDIR": str(folder)} if folder else {}
    return {"PATH": os.environ.get("PATH", os.defpath), "ETCDCTL_API": "3", **home}


def _write_credentials(folder: Path, credentials: DrillCredentials) -> CredentialFiles:
    files = CredentialFiles(folder / "ca.crt", folder / "etcd.crt", folder / "etcd.key")
    contents = (credentials.authority, credentials.server.certificate, credentials.server.key)
    for path, content in zip((files.authority, files.certificate, files.key), contents, strict=True):
        with open(path, "xb", opener=_private) as file:
            file.write(content)
    return files


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as sockets:
        return [sockets.enter_context(create_server(("127.0.0.1", 0))).getsockname()[1] for _ in range(count)]


def _tail(log: Path) -> str:
    with log.open("rb") as file:
        with suppress(OSError):  # a shorter file
            file.seek(-TAIL_BYTES, os.SEEK_END)
        return file.read().decode(errors="replace")


def _last_words(log: Path) -> str:
    """Return what a program said last of what went wrong: etcd's log lines are JSON, its tools' last line is a sentence."""
    said = ""
    for line in _tail(log).splitlines():
        if line.startswith(("Error:", "panic:", "fatal error:")):
            said = line
        elif line.startswith("{"):
            with suppress(ValueError):
                entry = json.loads(line)
                said = ": ".join(str(entry[name]) for name in ("msg", "error") if entry.get(name))
    return said[:SHOWN_CHARACTERS]
