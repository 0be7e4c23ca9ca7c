"""The objects of backups on the page, read with the key for indexes alone."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlencode

import pytest

from etcdkeep.adapters.stores.directory import DirectoryStore
from etcdkeep.config.access import SecretRef
from etcdkeep.errors import SecretUnavailable
from etcdkeep_airflow.page import objects as routes
from etcdkeep_airflow.page.objects_source import IndexCredentials
from tests.builders import age_pair, make_entry
from tests.index_nights import CLUSTER, Written, config, night_id, publish_night
from tests.object_snapshots import custom
from tests.operators.page_site import PageSite, make_page_site
from tests.operators.test_page import HOSTILE, Tags

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

INDEX_IDENTITY, INDEX_RECIPIENT = age_pair("index")
FIRST, SECOND = night_id(1), night_id(2)
OLD = (config("same", 2), config("settings", 5), config("lost", 6), config("lost", 7, "market"))
NEW = (config("same", 2), config("settings", 20, content="x", created=5), config("new", 21))
NAME = HOSTILE.replace("/", "∕")[:200]


@pytest.fixture(scope="session")
def database() -> None:
    from airflow.utils.db import initdb

    initdb()


@pytest.fixture
def page(database: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PageSite:
    """A page with one cluster of two nights, and the key for indexes."""
    site = make_page_site(tmp_path, monkeypatch)
    (tmp_path / "index-identity").write_bytes(INDEX_IDENTITY)
    configure(site)
    for night, objects in ((1, OLD), (2, NEW)):
        publish(tmp_path)(night, *objects)
    return site


def configure(site: PageSite, **changes: object) -> None:
    key = {"path": str(site.folder / "index-identity")}
    keys = {"index_recipients": [INDEX_RECIPIENT], "index_identity": key, "age_identity": {"path": "/nowhere/age"}}
    site.write(make_entry(**{"repository": f"file://{site.folder}/repository", **keys, **changes}))


def publish(folder: Path) -> Callable[..., str]:
    store = DirectoryStore(folder / "repository")

    def night(number: int, *objects: Written, **options: object) -> str:
        return publish_night(store, folder, number, objects, **{"index_recipients": (INDEX_RECIPIENT,), **options})

    return night


def objects_of(page: PageSite, **query: object) -> dict[str, object]:
    found: dict[str, object] = page.read(f"/api/clusters/{CLUSTER}/sets/{FIRST}/objects?{urlencode(query)}")["data"]
    return found


def test_a_search_finds_objects_by_name_kind_and_namespace(page: PageSite) -> None:
    assert [each["name"] for each in objects_of(page)["objects"]] == ["lost", "lost", "same", "settings"]
    assert [each["namespace"] for each in objects_of(page, search="LOS")["objects"]] == ["market", "shop"]
    assert objects_of(page, namespace="market")["total"] == 1
    assert objects_of(page, kind="secrets")["total"] == 0
    assert objects_of(page, kind="Config", namespace="sho")["total"] == 3, "while a word is being typed"
    by_revision = objects_of(page, sort="revision", descending=True)
    assert [each["revision"] for each in by_revision["objects"]] == [7, 6, 5, 2]
    assert by_revision["kinds"] == [{"name": "configmaps", "objects": 4}]
    for wrong in ("sort=secret", "page=0", f"search={'x' * 301}"):
        assert page.get(f"/api/clusters/{CLUSTER}/sets/{FIRST}/objects?{wrong}").status_code == 422


def test_counts_come_first_and_names_when_asked_for(page: PageSite) -> None:
    address = f"/api/clusters/{CLUSTER}/sets/{SECOND}/changes"
    found = page.read(address)["data"]
    assert [(each["namespace"], each["removed"], each["changed"], each["added"]) for each in found["counts"]] == [
        ("shop", 1, 1, 1),
        ("market", 1, 0, 0),
    ]
    assert found["names"] == []
    named = page.read(f"{address}?what=removed&kind=configmaps&namespace=market")["data"]
    assert [each["name"] for each in named["names"]] == ["lost"]
    assert page.read(f"{address}?before={SECOND}")["data"]["counts"] == []


def test_of_many_counts_the_first_are_shown_and_the_rest_is_told(
    page: PageSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "COUNTS_SHOWN", 1)
    path = f"/clusters/{CLUSTER}/sets/{SECOND}/changes"
    for query in ("", "?what=removed&kind=configmaps"):
        found = page.read(f"/api{path}{query}")["data"]
        assert ([each["namespace"] for each in found["counts"]], found["more_counts"]) == (["shop"], 1)
        assert "1 more are not" in page.get(path + query).text


def test_a_person_finds_which_configmap_changed(page: PageSite) -> None:
    page.read(f"/api/clusters/{CLUSTER}/sets/{SECOND}/changes")
    text = page.get(f"/clusters/{CLUSTER}/sets/{SECOND}/changes").text
    link = next(
        found["href"] for tag, found in Tags(text).tags if "1 changed: configmaps" in (found.get("aria-label") or "")
    )
    text = page.get(f"/clusters/{CLUSTER}/sets/{SECOND}/changes{link}").text
    assert "settings</a>" in text
    assert "same" not in text


def test_the_history_of_an_object_names_every_night(page: PageSite, tmp_path: Path) -> None:
    publish(tmp_path)(3, *NEW, index=False)
    address = f"/api/clusters/{CLUSTER}/history?kind=cm&namespace=shop&name=settings"
    found = page.read(address)["data"]
    assert [each["event"] for each in found["backups"]] == ["first seen", "changed", "not read"]
    assert "has no index" in found["backups"][2]["problem"]
    text = page.get(address.removeprefix("/api")).text
    assert "1 of 3 backups could not be read" in text


def test_without_a_key_the_page_says_how_to_give_one(page: PageSite) -> None:
    configure(page, index_identity=None)
    for path in (f"sets/{FIRST}/objects", f"sets/{FIRST}/changes", "history?kind=cm&name=x"):
        answer = page.get(f"/api/clusters/{CLUSTER}/{path}").json()
        assert answer["data"] is None
        assert "index_identity" in answer["problem"]
        assert "index_recipients" in page.get(f"/clusters/{CLUSTER}/{path}").text


def test_a_key_that_opens_whole_backups_is_refused(page: PageSite, tmp_path: Path) -> None:
    (tmp_path / "index-identity").write_bytes(age_pair()[0])
    found = page.read(f"/api/clusters/{CLUSTER}/sets/{FIRST}/objects")
    assert found["data"] is None
    assert "opens whole backups" in found["problem"]


def test_a_key_of_before_a_rotation_reads_nothing_of_the_backups_that_it_opens(page: PageSite, tmp_path: Path) -> None:
    old_identity, old_recipient = age_pair("before the rotation")
    (tmp_path / "index-identity").write_bytes(old_identity)
    third = publish(tmp_path)(3, *OLD, age_key="before the rotation")
    fourth = publish(tmp_path)(4, *NEW, index_recipients=(old_recipient,))
    configure(page, index_recipients=[old_recipient])
    cluster = f"/api/clusters/{CLUSTER}"
    for path in (f"sets/{third}/objects", f"sets/{fourth}/changes", f"sets/{fourth}/changes?before={third}"):
        found = page.read(f"{cluster}/{path}")
        assert found["data"] is None
        assert f"opens the whole backup {CLUSTER}/{third}" in found["problem"]
    nights = page.read(f"{cluster}/history?kind=cm&namespace=shop&name=settings")["data"]["backups"]
    assert "opens the whole backup" in nights[2]["problem"]
    assert [nights[3]["event"], nights[3]["problem"]] == ["first seen", None]


def test_an_index_that_is_not_sealed_to_the_key_says_so(page: PageSite, tmp_path: Path) -> None:
    identifier = publish(tmp_path)(4, *NEW, index_recipients=())
    found = page.read(f"/api/clusters/{CLUSTER}/sets/{identifier}/objects")
    assert found["data"] is None
    assert "none of the 1 age identities" in found["problem"]


def test_no_other_key_is_read(tmp_path: Path) -> None:
    (tmp_path / "index").write_bytes(INDEX_IDENTITY)
    (tmp_path / "age").write_bytes(b"whole backups")
    credentials = IndexCredentials(SecretRef(path=str(tmp_path / "index")))
    assert credentials.secret(SecretRef(path=str(tmp_path / "index"))) == INDEX_IDENTITY
    for asked in (SecretRef(path=str(tmp_path / "age")), SecretRef(connection="age")):
        with pytest.raises(SecretUnavailable):
            credentials.secret(asked)
        with pytest.raises(SecretUnavailable):
            IndexCredentials(None).secret(asked)


PATHS = (f"sets/{SECOND}/objects", f"sets/{SECOND}/changes", "history?kind=cm&name=x")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("prefix", ["", "/api"])
def test_every_route_demands_the_right_to_read_the_cluster(page: PageSite, path: str, prefix: str) -> None:
    address = f"{prefix}/clusters/{CLUSTER}/{path}"
    assert page.client.get(address).status_code == 401
    assert page.get(address, "skiff").status_code == 403
    assert page.get(address, CLUSTER).status_code == 200
    assert page.client.post(address).status_code == 405


def test_what_does_not_exist(page: PageSite) -> None:
    for path in ("nothing/history", f"{CLUSTER}/sets/nonsense/objects", f"{CLUSTER}/sets/{SECOND}/changes?before=../x"):
        assert page.get(f"/clusters/{path}").status_code == 404


def test_names_of_others_are_text_and_nothing_else(page: PageSite, tmp_path: Path) -> None:
    hostile = Written(f"cluster.k8s.io/machines/{NAME}", custom("cluster.k8s.io/v1", "Machine", NAME), 3, 3)
    identifier = publish(tmp_path)(5, hostile)
    query = urlencode({"kind": "machines.cluster.k8s.io", "name": NAME})
    named = f"sets/{identifier}/changes?what=added&kind=machines.cluster.k8s.io"
    for path in (f"sets/{identifier}/objects", named, f"history?{query}"):
        page.read(f"/api/clusters/{CLUSTER}/{path}")
        for prefix in ("", "/api"):
            text = page.get(f"{prefix}/clusters/{CLUSTER}/{path}").text
            assert not {"\x1b", "\x07", "\u202e"} & set(text), path
            assert "\\u001b" not in text
            if not prefix:
                tags = Tags(text).tags
                assert "alert(1)" in text, path
                assert {tag for tag, _ in tags}.isdisjoint({"img", "iframe", "object", "style"})
                assert all(found["src"] for tag, found in tags if tag == "script")
                assert not [found for _, found in tags for name in found if name == "style" or name.startswith("on")]
                assert not [found for _, found in tags if (found.get("href") or "").startswith(("javascript:", "http"))]
