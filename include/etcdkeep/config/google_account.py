"""A Google account as a site names it, for a bucket."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

CLOUD_PLATFORM = "https://www.googleapis.com/auth/cloud-platform"


@dataclass(frozen=True)
class GoogleAccount:
    """
    Whose rights are used, and how.

    :param source: Who says it, for messages.
    :param key: A service account's key, as its JSON file has it; None for the default credentials of where this runs.
    :param key_from: Field that the key is from, for messages.
    :param chain: Accounts to act as: the last one, each by the rights of the one before it.
    :param retries: How often a request is sent again at most; None for as often as its time allows.
    """

    source: str
    key: Mapping[str, Any] | None = field(default=None, repr=False)
    key_from: str = ""
    chain: tuple[str, ...] = ()
    project: str | None = None
    scopes: tuple[str, ...] = (CLOUD_PLATFORM,)
    retries: int | None = None

    @property
    def name(self) -> str:
        """For messages: which account, and who says so."""
        own = str(self.key.get("client_email")) if self.key else "the default credentials"
        return f"{self.chain[-1] if self.chain else own} ({self.source})"
