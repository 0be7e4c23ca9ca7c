"""Every command and every setting of docs/retention.md and docs/monitoring.md, word for word."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from etcdkeep import errors
from etcdkeep.cli import main
from etcdkeep.config.loading import CONFIG_VARIABLE, parse_config
from etcdkeep.freshness.report import EXIT_CODES
from tests.builders import make_entry, make_file
from tests.shelf import Shelf

DOCS = Path(__file__).parents[2] / "docs"
PAGES = {name: (DOCS / f"{name}.md").read_text() for name in ("retention", "monitoring")}
COMMANDS = [
    line.removeprefix("$ python -m etcdkeep ").partition("  #")[0].strip()
    for page in PAGES.values()
    for line in page.splitlines()
    if line.startswith("$ ")
]
BLOCKS = [block for page in PAGES.values() for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_page_does_its_work(command, tmp_path, monkeypatch, capsys):
    shelf = Shelf(tmp_path, rehearse=False, retention={"daily": 14, "weekly": 8, "monthly": 12})
    monkeypatch.setenv(CONFIG_VARIABLE, str(shelf.write_config()))
    for day in (20, 1, 0):
        shelf.add(day)
    words = shlex.split(command.replace("prod-admin", "harbor").replace("20261123T023000Z-1f0c9a3e", shelf.ids()[0]))
    with pytest.raises(SystemExit) as ended:
        main(words)
    out, err = capsys.readouterr()
    assert (ended.value.code or 0, err) == (0, "")
    assert out


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.splitlines()[0])
def test_the_settings_of_the_page_are_taken(block):
    document = yaml.safe_load(block)
    entries = [{**make_entry(), **entry} for entry in document["clusters"]]
    config = parse_config(make_file(*entries, defaults=document.get("defaults", {})), "page")
    config.raise_for_problems()
    assert list(config.clusters) == [entry["name"] for entry in entries]


def test_the_pages_name_what_the_code_says():
    table = PAGES["monitoring"].partition("## What is checked")[2].partition("## Where to run it")[0]
    topics = set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE))
    source = "".join(path.read_text() for path in (DOCS.parent / "include/etcdkeep/freshness").glob("*.py"))
    assert topics == set(re.findall(r'Finding\(\s*"\w+", "(\w+)"', source)) | {
        "good",
        "restorable",
        "drilled",
        "certificates",
    }
    for status, code in EXIT_CODES.items():
        assert re.search(rf"\| {code} \| {status}", PAGES["monitoring"])
    assert issubclass(errors.RequestRefused, errors.PermanentError)


@pytest.mark.parametrize("words", re.findall(r"^\| `([^`]+)` \| ", PAGES["retention"].partition("## When it is refused")[2], re.MULTILINE))  # fmt: skip
def test_what_the_page_quotes_is_said_by_the_code(words):
    source = "".join(path.read_text() for path in (DOCS.parent / "include/etcdkeep/retention").glob("*.py"))
    parts = [part.strip() for part in words.replace("N of M ", "").split("…")]
    assert all(part in source for part in parts), words
