"""Who may sign what, and the key that this installation signs with."""

from __future__ import annotations

from pydantic import Field, field_validator

from etcdkeep.config.access import SecretRef
from etcdkeep.config.profiles import Section
from etcdkeep.records import PURPOSES, Purpose, Trust
from etcdkeep.sealing.signature import parse_public_key


class SigningKey(Section):
    """An Ed25519 key: the private half for those who sign, the public half for everybody who reads."""

    key: SecretRef | None = Field(
        None,
        description="Private key (PKCS#8 PEM), on workers that sign.",
        examples=[{"connection": "etcdkeep_signing"}],
    )
    public_keys: tuple[str, ...] = Field(
        min_length=1,
        description="Trusted public keys, base64 of the 32 raw bytes; more than one while a key is being replaced.",
        examples=[["q2y4mY0yS1lD0l1x0yN3o8Zb8mS3p2JmG3mVxgk5b0E="]],
    )

    @field_validator("public_keys")
    @classmethod
    def _are_keys(cls, keys: tuple[str, ...]) -> tuple[str, ...]:
        for key in keys:
            parse_public_key(key)
        return keys


class Signing(SigningKey):
    """
    The keys that sign. `key` and `public_keys` are for everything that has no key of its own below.
    """

    backup: SigningKey | None = Field(
        None,
        description="For backup sets: held by the workers that take backups.",
        examples=[
            {
                "key": {"connection": "etcdkeep_sign_backup"},
                "public_keys": ["q2y4mY0yS1lD0l1x0yN3o8Zb8mS3p2JmG3mVxgk5b0E="],
            }
        ],
    )
    verify: SigningKey | None = Field(
        None,
        description="For results of verifications and drills: held by the workers that verify.",
        examples=[
            {
                "key": {"connection": "etcdkeep_sign_verify"},
                "public_keys": ["q2y4mY0yS1lD0l1x0yN3o8Zb8mS3p2JmG3mVxgk5b0E="],
            }
        ],
    )
    approve: SigningKey | None = Field(
        None,
        description="For answers of people: held by the workers that run the gates of restores and recoveries.",
        examples=[
            {
                "key": {"connection": "etcdkeep_sign_approve"},
                "public_keys": ["q2y4mY0yS1lD0l1x0yN3o8Zb8mS3p2JmG3mVxgk5b0E="],
            }
        ],
    )
    restore: SigningKey | None = Field(
        None,
        description="For plans and records of restores and recoveries: held by the workers that restore.",
        examples=[
            {
                "key": {"connection": "etcdkeep_sign_restore"},
                "public_keys": ["q2y4mY0yS1lD0l1x0yN3o8Zb8mS3p2JmG3mVxgk5b0E="],
            }
        ],
    )

    def for_purpose(self, purpose: Purpose) -> SigningKey:
        """Return the key of one purpose."""
        own: SigningKey | None = getattr(self, purpose)
        return own or self

    @property
    def trust(self) -> Trust:
        """Per purpose, the public keys that may sign."""
        return {purpose: self.for_purpose(purpose).public_keys for purpose in PURPOSES}
