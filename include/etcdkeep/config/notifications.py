"""The settings `notifications` and `ping` of a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from etcdkeep.config.profiles import HostPath, Section

EventName = Literal[
    "backup_failed",
    "backup_late",
    "not_restorable",
    "stale",
    "drill_failed",
    "recovered",
    "approval_waiting",
    "restore_ended",
]
EVENTS: tuple[EventName, ...] = get_args(EventName)

LONGEST_S = 15.0
"""Airflow ends a task's process 20 seconds after the task itself, whatever that still does."""


def _web_url(url: str) -> str:
    if not url.startswith(("http://", "https://")) or any(letter.isspace() for letter in url):
        raise ValueError("expected a URL that begins with https:// or http://")
    return url


WebUrl = Annotated[str, AfterValidator(_web_url)]
ClassPath = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)+$")]
EntryName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$")]
TimeoutS = Annotated[float, Field(gt=0, le=LONGEST_S)]


class UrlRef(Section):
    """Where a URL is kept: exactly one of the three. `{cluster}` in it stands for the cluster's name."""

    url: WebUrl | None = Field(
        None, description="The URL itself, where it is not secret.", examples=["https://hooks.example.net/etcdkeep"]
    )
    connection: str | None = Field(
        None,
        min_length=1,
        description="Airflow connection id; the URL is its `url` extra or its password.",
        examples=["etcdkeep_webhook"],
    )
    path: HostPath | None = Field(
        None,
        description="File with the URL, on the workers and the DAG processor.",
        examples=["/run/secrets/etcdkeep/webhook.url"],
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> UrlRef:
        if sum(place is not None for place in (self.url, self.connection, self.path)) != 1:
            raise ValueError("give exactly one of url, connection, path")
        return self


class PingRef(UrlRef):
    """
    A dead-man switch: a service that raises an alarm when no ping arrives in time. Exactly one of `url`, `connection` and
    `path`; `/start` and `/fail` are added to it. `{cluster}` in it stands for the cluster's name.
    """

    timeout_s: TimeoutS = Field(5, description="Seconds until a ping is stopped.", examples=[5])


class Notification(Section):
    """Somebody who is notified: an Airflow notifier, or a webhook that gets JSON by POST. Give exactly one of the two."""

    name: EntryName = Field(description="Unique name in this list, for logs.", examples=["oncall"])
    notifier: ClassPath | None = Field(
        None,
        description="Class of an Airflow notifier. Its provider must be installed on the workers and the DAG processor.",
        examples=["airflow.providers.smtp.notifications.smtp.SmtpNotifier"],
    )
    arguments: Mapping[str, Any] = Field(
        default_factory=dict,
        description="Arguments of that class. Its templated ones may use `etcdkeep.subject`, `.text`, `.event`, `.cluster`, `.key`, `.link` and `.facts`. No secrets: name a connection.",
        examples=[{"to": "sre@example.net", "subject": "{{ etcdkeep.subject }}"}],
    )
    webhook: UrlRef | None = Field(
        None, description="Where the event is sent as JSON.", examples=[{"connection": "etcdkeep_webhook"}]
    )
    events: tuple[EventName, ...] = Field(
        EVENTS,
        min_length=1,
        description="What it is notified of; default: everything.",
        examples=[["backup_failed", "stale"]],
    )
    timeout_s: TimeoutS = Field(10, description="Seconds until it is no longer waited for.", examples=[10])

    @model_validator(mode="after")
    def _one_way(self) -> Notification:
        if (self.notifier is None) == (self.webhook is None):
            raise ValueError("give exactly one of notifier, webhook")
        if self.arguments and self.notifier is None:
            raise ValueError("arguments are those of a notifier; a webhook has none")
        return self


def _unique(entries: tuple[Notification, ...]) -> tuple[Notification, ...]:
    names = [entry.name for entry in entries]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"names are unique in this list; given twice: {', '.join(twice)}")
    return entries


Notifications = Annotated[tuple[Notification, ...], AfterValidator(_unique)]

EXAMPLE: list[dict[str, Any]] = [
    {
        "name": "oncall",
        "notifier": "airflow.providers.smtp.notifications.smtp.SmtpNotifier",
        "arguments": {
            "to": "sre@example.net",
            "from_email": "airflow@example.net",
            "subject": "{{ etcdkeep.subject }}",
            "html_content": "<pre>{{ etcdkeep.text | e }}</pre>",
        },
        "events": ["backup_failed", "stale", "recovered"],
        "timeout_s": 10,
    },
    {"name": "chat", "webhook": {"connection": "etcdkeep_webhook"}},
]
