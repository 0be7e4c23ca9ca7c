"""``kubeconfig``: what a restore sealed, opened for its owner alone."""

from __future__ import annotations

import shutil
import stat
from typing import TYPE_CHECKING, Any

import pytest

from etcdkeep.adapters.stores.directory import DirectoryStore
from etcdkeep.cli import main
from etcdkeep.config.loading import CONFIG_VARIABLE
from etcdkeep.restore.record import RestoreRecord
from tests.builders import age_pair, make_entry, make_file, make_records

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

RESTORES = ("restore-20261101T000000Z-00000001", "restore-20261102T000000Z-00000002")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """A repository with the kubeconfigs of two restores, and the command line with the identity."""
    identity, config = tmp_path / "age.txt", tmp_path / "clusters.yaml"
    identity.write_bytes(age_pair()[0])
    config.write_text(make_file(make_entry(repository=f"file://{tmp_path}/repository")))
    monkeypatch.setenv("ETCDKEEP_AGE_IDENTITY", str(identity))
    monkeypatch.setenv(CONFIG_VARIABLE, str(config))
    for name in RESTORES:
        record = RestoreRecord(make_records(DirectoryStore(tmp_path / "repository")), "harbor", name)
        record.keep_kubeconfig(f"kubeconfig of {name}".encode(), [age_pair()[1]])

    def invoke(*args: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["kubeconfig", *args])
        code = ended.value.code
        return (code if isinstance(code, int) else 0, *capsys.readouterr())

    return invoke


@pytest.mark.parametrize(("named", "given"), [((), RESTORES[1]), ((RESTORES[0],), RESTORES[0])])
def test_the_newest_or_the_named_one_is_written_for_its_owner_alone(
    run: Callable[..., Any], tmp_path: Path, named: tuple[str, ...], given: str
) -> None:
    target = tmp_path / "admin.kubeconfig"
    code, out, _ = run("harbor", *named, "--to", str(target))
    assert (code, target.read_text()) == (0, f"kubeconfig of {given}")
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert "kubeconfig of" not in out


def test_a_file_that_is_there_is_never_overwritten(run: Callable[..., Any], tmp_path: Path) -> None:
    target = tmp_path / "admin.kubeconfig"
    target.write_text("mine")
    code, _, err = run("harbor", "--to", str(target))
    assert (code, target.read_text()) == (1, "mine")
    assert "already exists" in err


def test_a_restore_that_is_not_there_is_told_with_those_that_are(run: Callable[..., Any], tmp_path: Path) -> None:
    code, _, err = run("harbor", "restore-x", "--to", str(tmp_path / "k"))
    assert code == 1
    assert all(name in err for name in RESTORES)
    assert not (tmp_path / "k").exists()


def test_where_no_restore_kept_one_it_says_where_the_older_one_is(run: Callable[..., Any], tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "repository" / "harbor" / "restores")
    code, _, err = run("harbor", "--to", str(tmp_path / "k"))
    assert code == 1
    assert "no restore has kept one" in err
    assert "unseal harbor --to FOLDER`, access/kubeconfig" in err


@pytest.mark.parametrize("theirs", [True, False], ids=["wrong-identity", "no-identity"])
def test_without_the_identity_nothing_is_written(
    run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, theirs: bool
) -> None:
    if theirs:
        (tmp_path / "age.txt").write_bytes(age_pair("theirs")[0])
    else:
        monkeypatch.delenv("ETCDKEEP_AGE_IDENTITY")
    assert run("harbor", "--to", str(tmp_path / "k"))[0] == 4
    assert not (tmp_path / "k").exists()
