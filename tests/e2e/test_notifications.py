"""Who is told, through Airflow: real callbacks, real mail and HTTP servers; a story in the order of the tests."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from contextlib import suppress
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from etcdkeep.acceptance.airflow import Airflow
from etcdkeep.acceptance.gated_run import REJECT
from tests.canaries import leaks_in_files
from tests.e2e.restore_run import RestoreRun
from tests.web_hooks import HookServer, eventually, hook_server, mail_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from email.message import EmailMessage

    from lab import Site

pytestmark = pytest.mark.timeout(1500)
TOLD_S = 120
QUIET_S = 12
"""For what must not come. What comes needs less, as the tests around it show."""
TOKEN = "canary-hook-2f7c51d09e"
RUN_S = 400


@pytest.fixture(scope="module")
def hooks() -> Iterator[HookServer]:
    with hook_server() as server:
        server.answers["/tarpit"] = "hang"
        yield server


@pytest.fixture(scope="module")
def mails() -> Iterator[tuple[int, list[EmailMessage]]]:
    with mail_server() as server:
        yield server


@pytest.fixture(scope="module")
def config(site: Site, hooks: HookServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The lab's clusters; `harbor` tells a webhook, a mailbox and one that hangs, `skiff` is late after five seconds."""
    folder = tmp_path_factory.mktemp("told")
    (folder / "hook.url").write_text(f"{hooks.url}/hook/{TOKEN}/{{cluster}}\n")
    (folder / "hook.url").chmod(0o600)
    document = yaml.safe_load(site.config.read_text())
    chat = {"name": "chat", "webhook": {"path": str(folder / "hook.url")}}
    mail = {
        "name": "mail",
        "notifier": "airflow.providers.smtp.notifications.smtp.SmtpNotifier",
        "arguments": {
            "to": "sre@example.net",
            "from_email": "airflow@example.net",
            "subject": "{{ etcdkeep.subject }}",
            "html_content": "<pre>{{ etcdkeep.text | e }}</pre>",
            "smtp_conn_id": "loopback_mail",
        },
        "events": ["backup_failed", "recovered"],
    }
    tarpit = {"name": "tarpit", "webhook": {"url": f"{hooks.url}/tarpit"}, "timeout_s": 1}
    for entry in document["clusters"]:
        entry |= {"schedule": None, "repository": f"file://{folder}/repository"}
        if entry["name"] == "harbor":
            entry |= {"notifications": [tarpit, chat, mail], "ping": {"connection": "dead_man"}}
        if entry["name"] == "skiff":
            entry |= {"notifications": [chat], "limits": {"run_s": 5}}
    path = folder / "clusters.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.fixture(scope="module")
def airflow(site: Site, config: Path, hooks: HookServer, mails: Any, tmp_path_factory: Any) -> Iterator[Airflow]:
    mail = {"conn_type": "smtp", "host": "127.0.0.1", "port": mails[0], "extra": {"disable_ssl": True, "disable_tls": True}}  # fmt: skip
    ping = {"conn_type": "generic", "password": f"{hooks.url}/ping/{TOKEN}/{{cluster}}"}
    extra = {
        "STORAGE_EMULATOR_HOST": site.gcs_url,
        "AIRFLOW_CONN_LOOPBACK_MAIL": json.dumps(mail),
        "AIRFLOW_CONN_DEAD_MAN": json.dumps(ping),
        "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "2",
    }
    airflow = Airflow(tmp_path_factory.mktemp("airflow"), config, extra)
    try:
        airflow.start()
        yield airflow
    finally:
        airflow.stop()


@pytest.fixture(scope="module")
def story(airflow: Airflow, hooks: HookServer, config: Path) -> dict[str, list[str]]:
    """Four runs of `harbor`: good, failed, failed, good. Returns the pings of each."""

    def run() -> list[str]:
        before = len(hooks.paths("/ping/"))
        run_id = airflow.trigger("backup__harbor")
        state = airflow.wait("backup__harbor", run_id, RUN_S)["state"]
        eventually(lambda: len(hooks.paths("/ping/")) >= before + 2, TOLD_S, f"two pings of a {state} run")
        time.sleep(3)  # for one too many
        sent = [path.removeprefix(f"/ping/{TOKEN}/") for path in hooks.paths("/ping/")[before:]]
        return [state, *(signal for signal, _ in groupby(sent))]  # a retry of the first task starts once more

    pings = {"good": run()}
    sound = config.read_text()
    document = yaml.safe_load(sound)
    next(entry for entry in document["clusters"] if entry["name"] == "harbor")["kubeconfig"] = {"path": "/nowhere"}
    config.write_text(yaml.safe_dump(document))
    try:
        pings["failed"] = run()
        eventually(lambda: told(hooks, "backup_failed"), TOLD_S, "that the backup failed")
        pings["failed again"] = run()
    finally:
        config.write_text(sound)
    pings["good again"] = run()
    return pings


def told(hooks: HookServer, event: str, cluster: str = "harbor") -> list[dict[str, Any]]:
    return [each for each in hooks.events(f"/hook/{TOKEN}/{cluster}") if each["event"] == event]


def test_the_dead_man_switch_is_pinged_at_the_start_and_the_end(story):
    assert story == {
        "good": ["success", "harbor/start", "harbor"],
        "failed": ["failed", "harbor/start", "harbor/fail"],
        "failed again": ["failed", "harbor/start", "harbor/fail"],
        "good again": ["success", "harbor/start", "harbor"],
    }


def test_a_failure_is_told_once_a_day_with_its_cause_and_its_end_once(story, hooks, airflow):
    eventually(lambda: told(hooks, "recovered"), TOLD_S, "that backups succeed again")
    time.sleep(QUIET_S)
    (failed,), (recovered,) = told(hooks, "backup_failed"), told(hooks, "recovered")
    assert failed["subject"] == "etcdkeep: harbor: the backup failed: there is no new good one."
    assert "Task discover: kubeconfig /nowhere" in failed["text"]
    assert failed["link"].startswith(f"{airflow.url}/dags/backup__harbor/runs/manual__")
    assert failed["facts"]["failed_tasks"] == ["discover"]
    assert failed["key"] == recovered["key"] == "etcdkeep/harbor/backup"
    assert airflow.call("GET", "/variables")["variables"] == [], "nothing is left to remember"


def test_an_airflow_notifier_gets_the_same(story, mails):
    eventually(lambda: len(mails[1]) >= 2, TOLD_S, "two mails")
    assert [mail["Subject"] for mail in mails[1]] == [
        "etcdkeep: harbor: the backup failed: there is no new good one.",
        "etcdkeep: harbor: backups succeed again.",
    ]
    assert "Task discover: kubeconfig /nowhere" in mails[1][0].get_body(("html",)).get_content()


def test_who_hangs_is_tried_and_keeps_nobody_waiting(story, hooks):
    assert hooks.paths("/tarpit")


def test_a_restore_that_waits_for_approval_is_told_with_the_link_and_its_end_too(story, airflow, hooks):
    run = RestoreRun.start(airflow, "harbor", override=True)
    run.asked("approve")
    (asked,) = eventually(lambda: told(hooks, "approval_waiting"), TOLD_S, "that a gate waits")
    assert asked["link"].startswith(f"{airflow.url}/dags/restore/runs/")
    assert "/tasks/approve/required_actions" in asked["link"]
    run.answer("approve", "alice", REJECT)
    run.ended()
    (ended,) = eventually(lambda: told(hooks, "restore_ended"), TOLD_S, "that the restore ended")
    assert ended["facts"]["outcome"] == "rejected"


def test_a_run_that_hangs_is_told_as_late(airflow, site, hooks):
    with site.faults.exec_stream("slow", where="^harbor/skiff/", match="^cat .*etcdkeep-", value=8000):
        airflow.trigger("backup__skiff")
        (late,) = eventually(lambda: told(hooks, "backup_late", "skiff"), 150, "that the run is late")
        assert "has not ended" in late["subject"]
        assert late["facts"]["dag_id"] == "backup__skiff"


def test_no_url_is_in_any_log(story, airflow):
    secrets = frozenset({TOKEN.encode()})
    assert leaks_in_files([airflow.home], secrets) == {}


def test_a_paused_dag_sends_no_ping(story, airflow, hooks):
    before = len(hooks.paths("/ping/"))
    airflow.call("PATCH", "/dags/backup__harbor", {"is_paused": True})
    now = datetime.now(UTC).isoformat()
    body = {"dag_run_id": f"manual__{now}", "logical_date": now, "conf": {}}
    airflow.call("POST", "/dags/backup__harbor/dagRuns", body)
    time.sleep(QUIET_S)
    assert len(hooks.paths("/ping/")) == before
    airflow.call("PATCH", "/dags/backup__harbor", {"is_paused": False})
    eventually(lambda: len(hooks.paths("/ping/")) >= before + 2, RUN_S, "the pings of a run that is no longer paused")


def test_a_stopped_scheduler_sends_no_ping(story, airflow, hooks):
    os.kill(scheduler_of(airflow), signal.SIGKILL)
    before = len(hooks.paths("/ping/"))
    now = datetime.now(UTC).isoformat()
    airflow.call("POST", "/dags/backup__harbor/dagRuns", {"dag_run_id": f"manual__{now}", "logical_date": now, "conf": {}})  # fmt: skip
    time.sleep(QUIET_S)
    assert len(hooks.paths("/ping/")) == before


def scheduler_of(airflow: Airflow) -> int:
    """Return the process id of this Airflow's scheduler."""
    group = int((airflow.home / "airflow.pid").read_text())
    for pid in sorted(map(int, filter(str.isdigit, os.listdir("/proc")))):
        with suppress(OSError):
            argv = Path(f"/proc/{pid}/cmdline").read_text()
            if os.getpgid(pid) == group and re.search(r"airflow[\0 ]+scheduler", argv):
                return pid
    raise AssertionError("this Airflow has no scheduler")
