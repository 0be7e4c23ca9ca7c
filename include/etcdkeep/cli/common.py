"""What the commands share: the configuration, and finding a set by its name."""

from __future__ import annotations

import importlib
import logging
import os
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

from etcdkeep import naming
from etcdkeep.adapters.credentials import FileCredentials, read_secret_file
from etcdkeep.adapters.site import Site
from etcdkeep.age_keys import Identity, parse_identities
from etcdkeep.cli.say import say
from etcdkeep.config_file import load_config
from etcdkeep.errors import EtcdkeepError, NotFound, VerificationFailed
from etcdkeep.plain_text import one_line
from etcdkeep.repository import GOOD

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from etcdkeep.adapters.credentials import Credentials
    from etcdkeep.manifest import Manifest
    from etcdkeep.repository import BackupSet, State, Verification

log = logging.getLogger(__name__)
IDENTITY_VARIABLE = "ETCDKEEP_AGE_IDENTITY"


def open_cluster(name: str) -> Site:
    """Open a configured cluster with the keys that lie in files here."""
    return Site(load_config().cluster(name), FileCredentials())


def credentials_here() -> Credentials:
    """Return Airflow's connections where Airflow is, with those of its database, else files."""
    try:
        hooks = importlib.import_module("etcdkeep_airflow.hooks")
    except ModuleNotFoundError as err:
        log.info("No Airflow here (%s): only files can be read.", err.name)
        return FileCredentials()
    found: Credentials = hooks.beside_airflow()
    return found


def identities(site: Site) -> list[Identity] | None:
    """Return the age identities of ETCDKEEP_AGE_IDENTITY, else those that the configuration names, else None."""
    path = os.environ.get(IDENTITY_VARIABLE)
    return parse_identities(read_secret_file(path)) if path else site.identities()


def find_set(name: str, states: Collection[State] = GOOD) -> tuple[Site, BackupSet]:
    """
    Find ``CLUSTER/ID``, or for ``CLUSTER`` its newest set in one of the states.

    :raises NotFound: when there is none.
    """
    if "/" in name:
        cluster, identifier = naming.parse_set_name(name)
        site = open_cluster(cluster)
        return site, site.repository.get(cluster, identifier)
    site = open_cluster(name)
    found = site.repository.newest(name, states)
    if found is None:
        raise NotFound(
            f"cluster {name!r} has no {' or '.join(states)} backup in {site.cluster.repository}; see `python -m etcdkeep list {name}`."
        )
    return site, found


def manifest_of(found: BackupSet) -> Manifest:
    """
    Return the set's manifest.

    :raises VerificationFailed: when it is not believed: unsigned, foreign, moved, from the future or unreadable.
    """
    if found.manifest is None:
        raise VerificationFailed(
            f"backup {found.name} is {found.state} and cannot be used. Choose another set.", found.problems
        )
    return found.manifest


def keep_result(site: Site, found: BackupSet, record: Verification) -> None:
    """Store what was found with the set; a store that refuses does not take the answer away."""
    try:
        site.repository.record(found, record)
    except EtcdkeepError as err:
        log.warning("The result of %s was not stored, so its state stays as it was. %s", found.name, err)


def print_findings(record: Verification) -> None:
    """Print what is wrong with a set, and what to look at."""
    for sentence in record.problems:
        say(f"  bad: {one_line(sentence)}")
    for sentence in record.warnings:
        say(f"  warning: {one_line(sentence)}")


@contextmanager
def private_directory(path: Path) -> Iterator[Path]:
    """
    Make a new or empty directory for plain files, mode 0700; when the block raises, nothing is left in it or of it.

    :raises NotFound: when it holds something already.
    """
    is_new = not path.exists()
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if any(path.iterdir()):
        raise NotFound(f"{path} is not empty; give a new or empty folder for the plain files.")
    path.chmod(0o700)
    try:
        yield path
    except BaseException:
        for each in path.iterdir():
            shutil.rmtree(each) if each.is_dir() else each.unlink()
        if is_new:
            path.rmdir()
        raise
