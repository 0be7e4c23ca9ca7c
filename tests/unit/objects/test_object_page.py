"""Every command of docs/objects.md, word for word."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from nacl.secret import SecretBox

from etcdkeep.cli import common
from etcdkeep.config.loading import CONFIG_VARIABLE
from etcdkeep.site.site import Site
from etcdkeep.verify.run import verify_set
from tests.builders import BACKUP_ID, age_pair, make_entry, make_file
from tests.object_snapshots import config_map, recorded_snapshot, secret
from tests.objects_api import ObjectsApi, recorded_objects
from tests.snapshots import Put

PAGE = Path(__file__).parents[3] / "docs/objects.md"
LINES = [line for line in PAGE.read_text().splitlines() if line.startswith("python -m etcdkeep objects ")]
SYNOPSIS = [line for line in LINES if " SET" in line]
COMMANDS = [line for line in LINES if line not in SYNOPSIS]
OLDER_ID = "20261122T023000Z-77ab01c2"
SETTINGS = b"/registry/configmaps/shop/settings"
ENCRYPTION = """\
apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- resources: [secrets]
  providers: [{secretbox: {keys: [{name: key1, secret: MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=}]}}]
"""


@pytest.fixture(scope="module")
def database():
    return recorded_snapshot(
        (1900, Put(SETTINGS, config_map("settings"))),
        (1941, Put(SETTINGS, config_map("settings", labels={"app": "web"}), create=1900, version=2)),
    )


@pytest.fixture
def laptop(make_site, database, tmp_path, monkeypatch):
    """What the page takes for granted: two backups of cluster prod, and a plain file with an encrypted Secret."""
    monkeypatch.chdir(tmp_path)
    sealed = b"k8s:enc:secretbox:v1:key1:" + SecretBox(b"0123456789abcdef" * 2).encrypt(secret("db"))
    Path("etcd.db").write_bytes(recorded_snapshot((1950, Put(b"/registry/secrets/shop/db", sealed))))
    Path("encryption-config.yaml").write_text(ENCRYPTION)
    Path("age-identity.txt").write_bytes(age_pair()[0])
    Path("clusters.yaml").write_text(make_file(make_entry(name="prod", repository=f"file://{tmp_path}/repository")))
    monkeypatch.setenv(CONFIG_VARIABLE, "clusters.yaml")
    monkeypatch.setenv(common.IDENTITY_VARIABLE, "age-identity.txt")
    monkeypatch.setattr(Site, "api", ObjectsApi(recorded_objects()))
    site = make_site(name="prod")
    for identifier in (OLDER_ID, BACKUP_ID):
        monkeypatch.setattr("tests.fake_site.BACKUP_ID", identifier)
        found = site.backup()
        site.repository.record(found, verify_set(site.repository, site.cluster, found, site.identities()))


def test_page_names_every_command():
    assert {line.split()[4] for line in SYNOPSIS} == {"list", "get", "history", "diff", "stats"}
    assert len(COMMANDS) > 10


@pytest.mark.parametrize("command", COMMANDS)
def test_command_of_the_page(laptop, run, command):
    answer = run(*shlex.split(command)[4:])
    assert answer.code in ((0, 1) if "objects diff" in command else (0,)), answer.err
    assert answer.out or "diff" in command
