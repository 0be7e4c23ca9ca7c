"""The metrics of `python -m etcdkeep metrics`, sent where Airflow sends its own: StatsD, DogStatsD or OpenTelemetry."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from airflow.sdk.configuration import conf
from airflow.sdk.observability import stats

if TYPE_CHECKING:
    from collections.abc import Iterable

    from etcdkeep.metrics.families import Sample

log = logging.getLogger(__name__)


def send_gauges(samples: Iterable[Sample]) -> None:
    """Send values as gauges, if Airflow's metrics are on; a receiver that cannot be reached never fails the task."""
    try:
        tagged = _keeps_tags()
        for sample in samples:
            if tagged:
                stats.gauge(sample.metric.name, sample.value, tags=dict(zip(sample.metric.labels, sample.labels, strict=True)))  # fmt: skip
            else:
                stats.gauge(plain_name(sample), sample.value)
    except Exception:
        log.exception("The metrics were not sent. Check [metrics] of Airflow's configuration.")


def plain_name(sample: Sample) -> str:
    """Return a name for plain StatsD, which has no tags: the labels' values, in order, are its last parts."""
    return ".".join((sample.metric.name, *sample.labels))


def _keeps_tags() -> bool:
    """Return whether what Airflow sends to knows tags: all but plain StatsD."""
    is_datadog = conf.getboolean("metrics", "statsd_datadog_enabled", fallback=False)
    is_plain = conf.getboolean("metrics", "statsd_on", fallback=False) and not conf.getboolean(
        "metrics", "statsd_influxdb_enabled", fallback=False
    )
    return is_datadog or not is_plain
