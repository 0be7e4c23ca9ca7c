"""``prune`` and ``retention plan`` as a person and a program meet them."""

from __future__ import annotations

import json

import pytest

from etcdkeep.cli import main
from etcdkeep.config.loading import CONFIG_VARIABLE
from tests.shelf import Shelf


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    made = Shelf(tmp_path, retention={"daily": 5, "min_good": 2})
    monkeypatch.setenv(CONFIG_VARIABLE, str(made.write_config()))
    for day in reversed(range(6)):
        made.add(day)
    return made


@pytest.fixture
def run(capsys):
    def invoke(*args):
        with pytest.raises(SystemExit) as ended:
            main([str(arg) for arg in args])
        out, err = capsys.readouterr()
        return ended.value.code or 0, out, err

    return invoke


def test_a_dry_run_shows_each_set_with_its_reasons_and_changes_nothing(shelf, run):
    before = shelf.names()
    code, out, err = run("prune", "harbor", "--dry-run")
    lines = out.splitlines()
    assert (code, err) == (0, "")
    assert lines[0].split() == ["backup", "taken", "(UTC)", "state", "plan", "why"]
    assert [line.split()[4] for line in lines[1:7]] == ["REMOVE", *["keep"] * 5]
    assert "no rule keeps it" in lines[1]
    assert f"daily {shelf.now:%Y-%m-%d}; newest verified" in lines[6]
    assert lines[7] == "1 of 6 backup(s) would be removed, and 0 orphaned object(s). Nothing was changed."
    assert shelf.names() == before


def test_prune_removes_and_says_what_was_read_back(shelf, run):
    oldest, *kept = shelf.ids()
    code, out, _ = run("prune", "harbor", "--json")
    answer = json.loads(out)
    assert (code, answer["removed"], answer["refused"]) == (0, [oldest], [])
    assert sorted(answer["read_back"]) == kept[-2:]
    assert [each["keep"] for each in answer["sets"]] == [False, *[True] * 5]
    assert shelf.ids() == kept
    assert "0 of 5 backup(s) removed" in run("prune", "harbor")[1]


def test_a_large_share_is_refused_until_it_is_confirmed(shelf, run, tmp_path):
    shelf.settings["retention"] = {"daily": 2, "min_good": 1}
    shelf.write_config()
    code, _, err = run("prune", "harbor", "--dry-run")
    assert (code, "a run would refuse this: 4 of 6 sets" in err) == (0, True)
    code, _, err = run("prune", "harbor")
    assert (code, len(shelf.ids())) == (1, 6)
    assert "error: no backup of cluster 'harbor' was removed:\n  4 of 6 sets would be removed" in err
    assert run("prune", "harbor", "--yes")[0] == 0
    assert len(shelf.ids()) == 2


def test_a_cluster_without_retention_or_configuration_is_never_pruned(shelf, run):
    del shelf.settings["retention"]
    shelf.write_config()
    code, _, err = run("prune", "harbor", "--yes")
    assert (code, "has no retention: nothing of it is ever removed" in err) == (2, True)
    code, _, err = run("prune", "harbour", "--yes")
    assert (code, "usable are: harbor" in err) == (2, True)
    assert len(shelf.ids()) == 6


def test_without_the_signing_key_nothing_is_removed(shelf, run, tmp_path):
    (tmp_path / "signing-key.pem").unlink()
    assert run("prune", "harbor")[0] == 4
    assert len(shelf.ids()) == 6
    assert run("prune", "harbor", "--dry-run")[0] == 0, "to look takes no key"


def test_retention_plan_shows_what_would_be_there(shelf, run):
    code, out, _ = run("retention", "plan", "harbor", "--days", "30")
    assert code == 0
    assert out.splitlines()[-1].startswith("5 backup(s) on ")
    answer = json.loads(run("retention", "plan", "harbor", "--days", "30", "--json")[1])
    assert len(answer["sets"]) == 5
    assert all(each["backup_id"].endswith("simulated") for each in answer["sets"])
    assert len(shelf.ids()) == 6


def test_the_help_does_not_promise_that_a_copy_is_pruned_in_place_of_the_first_repository(run):
    words = [" ".join(run(command, "--help")[1].split()) for command in ("prune", "list")]
    assert ["Default: its own; a copy where that is gone or damaged." in each for each in words] == [False, True]
