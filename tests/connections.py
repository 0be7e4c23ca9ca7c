"""Airflow connections for tests, as a site gives them: in the environment, as JSON or as a URI."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from airflow.sdk import Connection
from airflow.sdk._shared.secrets_masker import reset_secrets_masker

if TYPE_CHECKING:
    import pytest

FORMS = ("json", "uri")


def give_connection(monkeypatch: pytest.MonkeyPatch, connection_id: str, form: str = "json", **fields: Any) -> str:
    """Give Airflow a connection of that id until the test ends."""
    reset_secrets_masker()  # its expression is compiled anew with each secret, and grows with those of earlier tests
    text = json.dumps(fields)
    if form == "uri":
        text = Connection.from_json(text, conn_id=connection_id).get_uri()
    monkeypatch.setenv(f"AIRFLOW_CONN_{connection_id.upper()}", text)
    return connection_id
