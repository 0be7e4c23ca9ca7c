"""
Reads an Airflow connection of type `google_cloud_platform`, for the bucket of a repository.

The provider itself is not installed (it would make the image five times as large): these are its fields.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from etcdkeep.config.google_account import CLOUD_PLATFORM, GoogleAccount
from etcdkeep.errors import SecretUnavailable
from etcdkeep.site.credentials import read_secret_file
from etcdkeep_airflow.connection_fields import Fields

if TYPE_CHECKING:
    from airflow.sdk import Connection

PREFIX = "extra__google_cloud_platform__"
"""Airflow before 2.3 wrote it before every field."""

HONOURED = ("key_path", "keyfile_dict", "impersonation_chain", "project", "num_retries", "scope")
BY_KEY = "Use a service account's key (key_path, keyfile_dict), or leave all empty for the worker's own credentials."
BY_BACKEND = "Keep the whole connection in the secrets backend, with the key in keyfile_dict."
REFUSED = {
    "credential_config_file": (
        "Set GOOGLE_APPLICATION_CREDENTIALS to that file for the worker, and leave the connection's key fields empty."
    ),
    "key_secret_name": BY_BACKEND,
    "key_secret_project_id": BY_BACKEND,
    "is_anonymous": "A repository is not open to everybody: name an account.",
    "idp_issuer_url": BY_KEY,
    "client_id": BY_KEY,
    "client_secret": BY_KEY,
    "idp_extra_parameters": BY_KEY,
    "idp_extra_params": BY_KEY,
    "quota_project_id": "Requests are counted for the project of the account: remove it.",
}
IN_KEY = ("client_email", "private_key", "token_uri")


def read_google_connection(connection: Connection) -> GoogleAccount:
    """
    Read a connection.

    :raises ConfigError: naming the connection, the field and what to do.
    :raises SecretUnavailable: when its key file cannot be read here.
    """
    fields = Fields(connection, "google_cloud_platform", HONOURED, REFUSED, prefix=PREFIX)
    fields.refuse(harmless={"is_anonymous": False})
    name, key = _key(fields)
    chain = fields.texts("impersonation_chain")
    if any("@" not in account for account in chain):
        raise fields.wrong("impersonation_chain", "is not usable: expected e-mail addresses of service accounts")
    retries = fields.number("num_retries", least=0, whole=True)
    return GoogleAccount(
        source=fields.name,
        key=key,
        key_from=name,
        chain=chain,
        project=fields.text("project"),
        scopes=fields.texts("scope") or (CLOUD_PLATFORM,),
        retries=None if retries is None else int(retries),
    )


def _key(fields: Fields) -> tuple[str, dict[str, Any] | None]:
    """Return the field that has the key, and the key."""
    path, inline = fields.path("key_path"), fields.decoded("keyfile_dict")
    if path and inline:
        raise fields.wrong("key_path", "is given, and keyfile_dict too", "Remove one of them.")
    if not path and not inline:
        return "", None
    name = "key_path" if path else "keyfile_dict"
    if path:
        try:
            inline = json.loads(read_secret_file(path))
        except SecretUnavailable as err:
            raise SecretUnavailable(f"{fields.name}: its key_path: {err}") from err
        except (ValueError, RecursionError):
            inline = None
    missing = [each for each in IN_KEY if not isinstance(inline, dict) or not isinstance(inline.get(each), str)]
    if not isinstance(inline, dict) or inline.get("type") != "service_account" or missing:
        raise fields.wrong(
            name,
            "is not a key of a service account: expected its JSON, with type 'service_account', " + ", ".join(IN_KEY),
            "Make one: gcloud iam service-accounts keys create",
        )
    return name, inline
