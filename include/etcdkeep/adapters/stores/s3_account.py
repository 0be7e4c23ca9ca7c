"""An account for S3 as a site names it, for a bucket."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping


def is_in_the_clear(url: str) -> bool:
    """Say whether requests to an endpoint cross a network without TLS: it is not https, nor a server of this machine."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return True
    if parts.scheme == "https":
        return False
    if not {"@", "\\"}.isdisjoint(parts.netloc):  # such an address has another host to another reader
        return True
    try:
        return not ip_address(host).is_loopback
    except ValueError:
        return host != "localhost"


@dataclass(frozen=True)
class AwsAccount:
    """
    Whose rights are used, and where. What is None comes from boto3's own chain: environment, files, the machine's role.

    :param source: Who says it, for messages.
    :param access_key: Id of the key; never a secret.
    :param profile: Profile of the worker's own AWS files.
    :param endpoint_url: Of a server that is not Amazon's.
    :param ca_bundle: File with the certificates that its server is checked with.
    :param role_arn: Role to act as.
    :param role_settings: More arguments of AssumeRole: ExternalId, RoleSessionName, DurationSeconds.
    :param addressing: Whether the bucket's name is in the path or in the host name.
    :param attempts: How often a request is sent at most.
    """

    source: str
    access_key: str | None = None
    secret_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    profile: str | None = None
    region: str | None = None
    endpoint_url: str | None = None
    ca_bundle: str | None = None
    role_arn: str | None = None
    role_settings: Mapping[str, str | int] = field(default_factory=dict)
    addressing: Literal["auto", "path", "virtual"] | None = None
    attempts: int | None = None

    @property
    def name(self) -> str:
        """For messages: which account, and who says so."""
        own = f"key {self.access_key}" if self.access_key else "the default credentials"
        return f"{self.role_arn or own} ({self.source})"
