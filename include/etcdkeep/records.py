"""
Signed records: every document that is written and later believed, in one envelope.

XCom, params, task states and the repository's bytes are input, which others can write. What decides comes through
here: an Ed25519 signature over the exact bytes of a statement that says what kind of document it is, of which cluster and
subject, under which name it lies and when it was made. A record that was copied elsewhere, or made by a key of another
purpose, is refused. :class:`Signed` is made by nothing else, so a function that takes one can believe it.

The envelope is JSON: ``payload`` (the statement's exact bytes, as text), ``key`` and ``signature``. With stock tools::

    jq -j .payload RECORD > payload; jq -r .signature RECORD | base64 -d > signature
    openssl pkeyutl -verify -pubin -inkey KEY.pem -rawin -in payload -sigfile signature
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from pydantic import AwareDatetime, ConfigDict, ValidationError

from etcdkeep.documents import Document, read, write
from etcdkeep.errors import (
    NotFound,
    ObjectDamaged,
    ObjectExists,
    PermanentError,
    RecordRefused,
    SignatureInvalid,
)
from etcdkeep.sealing.signature import check_signature, public_key_text

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from etcdkeep.ports import ObjectStore, StoredObject

Purpose = Literal["backup", "verify", "approve", "restore"]
PURPOSES: tuple[Purpose, ...] = ("backup", "verify", "approve", "restore")
"""What a signing key may be for: sets; verifications and drills; answers of people; plans and what restores did."""

Trust = Mapping[Purpose, tuple[str, ...]]
"""Per purpose, the public keys that may sign."""


def trust_for_all(public_keys: Iterable[str]) -> Trust:
    """Return the trust of a small site, where the same keys sign everything."""
    return dict.fromkeys(PURPOSES, tuple(public_keys))


CLOCK_SKEW = timedelta(minutes=5)
"""How far two clocks may differ before a moment counts as the future."""
MAX_RECORD_BYTES = 4 * 2**20
"""A hundred times what those have of which many are read at once; somebody may have written larger ones."""

Body = TypeVar("Body", bound=Document)


@dataclass(frozen=True)
class Kind(Generic[Body]):
    """
    A kind of record.

    :param purpose: Of the keys that may sign it.
    :param model: Its body.
    """

    name: str
    purpose: Purpose
    model: type[Body]


@dataclass(frozen=True)
class Signed(Generic[Body]):
    """
    A record whose signature, place and moment are right. Made by :class:`Records` alone; a test holds that.

    :param name: Its object in the repository; empty for one that travelled as text.
    :param at: When it was signed, by the signer's clock.
    :param stored_at: When it was stored, by the store's clock; None where it was not asked.
    :param digest: SHA-256 of the signed bytes, hex: what other records name it by.
    """

    kind: Kind[Body]
    name: str
    cluster: str
    subject: str
    at: datetime
    stored_at: datetime | None
    digest: str
    body: Body

    @property
    def order(self) -> tuple[datetime, datetime]:
        """Sorts records by the store's time; equal ones by the signer's."""
        return self.stored_at or self.at, self.at


@dataclass(frozen=True)
class Refused:
    """
    A record that counts as nothing.

    :param word: Why, in one word.
    :param sentence: Why, for people.
    """

    name: str
    word: str
    sentence: str


class _Statement(Document):
    """What is signed."""

    model_config = ConfigDict(extra="forbid")

    schema_version: Literal[1] = 1
    kind: str
    name: str
    repository: str | None = None
    """For which it was signed; None of one that travels as text, and in older records, which count everywhere."""
    cluster: str
    subject: str
    at: AwareDatetime
    body: dict[str, Any]


class _Envelope(Document):
    model_config = ConfigDict(extra="forbid")

    payload: str
    key: str
    signature: str


class Records:
    """
    Writes and reads signed records in one store.

    :param trust: Which keys may sign what.
    :param signer: Gives the private key of a purpose; None where nothing is written.
    :param others: URLs of the other repositories of the same clusters: what was signed for one of them says nothing here.
    :param now: The clock.
    """

    def __init__(
        self,
        store: ObjectStore,
        trust: Trust,
        signer: Callable[[Purpose], Ed25519PrivateKey] | None = None,
        *,
        others: Iterable[str] = (),
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.store = store
        self.trust = trust
        self.now = now
        self._others = frozenset(map(same_place, others))
        self._signer = signer

    @property
    def place(self) -> str:
        """The repository that records are signed for."""
        return same_place(self.store.url)

    # --- writing -------------------------------------------------------------------------------------------------

    def require_signer(self, purpose: Purpose) -> None:
        """
        Check that records of a purpose can be signed here.

        :raises ConfigError: when no key is configured, or its public key is not trusted.
        :raises SecretUnavailable: when the key cannot be read.
        """
        if self._signer is None:
            raise TypeError("these records are opened for reading")
        self._signer(purpose)

    def write(
        self, kind: Kind[Body], name: str, cluster: str, subject: str, body: Body, at: datetime | None = None
    ) -> Signed[Body]:
        """
        Sign a record and store it, create-only. One with the same body that is there already counts as stored.

        :param name: Of the object.
        :param subject: What it is about: a backup id, or the name of a restore.
        :raises ObjectExists: when another one is there.
        """
        text, made = self._sign(kind, name, cluster, subject, body, at)
        try:
            write(self.store, name, text.encode())
        except ObjectExists:
            try:
                found = self.read(kind, name, cluster, subject)
            except RecordRefused as err:
                raise ObjectExists(f"{err} Delete it, then clear this task.") from err
            if found.body != body:
                raise
            return found
        return made

    def append(
        self, kind: Kind[Body], folder: str, cluster: str, subject: str, body: Body, suffix: str = ""
    ) -> Signed[Body]:
        """Sign a record and store it in a folder, beside the earlier ones: its name is its own time and the suffix."""
        at = self.now()
        return self.write(kind, f"{folder}{stamp(at)}{suffix}.json", cluster, subject, body, at)

    def write_text(self, kind: Kind[Body], cluster: str, subject: str, body: Body, at: datetime) -> str:
        """Return a signed record as text, for a place that others can write, such as XCom; the same gives the same."""
        return self._sign(kind, "", cluster, subject, body, at)[0]

    def _sign(
        self, kind: Kind[Body], name: str, cluster: str, subject: str, body: Body, at: datetime | None
    ) -> tuple[str, Signed[Body]]:
        if self._signer is None:
            raise TypeError("these records are opened for reading")
        at = at or self.now()
        statement = _Statement(
            kind=kind.name,
            name=name,
            repository=self.place if name else None,
            cluster=cluster,
            subject=subject,
            at=at,
            body=body.model_dump(mode="json"),
        )
        payload = statement.model_dump_json()
        key = self._signer(kind.purpose)
        envelope = _Envelope(
            payload=payload,
            key=public_key_text(key.public_key()),
            signature=base64.b64encode(key.sign(payload.encode())).decode(),
        )
        signed = Signed(kind, name, cluster, subject, at, None, _digest(payload), body)
        return envelope.model_dump_json(indent=1) + "\n", signed

    # --- reading -------------------------------------------------------------------------------------------------

    def read(
        self,
        kind: Kind[Body],
        name: str,
        cluster: str,
        subject: str,
        stored_at: datetime | None = None,
        *,
        brought: datetime | None = None,
    ) -> Signed[Body]:
        """
        Return one record.

        :param stored_at: When it was stored, where a listing told.
        :param brought: When records of the other repositories were brought here; later ones of those count as nothing.
        :raises NotFound: when there is none.
        :raises RecordRefused: when it counts as nothing.
        """
        try:
            data = read(self.store, name)
        except ObjectDamaged as err:
            raise RecordRefused(f"{err} It is ignored.", word="unreadable") from err
        return self._believe(kind, name, cluster, subject, data, stored_at, brought)

    def find(self, kind: Kind[Body], name: str, cluster: str, subject: str) -> Signed[Body] | None:
        """Return one record, or None when there is none; else as :meth:`read`."""
        try:
            return self.read(kind, name, cluster, subject)
        except NotFound:
            return None

    def read_text(self, kind: Kind[Body], text: str, cluster: str, subject: str) -> Signed[Body]:
        """
        Return a record that travelled as text.

        :raises RecordRefused: when it counts as nothing.
        """
        return self._believe(kind, "", cluster, subject, text.encode(), None)

    def read_all(
        self,
        kind: Kind[Body],
        items: list[StoredObject],
        cluster: str,
        subject: str,
        *,
        brought: datetime | None = None,
    ) -> tuple[list[Signed[Body]], list[Refused]]:
        """
        Return the records among listed objects, oldest first by the store's time, and those that count as nothing.

        :param brought: As for :meth:`read`.
        """
        found, refused = [], []
        for item in items:
            if item.size_bytes > MAX_RECORD_BYTES:
                refused.append(Refused(item.name, "unreadable", f"{item.name} has {item.size_bytes} bytes, more than any record. It was not read. Remove this object."))  # fmt: skip
                continue
            try:
                found.append(self.read(kind, item.name, cluster, subject, item.updated_at, brought=brought))
            except RecordRefused as err:
                refused.append(Refused(item.name, err.word, str(err)))
            except NotFound:
                continue  # deleted since it was listed
            except PermanentError as err:  # of this object alone: it must not hide the others
                refused.append(Refused(item.name, "unreadable", f"{err} It is ignored. Remove this object."))
        return sorted(found, key=lambda record: record.order), refused

    def in_folder(
        self, kind: Kind[Body], folder: str, cluster: str, subject: str
    ) -> tuple[list[Signed[Body]], list[Refused]]:
        """Return the records of a folder, as :meth:`read_all`."""
        return self.read_all(kind, list(self.store.list(folder)), cluster, subject)

    def _believe(
        self,
        kind: Kind[Body],
        name: str,
        cluster: str,
        subject: str,
        data: bytes,
        stored_at: datetime | None,
        brought: datetime | None = None,
    ) -> Signed[Body]:
        what = name or f"the {kind.name} record that was handed over"
        statement, payload = self._statement(kind, what, data)
        claimed = (statement.kind, statement.name, statement.cluster, statement.subject)
        if claimed != (kind.name, name, cluster, subject):
            raise RecordRefused(
                f"{what} was copied here: it is a record of something else, a {statement.kind} record of {statement.cluster}/{statement.subject} from "
                f"{statement.name or 'a task'}. It is ignored.",
                word="moved",
            )
        elsewhere = statement.repository in self._others and statement.repository != self.place
        if elsewhere and (brought is None or statement.at > brought):
            raise RecordRefused(
                f"{what} was copied here: it was signed for {statement.repository}. It is ignored. Remove this object.",
                word="moved",
            )
        if (
            statement.at > self.now() + CLOCK_SKEW
        ):  # not by the store's time: a file's can be set, and would hide a record
            raise RecordRefused(
                f"{what} is from the future: it was signed at {statement.at:%Y-%m-%d %H:%M:%S} UTC. It is ignored. Check the "
                "clocks of the workers and of the store.",
                word="future",
            )
        try:
            body = kind.model.model_validate(statement.body)
        except ValidationError as err:
            raise RecordRefused(
                f"{what} is signed, but this version cannot read it ({err.error_count()} fields are wrong). It is ignored.",
                word="unreadable",
            ) from err
        return Signed(kind, name, cluster, subject, statement.at, stored_at, _digest(payload), body)

    def _statement(self, kind: Kind[Body], what: str, data: bytes) -> tuple[_Statement, str]:
        try:
            envelope = _Envelope.model_validate_json(data)
            signature = base64.b64decode(envelope.signature, validate=True)
        except ValueError as err:
            raise RecordRefused(f"{what} is not a signed record. It is ignored.", word="unsigned") from err
        payload = envelope.payload.encode()
        try:
            check_signature(what, payload, signature, self.trust[kind.purpose])
            statement = _Statement.model_validate_json(payload)
        except SignatureInvalid as err:
            raise RecordRefused(
                f"{what} was altered, or is signed by a key that is not trusted for purpose {kind.purpose!r}. It is ignored.",
                word="foreign",
            ) from err
        except ValidationError as err:
            raise RecordRefused(
                f"{what} is signed, but is not a record of schema_version 1. It is ignored.", word="unreadable"
            ) from err
        return statement, envelope.payload


def same_place(url: str) -> str:
    """Return a repository's URL in the spelling by which it is compared."""
    return url.rstrip("/")


def stamp(at: datetime) -> str:
    """Return a moment as it stands in names of objects."""
    return f"{at.astimezone(UTC):%Y%m%dT%H%M%S.%fZ}"


def _digest(payload: str) -> str:
    return hashlib.sha256(payload.encode()).hexdigest()
