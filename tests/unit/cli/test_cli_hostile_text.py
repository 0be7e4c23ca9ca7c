"""
What somebody planted in a set or a record, as it reaches a terminal: the command line runs on a real one (a pty).

The sets here are signed: a reason, a node's or a member's name come from people and clusters, whoever signs.
"""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from etcdkeep import naming
from etcdkeep.cli import common
from etcdkeep.config.loading import CONFIG_VARIABLE
from etcdkeep.sealing.signature import load_signing_key
from tests.builders import BACKUP_ID, age_pair, make_entry, make_file, signing_pair

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.fake_site import FakeSite

PREFIX = naming.set_prefix("harbor", BACKUP_ID)
NAME = f"harbor/{BACKUP_ID}"
PLANTED = (
    "PLANTED\x1b]52;c;cm0gLXJmIH4K\x07\x1b]0;title\x1b\\\x9d8;;http://x\x9c\x1b[2J\x1b[8m\x9b1A"
    "\u202e\u2066\u200b\x07\x08\x7f\r\nerror: FORGED\u2028error: FORGED\x85error: FORGED [bold]x[/bold] [link=http://x]y[/link] [/]"
)
OWN_STYLE = re.compile(r"(\r\x1b\[1A)?\x1b\[2K|\r(?=\x1b\[2K)|\x1b\[(\?25[lh]|(0|1|3\d(;5;\d+)?)?m)")
"""A table's head is bold on a terminal, and a bar is drawn and wiped away."""


@pytest.fixture
def planted(site: FakeSite, tmp_path: Path) -> Callable[..., Path]:
    """Publish a set, and change its manifest before it is signed."""

    def publish(change: Callable[[dict[str, Any]], None]) -> Path:
        site.backup()
        folder = site.folder / "repository" / PREFIX
        document = json.loads((folder / naming.MANIFEST).read_bytes())
        change(document)
        data = json.dumps(document).encode()
        signature = load_signing_key(signing_pair()[0], trusted=[signing_pair()[1]]).sign(data)
        for name, content in ((naming.MANIFEST, data), (naming.SIGNATURE, signature)):
            (folder / name).unlink()
            (folder / name).write_bytes(content)
        (tmp_path / "age.txt").write_bytes(age_pair()[0])
        config = make_file(make_entry(repository=f"file://{tmp_path}/repository"))
        (tmp_path / "clusters.yaml").write_text(config)
        return folder

    return publish


def in_names(document: dict[str, Any]) -> None:
    document["run"] |= {"reason": PLANTED, "dag_id": PLANTED, "run_id": PLANTED}
    document["identity"]["kube_system_uid"] = PLANTED
    document["identity"]["ca_sha256"] = PLANTED
    document["versions"] = {PLANTED: PLANTED}
    document["notes"] = [PLANTED]
    for member in document["members"]:
        member |= {"name": PLANTED, "problem": PLANTED}
    for artifact in document["artifacts"]:
        artifact["plaintext"]["sha256"] = PLANTED


def in_numbers(document: dict[str, Any]) -> None:
    document["revision"] = 10**400
    document["snapshot"] |= {"revision": 10**400, "total_keys": 10**400, "size_bytes": 10**400}
    for artifact in document["artifacts"]:
        artifact["stored"]["size_bytes"] = artifact["plaintext"]["size_bytes"] = 10**400


def plant_record(folder: Path, **fields: Any) -> None:
    record = {
        "at": "2026-11-23T03:00:00Z",
        "levels": ["stored"],
        "problems": [PLANTED],
        "warnings": [PLANTED],
        **fields,
    }
    (folder / "verification").mkdir(exist_ok=True)
    (folder / "verification" / "20261123T030000.000000Z-stored.json").write_text(json.dumps(record))


def on_a_terminal(folder: Path, *args: str) -> str:
    """Run the command line with both outputs on a terminal, and return what the terminal got."""
    leader, follower = pty.openpty()
    environment = os.environ | {
        CONFIG_VARIABLE: str(folder / "clusters.yaml"),
        common.IDENTITY_VARIABLE: str(folder / "age.txt"),
        "TERM": "xterm-256color",
        "COLUMNS": "400",
    }
    with subprocess.Popen(
        [sys.executable, "-m", "etcdkeep", *args], stdin=follower, stdout=follower, stderr=follower, env=environment
    ):
        os.close(follower)
        got = bytearray()
        while True:
            try:
                got += os.read(leader, 65536)
            except OSError:  # the other end was closed
                break
    os.close(leader)
    return got.decode()


def expect_obeyed_nothing(got: str) -> None:
    shown = OWN_STYLE.sub("", got).replace("\r\n", "\n")
    left = {letter for letter in shown if letter != "\n" and not letter.isprintable()}
    assert left == set(), repr(shown)
    assert not re.search(r"^error: FORGED", shown, re.MULTILINE), "nothing planted begins a line"
    assert "Traceback" not in shown


@pytest.mark.parametrize("change", [in_names, in_numbers])
@pytest.mark.parametrize("args", [("list", "harbor"), ("list",), ("show", NAME), ("verify", NAME, "--no-record")])
def test_a_terminal_is_told_nothing_by_a_manifest(
    planted: Callable[..., Path], tmp_path: Path, change: Any, args: tuple[str, ...]
) -> None:
    planted(change)
    got = on_a_terminal(tmp_path, *args)
    expect_obeyed_nothing(got)
    assert "0" * 100 not in got, "a number that is no count of anything is not printed"
    assert max(map(len, got.splitlines())) < 6000


@pytest.mark.parametrize("args", [("list", "harbor"), ("show", NAME), ("unseal", NAME, "--to", "plain")])
def test_a_terminal_is_told_nothing_by_a_record(
    planted: Callable[..., Path], tmp_path: Path, args: tuple[str, ...]
) -> None:
    plant_record(planted(lambda document: None), live_keys=10**400, seconds={PLANTED: 1.0})
    expect_obeyed_nothing(on_a_terminal(tmp_path, *(str(tmp_path / arg) if arg == "plain" else arg for arg in args)))


def test_a_terminal_is_told_nothing_by_names_of_the_objects_commands(
    planted: Callable[..., Path], tmp_path: Path
) -> None:
    planted(in_names)
    expect_obeyed_nothing(on_a_terminal(tmp_path, "-v", "objects", "list", NAME))
    expect_obeyed_nothing(on_a_terminal(tmp_path, "objects", "get", NAME, "configmap", PLANTED.replace("\0", "")))


def test_a_planted_reason_is_shown_all_the_same(planted: Callable[..., Path], tmp_path: Path) -> None:
    planted(in_names)
    got = on_a_terminal(tmp_path, "show", NAME)
    assert re.search(r"^reason +PLANTED error: FORGED error: FORGED", got, re.MULTILINE)
    assert "[link=http://x]y[/link]" in got, "no mark-up of ours is read out of it"


def test_json_is_exact_and_spells_controls_out(planted: Callable[..., Path], tmp_path: Path) -> None:
    planted(in_names)
    got = on_a_terminal(tmp_path, "show", NAME, "--json").replace("\r\n", "\n")
    assert got.replace("\n", "").isprintable()
    assert got.isascii()
    assert json.loads(got)["run"]["reason"] == PLANTED


def test_json_keeps_a_number_of_any_length(planted: Callable[..., Path], tmp_path: Path) -> None:
    planted(in_numbers)
    got = json.loads(on_a_terminal(tmp_path, "show", NAME, "--json"))
    assert "revision" not in got or got["revision"] == 10**400
