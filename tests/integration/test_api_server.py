"""The API server as deploy/compose.yaml configures it: the page finds its bucket's account in the server's own file, and no other key."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import yaml

from etcdkeep.config.loading import parse_config
from etcdkeep.site.site import Site
from etcdkeep_airflow.page.objects_source import IndexCredentials
from tests.deployed import DEPLOY, MOUNTED, compose, configuration, make_secrets, secrets_of

if TYPE_CHECKING:
    from pathlib import Path

READ_ONLY = "page@example.iam.gserviceaccount.com"
ASK = """
import json, sys
from etcdkeep_airflow.hooks import read_airflows_database
from etcdkeep_airflow.page.source import RepositoryCredentials
read_airflows_database()
account = RepositoryCredentials().google_account(sys.argv[1])
print(json.dumps(account.chain))
"""


def test_the_page_finds_the_account_that_may_only_read(tmp_path: Path) -> None:
    """Ask as the page does, in the server's environment; the database is never asked, since the file comes first."""
    server = compose()["services"]["api-server"]
    name = yaml.safe_load((DEPLOY / "clusters.yaml").read_text())["defaults"]["repository_connection"]
    connections = {name: {"conn_type": "google_cloud_platform", "extra": {"impersonation_chain": READ_ONLY}}}
    (tmp_path / secrets_of("api-server")["page_connections"].rpartition("/")[2]).write_text(yaml.safe_dump(connections))
    (tmp_path / "database_url").write_text(f"sqlite:///{tmp_path}/none.db")
    for each in ("fernet_key", "jwt_secret", "api_secret_key"):
        (tmp_path / each).write_text("")
    (tmp_path / "airflow.cfg").touch()  # as in the image
    environment = {key: value.replace(MOUNTED, str(tmp_path)) for key, value in server["environment"].items()}
    base = {
        "PATH": os.environ["PATH"],
        "AIRFLOW_HOME": str(tmp_path),
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    done = subprocess.run(
        [sys.executable, "-c", ASK, name], env={**base, **environment}, capture_output=True, text=True, check=False, timeout=120
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1]) == [READ_ONLY]
    assert not (tmp_path / "none.db").exists()


def test_the_sample_s_connection_is_one_that_the_page_uses(tmp_path: Path) -> None:
    """The whole of deploy/clusters.yaml with a bucket: Site asks for that connection's account, and for nothing else."""
    made = make_secrets(tmp_path / "secrets")
    document = yaml.safe_load(configuration(made, tmp_path / "repository", tmp_path / "secrets"))
    document["defaults"] |= {"repository": "gs://bucket/etcd", "repository_connection": "etcdkeep_bucket"}
    config = parse_config(yaml.safe_dump(document), "clusters.yaml")
    config.raise_for_problems()
    cluster = config.cluster("prod-admin")
    asked = []

    class Recording(IndexCredentials):
        def google_account(self, connection: str) -> object:  # type: ignore[override]
            asked.append(connection)
            raise InterruptedError

    site = Site(cluster, Recording(cluster.index_identity))
    with pytest.raises(InterruptedError):
        _ = site.repository
    assert asked == ["etcdkeep_bucket"]
    assert site.index_identities()
