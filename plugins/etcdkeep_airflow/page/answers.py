"""What the routes answer, as JSON and as what the templates show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

from etcdkeep.overview.copies import CopyReading
from etcdkeep.overview.fleet import (
    STATES,
    DagFacts,
    FleetRow,
    State,
    by_risk,
    unreadable_row,
    unusable_row,
    waiting_row,
    with_airflow,
)
from etcdkeep.plain_text import one_line
from etcdkeep_airflow.page.pool import LATER

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from etcdkeep_airflow.page.access import Reader
    from etcdkeep_airflow.page.readings import Known
    from etcdkeep_airflow.page.source import Source

Sort = Literal["risk", "name", "age", "size", "restore"]
PAGE_ROWS = 100
View = TypeVar("View")


@dataclass(frozen=True)
class Fleet:
    """
    The clusters that a person may read.

    :param rows: One page of those that were asked for, in the order asked for.
    :param found: How many were asked for, on all pages.
    :param counts: How many of all are in each state.
    :param tags: Of all.
    :param read: How many of `total` repositories were read; the others are still being read.
    :param unread: Of how many clusters only the newest backups were opened so far.
    :param oldest_s: Age of the oldest of the rows.
    :param problems: Of the configuration as a whole; for those who may read every DAG.
    """

    rows: Sequence[FleetRow]
    found: int
    total: int
    page: int
    pages: int
    counts: Mapping[State, int]
    tags: Sequence[str]
    read: int
    oldest_s: float | None
    unread: int
    problems: Sequence[str] = ()


@dataclass(frozen=True)
class Asked:
    """What of the fleet is asked for."""

    state: str = ""
    tag: str = ""
    search: str = ""
    sort: Sort = "risk"
    page: int = 1


@dataclass(frozen=True)
class Answer(Generic[View]):
    """
    Something that is read in the background.

    :param data: None as long as it is being read for the first time, or when it cannot be read.
    :param age_s: Of `data`.
    :param problem: Why it cannot be read now; then `data` is the last known state.
    """

    data: View | None
    age_s: float | None = None
    problem: str = ""
    reading: bool = False


@dataclass(frozen=True)
class Form:
    """
    Airflow's trigger form of a DAG. Airflow 3.3 takes no values from a link, so they are shown to be copied.

    :param dag_id: Empty where there is no such DAG.
    :param values: JSON for the field "Configuration JSON" of the form.
    """

    label: str
    dag_id: str
    values: str
    words: str


def answer(known: Known[View]) -> Answer[View]:
    """Return what is known, for a page."""
    age_s = None if known.age_s is None else round(known.age_s, 1)
    return Answer(known.value, age_s, one_line(known.problem), known.reading)


@dataclass
class FleetMaker:
    """
    Makes the fleet as one person may see it.

    :param dags: Asks Airflow of DAGs.
    """

    source: Source
    dags: Callable[[Collection[str]], Mapping[str, DagFacts]]
    now: Callable[[], datetime] = field(default=lambda: datetime.now(UTC))

    def make(self, reader: Reader, asked: Asked) -> Fleet:
        """Return one page of the fleet."""
        configured = self.source.configured()
        allowed = reader.clusters({*configured.clusters, *(name for name in configured.problems if name)})
        names = [name for name in configured.clusters if name in allowed]
        known, dags = self._known(names), self.dags([f"backup__{name}" for name in names])
        rows = [self._row(name, known[name], dags.get(f"backup__{name}")) for name in names]
        unusable = [
            unusable_row(name, sentence, self.now())
            for name, sentence in configured.problems.items()
            if name in allowed and name not in configured.clusters
        ]
        problems = [each for each in (configured.error, configured.problems.get("", "")) if each]
        ages = [each.age_s for each in known.values() if each.age_s is not None]
        found = _found([*rows, *unusable], asked)
        pages = max(1, -(-len(found) // PAGE_ROWS))
        page = min(max(1, asked.page), pages)
        return Fleet(
            rows=found[(page - 1) * PAGE_ROWS : page * PAGE_ROWS],
            found=len(found),
            total=len(rows) + len(unusable),
            page=page,
            pages=pages,
            counts={state: sum(row.state == state for row in (*rows, *unusable)) for state in STATES},
            tags=sorted({tag for row in rows for tag in row.tags}),
            read=sum(each.value is not None or bool(each.problem) for each in known.values()) + len(unusable),
            oldest_s=round(max(ages), 1) if ages else None,
            unread=sum(row.unread > 0 for row in rows),
            problems=[one_line(each) for each in problems]
            if problems and reader.reads_all(configured.clusters)
            else [],
        )

    def _known(self, names: Sequence[str]) -> dict[str, Known[FleetRow]]:
        """Return what is known of clusters; when the newest backups of all are, have the older ones opened too."""
        known = self.source.rows.get_all(names)
        if any(each.value is None and not each.problem for each in known.values()):
            return known
        partly = [name for name, each in known.items() if each.value and each.value.unread]
        whole = self.source.older.get_all(partly, LATER) if partly else {}
        return known | {name: _newer(known[name], each) for name, each in whole.items()}

    def row(self, name: str) -> FleetRow:
        """Return one cluster's line."""
        return self._row(
            name,
            _newer(self.source.rows.get(name), self.source.older.peek(name)),
            self.dags([f"backup__{name}"]).get(f"backup__{name}"),
        )

    def _row(self, name: str, known: Known[FleetRow], dag: DagFacts | None) -> FleetRow:
        row = known.value
        if row is None:
            row = waiting_row(self.source.configured().clusters[name], self.now())
        if known.problem:
            row = unreadable_row(row, known.problem)
        return with_airflow(row, dag)


def _newer(known: Known[FleetRow], whole: Known[FleetRow]) -> Known[FleetRow]:
    """Return the line that knows more: of one of which only the newest backups were opened, that with all, unless it is older."""
    row, other = known.value, whole.value
    if row is None or not row.unread or other is None or other.known_at < row.known_at:
        return known
    return replace(known, value=other, age_s=whole.age_s)


def _found(rows: Sequence[FleetRow], asked: Asked) -> list[FleetRow]:
    """Return the rows that are asked for, in the order asked for."""
    words = asked.search.casefold().split()
    found = [
        row
        for row in rows
        if asked.state in ("", row.state)
        and (not asked.tag or asked.tag in row.tags)
        and all(word in " ".join((row.cluster, row.profile, *row.tags, row.problem)).casefold() for word in words)
    ]
    keys: Mapping[str, Callable[[FleetRow], tuple[float, str]]] = {
        "name": lambda row: (0.0, row.cluster),
        "age": lambda row: (_taken(row), row.cluster),
        "size": lambda row: (-(row.database_bytes or 0), row.cluster),
        "restore": lambda row: (-(row.restore_s or 0.0), row.cluster),
    }
    return sorted(found, key=keys[asked.sort]) if asked.sort in keys else by_risk(found)


def _taken(row: FleetRow) -> float:
    good = row.newest.get("good")
    return good.taken_at.timestamp() if good and good.taken_at else 0.0


def copies_of(source: Source, cluster: str, who: str) -> list[CopyReading]:
    """Return what is known of each of a cluster's copies, and have those read that are not known."""
    configured = source.configured().clusters.get(cluster)
    urls = [each.repository for each in configured.copies] if configured else []
    known = source.copies.get_all([f"{cluster}/{number}" for number in range(len(urls))], who)
    return [
        CopyReading(url, each.value, each.age_s, each.problem, each.reading)
        for url, each in zip(urls, known.values(), strict=True)
    ]


def with_row(found: Answer[View], row: FleetRow) -> Answer[View]:
    """Return a cluster's answer with the line that also the fleet shows, so that both say the same."""
    if found.data is None:
        return found
    return replace(found, data=replace(found.data, row=row))  # type: ignore[type-var]
