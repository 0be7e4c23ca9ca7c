"""What the commands share: the configuration, and finding a set by its name."""

from __future__ import annotations

import getpass
import importlib
import logging
import os
import shutil
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from etcdkeep import naming
from etcdkeep.config.loading import load_cluster
from etcdkeep.copies.fallback import find_in_copies
from etcdkeep.errors import EtcdkeepError, NotFound
from etcdkeep.plain_text import one_line
from etcdkeep.say import say
from etcdkeep.sets.backup_set import GOOD
from etcdkeep.sets.choosing import choose_set
from etcdkeep.site.credentials import FileCredentials
from etcdkeep.site.site import Site

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path

    from etcdkeep.copies.fallback import FoundIn
    from etcdkeep.sets.backup_set import BackupSet, State
    from etcdkeep.sets.results import Verification
    from etcdkeep.site.credentials import Credentials

log = logging.getLogger(__name__)
CommandT = TypeVar("CommandT", bound="Callable[..., Any] | click.Command")
IDENTITY_VARIABLE = "ETCDKEEP_AGE_IDENTITY"
REPOSITORY = "etcdkeep.repository"
"""Where a running command keeps what its --repository says."""


def open_cluster(name: str) -> Site:
    """
    Open a configured cluster with the keys that are in files here, at the repository that --repository names.

    ETCDKEEP_AGE_IDENTITY comes before `age_identity` of the configuration.
    """
    site = Site(load_cluster(name), FileCredentials(), identity_file=os.environ.get(IDENTITY_VARIABLE))
    if url := asked_repository():
        site.use(url)
    return site


def asked_repository() -> str | None:
    """Return what --repository of the running command says."""
    context = click.get_current_context(silent=True)
    return context.meta.get(REPOSITORY) if context else None


def _keep_repository(context: click.Context, option: click.Parameter, value: str | None) -> None:
    context.meta[REPOSITORY] = value


def _repository_option(default: str) -> Callable[[CommandT], CommandT]:
    return click.option(
        "--repository",
        metavar="URL",
        expose_value=False,
        callback=_keep_repository,
        help=f"Use this repository of the cluster: its own or one of its copies. Default: {default}.",
    )


repository_option = _repository_option("its own; a copy where that is gone or damaged")
"""For commands that read sets; `open_cluster` obeys it."""
one_repository_option = _repository_option("its own")
"""The same for commands that never go to a copy by themselves."""


def credentials_here() -> Credentials:
    """Return Airflow's connections where Airflow is, with those of its database, else files."""
    try:
        hooks = importlib.import_module("etcdkeep_airflow.hooks")
    except ModuleNotFoundError as err:
        log.info("No Airflow here (%s): only files can be read.", err.name)
        return FileCredentials()
    found: Credentials = hooks.beside_airflow()
    return found


def find_set(name: str, states: Collection[State] = GOOD) -> tuple[Site, BackupSet]:
    """
    Find ``CLUSTER/ID``, or for ``CLUSTER`` its newest set in one of the states; in a copy where the first repository is gone or
    its set is damaged, which is said. The site takes SSH keys from it at need.

    :raises NotFound: when there is none.
    """
    cluster, wanted = (naming.parse_set_name(name)[0], name) if "/" in name else (name, "")
    site = open_cluster(cluster)
    asked = asked_repository()
    found = find_in_copies(
        {asked: lambda: site.repository} if asked else site.repositories,
        lambda repository: choose_set(repository, cluster, wanted, newest=states),
    )
    if found.url not in (asked, site.cluster.repository):
        site.use(found.url)
        tell_of_copy(found)
    return site.with_keys_of(found.found), found.found


def tell_of_copy(found: FoundIn) -> None:
    """Say on standard error that a copy is used, and why."""
    for sentence in found.passed:
        say(f"warning: {one_line(sentence)}", err=True)
    say(f"warning: using the copy of {found.found.name} in {found.url}", err=True)


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


def who() -> str:
    """Return who runs this command, for records that people read: it proves nothing."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # no such user here, as in a container
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


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
