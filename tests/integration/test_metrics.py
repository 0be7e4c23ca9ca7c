"""The exporter as a process: scraped by hand, over a repository that hangs, and by a real Prometheus whose alerts fire and resolve."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from datetime import timedelta

import pytest

from etcdkeep.config.loading import CONFIG_VARIABLE
from etcdkeep.metrics.families import LAST_COPIED, METRICS
from etcdkeep.sets.results import DrillResult
from tests.builders import make_entry, make_file, make_verification, signing_pair
from tests.prometheus import PROMTOOL, RULES, eventually, needs_prometheus, running_prometheus
from tests.shelf import Shelf

DASHBOARD = RULES.parent / "grafana-dashboard.json"
START_S = 60
SCRAPE_HEADER = "X-Prometheus-Scrape-Timeout-Seconds"


@pytest.fixture
def shelf(tmp_path):
    """A cluster whose only good backup is three days old, with all that can be measured of it."""
    made = Shelf(tmp_path, rehearse=True, drill={})
    seconds = {"read": 1.5}
    identifier = made.add(3, restorable="yes", seconds=seconds, expires_at=made.now + timedelta(days=90), expires_first="x")  # fmt: skip
    drill = DrillResult(etcd_version="3.5.16", tool="etcdutl 3.5.16", restore_s=12.5)
    at = made.now - timedelta(days=3)
    record = make_verification(at=at, complete=False, drill=drill, levels=("drill",), seconds={"unseal": 2.5})
    made.repository.record(made.get(identifier), record)
    made.write_config()
    return made


@contextmanager
def exporter(config, *words, **environment):
    """Run the exporter on a free port; give its address and process."""
    line = (sys.executable, "-m", "etcdkeep", "metrics", "--listen", "127.0.0.1:0", *words)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), CONFIG_VARIABLE: str(config), **environment}
    with subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            said = process.stdout.readline()
            assert said.startswith("serves http://127.0.0.1:"), said or process.stderr.read()
            yield said.split("//")[1].split("/")[0], process
        finally:
            process.kill()


def scrape(address, path="/metrics", **headers):
    """Return status, content type and text of an answer, and the seconds that it took."""
    request = urllib.request.Request(f"http://{address}{path}", headers=headers)
    began = time.monotonic()
    try:
        with urllib.request.urlopen(request, timeout=START_S) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode(), time.monotonic() - began
    except urllib.error.HTTPError as err:
        return err.code, err.headers["Content-Type"], err.read().decode(), time.monotonic() - began


def test_the_page_is_served_and_nothing_else(shelf):
    with exporter(shelf.folder / "clusters.yaml") as (address, process):
        status, kind, text, _ = scrape(address)
        assert status == 200
        assert kind.startswith("text/plain")
        assert 'etcdkeep_repository_readable{cluster="harbor"} 1.0' in text
        assert scrape(address, Accept="application/openmetrics-text;version=1.0.0")[1].startswith("application/openmetrics-text")  # fmt: skip
        assert scrape(address, "/")[0] == scrape(address, "/etc/passwd")[0] == 404
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == 0


@pytest.fixture
def silent():
    """A server that takes connections and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def test_a_bucket_that_hangs_holds_up_no_scrape_and_hides_no_other_cluster(shelf, silent):
    signing = {"public_keys": [signing_pair()[1]]}
    entries = [make_entry(**{**shelf.settings, "signing": signing})]
    entries += [make_entry(name=name, repository="gs://bucket/x", signing=signing) for name in ("skiff", "fleet")]
    config = shelf.folder / "three.yaml"
    config.write_text(make_file(*entries))
    with exporter(config, STORAGE_EMULATOR_HOST=silent) as (address, process):
        readable = 'etcdkeep_repository_readable{cluster="harbor"} 1.0'
        eventually("clients are imported", lambda: readable in scrape(address, **{SCRAPE_HEADER: "2"})[2])
        for _ in range(2):
            status, _, text, took = scrape(address, **{SCRAPE_HEADER: "2"})
            assert (status, took < 2) == (200, True), took
            assert readable in text
            for name in ("skiff", "fleet"):
                assert f'etcdkeep_repository_readable{{cluster="{name}"}} 0.0' in text
                assert f'etcdkeep_check_status{{cluster="{name}",topic="repository"}} 3.0' in text
        process.terminate()
        assert process.wait(timeout=10) == 0, "a reading that hangs kept it"


def test_an_address_in_use_is_an_error_with_the_next_step(shelf):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        line = (sys.executable, "-m", "etcdkeep", "metrics", "--listen", f"127.0.0.1:{port}")
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), CONFIG_VARIABLE: str(shelf.folder / "clusters.yaml")}  # fmt: skip
        done = subprocess.run(line, env=environment, capture_output=True, text=True, check=False, timeout=START_S)
    assert done.returncode == 1
    assert done.stderr == f"error: 127.0.0.1:{port} cannot be listened on: Address already in use. Choose a free address of this machine for --listen.\n"  # fmt: skip


@needs_prometheus
def test_prometheus_rings_for_what_is_wrong_and_stops_when_it_is_right_again(shelf, tmp_path):
    repository, away = shelf.folder / "repository", shelf.folder / "away"
    with (
        exporter(shelf.folder / "clusters.yaml", "--cache-s", "0.2") as (address, process),
        running_prometheus(tmp_path, address) as prometheus,
    ):

        def rings(what, *alerts):
            expected = {f"Etcdkeep{alert}" for alert in alerts}
            eventually(f"{what}: {alerts}", lambda: {name for name, _ in prometheus.firing()} == expected)

        rings("the scheduler is stopped", "BackupStale", "NothingRuns", "CheckWarning")
        assert ("EtcdkeepBackupStale", "harbor") in prometheus.firing()
        names = {series["metric"]["__name__"] for series in prometheus.query('{__name__=~"etcdkeep_.+"}')}
        assert names == {metric.name for metric in METRICS} - {LAST_COPIED.name}, "there are no copies"
        _ask_all_of_the_dashboard(prometheus)
        for day in (2, 1, 0.1):
            shelf.add(day, "bad")
        rings("it runs, and all is bad", "BackupStale", "CheckWarning")
        shelf.add(0, restorable="yes", drilled=True)
        rings("a good one")

        repository.rename(away)
        repository.write_text("")
        rings("the repository cannot be read", "RepositoryUnreadable")
        repository.unlink()
        repository.mkdir()
        rings("the repository is empty", "BackupStale", "NothingRuns")
        repository.rmdir()
        away.rename(repository)
        rings("it is back")
        shelf.age(-2 / 24)
        rings("a clock is wrong", "ClockWrong")
        shelf.age(0)
        rings("the clocks agree")

        process.kill()
        rings("the exporter is dead", "MetricsMissing")


def _ask_all_of_the_dashboard(prometheus):
    """Every panel's expression is one that Prometheus takes, and shows something; of copies there are none here."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    for panel in panels:
        for target in panel["targets"]:
            expression = target["expr"].replace("$cluster", ".*")
            none_here = LAST_COPIED.name in expression
            eventually(f"{panel['title']}: {expression}", lambda: prometheus.query(expression) or none_here)  # noqa: B023


@needs_prometheus
def test_the_alert_rules_do_what_their_cases_say():
    for words in (("check", "rules", RULES.name), ("test", "rules", "etcdkeep.rules.test.yml")):
        done = subprocess.run((str(PROMTOOL), *words), cwd=RULES.parent, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@needs_prometheus
def test_the_text_is_what_promtool_calls_sound(shelf):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), CONFIG_VARIABLE: str(shelf.folder / "clusters.yaml")}  # fmt: skip
    printed = subprocess.run((sys.executable, "-m", "etcdkeep", "metrics"), env=environment, capture_output=True, check=True)  # fmt: skip
    done = subprocess.run((str(PROMTOOL), "check", "metrics"), input=printed.stdout, capture_output=True, check=False)
    assert (done.returncode, done.stderr, done.stdout) == (0, b"", b"")
