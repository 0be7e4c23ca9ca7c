"""``replicate``, ``--repository`` and falling back to a copy, as a person and a program meet them."""

from __future__ import annotations

import json
import shutil

import pytest

from etcdkeep import naming
from etcdkeep.adapters.stores.directory import DirectoryStore
from etcdkeep.cli import main
from etcdkeep.config.loading import CONFIG_VARIABLE
from tests.builders import make_verification
from tests.shelf import Shelf


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    made = Shelf(tmp_path, rehearse=False, copies=[{"repository": f"file://{tmp_path}/copy"}])
    monkeypatch.setenv(CONFIG_VARIABLE, str(made.write_config()))
    for day in (1, 0):
        made.add(day)
    return made


@pytest.fixture
def copy(tmp_path):
    return Shelf(tmp_path / "of-copy", DirectoryStore(tmp_path / "copy"))


@pytest.fixture
def run(capsys):
    def invoke(*args):
        with pytest.raises(SystemExit) as ended:
            main([str(arg) for arg in args])
        out, err = capsys.readouterr()
        return ended.value.code or 0, out, err

    return invoke


def test_replicate_copies_and_says_so_and_a_dry_run_does_not(shelf, copy, run):
    code, out, _ = run("replicate", "harbor", "--dry-run")
    assert (code, copy.names()) == (0, [])
    assert f"harbor/{shelf.ids()[0]}: would be copied to {copy.store.url}" in out
    assert "Nothing was changed." in out
    code, out, err = run("replicate", "harbor", "--json")
    [answer] = json.loads(out)
    assert (code, err, answer["copied"]) == (0, "", shelf.ids()[::-1])
    assert copy.ids() == shelf.ids()
    assert json.loads(run("replicate", "--json")[1])[0]["present"] == 2, "every cluster that has copies"


def test_a_cluster_without_copies_is_named(shelf, run):
    shelf.settings["copies"] = []
    shelf.write_config()
    code, _, err = run("replicate", "harbor")
    assert code == 2
    assert "has no copies. Set copies" in err
    assert run("replicate")[0] == 0


def test_a_copy_that_fails_is_an_error_and_the_backup_is_not(shelf, copy, run):
    identifier = shelf.ids()[-1]
    (copy.store.root / "harbor" / identifier).mkdir(parents=True)
    (copy.store.root / "harbor" / identifier / naming.MANIFEST).write_text("another")
    code, out, err = run("replicate", "harbor", "--json")
    [answer] = json.loads(out)
    assert code == 1
    assert list(answer["failed"]) == [identifier]
    assert len(answer["copied"]) == 1
    assert "themselves are unchanged" in err
    assert shelf.get(identifier).state == "good"


@pytest.mark.parametrize("command", ["list", "show", "verify"])
def test_any_copy_can_be_used(shelf, copy, run, command):
    run("replicate", "harbor")
    shutil.rmtree(shelf.store.root / "harbor" / shelf.ids()[0])
    name = "harbor" if command == "list" else f"harbor/{copy.ids()[0]}"
    code, out, err = run(command, name, "--repository", copy.store.url, "--json")
    assert copy.ids()[0] in out
    assert "warning" not in err
    assert code == (4 if command == "verify" else 0), "verify without an identity compares bytes only"


def test_what_is_verified_in_a_copy_is_recorded_there(shelf, copy, run):
    run("replicate", "harbor")
    identifier = copy.ids()[0]
    before = len(shelf.get(identifier).records)
    (copy.store.root / f"harbor/{identifier}/{naming.ETCD_ARTIFACT}").write_bytes(b"SEALED database")
    assert run("verify", f"harbor/{identifier}", "--repository", f"{copy.store.url}/")[0] == 3
    assert (copy.get(identifier).state, shelf.get(identifier).state) == ("bad", "good")
    assert len(shelf.get(identifier).records) == before


def test_a_repository_that_is_none_of_the_cluster_is_refused(shelf, copy, run):
    code, _, err = run("list", "harbor", "--repository", "s3://elsewhere/x")
    assert code == 2
    assert f"it has {shelf.settings['repository']}, {copy.store.url}" in err


def test_a_set_that_is_gone_from_the_first_is_read_from_the_copy_and_that_is_said(shelf, copy, run):
    run("replicate", "harbor")
    gone = shelf.ids()[0]
    shutil.rmtree(shelf.store.root / "harbor" / gone)
    code, out, err = run("show", f"harbor/{gone}")
    assert code == 0
    assert gone in out
    assert f"warning: using the copy of harbor/{gone} in {copy.store.url}" in err
    assert "no backup harbor" in err


def test_a_damaged_one_too_and_a_set_that_is_bad_everywhere_is_not(shelf, copy, run):
    run("replicate", "harbor")
    damaged, bad = shelf.ids()
    shelf.store.delete(f"harbor/{damaged}/{naming.ETCD_ARTIFACT}")
    assert f"using the copy of harbor/{damaged}" in run("show", f"harbor/{damaged}")[2]
    problem = make_verification(levels=("stored",), problems=("a page is damaged",))
    shelf.repository.record(shelf.get(bad), problem)
    code, out, err = run("show", f"harbor/{bad}")
    assert (code, err) == (0, ""), "its bytes are those of the copy"
    assert "BAD" in out


def test_when_the_first_repository_is_gone_the_copy_is_listed_and_that_is_said(shelf, copy, run, monkeypatch):
    from etcdkeep.errors import StoreUnavailable

    run("replicate", "harbor")
    first, real = shelf.store.root, DirectoryStore.list

    def down(self, prefix=""):
        if self.root == first:
            raise StoreUnavailable(f"file://{first} does not answer")
        return real(self, prefix)

    monkeypatch.setattr(DirectoryStore, "list", down)
    code, out, err = run("list", "harbor")
    assert code == 0
    assert all(identifier in out for identifier in copy.ids())
    assert f"listing the copy in {copy.store.url}" in err
    code, out, err = run("show", "harbor")
    assert code == 0
    assert copy.ids()[-1] in out
    assert "does not answer" in err
    assert run("list", "harbor", "--repository", shelf.settings["repository"])[0] == 5, "asked for this one"


def test_check_says_how_old_the_newest_copy_is(shelf, copy, run):
    code, out, _ = run("check", "harbor", "--json")
    [report] = json.loads(out)["clusters"]
    assert (code, report["status"]) == (2, "CRITICAL")
    [finding] = [each for each in report["findings"] if each["topic"] == "copied"]
    assert "there is no copied backup" in finding["sentence"]
    assert copy.store.url in finding["sentence"]
    run("replicate", "harbor")
    code, out, _ = run("check", "harbor", "--json")
    [report] = json.loads(out)["clusters"]
    assert (code, report["status"]) == (0, "OK")
    assert report["measures"]["newest_copied_age"]["value"] < 600


def test_a_copy_that_falls_behind_rings(shelf, copy, run):
    run("replicate", "harbor")
    newest = shelf.ids()[-1]
    shelf.add(0, suffix="00000001")
    shutil.rmtree(copy.store.root / "harbor" / newest)
    shelf.settings["freshness"] = {"warn_after": "12h", "fail_after": "10d"}
    shelf.write_config()
    [report] = json.loads(run("check", "harbor", "--json")[1])["clusters"]
    assert [(each["status"], each["topic"]) for each in report["findings"] if each["status"] != "OK"] == [
        ("WARNING", "copied")
    ]


def test_a_copy_is_pruned_by_its_own_rules(shelf, copy, run):
    run("replicate", "harbor")
    own = {"keep_last": 1, "min_good": 1, "max_remove_share": 1}
    shelf.settings |= {"retention": {"keep_last": 9}, "copies": [{"repository": copy.store.url, "retention": own}]}
    shelf.write_config()
    old, new = shelf.ids()
    code, out, _ = run("prune", "harbor", "--repository", copy.store.url, "--json")
    assert (code, json.loads(out)["removed"]) == (0, [old])
    assert (copy.ids(), shelf.ids()) == ([new], [old, new])


@pytest.mark.parametrize("command", ["list", "show", "verify", "unseal", "drill", "runbook", "prune"])
def test_each_command_of_the_page_takes_a_repository(run, command):
    assert "--repository URL" in run(command, "--help")[1]
