"""The page of backups for a fleet of 1,000 clusters with 60 backups each: at the first look, and later."""

from __future__ import annotations

import gc
import statistics
import tempfile
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from bench.report import Row
from bench.slow_store import SlowStore
from etcdkeep import naming
from etcdkeep.documents import read
from etcdkeep.freshness.check import check_stored
from etcdkeep.overview.fleet import DagFacts, FleetRow, fleet_row
from etcdkeep_airflow.page.answers import Asked, Fleet, FleetMaker
from etcdkeep_airflow.page.source import Configured, Source
from tests.builders import make_repository
from tests.shelf import Shelf

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from etcdkeep.config.models import Cluster
    from etcdkeep.ports import StoredObject

CLUSTERS, SETS, RUNS = 1_000, 60, 5
COLD_MAX_S, WARM_MAX_S, MEMORY_MAX_MIB = 20.0, 1.0, 100
LOOKS_EVERY_S = 2.0
"""How often a page asks again while repositories are being read."""


class _Everyone:
    """Somebody who may read every cluster: Airflow's own check is not measured here."""

    def clusters(self, names: Iterable[str]) -> set[str]:
        return set(names)

    def reads_all(self, names: Iterable[str]) -> bool:
        return True


class _Repository:
    """The objects of one store as those of another repository."""

    def __init__(self, store: SlowStore, url: str) -> None:
        self.url = url
        self._store = store
        self.open = store.open

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        return self._store.list(prefix)


class _Fleet(Source):
    """
    Clusters of which each has a repository of its own with the same sets: each is listed, opened and checked for itself.

    :param cluster: The cluster that the sets name.
    """

    def __init__(self, store: SlowStore, cluster: Cluster) -> None:
        super().__init__()
        self._store = store
        self._same = cluster
        names = [f"cluster-{number:04}" for number in range(CLUSTERS)]
        self._clusters = {name: cluster.model_copy(update={"name": name, "repository": "memory://fleet"}) for name in names}  # fmt: skip

    def configured(self) -> Configured:
        return Configured(self._clusters, {})

    def _site(self, key: str) -> Any:
        repository = make_repository(_Repository(self._store, f"memory://{key}"))  # type: ignore[arg-type]
        return SimpleNamespace(repository=repository, cluster=self._same, copies={})

    def _read_row(self, name: str, *, everything: bool = False) -> FleetRow:
        return replace(super()._read_row(name, everything=everything), cluster=name)


@dataclass(frozen=True)
class _Took:
    seconds: float
    processor_s: float


def run(folder: Path) -> list[Row]:
    """Measure and return the rows."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        shelf = Shelf(Path(name), schedule="0 2 * * *", drill={})
        with patch("os.fsync"):  # of a repository that only this bench reads
            for day in range(SETS):
                shelf.add(day, drilled=day % 7 == 3, restorable="yes", size_bytes=2**20 * (300 + day))
        store = _in_memory(shelf)
    one_s = statistics.median(_processor_s(store, shelf) for _ in range(RUNS))
    fleet = _Fleet(store, shelf.cluster)
    maker = FleetMaker(fleet, lambda ids: {each: DagFacts(False, datetime.now(UTC) + timedelta(hours=1)) for each in ids})  # fmt: skip
    gc.collect()
    before_mib = _resident_mib()
    cold = _until(maker, lambda found: found.read == CLUSTERS)
    whole = _until(maker, lambda found: found.unread == 0)
    gc.collect()
    grown_mib = _resident_mib() - before_mib
    warm_s = statistics.median(_answer_s(maker) for _ in range(RUNS))
    return [
        Row(f"processor time of `check` of one cluster of {SETS} backups", f"{one_s:.3f} s"),
        Row(f"the fleet, {CLUSTERS:,} clusters × {SETS} backups, cold: state, ages, newest backup", f"{cold.seconds:.1f} s, {cold.processor_s:.1f} s of processor", f"< {COLD_MAX_S:.0f} s", cold.seconds < COLD_MAX_S),
        Row("then, in the background: every backup, for sizes, calendar and what is wrong with old ones", f"{whole.seconds:.0f} s, {whole.processor_s:.0f} s of processor"),
        Row(f"the fleet's data, {CLUSTERS:,} clusters, warm", f"{warm_s:.3f} s", f"< {WARM_MAX_S:.0f} s", warm_s < WARM_MAX_S),
        Row(f"memory of all that is known of them, {CLUSTERS * SETS:,} backups", f"{grown_mib:.0f} MiB", f"< {MEMORY_MAX_MIB} MiB", grown_mib < MEMORY_MAX_MIB),
    ]  # fmt: skip


def _in_memory(shelf: Shelf) -> SlowStore:
    """Return the shelf's objects in memory, each stored when its set was made."""
    store = SlowStore(0.0)
    for item in shelf.store.list():
        identifier = next(part for part in item.name.replace(".json", "").split("/") if naming.is_backup_id(part))
        store.put(item.name, read(shelf.store, item.name), item.size_bytes, naming.backup_time(identifier) + timedelta(minutes=2))  # fmt: skip
    return store


def _processor_s(store: SlowStore, shelf: Shelf) -> float:
    cluster = shelf.cluster
    began = time.process_time()
    fleet_row(check_stored(make_repository(store), cluster, shelf.now), shelf.now)  # type: ignore[arg-type]
    return time.process_time() - began


def _until(maker: FleetMaker, done: Callable[[Fleet], bool]) -> _Took:
    """Look as a page does, until that is so."""
    began, processor = time.monotonic(), time.process_time()
    while not done(maker.make(_Everyone(), Asked())):  # type: ignore[arg-type]
        time.sleep(LOOKS_EVERY_S)
    return _Took(time.monotonic() - began, time.process_time() - processor)


def _resident_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


def _answer_s(maker: FleetMaker) -> float:
    began = time.monotonic()
    if maker.make(_Everyone(), Asked()).read != CLUSTERS:  # type: ignore[arg-type]
        raise RuntimeError("not every line was read")
    return time.monotonic() - began
