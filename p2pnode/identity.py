"""Who a node is: an Ed25519 key that signs its messages, and a certificate of the same key for its links.

Statements are domain-separated by whoever composes them (`protocols.header`); this file only signs and checks bytes.
"""

import base64
import datetime
import os
import struct
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

import blake3
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
from nacl.exceptions import BadSignatureError, CryptoError
from nacl.exceptions import RuntimeError as RefusedError
from nacl.pwhash import argon2id
from nacl.secret import Aead
from nacl.signing import SigningKey, VerifyKey
from nacl.utils import random

from p2pnode.durable import replace_file, write_all
from p2pnode.errors import ConfigError
from p2pnode.joint import DOMAIN, names_of, serves
from protocols.header import SIGNATURE_BYTES, PeerId, Signature, Verify

_NEVER_EXPIRES = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)  # RFC 5280, 4.1.2.5
_LONG_AGO = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)  # a wrong clock must not lock a node out
_FOREIGN = (UnsupportedAlgorithm, x509.InvalidVersion, InternalError)
"""What the library raises, beside ValueError, for keys and certificates that it can read and does not know."""

Ask: TypeAlias = Callable[[], bytes]
"""Gives the passphrase of a sealed key; is called only if the key is sealed."""

SEAL_PASSES = 3
SEAL_MEMORY_BYTES = 256 * 2**20
"""What trying one passphrase costs, by Argon2id: about half a second of a core, and memory that makes guessing on
graphics cards dear (libsodium's "moderate"; RFC 9106, 4 asks for 64 MiB at least)."""

SEAL_PASSES_MAX = 16
SEAL_MEMORY_BYTES_MAX = 2**30
"""What a file may ask for, whoever wrote it: four times what ours do."""

_KEY_BYTES_MAX = 16 * 1024
"""No key file is nearly as long."""

_JOINT_REMEMBERED = 1024
"""Joint signatures of which it is remembered whether they are good: some 0.7 MiB, and the echoes of a slot of a hundred
members."""

_SEALED = "P2PNODE SEALED KEY"
_SEAL_VERSION = 1
_SEAL_HEAD = struct.Struct(f">BII{argon2id.SALTBYTES}s")
"""Version, passes, bytes of memory, salt. The box behind it vouches for it, too."""

_SEED_BYTES = 32
_BOX_BYTES = Aead.NONCE_SIZE + _SEED_BYTES + Aead.MACBYTES
_CHECKSUM_BYTES = 16
"""Tells a damaged file from another passphrase, which the box cannot."""


def unasked() -> bytes:
    """Nobody is there to be asked."""
    raise ConfigError("it is sealed by a passphrase. Remedy: `p2pnode unseal` its home, or run it by `p2pnode run`")


class Identity:
    """An Ed25519 private key. Its file is PEM, readable by its owner alone: PKCS #8, or sealed by a passphrase.

    A sealed one is, in base64: version 1 (1 byte), passes and memory in bytes of Argon2id (4 each, big endian), salt
    (16), nonce (24), the key sealed by XChaCha20-Poly1305 over all that (32 + 16), and a BLAKE3 checksum (16).
    """

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
    def load(cls, path: Path, ask: Ask = unasked) -> "Identity":
        """Read a key file.

        Args:
            path: the file.
            ask: gives the passphrase, if it is sealed.

        Raises:
            ConfigError: if it is missing, unreadable, damaged, or not an Ed25519 key; or the passphrase is another.
        """
        try:
            with path.open("rb") as file:
                data = file.read(_KEY_BYTES_MAX)
        except OSError as error:
            raise ConfigError(f"key {path}: {error.strerror}; make one with `p2pnode keygen`") from error
        try:
            if data.startswith(f"-----BEGIN {_SEALED}-----".encode()):
                return cls.of_seed(_unsealed(data, ask))
            key = load_pem_private_key(data, password=None)
        except ConfigError as error:
            raise ConfigError(f"key {path}: {error}") from error
        except (ValueError, TypeError, *_FOREIGN) as error:
            raise ConfigError(f"key {path}: not an unencrypted PEM private key; restore it from a backup") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise ConfigError(f"key {path}: not an Ed25519 key; make one with `p2pnode keygen`")
        return cls(key)

    def save(self, path: Path, passphrase: bytes | None = None) -> None:
        """Write the key file durably, sealed if there is a passphrase.

        Raises:
            ConfigError: if the file exists; a key is never overwritten.
            DiskError: if the disk refuses.
        """
        if os.path.lexists(path):
            raise ConfigError(f"key {path}: exists; move it away first, a key is never overwritten")
        self.resave(path, passphrase)

    def resave(self, path: Path, passphrase: bytes | None = None) -> None:
        """Put in the place of this very key's file one that is sealed by another passphrase, or in clear."""
        content = self.pem() if passphrase is None else _sealed(self._key.private_bytes_raw(), passphrase)
        replace_file(path, lambda fd: write_all(fd, content))

    def pem(self) -> bytes:
        """The private key in clear, PEM: not for a disk, if its file is sealed."""
        return self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

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


def _sealed(seed: bytes, passphrase: bytes) -> bytes:
    """A sealed key file's content."""
    head = _SEAL_HEAD.pack(_SEAL_VERSION, SEAL_PASSES, SEAL_MEMORY_BYTES, random(argon2id.SALTBYTES))
    return _armoured(head + Aead(_stretched(head, passphrase)).encrypt(seed, head))


def _armoured(sealed: bytes) -> bytes:
    """The text that stands for these bytes and their checksum."""
    text = base64.encodebytes(sealed + blake3.blake3(sealed).digest(length=_CHECKSUM_BYTES)).decode()
    return f"-----BEGIN {_SEALED}-----\n{text}-----END {_SEALED}-----\n".encode()


def _unsealed(data: bytes, ask: Ask) -> bytes:
    """The key in a sealed file; nobody is asked, and no memory taken, for one that is damaged."""
    try:
        sealed = base64.b64decode(b"".join(data.strip().splitlines()[1:-1]), validate=True)[:-_CHECKSUM_BYTES]
    except ValueError:
        sealed = b""
    if not sealed or data.split() != _armoured(sealed).split():  # a mailer may end lines otherwise
        raise ConfigError("the file is damaged. Remedy: restore it from a backup; no passphrase opens it")
    if sealed[0] != _SEAL_VERSION or len(sealed) != _SEAL_HEAD.size + _BOX_BYTES:
        raise ConfigError(f"sealed in version {sealed[0]}. Remedy: run the version of p2pnode that sealed it")
    head, box = sealed[: _SEAL_HEAD.size], sealed[_SEAL_HEAD.size :]
    _, passes, memory, _ = _SEAL_HEAD.unpack(head)
    if not (
        argon2id.OPSLIMIT_MIN <= passes <= SEAL_PASSES_MAX and argon2id.MEMLIMIT_MIN <= memory <= SEAL_MEMORY_BYTES_MAX
    ):
        raise ConfigError(
            f"its seal asks for {memory} bytes of memory and {passes} passes; {SEAL_MEMORY_BYTES_MAX} and "
            f"{SEAL_PASSES_MAX} are the most. Remedy: restore it from a backup, p2pnode seals no key so"
        )
    try:
        return Aead(_stretched(head, ask())).decrypt(box, head)
    except CryptoError as error:
        raise ConfigError(
            "the passphrase is another. Remedy: try again; a key whose passphrase is lost is lost, too"
        ) from error


def _stretched(head: bytes, passphrase: bytes) -> bytes:
    """What a passphrase comes to, at the cost that the head names."""
    _, passes, memory, salt = _SEAL_HEAD.unpack(head)
    try:
        return argon2id.kdf(Aead.KEY_SIZE, passphrase, salt, passes, memory)
    except RefusedError as error:
        raise ConfigError(f"no {memory} bytes of memory to seal or open it. Remedy: give this process more") from error


class KeyRing:
    """The members' public keys: checks their signatures, on one statement or joint. Any thread may ask.

    Args:
        public_keys: 32 bytes each, by member.
    """

    def __init__(self, public_keys: Sequence[bytes]) -> None:
        self._keys = [VerifyKey(key) for key in public_keys]
        self._jointly = lru_cache(_JOINT_REMEMBERED)(self._is_on)

    def __call__(self, member: PeerId, statement: bytes, signature: Signature, /) -> bool:
        """Whether `signature` is `member`'s on `statement`. Never raises on hostile input."""
        if not 0 <= member < len(self._keys):
            return False
        if len(signature) == SIGNATURE_BYTES:
            return self._is_on(member, statement, signature)
        names = names_of(statement, signature) if serves(len(self._keys)) else None
        return names is not None and self._jointly(member, DOMAIN + names, signature[:SIGNATURE_BYTES])

    def _is_on(self, member: PeerId, statement: bytes, signature: Signature) -> bool:
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
