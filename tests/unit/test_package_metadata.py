"""What pyproject.toml says of the package is what the image installs, and the version has one place."""

from __future__ import annotations

import tomllib
from pathlib import Path

import etcdkeep

PROJECT = Path(__file__).parents[2]
METADATA = tomllib.loads((PROJECT / "pyproject.toml").read_text())
OF_THE_INSTALLATION = {  # executor, database and auth manager: an Airflow that runs already has its own
    "apache-airflow-providers-celery==3.*",
    "apache-airflow-providers-fab==3.*",
    "apache-airflow-providers-git==1.*",
    "asyncpg>=0.30",
    "celery<5.7",
    "psycopg2-binary>=2.9.9",
}


def test_the_package_needs_what_the_image_installs() -> None:
    lines = (PROJECT / "requirements.txt").read_text().splitlines()
    image = {need for line in lines if (need := line.partition("#")[0].strip())}
    project = METADATA["project"]
    assert {*project["dependencies"], *project["optional-dependencies"]["airflow"]} == image - OF_THE_INSTALLATION
    assert image >= OF_THE_INSTALLATION


def test_the_version_is_that_of_the_code() -> None:
    assert METADATA["project"]["dynamic"] == ["version"]
    assert (PROJECT / METADATA["tool"]["hatch"]["version"]["path"]).samefile(etcdkeep.__file__)
    assert f'__version__ = "{etcdkeep.__version__}"' in Path(etcdkeep.__file__).read_text()
