"""How long the control plane was down, from what a restore's journal says."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from etcdkeep.restore.engine import StepEvent


def outage_began(events: Iterable[StepEvent]) -> float | None:
    """Return when the control plane was stopped last; None when it was not. All nodes of one outage count as one stop."""
    stopped, served = None, False
    for event in sorted(events, key=lambda event: event.at):
        if event.phase == "stop" and event.state == "began":
            stopped = event.at if served or stopped is None else stopped
            served = False
        elif _is_served(event):
            served = True
    return stopped


def down_time_s(events: Iterable[StepEvent]) -> float | None:
    """
    Return the seconds from the last outage's stop to the moment when everything that is waited for answered.

    :return: None when nothing was stopped, or nothing has answered since.
    """
    events = list(events)
    stopped = outage_began(events)
    served = dict[str, float]()
    for event in sorted(events, key=lambda event: event.at):
        if stopped is not None and event.at >= stopped and _is_served(event):
            served.setdefault(event.step, event.at)
    return round(max(served.values()) - stopped, 3) if stopped is not None and served else None


def _is_served(event: StepEvent) -> bool:
    """Whether something answered that is waited for after a start."""
    return event.state == "done" and (event.step.startswith("etcd-serves") or event.phase == "verify")
