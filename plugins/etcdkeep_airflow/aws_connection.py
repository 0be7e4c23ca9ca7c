"""
Reads an Airflow connection of type `aws`, for the bucket of a repository.

The provider itself is not installed: these are its fields.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, cast

from etcdkeep.adapters.stores.s3_account import AwsAccount, is_in_the_clear
from etcdkeep_airflow.connection_fields import Fields

if TYPE_CHECKING:
    from airflow.sdk import Connection

PREFIX = "extra__aws__"
"""Airflow before 2.3 wrote it before every field."""

HONOURED = (
    "aws_access_key_id", "aws_secret_access_key", "aws_session_token", "profile_name", "region_name", "endpoint_url", "verify",
    "role_arn", "assume_role_method", "assume_role_kwargs", "config_kwargs",
)  # fmt: skip
OWN_FILES = "Set AWS_CONFIG_FILE for the worker, and name the profile in profile_name."
REFUSED = {
    "service_config": "Give endpoint_url: the connection is for S3 alone.",
    "session_kwargs": "Give profile_name, region_name or the key by their own fields.",
    "external_id": "Give it in assume_role_kwargs, as ExternalId.",
    "aws_account_id": "Give the whole role_arn.",
    "aws_iam_role": "Give the whole role_arn.",
    "s3_config_file": OWN_FILES,
    "s3_config_format": OWN_FILES,
    "profile": "It is called profile_name.",
    "host": "Give endpoint_url.",
}
ROLE_SETTINGS = ("ExternalId", "RoleSessionName", "DurationSeconds")
ADDRESSING = ("auto", "path", "virtual")


def read_aws_connection(connection: Connection) -> AwsAccount:
    """
    Read a connection.

    :raises ConfigError: naming the connection, the field and what to do.
    """
    fields = Fields(connection, "aws", HONOURED, REFUSED, prefix=PREFIX, columns=("login", "password"))
    fields.refuse()
    access_key, secret_key = _key(fields, connection)
    addressing, attempts = _client_settings(fields)
    return AwsAccount(
        source=fields.name,
        access_key=access_key,
        secret_key=secret_key,
        session_token=fields.text("aws_session_token"),
        profile=fields.text("profile_name"),
        region=fields.text("region_name"),
        endpoint_url=_endpoint(fields),
        ca_bundle=_ca_bundle(fields),
        role_arn=fields.text("role_arn"),
        role_settings=_role_settings(fields),
        addressing=addressing,
        attempts=attempts,
    )


def _key(fields: Fields, connection: Connection) -> tuple[str | None, str | None]:
    """Return id and secret of the key: login and password, else their own fields."""
    in_extra = fields.text("aws_access_key_id"), fields.text("aws_secret_access_key")
    if connection.login and any(in_extra):
        raise fields.wrong("aws_access_key_id", "is given, and login too", "Remove one of them.")
    key, secret = (connection.login or None, connection.password or None) if connection.login else in_extra
    secret = secret or (None if key is None else connection.password or None)
    if bool(key) != bool(secret) or (connection.password and not key):
        raise fields.wrong("login", "and password belong together: the id of a key, and its secret")
    if key and fields.text("profile_name"):
        raise fields.wrong("profile_name", "is given, and a key too", "Remove one of them.")
    return key, secret


def _endpoint(fields: Fields) -> str | None:
    url = fields.text("endpoint_url")
    if url and not url.startswith(("https://", "http://")):
        raise fields.wrong("endpoint_url", "is not usable: expected a URL that begins with https://")
    if url and is_in_the_clear(url):
        raise fields.wrong(
            "endpoint_url",
            "begins with http://, which encrypts nothing",
            "Give a URL that begins with https://; http:// is for servers on this machine only (127.0.0.1, ::1, localhost).",
        )
    return url


def _ca_bundle(fields: Fields) -> str | None:
    """Return the file with the certificates of authorities."""
    path = fields.text("verify") if isinstance(fields.values.get("verify"), str) else None
    if path and path.startswith("/"):
        return path
    if "verify" in fields.values and not fields.flag("verify"):
        raise fields.wrong(
            "verify", "is false, which is not supported", "Give the path of a file with the server's authority instead."
        )
    return None


def _role_settings(fields: Fields) -> dict[str, str | int]:
    if fields.text("assume_role_method") not in (None, "assume_role"):
        raise fields.wrong("assume_role_method", "is not supported", "Use assume_role, or a role of the worker itself.")
    given = _object(fields, "assume_role_kwargs")
    for name in given:
        if name not in ROLE_SETTINGS:
            raise fields.wrong("assume_role_kwargs", f"has a setting that is not supported: expected {', '.join(ROLE_SETTINGS)}")  # fmt: skip
    if given and not fields.text("role_arn"):
        raise fields.wrong("assume_role_kwargs", "is given without role_arn")
    return given


def _client_settings(fields: Fields) -> tuple[Literal["auto", "path", "virtual"] | None, int | None]:
    """Return how buckets are addressed and how often a request is sent, of the client's settings."""
    given = _object(fields, "config_kwargs")
    for_s3, retries = given.pop("s3", {}), given.pop("retries", {})
    known = {"addressing_style"}, {"mode", "max_attempts", "total_max_attempts"}
    for value, names in zip((for_s3, retries), known, strict=True):
        if not isinstance(value, dict) or set(value) - names:
            given["other"] = value
    style, attempts = (for_s3 or {}).get("addressing_style"), None
    if given or (style is not None and style not in ADDRESSING):
        raise fields.wrong(
            "config_kwargs",
            "is not usable: supported are s3.addressing_style (auto, path, virtual) and retries.max_attempts",
        )
    for name in ("max_attempts", "total_max_attempts"):
        attempts = retries.get(name, attempts)
    if attempts is not None and (not isinstance(attempts, int) or isinstance(attempts, bool) or attempts < 1):
        raise fields.wrong(
            "config_kwargs", "is not usable: expected a whole number of at least 1 as retries.max_attempts"
        )
    return cast("Literal['auto', 'path', 'virtual'] | None", style), attempts


def _object(fields: Fields, name: str) -> dict[str, Any]:
    value = fields.decoded(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise fields.wrong(name, "is not an object")
    return dict(value)
