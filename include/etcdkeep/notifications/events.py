"""What people are told, as data: one event with a subject, a text and the facts for programs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from etcdkeep.plain_text import lines, one_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from etcdkeep.config.notifications import EventName

SUBJECT_CHARS = 200
TEXT_CHARS = 4_000


@dataclass(frozen=True)
class Event:
    """
    One thing that people are told.

    :param subject: One line.
    :param text: What happened and the next step; several lines.
    :param key: The same for the events of one trouble, for tools that group them.
    :param facts: For programs: names, ids and states. No secrets.
    """

    event: EventName | Literal["test"]
    cluster: str
    at: datetime
    subject: str
    text: str
    key: str
    link: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return what a webhook gets, and a notifier's templates see as ``etcdkeep``."""
        return {**vars(self), "at": self.at.isoformat(), "facts": dict(self.facts)}


def make_event(
    name: EventName | Literal["test"],
    cluster: str,
    at: datetime,
    happened: str,
    *,
    details: Sequence[str] = (),
    topic: str = "",
    link: str = "",
    **facts: Any,
) -> Event:
    """
    Return an event, its texts without anything that a terminal or a mail obeys.

    :param happened: One sentence, without the cluster's name.
    :param details: More lines, such as a task's error.
    :param topic: What is in trouble; the default is the event itself.
    """
    subject = one_line(f"etcdkeep: {cluster}: {happened}", SUBJECT_CHARS)
    body = [f"Cluster {cluster}: {happened}", *details, *([link] if link else [])]
    return Event(
        event=name,
        cluster=cluster,
        at=at,
        subject=subject,
        text=lines("\n".join(body), TEXT_CHARS),
        key=f"etcdkeep/{cluster}/{topic or name}",
        link=link,
        facts={name: value for name, value in facts.items() if value is not None},
    )
