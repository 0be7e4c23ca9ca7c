"""
Values encrypted at rest: ``k8s:enc:<provider>:v1:<key name>:`` and what that provider made of the value.

- aescbc: 16 bytes of IV, then AES-CBC of the value, padded as in PKCS #7. Nothing tells whether it was altered.
- aesgcm: 12 bytes of nonce, then AES-GCM with its tag; the key of the storage is authenticated with it.
- secretbox: 24 bytes of nonce, then XSalsa20 with its Poly1305 tag.
- kms: the key that encrypts is itself encrypted by a plugin, and only that plugin opens it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from etcdkeep.errors import ValueDamaged, ValueEncrypted

if TYPE_CHECKING:
    from collections.abc import Callable

    from etcdkeep.control_plane.encryption import EncryptionConfiguration

ENCRYPTED_MARK = b"k8s:enc:"
_STORED_MARKS = (b"k8s\x00", b'{"', b"\xd9\xd9\xf7")
_IV_BYTES = 16
_GCM_NONCE_BYTES = 12


class AtRestDecrypter:
    """
    Opens values with the keys of one or several EncryptionConfiguration files.

    :param configurations: Every file whose keys may be in use; all keys of a value's name are tried.
    """

    def __init__(self, *configurations: EncryptionConfiguration) -> None:
        self._configurations = configurations

    def decrypt(self, key: bytes, value: bytes) -> bytes:
        """
        Return the value in the clear.

        :param key: The whole key it is stored under, ``/registry/…``.
        :raises ValueEncrypted: when its key is not in the configuration, or only a KMS plugin can open it.
        :raises ValueDamaged: when no key of that name opens it.
        """
        provider, version, key_name, sealed = _split(value)
        if provider == "kms":
            raise ValueEncrypted(
                f"value of {_name(key)} is encrypted by KMS plugin {key_name!r} ({version}): its key never leaves that "
                "plugin; restore the whole snapshot beside the plugin to read it"
            )
        open_sealed = _PROVIDERS.get((provider, version))
        if open_sealed is None:
            raise ValueEncrypted(f"value of {_name(key)} is encrypted with {provider} {version}, which is unknown here")
        keys = [found for configuration in self._configurations for found in configuration.keys(provider, key_name)]
        if not keys:
            raise ValueEncrypted(
                f"value of {_name(key)} is encrypted with {provider} key {key_name!r}, which is not among the given keys; give the EncryptionConfiguration of the API server that wrote it"
            )
        for candidate in keys:
            clear = open_sealed(candidate.secret, key, sealed)
            if clear is not None:
                return clear
        raise ValueDamaged(
            f"none of the {len(keys)} {provider} keys called {key_name!r} opens it: another key, or altered"
        )


def _split(value: bytes) -> tuple[str, str, str, bytes]:
    parts = value.split(b":", 5)
    if len(parts) != 6:
        raise ValueDamaged("it starts as an encrypted value and names no provider, version and key")
    provider, version, key_name = (part.decode(errors="replace") for part in parts[2:5])
    return provider, version, key_name, parts[5]


def _name(key: bytes) -> str:
    return repr(key.decode(errors="replace"))


def _open_aescbc(secret: bytes, key: bytes, sealed: bytes) -> bytes | None:
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
    from cryptography.hazmat.primitives.padding import PKCS7

    iv, body = sealed[:_IV_BYTES], sealed[_IV_BYTES:]
    try:
        decryptor = Cipher(algorithms.AES(secret), modes.CBC(iv)).decryptor()
        padded = decryptor.update(body) + decryptor.finalize()
        unpadder = PKCS7(algorithms.AES.block_size).unpadder()
        clear = unpadder.update(padded) + unpadder.finalize()
    except ValueError:
        return None
    # One wrong key in 256 leaves a valid padding; what an API server stores starts in one of these ways.
    return clear if clear.startswith(_STORED_MARKS) else None


def _open_aesgcm(secret: bytes, key: bytes, sealed: bytes) -> bytes | None:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    nonce, body = sealed[:_GCM_NONCE_BYTES], sealed[_GCM_NONCE_BYTES:]
    try:
        return AESGCM(secret).decrypt(nonce, body, key)
    except (InvalidTag, ValueError):
        return None


def _open_secretbox(secret: bytes, key: bytes, sealed: bytes) -> bytes | None:
    from nacl.exceptions import CryptoError
    from nacl.secret import SecretBox

    try:
        return SecretBox(secret).decrypt(sealed)
    except (CryptoError, ValueError):
        return None


_PROVIDERS: dict[tuple[str, str], Callable[[bytes, bytes, bytes], bytes | None]] = {
    ("aescbc", "v1"): _open_aescbc,
    ("aesgcm", "v1"): _open_aesgcm,
    ("secretbox", "v1"): _open_secretbox,
}
