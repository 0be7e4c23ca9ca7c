"""Telling people: who of a cluster's list gets an event, in what way, and once a day for a trouble that lasts."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow.sdk.log import mask_secret

from etcdkeep.adapters.web_hook import ping, post_json
from etcdkeep.errors import ConfigError
from etcdkeep.notifications.deliver import Delivery, deliver, public
from etcdkeep.notifications.events import make_event
from etcdkeep.notifications.trouble import Trouble, whom_to_tell
from etcdkeep.site.credentials import read_secret_file
from etcdkeep_airflow.notifications.memory import forget, recall, remember
from etcdkeep_airflow.notifications.notifiers import make_notifier

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from etcdkeep.adapters.web_hook import Signal
    from etcdkeep.config.models import Cluster
    from etcdkeep.config.notifications import Notification, UrlRef
    from etcdkeep.notifications.events import Event

log = logging.getLogger(__name__)


def now() -> datetime:
    """Return the present."""
    return datetime.now(UTC)


def tell(cluster: Cluster, event: Event, context: Mapping[str, Any], only: Collection[str] | None = None) -> tuple[str, ...]:  # fmt: skip
    """
    Tell an event to those who want it, and return the names of those who could not be reached. Never raises.

    :param context: Airflow's, for the templates of notifiers.
    :param only: Names, where not everybody is told.
    """
    entries = [each for each in cluster.notifications if event.event in each.events]
    chosen = [each for each in entries if only is None or each.name in only]
    if chosen:
        log.info("cluster %s: %s: notifying %s", cluster.name, event.event, ", ".join(each.name for each in chosen))
    return _deliver(chosen, event, context)


def send_test(cluster: Cluster) -> tuple[str, ...]:
    """Send a test message to everybody, from a process that is no task, and return the names of those who could not be reached."""
    from etcdkeep_airflow.hooks import read_airflows_database

    read_airflows_database()
    event = make_event("test", cluster.name, now(), "this is a test message. Nothing has happened.")
    return _deliver(cluster.notifications, event, {})


def tell_trouble(cluster: Cluster, topic: str, event: Event, context: Mapping[str, Any]) -> None:
    """Tell of a trouble: everybody once a day (UTC), and those who were missed the next time that it is met."""
    names = [each.name for each in cluster.notifications if event.event in each.events]
    if not cluster.notifications:
        return
    known = recall(cluster.name, topic)
    chosen = whom_to_tell(known, event.at.date(), names)
    if not chosen and known is not None:
        log.info("cluster %s: %s: was reported on %s already", cluster.name, event.event, known.day)
        return
    missed = tell(cluster, event, context, chosen)
    remember(cluster.name, topic, Trouble(event.at.date().isoformat(), missed))


def tell_recovered(cluster: Cluster, topics: Sequence[str], event: Event, context: Mapping[str, Any]) -> None:
    """Tell once that troubles are over, where people know of one."""
    if not cluster.notifications:
        return
    over = [topic for topic in topics if recall(cluster.name, topic) is not None]
    if over:
        tell(cluster, event, context)
    for topic in over:
        forget(cluster.name, topic)


def signal(cluster: Cluster, kind: Signal, text: str) -> None:
    """Ping the cluster's dead-man switch, where it has one. Never raises."""
    ref = cluster.ping
    if ref is not None:
        deliver([Delivery(f"dead-man switch ({kind})", ref.timeout_s, lambda: ping(read_url(ref, cluster.name), kind, text, ref.timeout_s), public)])  # fmt: skip


def read_url(ref: UrlRef, cluster: str) -> str:
    """
    Return a URL from its place, and mask it in the task's log.

    :raises ConfigError: when there is none.
    :raises SecretUnavailable: when its connection or file cannot be read.
    """
    if ref.url is not None:
        found = ref.url
    elif ref.connection is not None:
        found = _url_of_connection(ref.connection)
    else:
        found = read_secret_file(str(ref.path)).decode(errors="replace").strip()
    if not found.startswith(("http://", "https://")):
        where = f"connection {ref.connection!r}" if ref.connection else f"file {ref.path}"
        raise ConfigError(f"{where} holds no URL: expected one that begins with https:// or http://.")
    url = found.replace("{cluster}", cluster)
    parts = urlsplit(url)
    mask_secret([part for part in (url, parts.path, parts.query) if len(part) > 1])
    return url


def _url_of_connection(connection_id: str) -> str:
    from etcdkeep_airflow.hooks import find_connection

    connection = find_connection(connection_id)
    return str(connection.extra_dejson.get("url") or connection.password or "").strip()


def _deliver(entries: Sequence[Notification], event: Event, context: Mapping[str, Any]) -> tuple[str, ...]:
    return deliver(
        Delivery(each.name, each.timeout_s, partial(_send, each, event, context), _describe(each)) for each in entries
    )


def _send(entry: Notification, event: Event, context: Mapping[str, Any]) -> None:
    if entry.webhook is not None:
        post_json(read_url(entry.webhook, event.cluster), event.as_json(), entry.timeout_s)
    else:
        notifier = make_notifier(str(entry.notifier), entry.arguments)
        notifier({**context, "etcdkeep": event.as_json()})


def _describe(entry: Notification) -> Any:
    return public if entry.webhook is not None else partial(_of_notifier, str(entry.notifier))


def _of_notifier(path: str, err: Exception) -> str:
    return f"{path}: {public(err)}"
