"""The S3 client: credentials, limits and retries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.credentials import AssumeRoleCredentialFetcher, DeferredRefreshableCredentials
from botocore.exceptions import BotoCoreError

from etcdkeep.adapters.stores.s3_account import is_in_the_clear
from etcdkeep.errors import AccessDenied, ConfigError
from etcdkeep.side_by_side import AT_ONCE

if TYPE_CHECKING:
    from etcdkeep.adapters.stores.s3_account import AwsAccount

ATTEMPTS = 6
"""How often the client sends a request, with growing pauses, before its trouble is raised."""

CONNECT_S, READ_S = 10, 60
"""To connect, and between two bytes."""

OWN_CHAIN = "Give the worker a role, set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name an Airflow connection of type aws."


def s3_client(account: AwsAccount | None = None, *, attempts: int = ATTEMPTS) -> Any:
    """
    Return a client; nothing is sent to the bucket yet.

    :param account: Whose rights are used; None for boto3's own chain.
    :raises AccessDenied: when there are no credentials here.
    :raises ConfigError: when an endpoint, region or profile is not usable.
    """
    who = account.source if account else "s3://"
    try:
        session = _session(account)
        if session.get_credentials() is None:
            raise AccessDenied(f"{who}: no AWS credentials here. {OWN_CHAIN}")
        client = session.client(
            "s3",
            endpoint_url=account.endpoint_url if account else None,
            verify=account.ca_bundle if account else None,
            config=_config(account, attempts),
        )
        return _over_tls(client, who, "AWS_ENDPOINT_URL_S3")
    except (BotoCoreError, ValueError) as err:
        raise ConfigError(
            f"{who}: the S3 client cannot be set up: {err}. Correct endpoint, region and profile."
        ) from err


def _over_tls(client: Any, who: str, variable: str) -> Any:
    """
    Return the client.

    :param variable: Of the environment, which gives the endpoint where nothing else does.
    :raises ConfigError: when its requests would not be encrypted on the way: they could be replayed, and answers forged.
    """
    if is_in_the_clear(client.meta.endpoint_url):
        raise ConfigError(
            f"{who}: the endpoint http://{urlsplit(client.meta.endpoint_url).hostname} is not encrypted. Give one that begins with "
            f"https:// as endpoint_url of the connection or of the profile, or as {variable} (AWS_ENDPOINT_URL). http:// is for servers "
            "on this machine only (127.0.0.1, ::1, localhost)."
        )
    return client


def _config(account: AwsAccount | None, attempts: int) -> Config:
    """Return limits; checksums are ours, since many servers do not know those that the client adds by itself."""
    addressing = account.addressing if account else None
    return Config(
        connect_timeout=CONNECT_S,
        read_timeout=READ_S,
        tcp_keepalive=True,
        max_pool_connections=AT_ONCE,
        retries={"mode": "standard", "total_max_attempts": (account and account.attempts) or attempts},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": addressing} if addressing else {},
    )


def _session(account: AwsAccount | None) -> boto3.Session:
    if account is None:
        return boto3.Session()
    own = boto3.Session(
        aws_access_key_id=account.access_key,
        aws_secret_access_key=account.secret_key,
        aws_session_token=account.session_token,
        region_name=account.region,
        profile_name=account.profile,
    )
    return _acting_as(own, account) if account.role_arn else own


def _acting_as(own: boto3.Session, account: AwsAccount) -> boto3.Session:
    """Return a session with a role's credentials, which are renewed before they expire."""
    fetcher = AssumeRoleCredentialFetcher(
        client_creator=lambda *names, **settings: _over_tls(
            own._session.create_client(*names, **settings), account.source, "AWS_ENDPOINT_URL_STS"
        ),
        source_credentials=own.get_credentials(),
        role_arn=account.role_arn,
        extra_args=dict(account.role_settings),
    )
    role = boto3.Session(region_name=account.region, profile_name=account.profile)
    role._session._credentials = DeferredRefreshableCredentials(
        method="assume-role", refresh_using=fetcher.fetch_credentials
    )
    return role
