"""A real Prometheus on loopback that scrapes and judges every two seconds, for the length of a test."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

RULES = Path(__file__).parents[1] / "deploy/monitoring/etcdkeep.rules.yml"
PROMETHEUS, PROMTOOL = shutil.which("prometheus"), shutil.which("promtool")
INTERVAL = "2s"
needs_prometheus = pytest.mark.skipif(
    not (PROMETHEUS and PROMTOOL), reason="needs prometheus and promtool: apt-get install prometheus"
)


class Prometheus:
    """Asks a running one over its API."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, path: str, **query: str) -> Any:
        """Return the data of an answer; None while it does not answer."""
        try:
            with urllib.request.urlopen(f"{self.url}{path}?{urllib.parse.urlencode(query)}", timeout=5) as answer:
                return json.load(answer)["data"]
        except OSError:
            return None

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the series of an expression now."""
        data = self.ask("/api/v1/query", query=expression)
        assert data is not None, expression
        return list(data["result"])

    def firing(self) -> set[tuple[str, str]]:
        """Return the alerts that fire, each with its cluster."""
        alerts = (self.ask("/api/v1/alerts") or {"alerts": []})["alerts"]
        return {(each["labels"]["alertname"], each["labels"].get("cluster", "")) for each in alerts if each["state"] == "firing"}  # fmt: skip


def eventually(what: str, look: Callable[[], Any], timeout_s: float = 30) -> Any:
    """Wait until something is true, and return it."""
    deadline = time.monotonic() + timeout_s
    while not (found := look()):
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(0.1)
    return found


@contextmanager
def running_prometheus(folder: Path, target: str) -> Iterator[Prometheus]:
    """
    Run one with our rules, without their `for`.

    :param target: ``host:port`` of the exporter.
    """
    rules = yaml.safe_load(RULES.read_text())
    for group in rules["groups"]:
        for rule in group["rules"]:
            rule["for"] = "0s"
    (folder / "rules.yml").write_text(yaml.safe_dump(rules))
    config = {
        "global": {"scrape_interval": INTERVAL, "scrape_timeout": INTERVAL, "evaluation_interval": "500ms"},
        "rule_files": ["rules.yml"],
        "scrape_configs": [{"job_name": "etcdkeep", "static_configs": [{"targets": [target]}]}],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    line = (str(PROMETHEUS), f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data", f"--web.listen-address={address}")  # fmt: skip
    with (folder / "prometheus.log").open("w") as log, subprocess.Popen(line, stdout=log, stderr=log) as process:
        try:
            found = Prometheus(f"http://{address}")
            eventually("Prometheus is up", lambda: found.ask("/api/v1/alerts") or process.poll() is not None)
            assert process.poll() is None, (folder / "prometheus.log").read_text()
            yield found
        finally:
            process.kill()
