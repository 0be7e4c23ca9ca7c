"""
Reading the configuration file.

Load → normalise (defaults and profile beneath each cluster) → schema → rules across clusters. All problems are reported
at once, each with its path. A cluster entry with a problem is left out and reported; the others stay usable.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import ValidationError

from etcdkeep.config.access import IN_SSH_CONNECTION
from etcdkeep.config.copies import connection_problem, copies_problem
from etcdkeep.config.models import Cluster, ConfigFile
from etcdkeep.config.profiles import PROFILES
from etcdkeep.config.spreading import spread
from etcdkeep.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CONFIG_VARIABLE = "ETCDKEEP_CONFIG"


@dataclass(frozen=True)
class Config:
    """
    A loaded file.

    :param clusters: The usable clusters by name, in the file's order.
    :param problems: What is wrong with the entries left out, each ``path: sentence``.
    :param housekeeping_schedule: Of the DAG `housekeeping`; None for none.
    """

    source: str
    clusters: Mapping[str, Cluster]
    problems: tuple[str, ...] = field(default=())
    housekeeping_schedule: str | None = None

    def cluster(self, name: str) -> Cluster:
        """
        Return one cluster.

        :raises ConfigError: when it is not configured, or its entry is not usable.
        """
        if name in self.clusters:
            return self.clusters[name]
        known = ", ".join(self.clusters) or "none"
        if own := tuple(problem for problem in self.problems if f"({name})" in problem):
            raise ConfigError(f"cluster {name!r} is not usable in {self.source}; usable are: {known}.", own)
        others = (
            f" {len(self.problems)} problem(s) of other entries: `config check` shows them." if self.problems else ""
        )
        raise ConfigError(f"cluster {name!r} is not configured in {self.source}; usable are: {known}.{others}")

    def raise_for_problems(self) -> None:
        """:raises ConfigError: when any entry was left out."""
        if self.problems:
            raise ConfigError(
                f"{self.source}: {len(self.problems)} problem(s); these clusters are not backed up:", self.problems
            )


class _StrictLoader(yaml.CSafeLoader):
    """SafeLoader that refuses a key given twice, which YAML would silently let win."""


def _mapping(loader: _StrictLoader, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
    names = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
    twice = [name for name, count in names.items() if count > 1 and name != "<<"]
    if twice:
        raise yaml.constructor.ConstructorError(None, None, f"key {twice[0]!r} is given twice", node.start_mark)
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)  # flattens `<<`, refuses a key that is a list


_StrictLoader.add_constructor("tag:yaml.org,2002:map", _mapping)


def config_path(environ: Mapping[str, str] = os.environ) -> Path:
    """
    Return the configuration file's path from ``ETCDKEEP_CONFIG``.

    :raises ConfigError: when the variable is not set.
    """
    value = environ.get(CONFIG_VARIABLE)
    if not value:
        raise ConfigError(
            f"{CONFIG_VARIABLE} is not set. Set it to the path of clusters.yaml; `python -m etcdkeep config example` prints a sample."
        )
    return Path(value)


def load_config(path: Path | None = None) -> Config:
    """
    Read and check the configuration file, again when it has changed.

    :param path: The file; by default the one that ``ETCDKEEP_CONFIG`` names.
    :raises ConfigError: when the file as a whole cannot be used.
    """
    return _load_version(path, None)


def load_cluster(name: str, path: Path | None = None) -> Cluster:
    """
    Read one cluster's entry, however many there are: as ``load_config(path).cluster(name)``, without checking all others.

    :raises ConfigError: when the cluster is not configured, or the entry is not usable.
    """
    found = _load_version(path, name).clusters.get(name)
    return found or load_config(path).cluster(name)


def _load_version(path: Path | None, only: str | None) -> Config:
    path = path or config_path()
    try:
        found = path.stat()
        return _load(path, only, found.st_mtime_ns, found.st_ino, found.st_size)
    except (OSError, UnicodeDecodeError) as err:
        raise ConfigError(
            f"configuration {path} cannot be read: {getattr(err, 'strerror', None) or err}. Expected a YAML file that you can read; "
            f"{CONFIG_VARIABLE} says which."
        ) from err


@lru_cache(2)
def _load(path: Path, only: str | None, *version: int) -> Config:
    return parse_config(path.read_text(encoding="utf-8"), str(path), only)


def parse_config(text: str, source: str, only: str | None = None) -> Config:
    """
    Check the text of a configuration file.

    :param only: Check this cluster alone, with the admin cluster that it names.
    :raises ConfigError: for malformed YAML, an unknown top-level key or another ``schema_version``; with every problem.
    """
    try:
        raw = yaml.load(text, _StrictLoader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError) as err:
        raise ConfigError(f"{source} is not valid YAML: {err}") from err
    if not isinstance(raw, dict):
        raise ConfigError(f"{source}: expected a mapping with schema_version and clusters, found {type(raw).__name__}.")
    entries = raw.get("clusters")
    if not isinstance(entries, list):
        raise ConfigError(f"{source}: clusters: expected a list of clusters, found {type(entries).__name__}.")
    clusters, problems = _parse_clusters(raw.get("defaults"), entries, only)
    try:
        whole = ConfigFile.model_validate({**raw, "clusters": []})
    except ValidationError as err:
        raise ConfigError(f"{source} cannot be used:", (*_sentences(err, ""), *problems)) from err
    return Config(source, clusters, problems, whole.housekeeping_schedule)


def _parse_clusters(defaults: Any, entries: list[Any], only: str | None) -> tuple[dict[str, Cluster], tuple[str, ...]]:
    """Return the usable clusters and every problem of the others."""
    clusters: dict[str, Cluster] = {}
    problems: list[str] = []
    if isinstance(defaults, dict) and "name" in defaults:
        problems.append("defaults.name: every cluster has a name of its own; remove it here")
    beneath = {key: value for key, value in defaults.items() if key != "name"} if isinstance(defaults, dict) else {}
    names = Counter(str(entry["name"]) for entry in entries if isinstance(entry, dict) and "name" in entry)
    needed = None if only is None else _needed(only, beneath, entries)
    places: dict[str, str] = {}
    for index, entry in enumerate(entries):
        where = f"clusters[{index}]"
        if not isinstance(entry, dict):
            problems.append(f"{where}: expected a mapping, found {type(entry).__name__}")
            continue
        name = str(entry.get("name", "without a name"))
        if needed is not None and name not in needed:
            continue
        where = places[name] = f"{where} ({name})"
        if names[name] > 1:
            problems.append(f"{where}.name: {names[name]} clusters have this name; names are unique")
            continue
        try:
            clusters[name] = Cluster.model_validate(_normalise(beneath, entry))
        except ValidationError as err:
            problems.extend(_sentences(err, where, entry, beneath))
    wrong = {name: problem for name, cluster in clusters.items() if (problem := _reach_problem(cluster, clusters))}
    problems.extend(f"{places[name]}.{problem}" for name, problem in wrong.items())
    usable = {name: _resolve(cluster, clusters) for name, cluster in clusters.items() if name not in wrong}
    return usable, tuple(dict.fromkeys(problems))


def _needed(name: str, defaults: dict[str, Any], entries: list[Any]) -> frozenset[str]:
    """Return a cluster's name, and its admin cluster's."""
    own = [_merge(defaults, entry) for entry in entries if isinstance(entry, dict) and str(entry.get("name")) == name]
    return frozenset({name, *(str(entry["admin_cluster"]) for entry in own if "admin_cluster" in entry)})


def _normalise(defaults: dict[str, Any], entry: dict[str, Any]) -> dict[str, Any]:
    merged = _merge(defaults, entry)
    profile = PROFILES.get(str(merged.get("profile")), {})
    overrides = merged.get("control_plane", {})
    return {**merged, "control_plane": _merge(profile, overrides) if isinstance(overrides, dict) else overrides}


_HOSTS = frozenset({"ssh", "jump"})
"""Sections of which a connection takes the place of some settings: it replaces those of the defaults."""
_ALTERNATIVES = frozenset({"key", "kubeconfig", "own_kubeconfig", "age_identity", "index_identity", "ping"})
"""Sections of which exactly one field is given: an entry replaces the default as a whole."""


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        beneath = merged.get(key)
        if isinstance(value, dict) and isinstance(beneath, dict) and key not in _ALTERNATIVES:
            if key in _HOSTS and value.get("connection"):
                beneath = {name: setting for name, setting in beneath.items() if name not in IN_SSH_CONNECTION}
            merged[key] = _merge(beneath, value)
        else:
            merged[key] = value
    return merged


def _reach_problem(cluster: Cluster, clusters: Mapping[str, Cluster]) -> str | None:
    """Return what is wrong with a cluster's way to its API, its nodes and its repositories."""
    admin, has_nodes = cluster.admin_cluster, cluster.control_plane.has_nodes
    if admin is not None and has_nodes:
        return "admin_cluster: only for a control plane that runs in another cluster (kubeception); else its etcd would be backed up"
    if admin is not None and admin not in clusters:
        return f"admin_cluster: {admin!r} is not a usable cluster of this file"
    if cluster.kubeconfig is None and admin is not None and clusters[admin].kubeconfig is None:
        return f"admin_cluster: {admin!r} has no kubeconfig of its own"
    if cluster.kubeconfig is None and admin is None:
        return "kubeconfig: missing; give a connection, a path or in_cluster (kubeception: or admin_cluster)"
    if cluster.own_kubeconfig is not None and has_nodes:
        return (
            "own_kubeconfig: only for a control plane that runs in another cluster (kubeception); here it is kubeconfig"
        )
    if problem := connection_problem(cluster.repository, cluster.spool_url, cluster.repository_connection):
        return problem
    if problem := copies_problem(cluster.repository, cluster.copies):
        return problem
    if cluster.copy_out == "node" and not has_nodes and not cluster.ssh.addresses:
        return "copy_out: node needs ssh.addresses here, since this kind of cluster has no nodes of its own"
    if cluster.extra_paths and not has_nodes:
        return "extra_paths: this kind of cluster has no nodes of its own to read them from"
    return None


def _resolve(cluster: Cluster, clusters: Mapping[str, Cluster]) -> Cluster:
    """Return a cluster with what follows from others and from its name: its way to an API, and its own minute."""
    found: dict[str, Any] = {}
    if cluster.kubeconfig is None and cluster.admin_cluster is not None:
        found["kubeconfig"] = clusters[cluster.admin_cluster].kubeconfig
    if cluster.spread_minutes:
        found["schedule"] = spread(cluster.schedule, cluster.spread_minutes, cluster.name)
        if drill := cluster.drill:
            own = spread(drill.schedule, cluster.spread_minutes, cluster.name)
            found["drill"] = drill.model_copy(update={"schedule": own})
    return cluster.model_copy(update=found) if found else cluster


def _sentences(
    err: ValidationError, where: str, entry: dict[str, Any] | None = None, defaults: dict[str, Any] | None = None
) -> list[str]:
    """Return one sentence per problem, each with its path; what an entry has from the defaults is told of these."""
    sentences = []
    for problem in err.errors(include_url=False, include_input=False):
        location = problem["loc"]
        inherited = defaults and location and not _holds(entry, location) and _holds(defaults, location)
        path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message = "unknown key; see `python -m etcdkeep config schema` for the known ones"
        sentences.append(f"{('defaults' if inherited else where) + path}".lstrip(".") + f": {message}")
    return sentences


def _holds(document: Any, location: Sequence[int | str]) -> bool:
    """Say whether a document has a value at that place."""
    for part in location:
        try:
            document = document[part]
        except (KeyError, IndexError, TypeError):
            return False
    return True
