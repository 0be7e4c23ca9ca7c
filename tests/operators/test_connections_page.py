"""docs/connections.md: each example loads, and each field that is read stands there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from airflow.sdk import Connection
from airflow.secrets.local_filesystem import load_connections_dict
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from etcdkeep_airflow import aws_connection, google_connection, kubernetes_connection, ssh_connection
from tests.ssh_server import KEY, NO_PASSWORD, PEM, PKCS8, USER_KEYS

PAGE = (Path(__file__).parents[2] / "docs/connections.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
PHRASE = b"a long phrase"
GOOGLE = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(PEM, PKCS8, NO_PASSWORD).decode()
READERS = {
    "ssh": ssh_connection.read_ssh_connection,
    "kubernetes": kubernetes_connection.read_connection,
    "google_cloud_platform": google_connection.read_google_connection,
    "aws": aws_connection.read_aws_connection,
    "A key alone": ssh_connection.read_ssh_key,
}


def examples():
    """Yield section, form and text of each example."""
    for title in READERS:
        for kind, text in re.findall(
            r"^```(sh|json|yaml connections)\n(.*?)^```", SECTIONS[title], re.MULTILINE | re.DOTALL
        ):
            yield pytest.param(title, kind, text, id=f"{title}-{kind}")


def filled(text, folder):
    """Put keys where the page has an ellipsis, and files where it names them."""
    keys = {
        "/run/secrets/etcdkeep/ssh_key": USER_KEYS["rsa"].private_bytes(
            PEM, PKCS8, serialization.BestAvailableEncryption(PHRASE)
        ),
        "/run/secrets/etcdkeep/google.json": json.dumps(
            {"type": "service_account", "client_email": "a@b", "private_key": GOOGLE, "token_uri": "https://x"}
        ).encode(),
        "/run/secrets/etcdkeep/age-identity.txt": KEY,
        "/run/secrets/etcdkeep/signing.pem": KEY,
    }
    for path, data in keys.items():
        file = folder / Path(path).name
        file.write_bytes(data)
        for written, real in ((path, str(file)), (path.replace("/", "%2F"), str(file).replace("/", "%2F"))):
            text = text.replace(written, real)
    text = with_key(text, "OPENSSH PRIVATE KEY", KEY.decode())
    return with_key(text, "PRIVATE KEY", GOOGLE)


def with_key(text, label, key):
    """Put a key's lines in the place of the ellipsis between its first and its last."""
    lines = key.partition(f"-----BEGIN {label}-----\n")[2].partition(f"-----END {label}-----")[0].split()

    def fill(found):
        indent, end = found.groups()
        return f"{indent}-----BEGIN {label}-----{end}" + (end + (indent if end == "\n" else "")).join(
            [(indent if end == "\n" else "") + lines[0], *lines[1:]]
        )

    return re.sub(rf"( *)-----BEGIN {label}-----(\\n|\n)\s*…", fill, text)


@pytest.mark.parametrize(("title", "kind", "text"), list(examples()))
def test_an_example_loads_and_every_field_of_it_is_honoured(title, kind, text, tmp_path):
    text = filled(text, tmp_path)
    assert "…" not in text
    if kind == "sh":
        found = re.findall(r"^AIRFLOW_CONN_(\w+)='([^']+)'$", text, re.MULTILINE)
        assert len(found) == len(text.splitlines())
        connections = [Connection.from_uri(uri, conn_id=name.lower()) for name, uri in found]
    elif kind == "json":
        connections = [Connection.from_json(text, conn_id="example")]
    else:
        (tmp_path / "connections.yaml").write_text(text)
        connections = list(load_connections_dict(str(tmp_path / "connections.yaml")).values())
        assert [each.conn_id for each in connections] == list(yaml.safe_load(text))
    for connection in connections:
        read = READERS[title](connection)
        assert read
        if title == "ssh":
            assert read.host_keys
            assert read.key or read.password


def test_each_type_has_an_example_of_each_form():
    kinds = {title: {each.values[1] for each in examples() if each.values[0] == title} for title in READERS}
    assert kinds == {title: {"sh", "json", "yaml connections"} for title in READERS}


@pytest.mark.parametrize(
    ("title", "module"),
    [
        ("ssh", ssh_connection),
        ("kubernetes", kubernetes_connection),
        ("google_cloud_platform", google_connection),
        ("aws", aws_connection),
    ],
)
def test_each_field_is_on_the_page(title, module):
    honoured, refused = SECTIONS[title].split("| refused |")
    for name in module.HONOURED:
        assert f"| `{name}` |" in honoured
    for name in module.REFUSED:
        short = name.replace("xcom_sidecar_container", "…").replace("idp_extra_params", "idp_extra_parameters")
        assert f"`{name}`" in refused or f"`{short}`" in refused
