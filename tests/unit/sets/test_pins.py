"""Pins: who may set and end them, until when they hold, and who sees them."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from etcdkeep import naming
from etcdkeep.cli import main
from etcdkeep.config.loading import CONFIG_VARIABLE
from etcdkeep.documents import read, write
from etcdkeep.records import trust_for_all
from etcdkeep.sealing.signature import load_signing_key
from etcdkeep.sets.pins import PIN, InUse, Pin
from tests.builders import make_repository, make_signer, signing_pair
from tests.shelf import Shelf

REASON = "before the upgrade to 1.37"


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    made = Shelf(tmp_path)
    monkeypatch.setenv(CONFIG_VARIABLE, str(made.write_config()))
    return made


@pytest.fixture
def run(capsys):
    def invoke(*args):
        with pytest.raises(SystemExit) as ended:
            main([str(arg) for arg in args])
        out, err = capsys.readouterr()
        return ended.value.code or 0, out, err

    return invoke


def pin(shelf, identifier, *, pinned=True, at=None, until=None, reason=REASON):
    repository = shelf.repository
    if at is not None:
        repository.records.now = lambda: at
    repository.record_pin(shelf.get(identifier), Pin(pinned=pinned, reason=reason, by="alice", until=until))


def test_a_pin_holds_until_it_is_ended(shelf):
    identifier = shelf.add(1)
    assert shelf.get(identifier).pinned(shelf.now) is None
    pin(shelf, identifier)
    assert shelf.get(identifier).pinned(shelf.now) == REASON
    pin(shelf, identifier, pinned=False)
    assert shelf.get(identifier).pinned(shelf.now) is None
    pin(shelf, identifier, reason="again")
    assert shelf.get(identifier).pinned(shelf.now) == "again"


def test_a_pin_with_an_end_ends_by_itself(shelf):
    identifier, until = shelf.add(1), shelf.now + timedelta(days=3)
    pin(shelf, identifier, until=until)
    found = shelf.get(identifier)
    assert REASON in found.pinned(shelf.now)
    assert f"until {until:%Y-%m-%d %H:%M} UTC" in found.pinned(shelf.now)
    assert found.pinned(until) is None


def test_a_set_whose_form_pinned_it_is_so_until_a_record_ends_that(shelf):
    identifier = shelf.add(1, run={"pinned": True, "reason": "golden"})
    assert shelf.get(identifier).pinned(shelf.now) == "golden"
    pin(shelf, identifier, pinned=False)
    assert shelf.get(identifier).pinned(shelf.now) is None


def test_the_last_signed_one_counts_whatever_time_its_file_has(shelf):
    identifier = shelf.add(1)
    pin(shelf, identifier, pinned=False, at=shelf.now - timedelta(hours=2))
    pin(shelf, identifier, at=shelf.now - timedelta(hours=1))
    first, second = sorted(shelf.names(f"harbor/{identifier}/pins/"))
    shelf.age(9, second)
    shelf.age(-9, first)
    assert shelf.get(identifier).pinned(shelf.now) == REASON


@pytest.mark.parametrize("how", ["other-key", "unsigned", "of-another-set"])
def test_a_forged_end_of_a_pin_counts_as_nothing_and_is_told(shelf, how):
    identifier, other = shelf.add(1), shelf.add(2)
    pin(shelf, identifier)
    name = naming.beside_set("harbor", identifier, "pins", shelf.now + timedelta(minutes=1))
    if how == "other-key":
        pem, public = signing_pair("theirs")
        theirs = make_repository(shelf.store, signer=lambda purpose: load_signing_key(pem, [public]))
        theirs.records.now = lambda: shelf.now + timedelta(minutes=1)
        theirs.record_pin(shelf.get(identifier), Pin(pinned=False, reason="x"))
    elif how == "unsigned":
        write(shelf.store, name, b'{"pinned": false}')
    else:
        pin(shelf, other, pinned=False)
        (copied,) = shelf.names(f"harbor/{other}/pins/")
        write(shelf.store, name, read(shelf.store, copied))
    found = shelf.get(identifier)
    assert found.pinned(shelf.now) == REASON
    assert [each.word for each in found.refused] == [{"other-key": "foreign", "unsigned": "unsigned", "of-another-set": "moved"}[how]]  # fmt: skip


def test_the_key_for_backups_ends_no_pin(shelf):
    identifier = shelf.add(1)
    pin(shelf, identifier)
    trust = {**trust_for_all([signing_pair("verify")[1]]), "backup": (signing_pair()[1],)}
    with_two_keys = make_repository(shelf.store, trust=trust, signer=lambda purpose: make_signer())
    found = with_two_keys.get("harbor", identifier)
    assert (found.pins, [each.word for each in found.refused]) == ((), ["foreign", "foreign"])
    assert PIN.purpose == "verify"


def test_what_reads_a_set_says_so_for_a_time(shelf):
    identifier, until = shelf.add(1), shelf.now + timedelta(hours=1)
    name = shelf.repository.record_use(shelf.get(identifier), InUse(by="drill run-7", until=until))
    assert shelf.get(identifier).in_use(shelf.now) == "drill run-7"
    assert shelf.get(identifier).in_use(until) is None
    shelf.store.delete(name)
    assert shelf.get(identifier).in_use(shelf.now) is None


# --- the command line ----------------------------------------------------------------------------------------------


def test_a_person_pins_and_unpins_and_list_and_show_say_so(shelf, run):
    name = f"harbor/{shelf.add(1)}"
    assert run("pin", name, "--reason", REASON) == (0, f"{name}: pinned\n", "")
    assert "good, pinned" in run("list", "harbor")[1]
    code, out, _ = run("show", name)
    assert code == 0
    assert next(line for line in out.splitlines() if line.startswith("pinned")).endswith(f": {REASON}")
    (row,) = json.loads(run("list", "harbor", "--json")[1])
    assert (row["state"], row["pinned"]) == ("good", True)
    (shown,) = json.loads(run("show", name, "--json")[1])["pins"]
    assert (shown["reason"], shown["pinned"]) == (REASON, True)
    assert "@" in shown["by"]
    assert run("unpin", name, "--reason", "upgraded") == (0, f"{name}: not pinned any more\n", "")
    assert "pinned" not in run("list", "harbor")[1]
    assert json.loads(run("show", name, "--json")[1])["pinned"] is False


def test_until_is_a_day_or_a_moment(shelf, run):
    name = f"harbor/{shelf.add(1)}"
    day = f"{shelf.now + timedelta(days=40):%Y-%m-%d}"
    assert run("pin", name, "--reason", "x", "--until", day)[1] == f"{name}: pinned until {day} 00:00 UTC\n"
    assert run("pin", name, "--reason", "x", "--until", f"{day}T01:30:00+01:00")[1].endswith(f"until {day} 00:30 UTC\n")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--until", "2026-13-01", "--reason", "x"], "is not a time"),
        (["--until", "2001-01-01", "--reason", "x"], "is in the past"),
        (["--reason", " "], "--reason is empty"),
        ([], "Missing option '--reason'"),
    ],
)
def test_a_wrong_use_is_told_and_pins_nothing(shelf, run, options, said):
    identifier = shelf.add(1)
    code, _, err = run("pin", f"harbor/{identifier}", *options)
    assert code == 2
    assert said in err
    assert shelf.get(identifier).pins == ()


def test_a_set_that_is_not_there_or_not_believed_cannot_be_pinned(shelf, run):
    identifier = shelf.add(1)
    code, _, err = run("pin", f"harbor/{shelf.identifier(5)}", "--reason", "x")
    assert code == 1
    assert "no backup harbor/" in err
    shelf.store.delete(f"harbor/{identifier}/{naming.SIGNATURE}")
    code, _, err = run("pin", f"harbor/{identifier}", "--reason", "x")
    assert code == 3
    assert "is unsigned and cannot be used" in err


def test_without_the_key_nothing_is_pinned(shelf, run, monkeypatch, tmp_path):
    identifier = shelf.add(1)
    (tmp_path / "signing-key.pem").unlink()
    code, _, err = run("pin", f"harbor/{identifier}", "--reason", "x")
    assert code == 4
    assert "cannot be read" in err
    assert shelf.get(identifier).pins == ()
