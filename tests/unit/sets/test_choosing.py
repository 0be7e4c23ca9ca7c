"""The one place that says which set is meant."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from etcdkeep.errors import NotFound, VerificationFailed
from etcdkeep.sets.backup_set import ANY, USABLE
from etcdkeep.sets.choosing import choose_set, manifest_of
from tests.drill_sets import open_repository, publish_snapshot

if TYPE_CHECKING:
    from pathlib import Path

    from etcdkeep.sets.repository import Repository

OLD, NEW, NEWEST = (f"2026112{day}T023000Z-1f0c9a3e" for day in "123")


@pytest.fixture
def repository(tmp_path: Path, database: bytes) -> Repository:
    snapshot = tmp_path / "etcd.db"
    snapshot.write_bytes(database)
    for identifier in (OLD, NEW):
        publish_snapshot(tmp_path / "repository", snapshot, identifier)
    publish_snapshot(tmp_path / "repository", snapshot, NEWEST, verified=False)
    return open_repository(tmp_path / "repository")


@pytest.mark.parametrize(
    ("wanted", "more", "chosen"),
    [
        pytest.param("", {}, NEW, id="the-newest-good-one"),
        pytest.param("  ", {}, NEW, id="blanks-are-empty"),
        pytest.param("", {"newest": USABLE}, NEWEST, id="the-newest-of-other-states"),
        pytest.param(OLD, {}, OLD, id="by-its-id"),
        pytest.param(f" harbor/{OLD} ", {}, OLD, id="by-its-name"),
        pytest.param(NEWEST, {}, NEWEST, id="named-and-not-good"),
    ],
)
def test_the_set_that_is_meant(repository: Repository, wanted: str, more: Any, chosen: str) -> None:
    assert choose_set(repository, "harbor", wanted, **more).backup_id == chosen


@pytest.mark.parametrize(
    ("cluster", "wanted", "more", "error", "said"),
    [
        pytest.param("harbor", "latest", {}, NotFound, "'latest' is not a backup id", id="no-id"),
        pytest.param("harbor", "harbor/x", {}, NotFound, "'harbor/x' is not a backup name", id="no-name"),
        pytest.param("harbor", f"fleet/{OLD}", {}, NotFound, "is of cluster 'fleet', not of 'harbor'", id="another"),
        pytest.param("harbor", OLD[:-1] + "0", {}, NotFound, "no backup harbor/", id="not-there"),
        pytest.param("fleet", "", {}, NotFound, "has no good backup .*To use one that is not good", id="none-good"),
        pytest.param("fleet", "", {"newest": USABLE}, NotFound, "no good, unverified or bad backup", id="none"),
        pytest.param("fleet", "", {"newest": ANY}, NotFound, "'fleet' has no backup in ", id="none-of-any-state"),
        pytest.param(
            "harbor", NEWEST, {"allow": ("good",)}, VerificationFailed, "is unverified and cannot be used", id="state"
        ),
    ],
)
def test_what_cannot_be_meant(
    repository: Repository, cluster: str, wanted: str, more: Any, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        choose_set(repository, cluster, wanted, **more)


def test_a_set_that_is_not_believed_has_no_manifest(repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "repository/harbor" / OLD / "manifest.json.sig").unlink()
    with pytest.raises(VerificationFailed, match="is unsigned and cannot be used"):
        manifest_of(choose_set(repository, "harbor", OLD))
