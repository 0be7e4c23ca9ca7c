"""Which backup is drilled."""

from __future__ import annotations

import pytest

from etcdkeep.drill.choose import set_to_drill
from etcdkeep.errors import NotFound
from tests.drill_sets import open_repository, publish_snapshot

OLD, NEW, NEWEST = (f"2026112{day}T023000Z-1f0c9a3e" for day in "123")


@pytest.fixture
def repository(tmp_path, database):
    snapshot = tmp_path / "etcd.db"
    snapshot.write_bytes(database)
    for identifier in (OLD, NEW):
        publish_snapshot(tmp_path / "repository", snapshot, identifier)
    publish_snapshot(tmp_path / "repository", snapshot, NEWEST, verified=False)
    return open_repository(tmp_path / "repository")


@pytest.mark.parametrize(
    ("asked", "announced", "chosen"),
    [
        pytest.param("", (), NEW, id="the-newest-good-one"),
        pytest.param("", (OLD,), OLD, id="the-one-that-was-announced"),
        pytest.param("", (NEW, OLD), NEW, id="the-newest-of-several-announced"),
        pytest.param(OLD, (NEW,), OLD, id="the-one-asked-for"),
        pytest.param(NEWEST, (), NEWEST, id="asked-for-and-not-good"),
    ],
)
def test_the_set_is_chosen(repository, asked, announced, chosen):
    assert set_to_drill(repository, "harbor", asked, announced).backup_id == chosen


@pytest.mark.parametrize(
    ("cluster", "asked", "said"),
    [
        pytest.param("harbor", "latest", "'latest' is not a backup id", id="no-id"),
        pytest.param(
            "harbor", "20260101T000000Z-00000000", "no backup harbor/20260101T000000Z-00000000", id="not-there"
        ),
        pytest.param("fleet", "", "cluster 'fleet' has no good backup", id="none-at-all"),
    ],
)
def test_there_is_none(repository, cluster, asked, said):
    with pytest.raises(NotFound, match=said):
        set_to_drill(repository, cluster, asked)
