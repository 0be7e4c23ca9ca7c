"""
What people know of a trouble, kept as an Airflow Variable from its first event to the recovery.

Airflow's, because it must be there while the repository is not. It decides only whether people are told again; whoever may
edit Variables may also pause the DAG, and neither silences the ping and `check`.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from airflow.sdk import Variable

from etcdkeep.notifications.trouble import read_trouble

if TYPE_CHECKING:
    from etcdkeep.notifications.trouble import Trouble

log = logging.getLogger(__name__)


def variable_name(cluster: str, topic: str) -> str:
    """Return the name of the Variable of a trouble."""
    return f"etcdkeep_told__{cluster}__{topic}"


def recall(cluster: str, topic: str) -> Trouble | None:
    """Return what is remembered of a trouble; None where there is none, and where Airflow does not answer."""
    try:
        return read_trouble(Variable.get(variable_name(cluster, topic), default=None))
    except Exception as err:  # noqa: BLE001 - rather told twice than not at all
        log.warning(
            "cluster %s: cannot tell whether people were notified of %s: %s", cluster, topic, type(err).__name__
        )
        return None


def remember(cluster: str, topic: str, trouble: Trouble) -> None:
    """Remember a trouble."""
    try:
        Variable.set(
            variable_name(cluster, topic),
            trouble.to_text(),
            description="etcdkeep: when people were last notified of this",
        )
    except Exception as err:  # noqa: BLE001 - rather told twice than not at all
        log.warning(
            "cluster %s: cannot remember that people were notified of %s: %s", cluster, topic, type(err).__name__
        )


def forget(cluster: str, topic: str) -> None:
    """Forget a trouble that is over."""
    try:
        Variable.delete(variable_name(cluster, topic))
    except Exception as err:  # noqa: BLE001 - people are told once more that it is over
        log.warning("cluster %s: cannot forget that people were notified of %s: %s", cluster, topic, type(err).__name__)
