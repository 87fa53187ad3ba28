"""Keys are private, never lost by overwriting, and sign as RFC 8032 says; hostile keys and signatures are answered."""

import base64
import datetime
import os
import ssl
import stat
import warnings
from pathlib import Path

import pytest
from blake3 import blake3
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.exceptions import RuntimeError as RefusedError
from nacl.signing import VerifyKey

from p2pnode import identity
from p2pnode.errors import ConfigError, DiskError
from p2pnode.identity import Ahead, Identity, KeyRing, certificate_der, certified_key
from p2pnode.joint import DOMAIN, JOINT_MEMBERS_MAX, sign_together

RFC_8032 = [  # section 7.1, tests 1 to 3: secret key, public key, message, signature
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24"
        "655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aee"
        "b00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28d"
        "c027beceea1ec40a",
    ),
]
ORDER = 2**252 + 27742317777372353535851937790883648493
IDENTITY = Identity.generate()
SIGNATURE = IDENTITY.sign(b"statement")
RING = KeyRing([Identity.generate().public_key, IDENTITY.public_key])


@pytest.mark.parametrize(("secret", "public", "message", "signature"), RFC_8032)
def test_signatures_are_those_of_rfc_8032(secret, public, message, signature):
    identity = Identity(Ed25519PrivateKey.from_private_bytes(bytes.fromhex(secret)))
    assert identity.public_key.hex() == public
    assert [identity.sign(bytes.fromhex(message)).hex() for _ in range(2)] == [signature] * 2
    assert KeyRing([identity.public_key])(0, bytes.fromhex(message), bytes.fromhex(signature))


def test_a_saved_key_is_its_owners_alone_and_comes_back(tmp_path):
    path = tmp_path / "key.pem"
    IDENTITY.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Identity.load(path).public_key == IDENTITY.public_key
    assert Identity.load(path).sign(b"statement") == SIGNATURE


def test_a_key_is_never_overwritten_nor_written_through_a_link(tmp_path):
    path, link = tmp_path / "key.pem", tmp_path / "link.pem"
    IDENTITY.save(path)
    link.symlink_to(tmp_path / "elsewhere.pem")
    before = path.read_bytes()
    for taken in (path, link):
        with pytest.raises(ConfigError, match=f"key {taken}: exists; move it away first"):
            Identity.generate().save(taken)
    assert path.read_bytes() == before
    assert not (tmp_path / "elsewhere.pem").exists()


def test_a_key_is_durable_when_it_is_made_and_there_is_none_of_which_that_is_not_known(tmp_path, monkeypatch):
    synced = []
    for refuses in (True, False):

        def fsync(fd, real=os.fsync, refuses=refuses):
            synced.append(Path(f"/proc/self/fd/{fd}").resolve().name)
            if refuses:
                raise OSError("no power")
            real(fd)

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fsync)
            if refuses:
                with pytest.raises(DiskError, match="no power"):
                    IDENTITY.save(tmp_path / "key.pem")
                assert not (tmp_path / "key.pem").exists()
            else:
                IDENTITY.save(tmp_path / "key.pem")
    assert synced == ["key.pem.new", "key.pem.new", tmp_path.name]
    assert Identity.load(tmp_path / "key.pem").public_key == IDENTITY.public_key


def pem_of(key, encryption):
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file or directory; make one with `p2pnode keygen`"),
        (b"", "not an unencrypted PEM private key; restore it from a backup"),
        (b"\xff\x00garbage", "not an unencrypted PEM private key; restore it from a backup"),
        (IDENTITY.certificate("a").encode(), "not an unencrypted PEM private key; restore it from a backup"),
        (pem_of(Ed25519PrivateKey.generate(), BestAvailableEncryption(b"x")), "not an unencrypted PEM private key"),
        (pem_of(generate_private_key(SECP256R1()), NoEncryption()), "not an Ed25519 key; make one"),
    ],
)
def test_what_is_no_key_is_refused_with_file_and_remedy(tmp_path, content, reason):
    path = tmp_path / "key.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        Identity.load(path)
    assert str(caught.value).startswith(f"key {path}: {reason}")


# Sealed by a passphrase.


@pytest.fixture
def quick(monkeypatch):
    """Seals that cost nothing."""
    monkeypatch.setattr(identity, "SEAL_PASSES", 1)
    monkeypatch.setattr(identity, "SEAL_MEMORY_BYTES", 8192)


@pytest.fixture
def sealed(tmp_path, quick):
    IDENTITY.save(tmp_path / "key.pem", b"right")
    return tmp_path / "key.pem"


def never():
    raise AssertionError("asked, though nothing is sealed that a passphrase opens")


def resealed(path, change):
    """The file, with another body under the right checksum."""
    lines = path.read_bytes().splitlines()
    body = change(base64.b64decode(b"".join(lines[1:-1]))[:-16])
    text = base64.encodebytes(body + blake3(body).digest(length=16))
    path.write_bytes(b"\n".join([lines[0], text.strip(), lines[-1]]))


def test_a_sealed_key_comes_back_by_its_passphrase_alone_and_says_so(sealed):
    assert Identity.load(sealed, lambda: b"right").sign(b"statement") == SIGNATURE
    for wrong in (b"", b"right ", b"righ", b"Right"):
        with pytest.raises(ConfigError, match=f"^key {sealed}: the passphrase is another. Remedy: try again"):
            Identity.load(sealed, lambda wrong=wrong: wrong)
    with pytest.raises(ConfigError, match=f"^key {sealed}: it is sealed by a passphrase. Remedy: `p2pnode unseal`"):
        Identity.load(sealed)


def test_a_sealed_file_is_its_owners_alone_and_tells_nothing_and_is_another_each_time(sealed, tmp_path):
    IDENTITY.save(tmp_path / "again.pem", b"right")
    one, other = (
        base64.b64decode(b"".join(p.read_bytes().splitlines()[1:-1])) for p in (sealed, tmp_path / "again.pem")
    )
    secret = der(IDENTITY.pem().decode())[-32:]
    assert len(one) == 113
    assert one[:9] == other[:9] == bytes([1, 0, 0, 0, 1, 0, 0, 32, 0])
    assert not any(one[at : at + 4] == other[at : at + 4] for at in range(9, 110))
    assert not any(secret[at : at + 3] in one for at in range(30))
    assert stat.S_IMODE(sealed.stat().st_mode) == 0o600


def test_a_key_changes_between_clear_and_sealed_in_one_piece(sealed, monkeypatch):
    IDENTITY.resave(sealed)
    assert sealed.read_bytes() == IDENTITY.pem()
    assert Identity.load(sealed, never).public_key == IDENTITY.public_key
    IDENTITY.resave(sealed, b"new")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("no power")))
        with pytest.raises(DiskError):
            IDENTITY.resave(sealed)
    assert Identity.load(sealed, lambda: b"new").public_key == IDENTITY.public_key


def test_a_seal_costs_who_guesses_what_it_says(monkeypatch, tmp_path):
    costs = []

    def stretched(size, passphrase, salt, passes, memory):
        costs.append((passes, memory))
        return bytes(size)

    monkeypatch.setattr(identity.argon2id, "kdf", stretched)
    IDENTITY.save(tmp_path / "key.pem", b"right")
    Identity.load(tmp_path / "key.pem", lambda: b"right")
    assert costs == [(3, 256 * 2**20)] * 2


def test_a_sealed_key_damaged_anywhere_is_told_before_anyone_is_asked(sealed):
    whole = sealed.read_bytes()
    for at in range(len(whole)):
        for damaged in (whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :], whole[:at]):
            sealed.write_bytes(damaged)
            if damaged.split() == whole.split():
                continue
            with pytest.raises(
                ConfigError, match=f"^key {sealed}: (the file is damaged|not an unencrypted PEM).*restore"
            ):
                Identity.load(sealed, never)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda body: b"\x02" + body[1:], "sealed in version 2. Remedy: run the version"),
        (lambda body: body + b"x", "sealed in version 1"),
        (lambda body: body[:-1], "sealed in version 1"),
        (lambda body: body[:5] + b"\xff\xff\xff\xff" + body[9:], "asks for 4294967295 bytes of memory and 1 passes"),
        (lambda body: body[:5] + b"\x40\0\0\1" + body[9:], "asks for 1073741825 bytes"),
        (lambda body: body[:5] + b"\0\0\x1f\xff" + body[9:], "asks for 8191 bytes"),
        (lambda body: body[:1] + b"\0\0\0\x11" + body[5:], "asks for 8192 bytes of memory and 17 passes"),
        (lambda body: body[:1] + b"\0\0\0\0" + body[5:], "and 0 passes"),
    ],
)
def test_what_nobody_seals_is_refused_before_anyone_is_asked_and_memory_is_taken(sealed, change, reason):
    resealed(sealed, change)
    with pytest.raises(ConfigError, match=f"^key {sealed}: .*{reason}"):
        Identity.load(sealed, never)


def test_no_cost_salt_or_nonce_of_a_seal_can_be_changed(sealed):
    whole = sealed.read_bytes()
    for at in (4, 8, *range(9, 97)):
        sealed.write_bytes(whole)
        resealed(sealed, lambda body, at=at: body[:at] + bytes([body[at] ^ 2]) + body[at + 1 :])
        with pytest.raises(ConfigError, match=r"the passphrase is another|asks for"):
            Identity.load(sealed, lambda: b"right")


def test_too_little_memory_for_a_seal_is_told(sealed, monkeypatch):
    def refused(*_):
        raise RefusedError("Key derivation failed")

    monkeypatch.setattr(identity.argon2id, "kdf", refused)
    with pytest.raises(ConfigError, match=f"^key {sealed}: no 8192 bytes of memory.*Remedy: give this process more"):
        Identity.load(sealed, lambda: b"right")


def test_a_file_without_end_is_no_key(tmp_path):
    (tmp_path / "key.pem").symlink_to("/dev/zero")
    with pytest.raises(ConfigError, match="not an unencrypted PEM private key"):
        Identity.load(tmp_path / "key.pem", never)


def der(pem):
    return base64.b64decode("".join(pem.splitlines()[1:-1]))


def armoured(label, data):
    return f"-----BEGIN {label}-----\n{base64.b64encode(data).decode()}\n-----END {label}-----\n"


def flips(data, masks):
    for position in range(len(data)):
        for mask in masks:
            yield data[:position] + bytes([data[position] ^ mask]) + data[position + 1 :]


def test_a_damaged_key_file_is_another_key_or_refused(tmp_path):
    path = tmp_path / "key.pem"
    IDENTITY.save(path)
    whole = der(path.read_text())
    for damaged in flips(whole, (1, 31, 64, 255)):
        path.write_text(armoured("PRIVATE KEY", damaged))
        if damaged[:16] == whole[:16]:
            assert Identity.load(path).public_key != IDENTITY.public_key
        else:
            with pytest.raises(ConfigError, match=f"^key {path}: not an"):
                Identity.load(path)


def test_a_certificate_is_the_keys_own_and_of_any_time():
    pem = IDENTITY.certificate("node-7")
    certificate = x509.load_pem_x509_certificate(pem.encode())
    assert certified_key(pem) == IDENTITY.public_key
    assert certificate_der(pem) == certificate.public_bytes(Encoding.DER) == der(pem)
    assert certificate.subject.rfc4514_string() == certificate.issuer.rfc4514_string() == "CN=node-7"
    assert certificate.version is x509.Version.v3
    certificate.verify_directly_issued_by(certificate)
    assert certificate.not_valid_before_utc <= datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    assert certificate.not_valid_after_utc.year == 9999


def handshake(tmp_path, server_key, client_trusts):
    """What a client sees that trusts `client_trusts`: the server's certificate, or an error."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert.write_text(server_key.certificate("server"))
    server_key.save(key)
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    server.load_cert_chain(cert, key)
    client.check_hostname = False
    client.load_verify_locations(cadata=cert.read_text() if client_trusts is server_key else client_trusts)
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(down, up), server.wrap_bio(up, down, server_side=True)]
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return ends[0].getpeercert(binary_form=True), certificate_der(cert.read_text())


def test_tls_accepts_the_pinned_certificate_and_no_other(tmp_path):
    shown, pinned = handshake(tmp_path, IDENTITY, IDENTITY)
    assert shown == pinned
    (tmp_path / "key.pem").unlink()
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(tmp_path, IDENTITY, Identity.generate().certificate("server"))


def test_only_one_certificate_of_an_ed25519_key_certifies():
    foreign = generate_private_key(SECP256R1())
    name = x509.Name([])
    builder = x509.CertificateBuilder(
        name, name, foreign.public_key(), 1, datetime.datetime(2020, 1, 1), datetime.datetime(2030, 1, 1)
    )
    bad = [
        "",
        "garbage",
        "\ud800",
        armoured("CERTIFICATE", b"\x30\x00"),
        IDENTITY.certificate("a") + Identity.generate().certificate("b"),
        builder.sign(foreign, SHA256()).public_bytes(Encoding.PEM).decode(),
        foreign.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode(),
    ]
    for pem in bad:
        with pytest.raises(ValueError, match=r"."):
            certified_key(pem)


def test_a_damaged_certificate_raises_nothing_but_value_error():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the library deprecates some of the damage
        for damaged in flips(der(IDENTITY.certificate("a")), (1, 4, 32, 128)):
            try:
                assert len(certified_key(armoured("CERTIFICATE", damaged))) == 32
            except ValueError:
                continue


def test_a_signature_is_one_members_on_one_statement():
    assert RING(1, b"statement", SIGNATURE)
    assert not RING(0, b"statement", SIGNATURE)
    assert not RING(1, b"statement ", SIGNATURE)
    assert not any(RING(1, b"statement", flipped) for flipped in flips(SIGNATURE, (1, 128)))


def test_a_signature_has_one_form():
    """Adding the group order to S gives the second solution that RFC 8032, 5.1.7 forbids."""
    other = SIGNATURE[:32] + (int.from_bytes(SIGNATURE[32:], "little") + ORDER).to_bytes(32, "little")
    assert not RING(1, b"statement", other)


@settings(deadline=None)
@given(
    st.integers(),
    st.binary(max_size=80),
    st.binary(max_size=330) | st.binary(min_size=64, max_size=64) | st.binary(min_size=128, max_size=128),
)
def test_the_key_ring_never_raises_on_hostile_input(member, statement, signature):
    assert RING(member, statement, signature) is False
    assert RING(member, b"statement", SIGNATURE) is (member == 1)


JOINT = sign_together(IDENTITY.sign, [b"one", b"two", b"three"])[b"two"]


def test_a_joint_signature_is_its_signers_on_each_statement_and_on_no_other():
    for statement in (b"one", b"two", b"three"):
        assert RING(1, statement, JOINT)
        assert not RING(0, statement, JOINT)
    for statement in (b"four", b"", JOINT, DOMAIN + JOINT[64:]):
        assert not RING(1, statement, JOINT)


def test_whoever_adds_a_name_to_a_joint_signature_or_takes_one_away_has_none():
    signature, names = JOINT[:64], [JOINT[begin : begin + 32] for begin in range(64, len(JOINT), 32)]
    added = blake3(b"four").digest()
    for changed in (sorted([*names, added]), names[1:], names[:-1], names[::-1], [*names, names[-1]]):
        for statement in (b"one", b"two", b"three", b"four"):
            assert not RING(1, statement, signature + b"".join(changed))
    assert not RING(1, b"two", bytes(64) + JOINT[64:])
    assert not RING(1, b"two", IDENTITY.sign(JOINT[64:]) + JOINT[64:]), "in no domain"


def test_what_a_joint_signature_is_on_is_checked_once_each_way(monkeypatch):
    ring, asked = KeyRing([IDENTITY.public_key]), []
    monkeypatch.setattr(ring, "_keys", [Watched(IDENTITY.public_key, asked)])
    signatures = sign_together(IDENTITY.sign, [b"%d" % number for number in range(8)])
    for _ in range(2):
        assert all(ring(0, statement, signature) for statement, signature in signatures.items())
        assert len(asked) == 1
    for _ in range(2):
        assert not ring(0, b"0", bytes(64) + signatures[b"0"][64:])
        assert len(asked) == 2


class Watched(VerifyKey):
    def __init__(self, key, asked):
        super().__init__(key)
        self.asked = asked

    def verify(self, *given):
        self.asked.append(given)
        return super().verify(*given)


def test_of_too_many_members_none_is_taken_that_is_joint():
    """A liar's would make the certificates of honest members too long for a message."""
    for members, taken in ((JOINT_MEMBERS_MAX, True), (JOINT_MEMBERS_MAX + 1, False)):
        assert KeyRing([IDENTITY.public_key] * members)(0, b"two", JOINT) is taken


def test_a_key_ring_of_small_order_keys_verifies_nothing():
    neutral = (1).to_bytes(32, "little")
    for key in (bytes(32), neutral):
        assert not KeyRing([key])(0, b"anything", neutral + bytes(32))


# Signatures checked ahead.


def test_what_was_found_good_ahead_is_not_checked_again():
    asked = []
    ahead = Ahead(lambda *signed: asked.append(signed) or RING(*signed), most=10)
    good = (1, b"statement", SIGNATURE)
    assert ahead.check([good])
    assert len(ahead) == 0, "which may be in any thread"
    ahead.remember([good])
    asked.clear()
    assert ahead(*good)
    assert asked == []
    for other in ((0, b"statement", SIGNATURE), (1, b"other", SIGNATURE), (1, b"statement", SIGNATURE[::-1])):
        assert not ahead(*other)
        assert not ahead(*other), "what is wrong is remembered as nothing"
    assert len(asked) == 6


def test_a_check_ends_at_the_first_that_is_wrong():
    asked = []
    ahead = Ahead(lambda *signed: asked.append(signed) or RING(*signed), most=10)
    good, bad = (1, b"statement", SIGNATURE), (0, b"statement", SIGNATURE)
    assert not ahead.check([good, bad, good])
    assert asked == [good, bad]


def test_of_too_many_the_oldest_are_forgotten():
    ahead = Ahead(lambda *signed: False, most=3)
    signed = [(member, b"statement", SIGNATURE) for member in range(5)]
    for each in signed:
        ahead.remember([each])
    assert [ahead(*each) for each in signed] == [False, False, True, True, True]
    ahead.remember(signed)
    assert len(ahead) == 3
