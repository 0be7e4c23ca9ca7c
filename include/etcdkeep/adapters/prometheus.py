"""Values as Prometheus reads them: from a file of node exporter's textfile collector, or over HTTP."""

from __future__ import annotations

import logging
import socket
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, generate_latest, make_wsgi_app, write_to_textfile
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from etcdkeep.metrics.families import METRICS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path
    from wsgiref.types import StartResponse, WSGIEnvironment

    from etcdkeep.metrics.families import Sample

log = logging.getLogger(__name__)

SCRAPE_TIMEOUT = "HTTP_X_PROMETHEUS_SCRAPE_TIMEOUT_SECONDS"
DEFAULT_TIMEOUT_S, LONGEST_TIMEOUT_S = 10.0, 120.0
SHARE = 0.8
"""Of Prometheus's own deadline: the rest is for the way."""
CLIENT_S = 10
"""How long a client may take to send its request."""


class _Values(Collector):
    def __init__(self, samples: Iterable[Sample]) -> None:
        self.samples = tuple(samples)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield every family, those without values too: its name and help are then known."""
        for metric in METRICS:
            family = GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
            for sample in self.samples:
                if sample.metric == metric:
                    family.add_metric(sample.labels, sample.value)
            yield family


def _registry(samples: Iterable[Sample]) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(_Values(samples))
    return registry


def metrics_text(samples: Iterable[Sample]) -> str:
    """Return values in Prometheus's text format."""
    return generate_latest(_registry(samples)).decode()


def write_metrics(samples: Iterable[Sample], path: Path) -> None:
    """Write a textfile whole, by a rename; a reader never meets half of it."""
    write_to_textfile(str(path), _registry(samples))


def metrics_app(collect: Callable[[float], Iterable[Sample]]) -> Callable[[WSGIEnvironment, StartResponse], Any]:
    """
    Return the web application that serves ``/metrics``.

    :param collect: Given the seconds that a scrape can wait, returns the values.
    """

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Any:
        if environ["PATH_INFO"] != "/metrics":
            start_response("404 Not Found", [("Content-Type", "text/plain; charset=utf-8")])
            return [b"The metrics are at /metrics.\n"]
        samples = collect(scrape_wait_s(environ)) if environ["REQUEST_METHOD"] == "GET" else ()
        return make_wsgi_app(_registry(samples))(environ, start_response)

    return app


def scrape_wait_s(environ: WSGIEnvironment) -> float:
    """Return how long a scrape can wait: most of the timeout that Prometheus sends with it."""
    try:
        timeout = float(environ.get(SCRAPE_TIMEOUT, ""))
    except ValueError:
        timeout = DEFAULT_TIMEOUT_S
    return SHARE * (min(timeout, LONGEST_TIMEOUT_S) if timeout > 0 else DEFAULT_TIMEOUT_S)


class _Handler(WSGIRequestHandler):
    timeout = CLIENT_S

    def log_message(self, format: str, *args: Any) -> None:
        """Log no scrape: there are thousands a day."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def server_bind(self) -> None:
        """Bind without asking a name service for the machine's name, as the base class does."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        host, port = self.socket.getsockname()[:2]
        self.server_name, self.server_port = host, port
        self.setup_environ()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say in one line that a client left early."""
        log.info("The scrape of %s failed.", client_address, exc_info=log.isEnabledFor(logging.DEBUG))


class _Server6(_Server):
    address_family = socket.AF_INET6


def open_server(host: str, port: int, app: Callable[[WSGIEnvironment, StartResponse], Any]) -> WSGIServer:
    """
    Return a server that listens; port 0 takes a free one.

    :raises OSError: when the address cannot be used.
    """
    return make_server(host, port, app, _Server6 if ":" in host else _Server, handler_class=_Handler)
