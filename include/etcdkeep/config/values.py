"""Types of single settings: schedules, addresses, names, host keys, each with the check that it needs."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated

from croniter import CroniterBadDateError, croniter
from pydantic import AfterValidator, Field, StringConstraints

from etcdkeep.config.host_keys import parse_host_key
from etcdkeep.config.ssh_algorithms import check_weak
from etcdkeep.errors import ConfigError
from etcdkeep.naming import split_address

PRESETS = ("@hourly", "@daily", "@weekly", "@monthly", "@quarterly", "@yearly")
"""Names that Airflow takes in place of a cron expression."""

AFTER_BACKUP = "after_backup"
"""Schedule of drills that follow each verified backup."""


def _cron(schedule: str | None) -> str | None:
    if schedule is None or schedule in PRESETS:
        return schedule
    if len(schedule.split()) != 5 or not croniter.is_valid(schedule):
        raise ValueError(f"expected five cron fields such as '30 2 * * *', found {schedule!r}")
    if not _ever_comes(schedule):
        raise ValueError(
            f"{schedule!r} never comes: no such day exists in those months; correct day and month, or give null for none"
        )
    return schedule


def _ever_comes(schedule: str) -> bool:
    """Say whether a valid cron expression has a moment at all; croniter looks 50 years ahead, 29 February included."""
    try:
        croniter(schedule, datetime(2001, 1, 1, tzinfo=UTC)).get_next(datetime)
    except CroniterBadDateError:
        return False
    return True


def _drill_schedule(schedule: str | None) -> str | None:
    return schedule if schedule == AFTER_BACKUP else _cron(schedule)


def _host_key(line: str) -> str:
    try:
        parse_host_key(line)
    except ConfigError as err:
        raise ValueError(str(err)) from err
    return line


def _program(name: str) -> str:
    if not name or ("/" in name and not name.startswith("/")):
        raise ValueError(f"expected a program's name or its whole path, found {name!r}")
    if _INTERPRETER.fullmatch(name.rpartition("/")[2]):
        raise ValueError(f"{name!r} runs whatever a kubeconfig gives it; list the plugin itself")
    return name


_INTERPRETER = re.compile(
    r"(ba|da|a|z|k|c|tc|fi)?sh|busybox|env|sudo|su|xargs|nohup|timeout|setsid|nice|ssh|docker|kubectl|awk|find"
    r"|(python|perl|ruby|node|php|lua)[\d.]*"
)


def _address(address: str) -> str:
    split_address(address, 22)
    return address


ClusterName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
# `max_length`, not `{1,100}`: pydantic's regular expressions write a repeated `\w` out, which took 25 MiB in every process.
QueueName = Annotated[str, StringConstraints(pattern=r"^[\w.-]+$", max_length=100)]
"""Of queues and pools; DAGs and tasks are named after queues."""
ExecutorName = Annotated[str, StringConstraints(pattern=r"^[\w.:]+$", max_length=200)]
"""An alias, a class, or a module path with it."""
Tag = Annotated[str, StringConstraints(min_length=1, max_length=100)]
Port = Annotated[int, Field(ge=1, le=65535)]
Program = Annotated[str, AfterValidator(_program)]
HostKeyLine = Annotated[str, AfterValidator(_host_key)]
WeakAlgorithm = Annotated[str, AfterValidator(check_weak)]
Address = Annotated[str, AfterValidator(_address)]
Cron = Annotated[str | None, AfterValidator(_cron)]
DrillSchedule = Annotated[str | None, AfterValidator(_drill_schedule)]
