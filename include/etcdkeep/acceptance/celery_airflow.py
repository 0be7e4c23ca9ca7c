"""
A private Airflow as a team has it: PostgreSQL, Redis, a process for each part, and two Celery workers that share no private key.

PostgreSQL and Redis are the system's programs, started for this Airflow alone. Where we are root, each worker has a mount
namespace of its own: what belongs to the other is not there.
"""

from __future__ import annotations

import json
import os
import pwd
import secrets
import shlex
import shutil
import subprocess
import time
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from etcdkeep.acceptance.airflow import Airflow, free_port
from etcdkeep.acceptance.services import PIDS, Service, can_mount, end_all, with_mounts
from etcdkeep.errors import ConfigError, PermanentError

if TYPE_CHECKING:
    from collections.abc import Mapping

POSTGRES_PROGRAMS = ("initdb", "postgres", "pg_isready")
POSTGRES_FOLDERS = "usr/lib/postgresql/*/bin"
"""Where Debian has the programs of each version; they are not on PATH."""
READY_S = 60.0
CONCURRENCY = 2
AGAIN = 'until "$@"; do sleep 1; done'
SERVERS_ONLY = (
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN",
    "AIRFLOW__API_AUTH__JWT_SECRET",
    "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE",
)
STORE_ENVIRONMENT = {"PATH": os.environ["PATH"], "LC_ALL": "C"}
SERVERS_FILES = ("airflow.cfg", "celery.json", "demo.json", "passwords.json", "postgres", "redis.conf")
MOUNTED = "/mnt"
"""PostgreSQL's user may not be able to reach our home: it finds its folder here, in a mount namespace of its own."""


@dataclass(frozen=True)
class Kind:
    """
    A kind of Celery workers.

    :param queues: Those it serves.
    :param hidden: Files and folders that it must not see: the keys of the other kind.
    """

    name: str
    queues: tuple[str, ...]
    hidden: tuple[Path, ...] = ()

    @property
    def service(self) -> str:
        return f"worker-{self.name}"


def missing_programs() -> str:
    """Return what this machine lacks for it and how to get it, as a sentence; empty when all is there."""
    programs = {"PostgreSQL": _postgres_folder(), "Redis": shutil.which("redis-server")}
    if missing := [name for name, path in programs.items() if path is None]:
        return f"{' and '.join(missing)} not found. Install: apt-get install postgresql redis-server."
    if os.geteuid() == 0 and not can_mount():
        return "PostgreSQL does not run as root, and this root may not mount. Run it as another user."
    return ""


class CeleryAirflow(Airflow):
    """
    One Airflow with CeleryExecutor.

    :param kinds: Its workers, one of each kind.
    """

    verify_queue = "verify"

    def __init__(
        self, home: Path, config: Path, kinds: tuple[Kind, ...], extra: Mapping[str, str] | None = None, parallelism: int = 8
    ) -> None:  # fmt: skip
        super().__init__(home, config, extra, parallelism)
        self.kinds = kinds

    @cached_property
    def store_settings(self) -> dict[str, Any]:
        """Ports and passwords of the database and the broker, made at the first start."""
        path = self.home / "celery.json"
        if not path.exists():
            self.home.mkdir(parents=True, exist_ok=True, mode=0o700)
            made = {name: {"port": free_port(), "password": secrets.token_hex(24)} for name in ("database", "broker")}
            path.touch(mode=0o600)
            path.write_text(json.dumps(made))
        found: dict[str, Any] = json.loads(path.read_text())
        return found

    @property
    def environment(self) -> dict[str, str]:
        """Of the parts that run Airflow; a worker gets less."""
        database, broker = self.store_settings["database"], self.store_settings["broker"]
        redis = f"redis://:{broker['password']}@127.0.0.1:{broker['port']}/0"
        return {
            **super().environment,
            "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"postgresql+psycopg2://airflow:{database['password']}@127.0.0.1:{database['port']}/postgres",
            "AIRFLOW__CELERY__BROKER_URL": redis,
            "AIRFLOW__CELERY__RESULT_BACKEND": redis,
            "AIRFLOW__CELERY__CELERY_CONFIG_OPTIONS": "etcdkeep_airflow.celery_settings.CONFIG",
            "AIRFLOW__CELERY__SYNC_PARALLELISM": "1",  # else each look at the results starts processes
            "AIRFLOW__OPERATORS__DEFAULT_QUEUE": "default",
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "1",  # as a team's has it; less keeps a tenth of a core busy
            "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(self.home / "logs"),
            **self.extra,
        }

    def services(self) -> list[Service]:
        parts = [self.component(name, name) for name in ("api-server", "scheduler", "dag-processor")]
        triggerer = self.component("triggerer", "triggerer", "--skip-serve-logs")
        return [*self.stores(), *parts, triggerer, *(self.worker(kind) for kind in self.kinds)]

    def component(self, name: str, *words: str, environment: Mapping[str, str] | None = None) -> Service:
        """Return one of Airflow's programs, which is started again when it fails, as compose does it."""
        service = super().component(name, *words, environment=environment)
        return replace(service, argv=("sh", "-c", AGAIN, "sh", *service.argv))

    def stores(self) -> list[Service]:
        """Return the database and the broker."""
        server = (
            "postgres",
            "-D",
            "{data}",
            "-p",
            str(self.store_settings["database"]["port"]),
            "-h",
            "127.0.0.1",
            "-k",
            "",
        )
        quick = ("-c", "fsync=off", "-c", "shared_buffers=64MB")  # nothing here has to outlive the machine's power
        redis = (str(shutil.which("redis-server")), str(self.home / "redis.conf"))
        return [
            Service("postgres", self.home, self._as_database_user(*server, *quick), STORE_ENVIRONMENT),
            Service("redis", self.home, redis, STORE_ENVIRONMENT),
        ]

    def worker(self, kind: Kind) -> Service:
        """Return the worker of a kind: folders of its own, no database and no key of Airflow."""
        folder = self._folder(kind)
        environment = {name: value for name, value in self.environment.items() if name not in SERVERS_ONLY} | {
            "HOME": str(folder),
            "TMPDIR": str(folder / "tmp"),
            "AIRFLOW_HOME": str(folder / "airflow"),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{folder}/no-database",
        }
        words = ("celery", "worker", "--queues", ",".join(kind.queues), "--concurrency", str(CONCURRENCY))
        names = ("--celery-hostname", f"{kind.name}@%h", "--pid", str(folder / "pid"))
        service = self.component(
            kind.service, *words, *names, "--skip-serve-logs", "--without-gossip", "--without-mingle", environment=environment
        )  # fmt: skip
        if not can_mount():
            return service
        others = (self._folder(other) for other in self.kinds if other is not kind)
        servers = (self.home / name for name in SERVERS_FILES)
        script = "\n".join(map(_hide, (*others, *servers, *kind.hidden, Path("/dev/shm"))))  # noqa: S108 - each gets its own
        return replace(service, argv=with_mounts(script, service.argv))

    def prepare(self) -> None:
        """
        Start the database and the broker, and make what is not there yet.

        :raises ConfigError: when this machine lacks a program.
        """
        if missing := missing_programs():
            raise ConfigError(f"Airflow with Celery cannot start: {missing}")
        for kind in self.kinds:
            for folder in ("tmp", "airflow"):
                (self._folder(kind) / folder).mkdir(parents=True, exist_ok=True, mode=0o700)
        self._configure_redis()
        self._make_cluster()
        for store in self.stores():
            store.start()
        self._wait_for_database()
        if not (migrated := self.home / "migrated").exists():
            self.migrate()
            migrated.touch()

    def stop(self) -> None:
        """Stop what uses the database and the broker, then these: a worker whose broker is gone does not end."""
        stores = {store.pid_file for store in self.stores()}
        end_all(path for path in self.home.glob(PIDS) if path not in stores)
        super().stop()

    def _folder(self, kind: Kind) -> Path:
        return self.home / "workers" / kind.name

    def _configure_redis(self) -> None:
        broker, path = self.store_settings["broker"], self.home / "redis.conf"
        path.touch(mode=0o600)
        path.write_text(
            f'bind 127.0.0.1\nport {broker["port"]}\nrequirepass {broker["password"]}\nsave ""\nappendonly no\ndir {self.home}\n'
        )

    def _make_cluster(self) -> None:
        """Make the database's files unless they are there, with one user and its password."""
        folder = self.home / "postgres"
        if (folder / "data" / "PG_VERSION").exists():
            return
        folder.mkdir(exist_ok=True, mode=0o700)
        password = folder / "password"
        password.touch(mode=0o600)
        password.write_text(self.store_settings["database"]["password"])
        if user := _database_user():
            for path in (folder, password):
                os.chown(path, user.pw_uid, user.pw_gid)
        words = ("initdb", "-D", "{data}", "--username", "airflow", "--auth", "scram-sha-256", "--pwfile", "{password}")
        argv = self._as_database_user(*words, "--encoding", "UTF8", "--locale", "C", "--no-sync")
        done = subprocess.run(argv, cwd="/", env=STORE_ENVIRONMENT, capture_output=True, text=True, check=False)
        password.unlink()
        if done.returncode:
            raise PermanentError(f"PostgreSQL's files cannot be made in {folder}: {done.stderr[-500:]}")

    def _as_database_user(self, program: str, *words: str) -> tuple[str, ...]:
        """Return the call of one of PostgreSQL's programs; `{data}` and `{password}` stand for its files."""
        user, folder = _database_user(), self.home / "postgres"
        seen = Path(MOUNTED) if user else folder
        files = {"{data}": str(seen / "data"), "{password}": str(seen / "password")}
        argv = (str(_postgres_folder() or "") + f"/{program}", *(files.get(word, word) for word in words))
        if not user:
            return argv
        drop = ("setpriv", "--reuid", str(user.pw_uid), "--regid", str(user.pw_gid), "--clear-groups", "--")
        return with_mounts(f"mount --bind {shlex.quote(str(folder))} {MOUNTED}; cd {MOUNTED}", (*drop, *argv))

    def _wait_for_database(self) -> None:
        ask = (
            f"{_postgres_folder()}/pg_isready",
            "-q",
            "-h",
            "127.0.0.1",
            "-p",
            str(self.store_settings["database"]["port"]),
        )
        deadline = time.monotonic() + READY_S
        while subprocess.run(ask, check=False).returncode:
            if time.monotonic() > deadline:
                raise PermanentError(f"PostgreSQL did not start. Read its log {self.home / 'postgres.log'}.")
            time.sleep(0.1)


def _postgres_folder() -> Path | None:
    """Return the folder of PostgreSQL's programs, of the newest version that is installed."""
    on_path = [Path(path).resolve().parent for path in (shutil.which("postgres"),) if path]
    found = [*on_path, *sorted(Path("/").glob(POSTGRES_FOLDERS), key=_version, reverse=True)]
    return next((folder for folder in found if all((folder / name).exists() for name in POSTGRES_PROGRAMS)), None)


def _version(folder: Path) -> int:
    return int(folder.parent.name) if folder.parent.name.isdigit() else 0


def _database_user() -> pwd.struct_passwd | None:
    """Return who runs PostgreSQL in place of root; None when we are not root."""
    if os.geteuid():
        return None
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")


def _hide(path: Path) -> str:
    """Return the shell command that puts something empty in the place of a file or folder."""
    quoted = shlex.quote(str(path))
    if path.is_file():
        return f"mount --bind /dev/null {quoted}"
    return f"mount -t tmpfs -o mode=0700,size=2g tmpfs {quoted}"
