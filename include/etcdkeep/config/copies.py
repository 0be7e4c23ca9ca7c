"""The setting `copies` of a cluster: other repositories that each verified set is copied to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field, StringConstraints

from etcdkeep.config.profiles import Section
from etcdkeep.config.retention import Retention

if TYPE_CHECKING:
    from collections.abc import Sequence

StoreUrl = Annotated[
    str, StringConstraints(pattern=r"^((gs|s3)://[a-z0-9][a-z0-9._-]+(/[^\s?#]*)?|file:///[^\s?#]+)$", max_length=500)
]
BUCKETS = {"gs": "google_cloud_platform", "s3": "aws"}
"""Scheme of a bucket's URL → type of the Airflow connection for it."""


class Copy(Section):
    """
    Another repository, which gets a copy of each verified backup: another bucket, another account, another provider.
    """

    repository: StoreUrl = Field(
        description="Where the copies live; another place than `repository` and the other copies.",
        examples=["s3://example-copies/etcd", "gs://example-copies/etcd"],
    )
    connection: str | None = Field(
        None,
        min_length=1,
        description="Airflow connection for its bucket: type `google_cloud_platform` for gs://, `aws` for s3://; default: the credentials of where it runs (docs/connections.md).",
        examples=["aws_copies"],
    )
    retention: Retention | None = Field(
        None,
        description="Which copies are kept; default: the cluster's `retention`.",
        examples=[{"monthly": 24, "enforce": True}],
    )
    immutable_days: int | None = Field(
        None,
        ge=0,
        le=3650,
        description="Days for which its store forbids deletion of a copy; default: the cluster's `immutable_days`.",
        examples=[90],
    )


def scheme(url: str) -> str:
    """Return ``gs``, ``s3`` or ``file``."""
    return url.partition("://")[0]


def connection_problem(repository: str, spool: str, connection: str | None) -> str | None:
    """Return what is wrong with the connection of repository and spool."""
    kinds = {scheme(url) for url in (repository, spool)} & set(BUCKETS)
    if connection and not kinds:
        return (
            "repository_connection: only for buckets (gs://, s3://); remove it (null where it comes from the defaults)"
        )
    if connection and len(kinds) > 1:
        return (
            "spool: repository_connection is for one kind of bucket; put spool and repository into buckets of one kind"
        )
    return None


def copies_problem(repository: str, copies: Sequence[Copy]) -> str | None:
    """Return what is wrong with the copies of a cluster."""
    places = [repository]
    for index, copy in enumerate(copies):
        url = copy.repository
        if any(_overlap(url, place) for place in places):
            return f"copies[{index}].repository: {url} is, or is in, another repository of this cluster; a copy needs a place of its own"
        if copy.connection and scheme(url) not in BUCKETS:
            return f"copies[{index}].connection: only for buckets (gs://, s3://); remove it"
        places.append(url)
    return None


def _overlap(one: str, another: str) -> bool:
    first, second = (f"{url.rstrip('/')}/" for url in (one, another))
    return first.startswith(second) or second.startswith(first)
