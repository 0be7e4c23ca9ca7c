"""What an S3 server or client says, in our words."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
    SSLError,
    TokenRetrievalError,
)
from urllib3.exceptions import HTTPError

from etcdkeep.errors import (
    AccessDenied,
    ConfigError,
    EtcdkeepError,
    NotFound,
    ObjectExists,
    ServerUntrusted,
    StoreUnavailable,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

KEY_CODES = frozenset(
    {"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken", "TokenRefreshRequired", "InvalidSecurity"}
)  # fmt: skip
SKEW_CODES = frozenset({"RequestTimeTooSkewed", "RequestExpired"})
REGION_CODES = frozenset({"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"})
DAMAGE_CODES = frozenset({"BadDigest", "InvalidDigest", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch"})
PASSING_CODES = frozenset({"RequestTimeout", "IncompleteBody", "OperationAborted", "ConditionalRequestConflict", "SlowDown"})  # fmt: skip
PASSING_STATUS = frozenset({408, 409, 429})
CREDENTIAL_ERRORS = (
    NoCredentialsError,
    PartialCredentialsError,
    CredentialRetrievalError,
    TokenRetrievalError,
    ProfileNotFound,
)


class RefusedAlone(AccessDenied):
    """
    The server refuses one object, and answers otherwise.

    :param listed: What a listing tells of it; None where it does not show it.
    """

    def __init__(self, message: str, listed: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.listed = listed


def code_of(err: ClientError) -> str:
    """Return the server's word; for an answer without a body, the status as text."""
    return str(err.response.get("Error", {}).get("Code", ""))


def status_of(err: ClientError) -> int:
    """Return the HTTP status."""
    return int(err.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


@contextmanager
def translated(url: str, name: str, account: str) -> Iterator[None]:
    """Raise the errors of the block as ours."""
    where = f"{name or 'the listing'} of {url}"
    try:
        yield
    except ClientError as err:
        raise refusal(err, where, account) from err
    except CREDENTIAL_ERRORS as err:
        raise AccessDenied(
            f"{url}: the credentials of {account or 'this worker'} cannot be used: {err}. Renew them."
        ) from err
    except SSLError as err:
        raise _tls(err, where) from err
    except ParamValidationError as err:
        raise ConfigError(f"{where}: the request is not valid: {err}. Check the bucket's name.") from err
    except (BotoCoreError, HTTPError, OSError) as err:
        raise _unavailable(where, err) from err


def refusal(err: ClientError, where: str, account: str) -> EtcdkeepError:
    """Return our error for a server's refusal."""
    code, status = code_of(err), status_of(err)
    said = f"{status} {code}: {err.response.get('Error', {}).get('Message', '')}".rstrip(": ")
    if status == 412 or code == "PreconditionFailed":
        return ObjectExists(f"{where} already exists; objects are never replaced.")
    if code in DAMAGE_CODES:
        return _unavailable(where, f"the bytes were damaged in transit ({said})")
    if code in PASSING_CODES or status in PASSING_STATUS or (status >= 500 and status != 501):
        return _unavailable(where, said)
    if code in SKEW_CODES:
        return AccessDenied(
            f"{where}: the clock of this worker differs too much from the server's ({said}). Correct it (NTP)."
        )
    if code in KEY_CODES or status == 401:
        return AccessDenied(f"{where}: the credentials of {account or 'this worker'} were not accepted ({said}). Renew them.")  # fmt: skip
    if code in REGION_CODES or status in (301, 307):
        return ConfigError(f"{where}: the bucket is in another region ({said}). Set its region.")
    if status == 404:
        return NotFound(f"{where} was not found ({said}); check bucket and prefix.")
    if status == 403:
        return AccessDenied(
            f"{where}: {said}. {account or 'The account'} needs the rights that docs/copies.md lists; "
            "a locked object cannot be deleted."
        )
    if status == 501:
        return ConfigError(
            f"{where}: the server does not know this request ({said}). It needs conditional writes (If-None-Match)."
        )
    return ConfigError(f"{where}: the server refused the request: {said}. Check the bucket's name and settings.")


def refused_alone(err: ClientError, where: str, account: str, listed: Mapping[str, Any] | None = None) -> EtcdkeepError:
    """
    Return our error for the refusal of one object by a server that has just answered another request.

    :param listed: What a listing tells of the object.
    """
    usual = refusal(err, where, account)
    if status_of(err) != 400:
        return RefusedAlone(str(usual), listed)
    if not isinstance(usual, ConfigError) or code_of(err) in REGION_CODES:
        return usual
    return RefusedAlone(
        f"{where}: the server refuses this object and no other ({code_of(err)}): it may be encrypted with a key of its writer "
        "(SSE-C). Find out who wrote it, and remove it.",
        listed,
    )


def _tls(err: SSLError, where: str) -> EtcdkeepError:
    if "CERTIFICATE_VERIFY_FAILED" in str(err):
        return ServerUntrusted(
            f"{where}: the server's certificate is not trusted: {err}. Give its authority (AWS_CA_BUNDLE, or `verify`)."
        )
    return _unavailable(where, err)


def _unavailable(where: str, reason: object) -> StoreUnavailable:
    return StoreUnavailable(f"{where}: no usable answer from the server: {reason}.")
