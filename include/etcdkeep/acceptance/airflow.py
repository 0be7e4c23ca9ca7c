"""A private Airflow 3.3: its own home, port and users; started and stopped by pid. SQLite and LocalExecutor."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from etcdkeep.acceptance.services import PIDS, Service, end_all
from etcdkeep.errors import ConfigError, PermanentError

if TYPE_CHECKING:
    from collections.abc import Mapping

PROJECT = Path(__file__).resolve().parents[3]
"""The checkout, or the image's AIRFLOW_HOME: holds the folders ``dags`` and ``plugins``."""
USERS = {"admin": "admin", "alice": "op", "bob": "op", "victor": "viewer"}
FINISHED = {"success", "failed"}
AIRFLOW = (sys.executable, "-m", "airflow")


class Airflow:
    """
    One Airflow.

    :param home: AIRFLOW_HOME; kept between starts.
    :param config: The clusters.yaml that its DAGs read.
    :param extra: More environment, such as STORAGE_EMULATOR_HOST or AIRFLOW_CONN_….
    """

    verify_queue: str | None = None
    """Queue of the tasks that open backups; None where one worker does everything."""

    def __init__(self, home: Path, config: Path, extra: Mapping[str, str] | None = None, parallelism: int = 8) -> None:
        self.home = home.resolve()
        self.config = config.resolve()
        self.extra = dict(extra or {})
        self.parallelism = parallelism
        self._tokens: dict[tuple[str, str], str] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.state['port']}"

    @property
    def state(self) -> dict[str, Any]:
        """Port and passwords, made at the first start."""
        path = self.home / "demo.json"
        if not path.exists():
            self.home.mkdir(parents=True, exist_ok=True, mode=0o700)
            passwords = {user: secrets.token_urlsafe(9) for user in USERS}
            (self.home / "passwords.json").write_text(json.dumps(passwords))
            path.write_text(json.dumps({"port": free_port(), "passwords": passwords, "jwt": secrets.token_hex(32)}))
            path.chmod(0o600)
        found: dict[str, Any] = json.loads(path.read_text())
        return found

    @property
    def environment(self) -> dict[str, str]:
        state = self.state
        url = f"http://127.0.0.1:{state['port']}"
        return {
            **{key: value for key, value in os.environ.items() if _passes(key)},
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(PROJECT / "dags"),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(PROJECT / "plugins"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__PARALLELISM": str(self.parallelism),
            "AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG": "4",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{user}:{role}" for user, role in USERS.items()),
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(self.home / "passwords.json"),
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(state["port"]),
            "AIRFLOW__API__BASE_URL": url,
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API_AUTH__JWT_SECRET": state["jwt"],
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "30",
            "AIRFLOW__DAG_PROCESSOR__DAG_VERSION_INFLATION_CHECK_LEVEL": "error",
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "INFO",
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.3",
            "ETCDKEEP_CONFIG": str(self.config),
            "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])),
            "NO_PROXY": "127.0.0.1,localhost",
            **self.extra,
        }

    def services(self) -> list[Service]:
        """Return the programs that it consists of, in the order of their start."""
        return [self.component("airflow", "standalone")]

    def component(self, name: str, *words: str, environment: Mapping[str, str] | None = None) -> Service:
        """Return one of Airflow's programs: `words` is its command."""
        return Service(name, self.home, (*AIRFLOW, *words), self.environment if environment is None else environment)

    def running(self) -> bool:
        return all(service.running() for service in self.services())

    def start(self, timeout_s: float = 240) -> None:
        """Start it unless it runs, and return when its API, scheduler and DAG processor are up."""
        if not (PROJECT / "dags").is_dir():
            raise ConfigError(
                f"there are no DAGs in {PROJECT / 'dags'}. Run this in the image or in a checkout of etcdkeep."
            )
        self.prepare()
        services = self.services()
        for service in services:
            service.start()
        deadline = time.monotonic() + timeout_s
        while not self._healthy():
            ended = next((service for service in services if not service.running()), None)
            if ended:
                raise PermanentError(f"Airflow did not start: {ended.name} ended. Read its log {ended.log}.")
            if time.monotonic() > deadline:
                raise PermanentError(
                    f"Airflow did not start within {timeout_s:.0f} s. Read its logs {self.home}/*.log."
                )
            time.sleep(0.5)

    def prepare(self) -> None:
        """Make the database unless it is there."""
        if not (self.home / "airflow.db").exists():
            self.migrate()

    def migrate(self) -> None:
        """Bring the database to the tables of this version."""
        subprocess.run([*AIRFLOW, "db", "migrate"], env=self.environment, check=True, capture_output=True)

    def stop(self) -> None:
        """Stop every process that `start` started."""
        end_all(self.home.glob(PIDS))

    def on_verify_queue(self, name: str) -> str:
        """Return the name of what there is once for each queue: a DAG whose form chooses the cluster, a task of housekeeping."""
        return f"{name}__{self.verify_queue}" if self.verify_queue else name

    def call(self, method: str, path: str, body: Any = None, user: str = "admin") -> Any:
        """Call the REST API as one of the users; `path` follows ``/api/v2``."""
        return self._request(method, f"/api/v2{path}", body, self.token(user))

    def token(self, user: str = "admin") -> str:
        """Return a token of one of the users; asked for once, for whoever waits for a run asks every second."""
        state = self.state
        of = user, state["jwt"]
        if of not in self._tokens:
            credentials = {"username": user, "password": state["passwords"][user]}
            self._tokens[of] = str(self._request("POST", "/auth/token", credentials, None)["access_token"])
        return self._tokens[of]

    def trigger(
        self, dag_id: str, conf: Mapping[str, Any] | None = None, user: str = "admin", timeout_s: float = 120
    ) -> str:
        """Start a run as soon as the DAG is known, and return its id."""
        now = datetime.now(UTC).isoformat()
        run_id = f"manual__{now}"
        body = {"dag_run_id": run_id, "logical_date": now, "conf": dict(conf or {})}
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                self.call("PATCH", f"/dags/{dag_id}", {"is_paused": False})
                self.call("POST", f"/dags/{dag_id}/dagRuns", body, user)
            except urllib.error.HTTPError as err:
                if err.code == 409:
                    return run_id
                # 500: SQLite had two writers at once
                if err.code not in (404, 500) or time.monotonic() > deadline:
                    raise PermanentError(
                        f"{dag_id} could not be triggered: {err.code} {err.read().decode()[:500]}. Airflow's log: {self.home}/*.log."
                    ) from err
            else:
                return run_id
            time.sleep(1)

    def wait(self, dag_id: str, run_id: str, timeout_s: float = 600) -> dict[str, Any]:
        """Return the run when it has ended."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            run: dict[str, Any] = self.call("GET", f"/dags/{dag_id}/dagRuns/{run_id}")
            if run["state"] in FINISHED:
                return run
            time.sleep(1)
        states = ", ".join(
            f"{name} {task['state'] or 'not started'}" for name, task in self.tasks(dag_id, run_id).items()
        )
        raise PermanentError(
            f"{dag_id} {run_id} did not end within {timeout_s:.0f} s: {states}. Its page: {self.url}/dags/{dag_id}."
        )

    def tasks(self, dag_id: str, run_id: str) -> dict[str, dict[str, Any]]:
        """Return the run's task instances by task id."""
        found = self.call("GET", f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances")["task_instances"]
        return {task["task_id"]: task for task in found}

    def log_text(self, dag_id: str, run_id: str, task_id: str) -> str:
        """Return every try's log file of one task."""
        folder = self.home / "logs" / f"dag_id={dag_id}" / f"run_id={run_id}" / f"task_id={task_id}"
        return "".join(path.read_text(errors="replace") for path in sorted(folder.glob("attempt=*.log")))

    def _request(self, method: str, path: str, body: Any, token: str | None) -> Any:
        request = urllib.request.Request(  # noqa: S310 - the private Airflow's own address
            self.url + path, method=method, data=None if body is None else json.dumps(body).encode()
        )
        request.add_header("Content-Type", "application/json")
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        with urllib.request.urlopen(request, timeout=120) as answer:  # noqa: S310
            return json.loads(answer.read() or b"null")

    def _healthy(self) -> bool:
        try:
            health = self._request("GET", "/api/v2/monitor/health", None, None)
        except (OSError, ValueError):
            return False
        return all(health[part]["status"] == "healthy" for part in ("metadatabase", "scheduler", "dag_processor"))


def _passes(variable: str) -> bool:
    """Keep another Airflow's settings out; connections are the user's to bring along."""
    return variable.startswith("AIRFLOW_CONN_") or not variable.startswith("AIRFLOW")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
