"""Airflow's notifiers by class path: checked in advance, made and called when there is something to tell."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseNotifier

from etcdkeep.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from etcdkeep.config.models import Cluster
    from etcdkeep.config.notifications import Notification


def find_class(path: str) -> type[BaseNotifier]:
    """
    Return a notifier's class.

    :raises ConfigError: when it cannot be imported here, or is not a notifier.
    """
    module, _, name = path.rpartition(".")
    try:
        found = getattr(import_module(module), name)
    except ImportError as err:
        raise ConfigError(
            f"notifier {path!r} cannot be imported: {err}. Install its provider on the workers and the DAG processor, or correct the path."
        ) from err
    except AttributeError as err:
        raise ConfigError(f"notifier {path!r}: module {module!r} has no {name!r}. Correct the path.") from err
    if not (isinstance(found, type) and issubclass(found, BaseNotifier)):
        raise ConfigError(f"notifier {path!r} is not a subclass of airflow.sdk.BaseNotifier. Name one that is.")
    return found


def make_notifier(path: str, arguments: Mapping[str, Any]) -> BaseNotifier:
    """
    Return a notifier; nothing is connected yet.

    :raises ConfigError: when its class cannot be used, or does not take these arguments.
    """
    kind = find_class(path)
    try:
        inspect.signature(kind).bind(**arguments)
        return kind(**arguments)
    except TypeError as err:
        raise ConfigError(f"notifier {path!r} does not take its arguments: {err}. Correct `arguments`.") from err


def notifier_problems(clusters: Iterable[Cluster]) -> Iterator[str]:
    """Yield what is wrong with the notifiers of clusters, each once."""
    seen: list[tuple[str, Any]] = []
    for cluster in clusters:
        for entry in cluster.notifications:
            what = (str(entry.notifier), entry.arguments)
            if entry.notifier is None or what in seen:
                continue
            seen.append(what)
            if problem := _problem(entry):
                yield f"{cluster.name}.notifications ({entry.name}): {problem}"


def check_notifiers(clusters: Iterable[Cluster], source: str) -> None:
    """:raises ConfigError: with every problem of the clusters' notifiers."""
    problems = tuple(notifier_problems(clusters))
    if problems:
        raise ConfigError(
            f"{source}: {len(problems)} notifier(s) cannot be used, so that nobody is notified:", problems
        )


def _problem(entry: Notification) -> str | None:
    try:
        make_notifier(str(entry.notifier), entry.arguments)
    except ConfigError as err:
        return str(err)
    except Exception as err:  # noqa: BLE001 - a provider's code may raise anything; what it says may quote an argument
        return f"notifier {entry.notifier!r} cannot be made: {type(err).__name__}. Correct `arguments`."
    return None
