"""
What the page asks of indexes, each in a process of its own: a search as one types over 200,000 objects of a real snapshot,
and the history of one of them over many nights.
"""

from __future__ import annotations

import os
import resource
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from bench.object_snapshot import KEYS, object_place, object_snapshot
from bench.objects import CLUSTER, publish
from bench.report import Row
from etcdkeep.adapters.stores.directory import DirectoryStore
from etcdkeep.config.loading import load_config
from etcdkeep.naming import ETCD_ARTIFACT, INDEX
from etcdkeep.objects.catalog import Query, open_catalog
from etcdkeep.objects.nights import nightly_history
from etcdkeep.sealing.age_keys import parse_identities
from etcdkeep.sets.manifest import parse_manifest
from etcdkeep.site.credentials import FileCredentials
from etcdkeep.site.site import Site
from tests.builders import BACKUP_ID, make_repository, make_signer

if TYPE_CHECKING:
    from collections.abc import Callable

    from etcdkeep.sealing.age_keys import Identity
    from etcdkeep.sets.repository import Repository

NIGHTS = 30
REPETITIONS = 7
QUERY_LIMIT_MS = 100
MEMORY_LIMIT_MIB = 32


class Searched(NamedTuple):
    """Figures of the search; `growth_mib` is what the process took more at its peak than before."""

    open_s: float
    kept_mib: float
    growth_mib: float
    slowest_ms: float
    slowest: str
    objects: int


def run(folder: Path) -> list[Row]:
    """Measure and return the rows."""
    file = object_snapshot()
    with tempfile.TemporaryDirectory(dir=folder) as name:
        scratch = Path(name)
        publish(scratch, file)
        searched: Searched = _apart(search, scratch)
        one_s, one_mib = _apart(follow, scratch)
        repeat_nights(scratch)
        all_s, all_mib = _apart(follow, scratch)
    return [
        Row("catalog of one backup from its sealed index", f"{searched.objects:,} objects in {searched.open_s:.2f} s"),
        Row(
            "memory that it keeps",
            f"{searched.kept_mib:.1f} MiB",
            f"≤ {MEMORY_LIMIT_MIB} MiB",
            searched.kept_mib <= MEMORY_LIMIT_MIB,
        ),
        Row("memory at the peak, while it is made and searched", f"+{searched.growth_mib:.0f} MiB"),
        Row(
            f"slowest search ({searched.slowest}), best of {REPETITIONS}",
            f"{searched.slowest_ms:.0f} ms",
            f"< {QUERY_LIMIT_MS} ms",
            searched.slowest_ms < QUERY_LIMIT_MS,
        ),
        Row(f"history of one object, 1 → {NIGHTS} nights", f"{one_s:.2f} → {all_s:.2f} s"),
        Row("memory at its peak, likewise", f"+{one_mib:.0f} → +{all_mib:.0f} MiB"),
    ]


def search(folder: Path) -> Searched:
    """Open a catalog and search it: each keystroke of a name, and the widest queries in each order."""
    repository, identities = _opened(folder)
    found = repository.get(CLUSTER, BACKUP_ID)
    before = _peak_mib()
    began = time.monotonic()
    catalog = open_catalog(repository.store, found, identities)
    open_s = time.monotonic() - began
    _, _, typed = object_place(KEYS // 2)
    kinds, namespaces = (
        tuple(each.full_name for each, _ in catalog.kinds),
        tuple(each for each, _ in catalog.namespaces),
    )
    queries = {
        **{f"{typed[:length]!r}": Query(typed[:length]) for length in range(len(typed) + 1)},
        **{f"all by {sort}": Query(sort=sort, descending=True) for sort in ("name", "namespace", "size", "revision")},
        **{
            f"'7' in all kinds and namespaces, by {sort}": Query("7", kinds, namespaces, sort, offset=50_000)
            for sort in ("kind", "name", "namespace", "size", "revision")
        },
    }
    times_ms = {name: min(_took_ms(catalog.search, query) for _ in range(REPETITIONS)) for name, query in queries.items()}  # fmt: skip
    slowest = max(times_ms, key=times_ms.__getitem__)
    kept_mib = catalog.size_bytes / 2**20
    return Searched(open_s, kept_mib, _peak_mib() - before, times_ms[slowest], slowest, len(catalog))


def follow(folder: Path) -> tuple[float, float]:
    """Return the seconds of one object's history, and by how many MiB the process grew."""
    repository, identities = _opened(folder)
    kind, namespace, name = object_place(KEYS // 2)
    sets = repository.sets(CLUSTER)
    before, began = _peak_mib(), time.monotonic()
    found = nightly_history(repository, CLUSTER, identities, kind, namespace, name, sets=sets)
    seconds = time.monotonic() - began
    if found.unread or found.nights[0].event != "first seen":
        raise RuntimeError(f"the history is not what was published: {found}")
    return seconds, _peak_mib() - before


def repeat_nights(folder: Path) -> None:
    """Publish the set under more ids, as if nothing had changed for many nights."""
    store = DirectoryStore(folder / "repository")
    repository = make_repository(store)
    found = repository.get(CLUSTER, BACKUP_ID)
    manifest = parse_manifest(BACKUP_ID, found.manifest_bytes)
    for night in range(1, NIGHTS):
        identifier = f"202610{night:02}T023000Z-1f0c9a3e"
        place = folder / "repository" / CLUSTER / identifier
        place.mkdir(mode=0o700)
        for name in (ETCD_ARTIFACT, INDEX):
            os.link(folder / "repository" / found.name / name, place / name)
        taken_at = manifest.taken_at.replace(month=10, day=night)
        data = manifest.model_copy(update={"backup_id": identifier, "taken_at": taken_at}).to_bytes()
        (place / "manifest.json").write_bytes(data)
        (place / "manifest.json.sig").write_bytes(make_signer().sign(data))
        repository.record(repository.get(CLUSTER, identifier), found.verifications[-1])


def _opened(folder: Path) -> tuple[Repository, list[Identity]]:
    site = Site(load_config(folder / "clusters.yaml").cluster(CLUSTER), FileCredentials())
    return site.repository, parse_identities((folder / "identity.txt").read_bytes())


def _apart(work: Callable[[Path], tuple[float, ...]], folder: Path) -> tuple[float, ...]:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work, folder).result()


def _took_ms(search: Callable[[Query], object], query: Query) -> float:
    began = time.perf_counter()
    search(query)
    return (time.perf_counter() - began) * 1000


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
