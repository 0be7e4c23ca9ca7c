"""``metrics``: to standard output, to a file, and what it refuses."""

from __future__ import annotations

import os
import stat
import threading
import time

import pytest

from etcdkeep.adapters.prometheus import LONGEST_TIMEOUT_S, SCRAPE_TIMEOUT, scrape_wait_s
from etcdkeep.adapters.stores.directory import DirectoryStore
from etcdkeep.cli import main
from etcdkeep.config.loading import CONFIG_VARIABLE
from tests.shelf import Shelf


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    made = Shelf(tmp_path, rehearse=False)
    monkeypatch.setenv(CONFIG_VARIABLE, str(made.write_config()))
    made.add(0)
    return made


@pytest.fixture
def run(capsys):
    def invoke(*words):
        with pytest.raises(SystemExit) as ended:
            main(["metrics", *map(str, words)])
        return ended.value.code or 0, *capsys.readouterr()

    return invoke


def test_a_file_is_written_whole_and_alone(shelf, run, tmp_path):
    path = tmp_path / "textfiles/etcdkeep.prom"
    path.parent.mkdir()
    path.write_text("old")
    held = path.open()
    assert run("--file", path) == (0, "", "")
    assert held.read() == "old", "the old file was written over, so that a reader can meet half of the new one"
    assert path.read_text() == path.read_text().strip() + "\n"
    assert 'etcdkeep_repository_readable{cluster="harbor"} 1.0' in path.read_text()
    assert [each.name for each in path.parent.iterdir()] == ["etcdkeep.prom"]
    assert stat.S_IMODE(path.stat().st_mode) & 0o600 == 0o600


def test_a_file_that_cannot_be_written_is_an_error_and_leaves_nothing(shelf, run, tmp_path):
    path = tmp_path / "nowhere/etcdkeep.prom"
    code, out, err = run("--file", path)
    assert (code, out) == (1, "")
    assert str(path) in err
    assert "Traceback" not in err
    full = tmp_path / "full"
    full.mkdir()
    (full / "etcdkeep.prom").mkdir()
    assert run("--file", full / "etcdkeep.prom")[0] == 2
    assert os.listdir(full) == ["etcdkeep.prom"]


def test_what_cannot_be_read_is_said_on_standard_error_and_ends_with_0(shelf, run, tmp_path):
    (tmp_path / "file").write_text("")
    shelf.settings["repository"] = f"file://{tmp_path}/file/x"
    shelf.write_config()
    path = tmp_path / "etcdkeep.prom"
    code, out, err = run("--file", path)
    assert (code, out) == (0, "")
    assert err.startswith("error: cluster harbor: ")
    assert 'etcdkeep_repository_readable{cluster="harbor"} 0.0' in path.read_text()


def test_a_repository_that_hangs_is_not_waited_for(shelf, run, monkeypatch):
    hangs = threading.Event()
    monkeypatch.setattr(DirectoryStore, "list", lambda self, prefix="": hangs.wait(60) or iter(()))
    began = time.monotonic()
    code, out, _ = run("--wait-s", "0.3")
    assert time.monotonic() - began < 10
    hangs.set()
    assert code == 0
    assert 'etcdkeep_repository_readable{cluster="harbor"} 0.0' in out
    assert 'etcdkeep_check_status{cluster="harbor",topic="repository"} 3.0' in out


@pytest.mark.parametrize(
    "words",
    [
        ("--listen", "nonsense"),
        ("--listen", "127.0.0.1:70000"),
        ("--listen", "http://127.0.0.1:1"),
        ("--file", "x.prom", "--listen", "127.0.0.1:0"),
        ("--cache-s", "-1"),
        ("--wait-s", "0"),
        ("harbor",),
    ],
)
def test_wrong_usage(run, words):
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert "Usage" in err


@pytest.mark.parametrize(
    ("header", "wait_s"),
    [("10", 8), ("0.5", 0.4), ("1e9", 0.8 * LONGEST_TIMEOUT_S), ("", 8), ("x", 8), ("-3", 8), ("nan", 8), (None, 8)],
)
def test_a_scrape_waits_for_most_of_the_timeout_that_prometheus_sends(header, wait_s):
    assert scrape_wait_s({} if header is None else {SCRAPE_TIMEOUT: header}) == pytest.approx(wait_s)
