"""
One run of a cluster's backup against the lab: the tasks of ``dags/backup.py`` itself, each executed as Airflow would.

What a run left is looked for behind the product's back: in the containers' folders, in the nodes' trees, and in the raw
files or objects of the stores, so that a hidden or half-written one shows.
"""

from __future__ import annotations

import json
import runpy
import time
import uuid
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import airflow  # noqa: F401 - it sets up logging when it is first imported, which must not fall into a test
import yaml

from etcdkeep.adapters.stores.opening import open_store, transfer
from etcdkeep.config.loading import config_path, load_cluster
from etcdkeep.errors import TransientError
from etcdkeep.naming import backup_id
from etcdkeep.sets.repository import Repository
from etcdkeep_airflow.hooks import open_site
from etcdkeep_airflow.operators.base import SIGNED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from etcdkeep.config.models import Cluster
    from etcdkeep.records import Kind
    from etcdkeep.sets.backup_set import BackupSet
    from lab import Site

DAG_FILE = Path(__file__).parents[1] / "dags/backup.py"
LOGICAL_DATE = datetime(2026, 11, 23, 2, 30, tzinfo=UTC)
ONE_DAG_AT_A_TIME = Lock()
IMPATIENT = {"connect_s": 3, "command_s": 20, "stall_s": 1.5}
NODE_FOLDERS = ("etc", "home", "mnt", "opt/data/etc", "tmp", "usr/local")


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one mapping over another, section by section; None takes a key away."""
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return {key: value for key, value in merged.items() if value is not None}


def write_config(path: Path, site: Site, changes: Mapping[str, Any]) -> None:
    """Write the lab's configuration with `changes` laid over every cluster's entry."""
    document = yaml.safe_load(site.config.read_text())
    defaults = merge({"limits": IMPATIENT}, document.pop("defaults"))
    document["clusters"] = [merge(merge(defaults, entry), changes) for entry in document["clusters"]]
    path.write_text(yaml.safe_dump(document))


@dataclass
class Moment:
    """What a task finds in Airflow's context."""

    run_id: str
    try_number: int = 1
    assets: dict[str, SimpleNamespace] = field(default_factory=dict)

    def context(self) -> Any:
        return {
            "run_id": self.run_id,
            "dag_run": SimpleNamespace(
                run_id=self.run_id, run_type="manual", logical_date=LOGICAL_DATE, run_after=LOGICAL_DATE
            ),
            "ti": SimpleNamespace(try_number=self.try_number),
            "params": {"reason": "a test", "pin": False},
            "outlet_events": _Events(self.assets),
        }


class _Events:
    """Gives an event for whichever asset is asked for, as Airflow does for a task's outlets."""

    def __init__(self, events: dict[str, SimpleNamespace]) -> None:
        self._events = events

    def __getitem__(self, asset: Any) -> SimpleNamespace:
        return self._events.setdefault(asset.name, SimpleNamespace(extra=None))


def load_dag(cluster: str) -> Any:
    """Return the cluster's DAG, parsed anew as every task process does."""
    with ONE_DAG_AT_A_TIME:
        return runpy.run_path(str(DAG_FILE))[f"backup__{cluster}"]


def execute(cluster: str, task: str, outputs: Mapping[str, Any], moment: Moment) -> Any:
    """Execute one task with what earlier ones returned, and return what XCom would keep of its answer."""
    operator = load_dag(cluster).get_task(task)
    for name in operator.template_fields:
        given = getattr(operator, name)
        if hasattr(given, "operator"):
            setattr(operator, name, outputs.get(given.operator.task_id))
    return json.loads(json.dumps(operator.execute(moment.context())))


class BackupRun:
    """
    One run; `ETCDKEEP_CONFIG` and `STORAGE_EMULATOR_HOST` of this process say of what.

    :param raw: Folder behind a ``file://`` repository; None for a bucket.
    """

    def __init__(self, site: Site, cluster: str, run_id: str | None = None) -> None:
        self.site = site
        self.handle = site.clusters[cluster]
        self.name = cluster
        self.run_id = run_id or f"manual__{uuid.uuid4().hex}"
        self.identifier = backup_id(cluster, LOGICAL_DATE, self.run_id)
        self.outputs: dict[str, Any] = {}
        self.assets: dict[str, SimpleNamespace] = {}
        self.tries: Counter[str] = Counter()
        self.tasks = [task.task_id for task in load_dag(cluster).topological_sort() if task.task_id != "cleanup"]
        self._repository = self.cluster.repository
        self.note_nodes()

    @property
    def cluster(self) -> Cluster:
        return load_cluster(self.name)

    @property
    def repository(self) -> Repository:
        return Repository(open_store(self.cluster.repository), self.cluster.signing.trust)

    def note_nodes(self) -> None:
        """Take the nodes as they are now for unchanged: again when the test itself has changed them."""
        self._nodes_before = self._nodes()

    def reconfigure(self, **changes: Any) -> None:
        """Correct the configuration, as a person does after an error."""
        write_config(config_path(), self.site, {"repository": self._repository, **changes})

    def moment(self, task: str) -> Moment:
        """Begin the next try of a task."""
        self.tries[task] += 1
        return Moment(self.run_id, self.tries[task], self.assets)

    def hand_over(self, task: str, kind: Kind[Any], document: Any) -> None:
        """Put what a task is to have handed on, signed as the task signs it."""
        records = open_site(self.name).repository.records
        text = records.write_text(kind, self.name, self.identifier, document, LOGICAL_DATE)
        self.outputs[task] = {**document.model_dump(mode="json"), SIGNED: text}

    def task(self, task: str) -> Any:
        """Execute one task in this process."""
        self.outputs[task] = execute(self.name, task, self.outputs, self.moment(task))
        return self.outputs[task]

    def retried(self, task: str, tries: int = 20, pause_s: float = 0.5) -> Any:
        """Execute a task as Airflow does: again after passing trouble, never after an error that will stay."""
        for _ in range(tries - 1):
            with suppress(TransientError):
                return self.task(task)
            time.sleep(pause_s)
        return self.task(task)

    def until(self, last: str) -> Any:
        """Execute the tasks that have not succeeded yet, up to one of them, and return its answer."""
        for task in self.tasks[: self.tasks.index(last) + 1]:
            if task not in self.outputs:
                self.task(task)
        return self.outputs[last]

    def whole(self) -> BackupSet:
        """Execute what is left of the run, cleanup last, and return the set."""
        self.until("verify")
        self.task("cleanup")
        return self.repository.get(self.name, self.identifier)

    def own_sets(self) -> list[BackupSet]:
        """Return the sets of this run that the repository lists."""
        return [found for found in self.repository.sets(self.name) if found.backup_id == self.identifier]

    def leftovers(self) -> list[str]:
        """Return what should not be anywhere after cleanup."""
        return [*self._in_pods(), *self._on_nodes(), *self._in_stores()]

    def _in_pods(self) -> list[str]:
        nodes = self.handle.nodes
        return [str(path) for node in nodes for path in node.root.glob(f"containers/*/*/tmp/*{self.identifier}*")]

    def _on_nodes(self) -> list[str]:
        after = self._nodes()
        changed = self._nodes_before.keys() ^ after.keys()
        changed |= {
            path for path in after.keys() & self._nodes_before.keys() if after[path] != self._nodes_before[path]
        }
        return sorted(changed)

    def _nodes(self) -> dict[str, tuple[int, ...]]:
        """Return mode, owner, size and time of every file of the nodes that no container writes to."""
        found = {}
        for folder in (node.root / name for node in self.handle.nodes for name in NODE_FOLDERS):
            for path in folder.rglob("*"):
                facts = path.lstat()
                found[str(path)] = (facts.st_mode, facts.st_uid, facts.st_gid, facts.st_size, facts.st_mtime_ns)
        return found

    def _in_stores(self) -> list[str]:
        """Return raw names of the stores that belong neither to a published set nor to the record of an attempt."""
        expected = (f"{self.name}/attempts/{self.identifier}.json", *(f"{found.name}/" for found in self.own_sets()))
        of_this_run = [name for name in self._raw_names() if self.identifier in name]
        return [name for name in of_this_run if name.endswith(".part") or not name.startswith(expected)]

    def _raw_names(self) -> list[str]:
        url = self.cluster.repository
        if url.startswith("file://"):
            root = Path(url.removeprefix("file://"))
            return sorted(str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir())
        return [item.name for item in open_store(url).list()]


def copy_sets(source: str, target: str, cluster: str) -> None:
    """Copy every set of a cluster, so that a test starts with an older one."""
    origin, store = open_store(source), open_store(target)
    for item in origin.list(f"{cluster}/"):
        transfer(origin, item.name, store, item.name)


def assert_one_good_set(run: BackupRun) -> BackupSet:
    """The run made exactly one set, a good one, and left nothing else; the older set is as it was."""
    (made,) = run.own_sets()
    assert made.state == "good", made
    _assert_the_rest_is_as_it_was(run)
    return made


def assert_nothing_lost(run: BackupRun) -> None:
    """The run made no set and left nothing, once it was cleaned up; the older set is as it was."""
    run.task("cleanup")
    assert run.own_sets() == []
    _assert_the_rest_is_as_it_was(run)


def _assert_the_rest_is_as_it_was(run: BackupRun) -> None:
    assert run.leftovers() == []
    (older,) = (found for found in run.repository.sets(run.name) if found.backup_id != run.identifier)
    assert older.state == "good", older
