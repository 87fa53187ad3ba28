"""Ideal signatures, and short ways to say what members sign: for tests of protocols, none of which sees a key."""

from dataclasses import replace
from hashlib import blake2b

from protocols.committee import Committee
from protocols.effects import Certificate, Echo, Ready, Report
from protocols.faults import Equivocation
from protocols.header import FLOAT32, Header, PeerId, SignedHeader, Slot
from protocols.protocol import Party

NETWORK = b"n" * 32
JUNK = bytes(64)
FIRST = Slot(0)


def sign(member, statement):
    return blake2b(statement, key=b"%d" % member, digest_size=64).digest()


def verify(member, statement, signature):
    return signature == sign(member, statement)


class Signer:
    """Never signs two statements for one place; a restarted node goes on with the same one."""

    def __init__(self, me):
        self.me = me
        self.signed = {}

    def sign(self, claim):
        return sign(self.me, claim.statement) if self.promise(claim) else None

    def promise(self, claim):
        return self.signed.setdefault(claim.place, claim.statement) == claim.statement

    def promised(self, place):
        return self.signed.get(place)


class Faithless(Signer):
    """Signs and promises whatever it is asked to."""

    def promise(self, claim):
        return True

    def promised(self, place):
        return None


def party(me=0, n=4, f=1, signer=None):
    return Party(PeerId(me), Committee(n, f), NETWORK, FLOAT32, 1, signer or Signer(me), verify)


def digest(*of):
    return blake2b(repr(of).encode(), digest_size=32).digest()


def header(origin, value, slot=FIRST):
    return Header(NETWORK, PeerId(origin), slot, FLOAT32, 1, value)


def signed(origin, value, slot=FIRST):
    named = header(origin, value, slot)
    return SignedHeader(named, sign(origin, named.proposal().statement))


def changed(of, **changes):
    """The header with these changes, signed by its origin all the same."""
    named = replace(of.header, **changes)
    return SignedHeader(named, sign(named.origin, named.proposal().statement))


def echo(member, of):
    return Echo(of.header.slot, of.header.origin, sign(member, of.header.echo().statement))


def certificate(of, members):
    """Of these members who vouch, in this order; the origin does so by its header."""
    others = [PeerId(member) for member in members if member != of.header.origin]
    return Certificate(of, tuple((member, echo(member, of).signature) for member in others))


def ready(of):
    return Ready(of.header.slot, of.header.origin, of.header.digest)


def report(*members, slot=FIRST):
    return Report(slot, tuple(PeerId(member) for member in members))


def proof(one, other):
    return Equivocation.of(one, other)
