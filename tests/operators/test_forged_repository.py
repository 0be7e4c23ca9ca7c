"""
Whoever can write the repository, but holds no key: whatever they put into it, nothing else happens on a node, no other
set counts as good, and what is said is one of our own errors.
"""

from __future__ import annotations

import random
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk.exceptions import AirflowSkipException
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from etcdkeep.errors import EtcdkeepError
from tests.restore_ran import BACKUP, FORWARD, Ran
from tests.restore_site import RestoreSite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

POINTS = ("approved", "stage", "restore_etcd", "swap", "rollback")
"""How far the restore is when the repository is written to."""


class Watched(RestoreSite):
    """A site whose node notes every command."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.commands: list[tuple[tuple[str, ...], bytes]] = []
        machine = self.machines["10.0.0.1"]
        run = machine.run

        def watched(argv: Any, limits: Any, *, stdin: bytes = b"") -> Any:
            self.commands.append((tuple(argv), stdin))
            return run(argv, limits, stdin=stdin)

        machine.run = watched  # type: ignore[method-assign]

    def come_to(self, point: str) -> Ran:
        """Return a run that has come so far."""
        ran = Ran(self)
        ran.approve()
        if point == "rollback":
            ran.walk(*FORWARD[:3], "rollback")
        elif point != "approved":
            ran.walk(*FORWARD[: FORWARD.index(point) + 1])
        return ran


@pytest.fixture(scope="module")
def sites() -> Iterator[Callable[[], Watched]]:
    """Make sites, each in a folder of its own."""
    folders: list[str] = []
    with pytest.MonkeyPatch.context() as patched:

        def make() -> Watched:
            folders.append(tempfile.mkdtemp(prefix="etcdkeep-forged-"))
            site = Watched(Path(folders[-1]) / "repository")
            site.install(patched)
            return site

        yield make
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def allowed(sites: Callable[[], Watched]) -> set[tuple[tuple[str, ...], bytes]]:
    """Every command of the approved restore: its way there and its way back, from wherever it is."""
    commands: set[tuple[tuple[str, ...], bytes]] = set()
    for point in POINTS:
        site = sites()
        ran = site.come_to(point)
        for task in (*FORWARD, "rollback") if point != "rollback" else ():
            ran.walk(task)
            if task == "verify":
                with suppress(EtcdkeepError):
                    ran.walk("fetch_kubeconfig")
                break
        commands |= set(site.commands)
        site = sites()
        ran = site.come_to(point)
        with suppress(EtcdkeepError, AirflowSkipException):
            ran.walk("rollback")
        commands |= set(site.commands)
    return commands


def forge(root: Path, seed: int) -> set[str]:
    """Replace, move, cut, delete and plant objects; return the names of those that are not as they were."""
    dice = random.Random(seed)
    files = sorted(path for path in root.rglob("*") if path.is_file())
    before = {path: path.read_bytes() for path in files}
    for path in dice.sample(files, dice.randint(1, len(files))):
        path.chmod(0o600)
        match dice.randrange(5):
            case 0:
                path.unlink()
            case 1:
                path.write_bytes(dice.randbytes(dice.randint(0, 200)))
            case 2:
                path.write_bytes(before[dice.choice(files)])
            case 3:
                path.write_bytes(before[path][: dice.randint(0, len(before[path]))])
            case _:
                planted = path.parent / dice.choice(("begun.json", "29991231T000000.000000Z-stage.json", "locked.json"))
                planted.write_bytes(before[dice.choice(files)])
    after = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    return {path.relative_to(root).as_posix() for path in changed}


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(point=st.sampled_from(POINTS), seed=st.integers(0, 2**32))
def test_a_forged_repository_leads_to_nothing_else(
    sites: Callable[[], Watched], allowed: set[tuple[tuple[str, ...], bytes]], point: str, seed: int
) -> None:
    site = sites()
    ran = site.come_to(point)
    root = site.repository.store.root  # type: ignore[attr-defined]
    changed = forge(root, seed)
    for task in (*FORWARD, "rollback", "fetch_kubeconfig"):
        with suppress(EtcdkeepError, AirflowSkipException):
            ran.walk(task)
    assert [command for command in site.commands if command not in allowed] == []
    for found in site.repository.sets("prod"):
        if found.state == "good":
            assert found.backup_id == BACKUP
            assert not {name for name in changed if name.endswith(("manifest.json", "manifest.json.sig"))}
