"""Credentials and retries of a named Google account."""

from __future__ import annotations

from functools import partial, wraps
from typing import TYPE_CHECKING, Any

import google.auth
from google.api_core.retry import Retry, retry_target
from google.api_core.retry.retry_base import exponential_sleep_generator
from google.auth import impersonated_credentials
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError
from google.oauth2 import service_account

from etcdkeep.config.google_account import CLOUD_PLATFORM
from etcdkeep.errors import AccessDenied, ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from etcdkeep.config.google_account import GoogleAccount


def credentials_of(account: GoogleAccount) -> Any:
    """
    Return the account's credentials; nothing is sent yet.

    :raises ConfigError: when its key is none.
    :raises AccessDenied: when it has no key and there are no default credentials here.
    """
    scopes = [CLOUD_PLATFORM] if account.chain else list(account.scopes)
    own = _own_credentials(account, scopes)
    if not account.chain:
        return own
    return impersonated_credentials.Credentials(  # type: ignore[no-untyped-call]
        source_credentials=own,
        target_principal=account.chain[-1],
        delegates=list(account.chain[:-1]),
        target_scopes=list(account.scopes),
    )


def _own_credentials(account: GoogleAccount, scopes: list[str]) -> Any:
    if account.key is None:
        try:
            return google.auth.default(scopes=scopes)[0]
        except DefaultCredentialsError as err:
            raise AccessDenied(
                f"{account.source} has no key, and there are no default Google credentials here. Give it key_path or "
                "keyfile_dict, or give the worker a service account (workload identity)."
            ) from err
    try:
        return service_account.Credentials.from_service_account_info(account.key, scopes=scopes)  # type: ignore[no-untyped-call]
    except (ValueError, GoogleAuthError, TypeError, AttributeError):
        raise ConfigError(
            f"{account.source}: {account.key_from} holds no usable key of a service account. Make a new one: gcloud iam "
            "service-accounts keys create"
        ) from None


class LimitedRetry(Retry):
    """A retry that sends a request again so many times at most."""

    times: int

    def __call__(self, func: Callable[..., Any], on_error: Callable[[Exception], None] | None = None) -> Any:
        """Return `func` with the retries."""

        @wraps(func)
        def call(*args: Any, **kwargs: Any) -> Any:
            left = self.times

            def worth_it(err: Exception) -> bool:
                nonlocal left
                left -= 1
                return left >= 0 and bool(self._predicate(err))

            waits = exponential_sleep_generator(self._initial, self._maximum, multiplier=self._multiplier)
            return retry_target(
                partial(func, *args, **kwargs), worth_it, waits, timeout=self._timeout, on_error=on_error
            )

        return call


def limited(retry: Retry, times: int | None) -> Retry:
    """Return a retry with a limit to how often."""
    if times is None:
        return retry
    copy = LimitedRetry(
        predicate=retry._predicate,
        initial=retry._initial,
        maximum=retry._maximum,
        multiplier=retry._multiplier,
        timeout=retry._timeout,
    )
    copy.times = times
    return copy
