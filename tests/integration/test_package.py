"""
The wheel, installed where nothing else of the project is: its command line works, it declares all that it imports, and an Airflow that has
it shows the page.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import Distribution, distribution
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement

import etcdkeep
from etcdkeep.acceptance.airflow import PROJECT
from tests.object_snapshots import recorded_snapshot

EVERY_MODULE = """
import importlib, pkgutil, sys, etcdkeep
for each in pkgutil.walk_packages(etcdkeep.__path__, "etcdkeep."):
    if not each.name.endswith("__main__"):
        importlib.import_module(each.name)
print(etcdkeep.__file__, "airflow" in sys.modules)
"""

ENTRY_POINT = "EntryPoint(name='etcdkeep', value='etcdkeep_airflow.page.plugin:BackupsPage', group='airflow.plugins')"
PLUGINS = """
import json
from airflow import plugins_manager as manager
plugins, errors = manager._get_plugins()
apps, _ = manager.get_fastapi_plugins()
views, _ = manager._get_ui_plugins()
print(json.dumps({
    "plugins": [str(each.source) for each in plugins if each.name == "etcdkeep"],
    "apps": [each["url_prefix"] for each in apps if each["name"] == "etcdkeep"],
    "views": [each["href"] for each in views if each["name"] == "Backups"],
    "errors": errors,
}))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built without a network: its backend is installed here."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder],
        cwd=PROJECT, check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with the wheel and the packages that it declares, and no other package of this one."""
    return install(wheel, tmp_path_factory.mktemp("clean"))


@pytest.fixture(scope="module")
def with_airflow(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of `etcdkeep[airflow]`."""
    return install(wheel, tmp_path_factory.mktemp("airflow"), "airflow")


def install(wheel: Path, folder: Path, extra: str = "") -> Path:
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, "venv", "-q", "--offline", "--python", sys.executable, folder], check=True, timeout=60)
    python = folder / "bin/python"
    argv = [uv, "pip", "install", "-q", "--offline", "--no-deps", "--python", python, wheel]
    subprocess.run(argv, check=True, timeout=60)
    (packages,) = folder.glob("lib/python*/site-packages")
    for each in declared(distribution_of(packages), extra).values():
        link(each, packages)
    return folder


def distribution_of(packages: Path) -> Distribution:
    (found,) = Distribution.discover(name="etcdkeep", path=[str(packages)])
    return found


def declared(of: Distribution, extra: str = "") -> dict[str, Distribution]:
    """Return all that a distribution needs, and what that needs; found in this environment."""
    found: dict[str, Distribution] = {}
    waiting = [(of, "")] + ([(of, extra)] if extra else [])
    while waiting:
        parent, extra = waiting.pop()
        for line in parent.requires or ():
            need = Requirement(line)
            if need.marker is None or need.marker.evaluate({"extra": extra}):
                for wanted in {"", *need.extras}:
                    if f"{need.name}[{wanted}]" not in found:
                        found[f"{need.name}[{wanted}]"] = distribution(need.name)
                        waiting.append((found[f"{need.name}[{wanted}]"], wanted))
    return found


def link(each: Distribution, packages: Path) -> None:
    """Install a distribution by links to its files."""
    for file in each.files or ():
        target = packages / file
        if ".." not in file.parts and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(Path(str(each.locate_file(file))).resolve())


def run(installed: Path, *argv: object, **environment: str) -> str:
    done = subprocess.run(
        [installed / "bin" / str(argv[0]), *map(str, argv[1:])],
        env={"PATH": os.environ["PATH"], "HOME": str(installed), **environment}, cwd=installed,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_holds_both_packages_and_no_dag(wheel: Path) -> None:
    names = ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {
        "etcdkeep",
        "etcdkeep_airflow",
        f"etcdkeep-{etcdkeep.__version__}.dist-info",
    }
    assert "etcdkeep/objects/decoding/schema.json" in names


def test_its_entry_point_says_the_version(installed: Path) -> None:
    assert run(installed, "etcdkeep", "--version") == f"etcdkeep, version {etcdkeep.__version__}\n"


def test_it_declares_all_that_it_imports(installed: Path) -> None:
    where, airflow = run(installed, "python", "-c", EVERY_MODULE).split()
    assert Path(where).is_relative_to(installed)
    assert airflow == "False"


def test_its_commands_work_with_their_data_files(installed: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "snapshot.db"
    snapshot.write_bytes(recorded_snapshot())
    found = json.loads(run(installed, "etcdkeep", "objects", "list", snapshot, "-o", "json"))
    assert found
    example = tmp_path / "clusters.yaml"
    example.write_text(run(installed, "etcdkeep", "config", "example"))
    checked = run(installed, "etcdkeep", "config", "check", example)
    assert re.search(r"no problem", checked)


def plugins(installed: Path, folder: Path, **environment: str) -> dict[str, object]:
    """Return what Airflow's plugin manager finds of ours, with this plugins folder."""
    home = folder / "home"
    home.mkdir()
    settings = {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(folder),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    }
    found: dict[str, object] = json.loads(
        run(installed, "python", "-c", PLUGINS, **settings, **environment).splitlines()[-1]
    )
    return found


def test_an_airflow_with_the_wheel_alone_shows_the_page(with_airflow: Path, tmp_path: Path) -> None:
    assert plugins(with_airflow, tmp_path) == {
        "plugins": [f"etcdkeep=={etcdkeep.__version__}: {ENTRY_POINT}"],
        "apps": ["/etcdkeep"],
        "views": ["etcdkeep/"],
        "errors": {},
    }


def test_beside_a_plugins_folder_it_is_there_once(with_airflow: Path, tmp_path: Path) -> None:
    shutil.copytree(PROJECT / "plugins", tmp_path / "plugins")
    found = plugins(with_airflow, tmp_path / "plugins", PYTHONPATH=str(tmp_path / "plugins"))
    assert (found["apps"], found["views"], found["errors"]) == (["/etcdkeep"], ["etcdkeep/"], {})
    assert len(found["plugins"]) == 1  # type: ignore[arg-type]
