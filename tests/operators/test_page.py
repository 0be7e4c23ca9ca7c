"""The page of backups: who may read what, what it says, and that nothing of what others wrote gets through."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from etcdkeep import naming
from etcdkeep.adapters.stores.directory import DirectoryStore
from etcdkeep.config.access import KubeconfigRef, SecretRef
from etcdkeep.documents import read, write
from etcdkeep.errors import SecretUnavailable, StoreUnavailable
from etcdkeep.overview.fleet import DagFacts
from etcdkeep.overview.restores import RestoreRow
from etcdkeep.restore.proposal import make_proposal
from etcdkeep.restore.record import Outcome, RestoreRecord
from etcdkeep.sets.pins import InUse, Pin
from etcdkeep.sets.results import Copied
from etcdkeep_airflow.page import source
from etcdkeep_airflow.page.source import RepositoryCredentials
from tests.builders import make_repository, make_verification
from tests.operators.page_site import PageSite, make_page_site
from tests.unit.restore.test_record import FACTS, FORM, FOUND, OPTIONS, PLAN, RUN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.shelf import Shelf

HOSTILE = '</td><script>alert(1)</script><img src=x onerror=alert(2)> [click](javascript:alert(3)) ![i](http://evil/x) \x1b]0;title\x07\x1b[31m\u202e{{ 7919*7919 }}" end'
RESTORE = "restore-20261123T041500Z-1f0c9a3e"
PROJECT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def database() -> None:
    from airflow.utils.db import initdb

    initdb()


@pytest.fixture
def page(database: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PageSite:
    return make_page_site(tmp_path, monkeypatch)


@pytest.fixture
def two(page: PageSite) -> PageSite:
    """A fresh cluster, and a stale one with a restore on record."""
    page.add("harbor", 2, 1, 0.1)
    shelf = page.add("skiff", 9, 8)
    record = RestoreRecord(shelf.repository.records, "skiff", RESTORE)
    record.propose(make_proposal(RUN, PLAN, "page", FORM, FACTS, OPTIONS, FOUND, "carol"))
    return page


def paths_of(app: FastAPI, page: PageSite, cluster: str, only: APIRoute | None = None) -> Iterator[str]:
    """Yield an address for every route of the application, or for one."""
    values = {"cluster": cluster, "backup_id": page.shelves[cluster].ids()[-1], "restore": RESTORE, "name": "page.css"}
    for route in [only] if only else app.routes:
        assert isinstance(route, APIRoute), f"{route} is no route of FastAPI, so that it has none of its dependencies"
        yield route.path.format(**values)


# --- rights --------------------------------------------------------------------------------------------------------


def test_no_route_answers_without_a_login(two: PageSite) -> None:
    paths = list(paths_of(two.app, two, "skiff"))
    assert len(paths) > 8
    assert {path: two.client.get(path).status_code for path in paths} == dict.fromkeys(paths, 401)


def test_a_route_that_is_added_without_a_thought_demands_a_login(two: PageSite) -> None:
    two.app.get("/new")(lambda: "everything")
    assert two.client.get("/new").status_code == 401
    assert two.get("/new").status_code == 200


def test_no_route_of_a_cluster_answers_those_who_may_not_read_its_dag(two: PageSite) -> None:
    paths = [path for path in paths_of(two.app, two, "skiff") if "skiff" in path]
    assert len(paths) == 12
    assert {path: two.get(path, "harbor").status_code for path in paths} == dict.fromkeys(paths, 403)
    assert {path: two.get(path).status_code for path in paths} == dict.fromkeys(paths, 200)


def test_no_address_can_be_read_in_two_ways(two: PageSite) -> None:
    """A parameter that is given twice, in the query or in path and query, is refused on every route, after the rights."""
    for route in two.app.routes:
        assert isinstance(route, APIRoute)
        (path,) = paths_of(two.app, two, "skiff", route)
        of_path = [each.name for each in route.dependant.path_params]
        of_query = [each.name for each in route.dependant.query_params]
        for query in (*(f"{name}=skiff&{name}=harbor" for name in (*of_path, *of_query, "other")), *(f"{name}=harbor" for name in of_path)):  # fmt: skip
            answer = two.get(f"{path}?{query}")
            assert (answer.status_code, "more than once" in answer.text) == (400, True), (path, query)
            assert two.client.get(f"{path}?{query}").status_code == 401
            if "skiff" in path:
                assert two.get(f"{path}?{query}", "harbor").status_code == 403, (path, query)
        assert two.get(f"{path}?other=1&more=&%6Fne=2").status_code == 200
        assert two.get(f"{path}?one=1&%6Fne=2").status_code == 400, "however it is written"


def test_the_fleet_shows_each_person_their_own_clusters(two: PageSite) -> None:
    assert [row["cluster"] for row in two.read("/api/fleet")["rows"]] == ["skiff", "harbor"]
    mine = two.read("/api/fleet", "harbor")
    assert ([row["cluster"] for row in mine["rows"]], mine["total"], mine["counts"]["stale"]) == (["harbor"], 1, 0)
    assert "skiff" not in two.get("/", "harbor").text
    assert "no cluster that you may read" in two.get("/", "nobody").text


def test_restores_need_the_right_to_read_their_dag(two: PageSite) -> None:
    assert [each["name"] for each in two.read("/api/clusters/skiff")["data"]["restores"]] == [RESTORE]
    assert two.read("/api/clusters/skiff", "skiff")["data"]["restores"] == []
    two.read(f"/api/clusters/skiff/restores/{RESTORE}")
    assert two.get(f"/api/clusters/skiff/restores/{RESTORE}", "skiff").status_code == 403


@pytest.mark.parametrize(("kind", "user"), [("restore", RESTORE), ("recovery", "recovery-20261123T041500Z-1f0c9a3e"), ("unlisted", "restore-x")])  # fmt: skip
def test_what_uses_a_backup_is_named_only_to_those_who_may_read_its_dag(
    page: PageSite, monkeypatch: pytest.MonkeyPatch, kind: str, user: str
) -> None:
    shelf = page.add("harbor", 2, 1, retention={"daily": 7})
    used = shelf.ids()[-1]
    row = RestoreRow("recovery", user, used, "carol", "", shelf.now, "proposed", "", dag_id="recover_objects")
    listed = {"restore": [replace(row, kind="restore", dag_id="restore")], "recovery": [row], "unlisted": []}[kind]
    by = f"recovery {user}" if kind == "recovery" else user
    monkeypatch.setattr(source, "sets_in_use", lambda *_: ({used: by}, []))
    monkeypatch.setattr(source, "restore_rows", lambda *_: (listed, 0))
    paths = ["/clusters/harbor", f"/clusters/harbor/sets/{used}"]
    for path in paths:
        page.read(f"/api{path}")
    for path in (*paths, *(f"/api{each}" for each in paths)):
        assert f"in use by {by}" in page.get(path).text
        mine = page.get(path, "harbor").text
        assert user not in mine
        assert "in use" in mine
    assert page.read("/api" + paths[1], "harbor")["data"]["row"]["in_use"] == "a restore, recovery or drill"


def test_what_uses_a_backup_is_not_named_as_long_as_its_cluster_is_not_read(
    page: PageSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = page.add("harbor", 1)
    found = shelf.get(shelf.ids()[0])
    shelf.repository.record_use(found, InUse(by="drill of carol", until=shelf.now + timedelta(hours=1)))
    monkeypatch.setattr(source, "check_stored", fail_to_read)
    row = page.read(f"/api/clusters/harbor/sets/{found.backup_id}", "harbor")["data"]["row"]
    assert row["in_use"] == "a restore, recovery or drill"


def test_a_restore_whose_plan_was_removed_is_not_said_to_have_done_nothing(two: PageSite) -> None:
    shelf = two.shelves["skiff"]
    record = RestoreRecord(shelf.repository.records, "skiff", RESTORE)
    for name in shelf.names(f"{record.folder}proposals/"):
        shelf.store.delete(name)
    write(shelf.store, f"{record.folder}note.txt", b"a person's own")
    untouched = two.read(f"/api/clusters/skiff/restores/{RESTORE}")["data"]["row"]
    assert "Nothing was done" in untouched["words"]
    answer = two.get(f"/api/clusters/skiff/restores/{RESTORE}", "skiff")
    assert (answer.status_code, "every cluster's DAG" in answer.text) == (403, True)
    record.conclude(Outcome(kind="held", at=shelf.now, words="it stopped"))
    two.app.state.source.restores._entries.clear()
    found = two.read(f"/api/clusters/skiff/restores/{RESTORE}")["data"]
    assert (found["row"]["outcome"], "Nothing was done" in str(found)) == ("unsigned", False)
    assert "signed records say that it began" in found["row"]["words"]


def test_forms_are_offered_to_those_who_may_read_their_dag(two: PageSite) -> None:
    two.read("/api/clusters/skiff")
    assert "dags/restore" in two.get("/clusters/skiff").text
    assert "dags/restore" not in two.get("/clusters/skiff", "skiff").text
    assert "dags/backup__skiff" in two.get("/clusters/skiff", "skiff").text


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_nothing_is_written(two: PageSite, method: str) -> None:
    for path in paths_of(two.app, two, "skiff"):
        assert two.client.request(method, path, headers={"Origin": "https://evil.example"}).status_code == 405


def test_the_api_server_is_given_no_key() -> None:
    credentials = RepositoryCredentials()
    for ask in (
        lambda: credentials.secret(SecretRef(connection="age")),
        lambda: credentials.ssh_login("ssh"),
        lambda: credentials.kubeconfig(KubeconfigRef(in_cluster=True)),
        lambda: credentials.api_client(KubeconfigRef(in_cluster=True)),
    ):
        with pytest.raises(SecretUnavailable, match="repositories only"):
            ask()


def test_the_configured_keys_need_not_exist(two: PageSite) -> None:
    """Every cluster here names key files that do not exist."""
    found = two.read(f"/api/clusters/harbor/sets/{two.shelves['harbor'].ids()[-1]}")
    assert (found["problem"], found["data"]["row"]["state"]) == ("", "good")


# --- what is said --------------------------------------------------------------------------------------------------


def test_a_person_sees_which_cluster_is_stale_and_what_to_do(two: PageSite) -> None:
    two.read("/api/fleet")
    text = two.get("/").text
    assert re.search(
        r"is-stale\">stale</span>.*?clusters/skiff.*?is 8 d 0 h old.*?Open the newest run", text, re.DOTALL
    )
    assert text.index("clusters/skiff") < text.index("clusters/harbor")


def test_a_next_run_that_is_late_is_said_to_be_overdue(two: PageSite) -> None:
    two.dags["backup__harbor"] = DagFacts(False, datetime.now(UTC) - timedelta(hours=3, minutes=1))
    two.read("/api/fleet")
    text = two.get("/").text
    assert "overdue for 3 h 01 min" in text
    assert re.search(r"in (59 min|1 h 00 min)", text)


def test_older_backups_are_read_behind_the_newest(page: PageSite) -> None:
    shelf = page.add("harbor")
    for day in range(30, -1, -1):
        identifier = shelf.add(day + 0.1)
        shelf.age(day + 0.1, f"harbor/{identifier}/")
    first = page.read("/api/fleet")
    assert (first["rows"][0]["state"], first["rows"][0]["newest_backup"]) == ("fresh", shelf.ids()[-1])
    deadline = time.monotonic() + 20
    while page.get("/api/fleet").json()["unread"] and time.monotonic() < deadline:
        time.sleep(0.05)
    row = page.get("/api/fleet").json()["rows"][0]
    assert (row["unread"], row["calendar"].count("g"), len(row["sizes"])) == (0, 31, 31)


def test_while_older_backups_are_read_the_page_says_so(page: PageSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page.app.state.source.older, "get_all", lambda names, who: {})
    shelf = page.add("harbor")
    for day in (3.1, 2.1, 1.1, 0.1):  # four days, whatever the time of day
        identifier = shelf.add(day)
        shelf.age(day, f"harbor/{identifier}/")
    page.read("/api/fleet")
    text = page.get("/").text
    assert "Older backups of 1 of 1 clusters are still being read" in text
    assert "3 not read yet" in text


def test_each_copy_says_whether_it_holds_a_backup(page: PageSite) -> None:
    shelf = page.add("harbor", 3, 2, 1, 0.1, copies=[{"repository": f"file://{page.folder}/{name}"} for name in ("one", "two", "three")])  # fmt: skip
    first, second, third, fourth = shelf.ids()
    (page.folder / "three").write_text("no folder: it cannot be read")
    for url, identifiers in (("one", (first, second, third)), ("two", (second,))):
        copy_of(shelf, page.folder / url, identifiers)
    copy = make_repository(DirectoryStore(page.folder / "one"))
    copy.record(copy.get("harbor", second), make_verification(at=datetime.now(UTC), levels=(), problems=("a bit flipped",)))  # fmt: skip
    (page.folder / "one" / "harbor" / third / "copied").rename(page.folder / "moved")

    found = until(page, "/api/clusters/harbor", lambda data: all(not each["reading"] for each in data["copies"]))
    assert [(each["sets"], bool(each["problem"])) for each in found["copies"]] == [(1, False), (1, False), (None, True)]
    states = {row["backup_id"]: [copy["state"] for copy in row["copies"]] for row in found["sets"]}
    assert states == {
        first: ["read back", "none", "unknown"],
        second: ["bad", "read back", "unknown"],
        third: ["not read back", "none", "unknown"],
        fourth: ["none", "none", "unknown"],
    }
    one = page.read(f"/api/clusters/harbor/sets/{second}")["data"]["row"]["copies"]
    assert (one[0]["words"], one[1]["at"] is not None) == ("a bit flipped", True)
    assert one[2]["words"]
    for path in ("/clusters/harbor", f"/clusters/harbor/sets/{second}"):
        text = page.get(path).text
        assert re.search(r"copy is-bad.*copy is-read-back.*copy is-unknown", text, re.DOTALL)
        assert "a bit flipped" in text


def test_a_copy_that_hangs_keeps_no_set_from_being_shown(page: PageSite, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = page.add("harbor", 1, copies=[{"repository": f"file://{page.folder}/one"}])
    gate = threading.Event()
    monkeypatch.setattr(page.app.state.source.copies, "_read", lambda key: gate.wait(30))
    try:
        found = page.get(f"/api/clusters/harbor/sets/{shelf.ids()[0]}").json()
        assert found["data"]["row"]["copies"][0]["state"] == "unknown"
        assert found["data"]["row"]["copies"][0]["words"] == "being read"
    finally:
        gate.set()


def test_a_copy_that_was_configured_anew_says_nothing_of_the_one_before(page: PageSite) -> None:
    shelf = page.add("harbor", 3, 1, copies=[{"repository": f"file://{page.folder}/one"}])
    copy_of(shelf, page.folder / "one", tuple(shelf.ids()))
    until(page, "/api/clusters/harbor", lambda data: data["copies"][0]["sets"] == 2)
    (page.folder / "two").write_text("no folder: it cannot be read")
    page.write({**page.more[0], "copies": [{"repository": f"file://{page.folder}/two"}]})
    found = until(page, "/api/clusters/harbor", lambda data: bool(data and data["copies"][0]["problem"]))
    assert found["copies"][0]["sets"] is None
    assert {row["copies"][0]["state"] for row in found["sets"]} == {"unknown"}


def copy_of(shelf: Shelf, target: Path, identifiers: tuple[str, ...]) -> None:
    """Copy sets as they are, and sign that they were read back."""
    copy = make_repository(DirectoryStore(target))
    for identifier in identifiers:
        for name in shelf.names(f"{shelf.name}/{identifier}/"):
            write(copy.store, name, read(shelf.store, name))
        copied = Copied(at=shelf.now, source=shelf.cluster.repository, by="a test")
        copy.record_copy(copy.get(shelf.name, identifier), copied)


def until(page: PageSite, path: str, done: Callable[[Any], bool]) -> Any:
    """Ask for JSON until it says so."""
    deadline = time.monotonic() + 20
    while not done(found := page.read(path)["data"]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def test_search_filter_sort_and_pages(page: PageSite) -> None:
    page.add("alpha", 0.1, tags=["eu"])
    page.add("beta", 9, tags=["us"])
    page.add("gamma")

    def names(query: str) -> list[str]:
        return [row["cluster"] for row in page.read(f"/api/fleet?{query}")["rows"]]

    assert names("") == ["gamma", "beta", "alpha"]
    assert names("sort=name") == ["alpha", "beta", "gamma"]
    assert names("state=stale") == ["beta"]
    assert names("tag=eu") == ["alpha"]
    assert names("search=ALP+kubeadm") == ["alpha"]
    assert names("search=nothing") == []
    assert names("page=99") == ["gamma", "beta", "alpha"]
    for wrong in ("page=0", "sort=drop", f"search={'x' * 201}"):
        assert page.get(f"/api/fleet?{wrong}").status_code == 422


def test_a_hundred_clusters_a_page(page: PageSite) -> None:
    page.add("c000")
    page.write(*({**page.more[0], "name": f"c{number:03}"} for number in range(101)))
    found = page.read("/api/fleet?page=2&sort=name")
    assert ([row["cluster"] for row in found["rows"]], found["pages"], found["found"]) == (["c100"], 2, 101)


def test_an_entry_that_cannot_be_used_and_a_paused_dag(two: PageSite) -> None:
    two.dags["backup__harbor"] = DagFacts(True)
    two.write(*two.more, {**two.more[0], "name": "wrong", "schedule": "every night"})
    rows = {row["cluster"]: row for row in two.read("/api/fleet")["rows"]}
    assert rows["wrong"]["usable"] is False
    assert "cron" in rows["wrong"]["problem"]
    assert "is paused" in rows["harbor"]["problem"]
    assert "wrong" not in two.get("/", "harbor").text, "its name is for those who may read its DAG"


def test_a_configuration_that_cannot_be_read_keeps_the_last_one(two: PageSite) -> None:
    two.read("/api/fleet")
    (two.folder / "clusters.yaml").write_text("nonsense: [")
    found = two.read("/api/fleet")
    assert (len(found["rows"]), len(found["problems"])) == (2, 1)
    assert "not valid YAML" in found["problems"][0]
    assert two.read("/api/fleet", "harbor")["problems"] == [], "its path is for those who may read every DAG"


def fail_to_read(*args: Any, **options: Any) -> None:
    raise StoreUnavailable("the bucket does not answer")


def test_an_unreadable_repository_shows_the_last_known_state(two: PageSite, monkeypatch: pytest.MonkeyPatch) -> None:
    two.read("/api/fleet")
    for name in ("check_stored", "glance"):
        monkeypatch.setattr(source, name, fail_to_read)
    for readings in (two.app.state.source.rows, two.app.state.source.clusters):
        monkeypatch.setattr(readings, "_fresh_s", 0.0)
        monkeypatch.setattr(readings, "_rest_s", lambda: 0.0)
    two.get("/api/fleet")
    rows = {row["cluster"]: row for row in two.read("/api/fleet")["rows"]}
    assert (rows["harbor"]["state"], rows["harbor"]["status"]) == ("unknown", "UNKNOWN")
    assert "does not answer" in rows["harbor"]["problem"]
    assert rows["skiff"]["last_error"] == "the bucket does not answer"
    assert "cannot be read now" in two.get("/clusters/harbor").text


def test_an_unsigned_backup_is_marked(two: PageSite) -> None:
    shelf = two.shelves["harbor"]
    identifier = shelf.ids()[-1]
    shelf.store.delete(naming.set_prefix("harbor", identifier) + naming.SIGNATURE)
    two.read(f"/api/clusters/harbor/sets/{identifier}")
    text = two.get(f"/clusters/harbor/sets/{identifier}").text
    assert "not believed. Do not restore it" in text
    assert "Artifacts" not in text


def test_what_does_not_exist(two: PageSite) -> None:
    for path in ("/clusters/nothing", "/clusters/harbor/sets/nonsense", "/static/app.py", "/static/..%2fapp.py"):
        assert two.get(path).status_code == 404
    known = two.read("/api/clusters/harbor/restores/restore-x")
    assert "no restore or recovery" in known["problem"]


def test_no_answer_leads_to_the_host_that_a_request_names(two: PageSite) -> None:
    for path in (*paths_of(two.app, two, "skiff"), "/nothing"):
        if path != "/":
            answer = two.client.get(f"{path}/", headers={"Host": "evil.example"}, follow_redirects=False)
            assert (answer.status_code, "evil.example" in str(answer.headers)) == (404, False)


def test_the_api_describes_itself(two: PageSite) -> None:
    described = two.get("/api/openapi.json").json()
    assert set(described["paths"]) == {
        "/api/fleet",
        "/api/clusters/{cluster}",
        "/api/clusters/{cluster}/sets/{backup_id}",
        "/api/clusters/{cluster}/restores/{restore}",
        "/api/clusters/{cluster}/sets/{backup_id}/objects",
        "/api/clusters/{cluster}/sets/{backup_id}/changes",
        "/api/clusters/{cluster}/history",
    }
    assert "calendar" in described["components"]["schemas"]["FleetRow"]["properties"]


# --- hostile text, headers, addresses ------------------------------------------------------------------------------


class Tags(HTMLParser):
    """The tags of a page, with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


@pytest.fixture
def spoiled(page: PageSite) -> tuple[PageSite, list[str]]:
    """A cluster into which hostile text was written wherever others can write, and the pages that show it."""
    shelf = page.add("harbor", 3)
    identifier = shelf.add(1, run={"reason": HOSTILE, "run_id": HOSTILE})
    found = shelf.get(identifier)
    shelf.repository.record_pin(found, Pin(pinned=True, reason=HOSTILE, by=HOSTILE))
    shelf.repository.record(found, make_verification(at=datetime.now(UTC), problems=(HOSTILE,), warnings=(HOSTILE,), expires_at=datetime.now(UTC), expires_first=HOSTILE))  # fmt: skip
    record = RestoreRecord(shelf.repository.records, "harbor", RESTORE)
    form = FORM.model_copy(update={"reason": HOSTILE})
    record.propose(make_proposal(RUN, PLAN, HOSTILE, form, FACTS, OPTIONS, FOUND, HOSTILE))
    below = ("", f"/sets/{identifier}", f"/restores/{RESTORE}")
    for path in below:
        page.read(f"/api/clusters/harbor{path}")
    page.read("/api/fleet")
    return page, ["/", *(f"/clusters/harbor{path}" for path in below)]


def test_no_html_of_others_gets_through(spoiled: tuple[PageSite, list[str]]) -> None:
    page, paths = spoiled
    for path in paths:
        text = page.get(path).text
        tags = Tags(text).tags
        assert "end" in text
        assert {tag for tag, _ in tags}.isdisjoint({"img", "iframe", "object", "style"})
        assert all(found["src"] for tag, found in tags if tag == "script"), "no script of its own"
        assert not [found for _, found in tags for name in found if name == "style" or name.startswith("on")]
        assert not [found for _, found in tags if "javascript:" in (found.get("href") or "") or "evil" in (found.get("href") or "")]  # fmt: skip
        assert "62710561" not in text or "{{ 7919*7919 }}" in text, "no template of others runs"


def test_no_terminal_escape_gets_through(spoiled: tuple[PageSite, list[str]]) -> None:
    page, paths = spoiled
    for path in (*paths, *(f"/api{path}" for path in paths if path != "/"), "/api/fleet"):
        text = page.get(path).text
        assert not {"\x1b", "\x07", "\u202e"} & set(text), path
        assert "\\u001b" not in text, path


@pytest.mark.parametrize("user", ["everyone", "harbor"])
def test_an_address_is_no_way_in_either(two: PageSite, user: str) -> None:
    for path in ("/clusters/%3Cscript%3Ealert(1)%3C%2Fscript%3E%1B[31m", "/api/clusters/%1B[31m%E2%80%AEx"):
        answer = two.get(path, user)
        assert answer.status_code in (403, 404)
        assert "<script>alert" not in answer.text
        assert not {"\x1b", "\u202e"} & set(answer.text)
        assert "\\u001b" not in answer.text


def test_the_database_is_not_asked_of_what_is_no_id(two: PageSite, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(two.rights, "filter_authorized_dag_ids", lambda *, dag_ids, **_: asked.extend(dag_ids) or dag_ids)  # fmt: skip
    assert two.get("/clusters/harbor%00").status_code == 403
    assert asked == []


def test_markdown_stays_text(spoiled: tuple[PageSite, list[str]]) -> None:
    page, paths = spoiled
    assert "[click](javascript:alert(3))" in page.get(paths[1]).text


def test_every_answer_has_its_headers(two: PageSite) -> None:
    for path in (*paths_of(two.app, two, "skiff"), "/nothing"):
        for answer in (two.client.get(path), two.get(path), two.client.post(path)):
            policy = answer.headers["Content-Security-Policy"]
            assert "unsafe" not in policy
            assert "default-src 'none'" in policy
            assert "frame-ancestors 'self'" in policy
            assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_addresses_are_relative_so_that_any_base_path_works(two: PageSite) -> None:
    outer = FastAPI(root_path="/airflow")
    outer.mount("/etcdkeep", two.app)
    client = TestClient(outer, base_url="https://proxy.example")
    two.read("/api/fleet")
    headers = two.get("/").request.headers
    for path in ("", "clusters/harbor", f"clusters/harbor/sets/{two.shelves['harbor'].ids()[-1]}"):
        text = client.get(f"/airflow/etcdkeep/{path}", headers=headers).text
        links = [value or "" for _, found in Tags(text).tags for name, value in found.items() if name in ("href", "src", "action")]  # fmt: skip
        assert len(links) > 4
        assert not [each for each in links if each.startswith(("/", "http"))]
        depth = path.count("/") if path else 0
        assert f"{'../' * depth or './'}static/page.css" in text


# --- the plugin ----------------------------------------------------------------------------------------------------


def test_airflow_loads_the_plugin_and_not_yet_the_page() -> None:
    code = (
        "import sys\n"
        "from airflow import plugins_manager\n"
        "apps, _ = plugins_manager.get_fastapi_plugins()\n"
        "print([(each['name'], each['url_prefix']) for each in apps if each['name'] == 'etcdkeep'])\n"
        "print('etcdkeep_airflow.page.app' in sys.modules, sorted({'plugin', 'app', 'source', 'answers'} & set(sys.modules)))\n"
        "print(plugins_manager.get_import_errors() if hasattr(plugins_manager, 'get_import_errors') else {})\n"
    )
    environment = {**os.environ, "AIRFLOW__CORE__PLUGINS_FOLDER": str(PROJECT / "plugins"), "PYTHONPATH": f"{PROJECT}/include:{PROJECT}/plugins"}  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-3:] == ["[('etcdkeep', '/etcdkeep')]", "False []", "{}"], done.stderr
