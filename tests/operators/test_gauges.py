"""The metrics that `housekeeping` sends by Airflow's own means, received on loopback."""

from __future__ import annotations

import gzip
import os
import re
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from airflow.sdk._shared.observability.metrics.base_stats_logger import NoStatsLogger
from airflow.sdk.observability import stats
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from etcdkeep.config.loading import CONFIG_VARIABLE
from etcdkeep.errors import EtcdkeepError
from etcdkeep.freshness.check import check_stored
from etcdkeep.freshness.report import TOPICS
from etcdkeep.metrics.families import CHECK_STATUS, LAST_GOOD, MEASURED, REPOSITORY_READABLE
from etcdkeep.metrics.samples import samples_of
from etcdkeep_airflow.gauges import plain_name
from tests.housekeeping_task import run_housekeeping
from tests.shelf import Shelf

RULES = {"daily": 2, "min_good": 1, "max_remove_share": 0.9, "enforce": True}


@pytest.fixture
def shelf(tmp_path):
    made = Shelf(tmp_path, rehearse=False, retention=RULES)
    for day in (4, 3, 2):
        made.add(day)
    made.write_config()
    return made


@pytest.fixture
def run_task(shelf, monkeypatch):
    """Return what runs the task with settings of Airflow's section `metrics`."""

    def run(**settings):
        monkeypatch.setenv(CONFIG_VARIABLE, str(shelf.write_config()))
        for name, value in settings.items():
            monkeypatch.setenv(f"AIRFLOW__METRICS__{name.upper()}", str(value))
        run_housekeeping()

    yield run
    stats.initialize(factory=NoStatsLogger, export_legacy_names=True)


def expected(shelf):
    """What `metrics` says of the cluster after that, but for the time at which it was measured."""
    samples = samples_of(check_stored(shelf.repository, shelf.cluster, shelf.now))
    return [sample for sample in samples if sample.metric != MEASURED]


@pytest.fixture
def statsd():
    """A StatsD on loopback; gives its port, and afterwards what arrived."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as received:
        received.bind(("127.0.0.1", 0))
        received.settimeout(0.5)
        received.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**20)

        def arrived():
            lines = []
            with suppress(TimeoutError):
                while True:
                    lines += received.recv(65536).decode().splitlines()
            found = (re.fullmatch(r"airflow\.(etcdkeep_[^:]+):([-+.e\d]+)\|g", line) for line in lines)
            return {match[1]: float(match[2]) for match in found if match}

        yield received.getsockname()[1], arrived


def test_plain_statsd_gets_every_number_under_a_name_of_its_own(shelf, run_task, statsd):
    port, arrived = statsd
    run_task(statsd_on=True, statsd_host="127.0.0.1", statsd_port=port)
    assert len(shelf.ids()) == 2, "it did its own work as well"
    found = arrived()
    sent = expected(shelf)
    assert len({plain_name(sample) for sample in sent}) == len(sent)
    assert found.pop("etcdkeep_measured_timestamp_seconds.harbor") > shelf.now.timestamp()
    assert found == {plain_name(sample): pytest.approx(sample.value) for sample in sent}


def test_a_statsd_that_knows_tags_gets_the_labels_as_tags(shelf, run_task, statsd):
    port, arrived = statsd
    run_task(statsd_on=True, statsd_influxdb_enabled=True, statsd_host="127.0.0.1", statsd_port=port)
    found = arrived()
    assert found["etcdkeep_last_good_timestamp_seconds,cluster=harbor"] == shelf.now.timestamp() - 2 * 86400
    assert found["etcdkeep_check_status,cluster=harbor,topic=good"] == 1


def test_an_unreachable_repository_is_sent_and_fails_the_task(shelf, run_task, statsd):
    port, arrived = statsd
    (shelf.folder / "file").write_text("")
    shelf.settings["repository"] = f"file://{shelf.folder}/file/x"
    with pytest.raises(EtcdkeepError, match="part of the path is a file"):
        run_task(statsd_on=True, statsd_host="127.0.0.1", statsd_port=port)
    found = arrived()
    del found["etcdkeep_measured_timestamp_seconds.harbor"]
    assert found == {plain_name(REPOSITORY_READABLE.sample(0, "harbor")): 0} | {
        plain_name(CHECK_STATUS.sample(3, "harbor", topic)): 3 for topic in TOPICS
    }


@contextmanager
def collector():
    """An OpenTelemetry collector on loopback; gives its port and the requests that arrived."""
    requests = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            is_packed = self.headers.get("Content-Encoding") == "gzip"
            requests.append(ExportMetricsServiceRequest.FromString(gzip.decompress(body) if is_packed else body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args):
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.server_port, requests
        server.shutdown()


def test_opentelemetry_gets_the_labels_as_attributes(shelf):
    settings = {"otel_on": True, "otel_host": "127.0.0.1", "otel_interval_milliseconds": 60000}
    with collector() as (port, requests):
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            CONFIG_VARIABLE: str(shelf.write_config()),
            **{
                f"AIRFLOW__METRICS__{name.upper()}": str(value)
                for name, value in (settings | {"otel_port": port}).items()
            },
        }
        line = (
            sys.executable,
            "-m",
            "tests.housekeeping_task",
        )  # OpenTelemetry's provider is one for the whole process
        done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    metrics = [metric for request in requests for resource in request.resource_metrics for scope in resource.scope_metrics for metric in scope.metrics]  # fmt: skip
    found = {
        (metric.name, *sorted((each.key, each.value.string_value) for each in point.attributes)): point.as_double
        for metric in metrics
        for point in metric.gauge.data_points
        if metric.name.startswith("airflow.etcdkeep_")
    }
    sent = {
        (f"airflow.{each.metric.name}", *sorted(zip(each.metric.labels, each.labels, strict=True))): each.value
        for each in expected(shelf)
    }
    assert sent.keys() <= found.keys()
    assert {key: found[key] for key in sent} == {key: pytest.approx(value) for key, value in sent.items()}
    assert found[f"airflow.{LAST_GOOD.name}", ("cluster", "harbor")] == shelf.now.timestamp() - 2 * 86400


@pytest.mark.parametrize(
    "metrics",
    [
        pytest.param({}, id="off"),
        pytest.param({"statsd_on": True, "statsd_host": "name.invalid", "statsd_port": 8125}, id="no-such-host"),
        pytest.param({"statsd_on": True, "statsd_host": "127.0.0.1", "statsd_port": "x"}, id="wrong-setting"),
    ],
)
def test_metrics_that_cannot_be_sent_fail_no_housekeeping(shelf, run_task, metrics):
    run_task(**metrics)
    assert len(shelf.ids()) == 2
