"""Who a node is: an Ed25519 key that signs its messages, and a certificate of the same key for its links.

Statements are domain-separated by whoever composes them (`protocols.header`); this file only signs and checks bytes.
"""

import datetime
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeAlias

from cryptography import x509
from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from nacl.bindings import crypto_sign_BYTES
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from p2pnode.durable import replace_file, write_all
from p2pnode.errors import ConfigError
from protocols.header import PeerId, Signature, Verify

_NEVER_EXPIRES = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)  # RFC 5280, 4.1.2.5
_LONG_AGO = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)  # a wrong clock must not lock a node out
_FOREIGN = (UnsupportedAlgorithm, x509.InvalidVersion, InternalError)
"""What the library raises, beside ValueError, for keys and certificates that it can read and does not know."""


class Identity:
    """An Ed25519 private key. Its file is PEM (PKCS #8), readable by its owner alone."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self._signing = SigningKey(key.private_bytes_raw())

    @classmethod
    def generate(cls) -> "Identity":
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def of_seed(cls, seed: bytes) -> "Identity":
        """The key of this seed, 32 bytes: as secret as the seed is. For simulations, which must come out the same."""
        return cls(Ed25519PrivateKey.from_private_bytes(seed))

    @classmethod
    def load(cls, path: Path) -> "Identity":
        """Read a key file.

        Raises:
            ConfigError: if it is missing, unreadable, or not an unencrypted Ed25519 key.
        """
        try:
            key = load_pem_private_key(path.read_bytes(), password=None)
        except OSError as error:
            raise ConfigError(f"key {path}: {error.strerror}; make one with `p2pnode keygen`") from error
        except (ValueError, TypeError, *_FOREIGN) as error:
            raise ConfigError(f"key {path}: not an unencrypted PEM private key; restore it from a backup") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise ConfigError(f"key {path}: not an Ed25519 key; make one with `p2pnode keygen`")
        return cls(key)

    def save(self, path: Path) -> None:
        """Write the key file durably.

        Raises:
            ConfigError: if the file exists; a key is never overwritten.
            DiskError: if the disk refuses.
        """
        if os.path.lexists(path):
            raise ConfigError(f"key {path}: exists; move it away first, a key is never overwritten")
        pem = self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        replace_file(path, lambda fd: write_all(fd, pem))

    @property
    def public_key(self) -> bytes:
        """32 bytes."""
        return self._key.public_key().public_bytes_raw()

    def sign(self, statement: bytes) -> Signature:
        """64 bytes, the same for the same statement (RFC 8032)."""
        return self._signing.sign(statement).signature

    def certificate(self, name: str) -> str:
        """A self-signed X.509 certificate of this very key, PEM. The genesis pins it; no authority is involved."""
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        builder = x509.CertificateBuilder(
            subject, subject, self._key.public_key(), x509.random_serial_number(), _LONG_AGO, _NEVER_EXPIRES
        )
        return builder.sign(self._key, None).public_bytes(Encoding.PEM).decode()


class KeyRing:
    """The members' public keys: checks their signatures.

    Args:
        public_keys: 32 bytes each, by member.
    """

    def __init__(self, public_keys: Sequence[bytes]) -> None:
        self._keys = [VerifyKey(key) for key in public_keys]

    def __call__(self, member: PeerId, statement: bytes, signature: Signature, /) -> bool:
        """Whether `signature` is `member`'s on `statement`. Never raises on hostile input."""
        if not 0 <= member < len(self._keys) or len(signature) != crypto_sign_BYTES:
            return False
        try:
            self._keys[member].verify(statement, signature)
        except BadSignatureError:
            return False
        return True


Signed: TypeAlias = tuple[PeerId, bytes, Signature]
"""Who signed, what, and the signature."""


class Ahead:
    """Checks signatures, but for those that were found good ahead of being asked about.

    Args:
        verify: checks; in any thread.
        most: signatures that are remembered; of more the oldest are checked again.
    """

    def __init__(self, verify: Verify, most: int) -> None:
        self._verify = verify
        self._most = most
        self._good: dict[Signed, None] = {}

    def __call__(self, member: PeerId, statement: bytes, signature: Signature, /) -> bool:
        return self.known((member, statement, signature)) or self._verify(member, statement, signature)

    def known(self, signed: Signed) -> bool:
        """Whether it was found good, and is not forgotten."""
        return signed in self._good

    def __len__(self) -> int:
        """How many are remembered."""
        return len(self._good)

    def check(self, signed: Iterable[Signed]) -> bool:
        """Whether all are good, at the cost of the first that is not. In any thread: it remembers nothing."""
        return all(self._verify(*each) for each in signed)

    def remember(self, signed: Iterable[Signed]) -> None:
        """These were found good."""
        self._good.update(dict.fromkeys(signed))
        while len(self._good) > self._most:
            del self._good[next(iter(self._good))]


def certified_key(pem: str) -> bytes:
    """The Ed25519 public key that a certificate carries, 32 bytes.

    Raises:
        ValueError: if the text is not one PEM certificate of an Ed25519 key.
    """
    try:
        key = _certificate(pem).public_key()
    except _FOREIGN as error:
        raise ValueError(str(error)) from error
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("the certificate's key is not Ed25519")  # noqa: TRY004  the input's fault, not a type error
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def certificate_der(pem: str) -> bytes:
    """The certificate's bytes as they cross the wire in a handshake."""
    return _certificate(pem).public_bytes(Encoding.DER)


def _certificate(pem: str) -> x509.Certificate:
    certificates = x509.load_pem_x509_certificates(pem.encode())
    if len(certificates) != 1:  # TLS would trust every one of them
        raise ValueError(f"{len(certificates)} certificates where one is expected")
    return certificates[0]
