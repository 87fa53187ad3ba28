"""Words that a liar makes up: everything that its own key and its imagination give it."""

from collections.abc import Callable
from random import Random

from p2pnode.recipe import Recipe
from protocols.effects import Certificate, DigestEcho, Echo, Evidence, Message, Proposal, Ready, Report, Sighting
from protocols.faults import Equivocation
from protocols.header import SIGNATURE_BYTES, PeerId, Signature, SignedHeader, Slot
from protocols.protocol import Party

Sign = Callable[[bytes], Signature]
"""Signs a statement as one member."""


def forgeries(
    party: Party, mine: SignedHeader, sign: Sign, random: Random, recipe: Recipe, steps: int
) -> list[Message]:
    """One word of each kind that must convince nobody.

    Args:
        party: whom the liar is.
        mine: the liar's own header and signature, for a vector that it holds.
        sign: signs as the liar.
        random: draws the victim in whose name some are made, and what is no digest or signature of anything.
        recipe, steps: to speak of a slot that does not exist.
    """
    me, slot, digest, committee = party.me, mine.header.slot, mine.header.digest, party.committee
    victim = PeerId(random.choice([member for member in committee.members if member != me] or [me]))
    junk = random.randbytes(SIGNATURE_BYTES)
    own = (me, echo_of(mine, sign).signature)
    others = tuple((member, junk) for member in committee.members[: committee.echo_quorum])
    stolen = SignedHeader(party.header(victim, slot, digest), junk)
    nowhere = SignedHeader(party.header(me, _nowhere(slot, random, recipe, steps), digest), junk)
    return [
        Proposal(mine),
        Certificate(mine, ()),
        Certificate(mine, (own,)),
        Certificate(mine, (own,) * committee.echo_quorum),
        Certificate(mine, others),
        Certificate(stolen, others),
        Proposal(stolen),
        Sighting(stolen),
        DigestEcho(stolen),
        Proposal(nowhere),
        Echo(slot, victim, sign(stolen.header.echo().statement)),
        Echo(slot, me, junk),
        Ready(slot, victim, digest),
        Ready(slot, me, junk[: len(digest)]),
        Report(slot, committee.members),
        Report(slot, (me,)),
        Report(slot, committee.members[::-1]),
    ]


def stretched(signed: SignedHeader, echo: tuple[PeerId, Signature], sign: Sign, quorum: int) -> list[Certificate]:
    """Certificates of the liar's own header for which one other member's echo must do.

    Args:
        signed: the header.
        echo: who echoed it, and the signature.
        sign: signs as the liar.
        quorum: how many would have to vouch.
    """
    own = (signed.header.origin, echo_of(signed, sign).signature)
    return [Certificate(signed, (echo,) * (quorum - 1)), Certificate(signed, tuple(sorted((own, echo))))]


def slander(party: Party, mine: SignedHeader, sign: Sign, which: int) -> Evidence:
    """A proof that proves nothing, of one kind or another, against another member or oneself.

    Args:
        party, mine, sign: as in `forgeries`.
        which: chooses the kind and the victim.
    """
    me, slot, digest, members = party.me, mine.header.slot, mine.header.digest, party.committee.members
    victim = members[(me + 1 + which // 4) % len(members)]
    other = party.header(me, slot, digest[::-1])
    later = party.header(me, Slot(slot.step + 1), digest)
    names = (party.header(victim, slot, digest), party.header(victim, slot, digest[::-1]))
    kinds = (
        Equivocation(mine, mine),
        Equivocation.of(mine, SignedHeader(later, sign(later.proposal().statement))),
        Equivocation.of(mine, SignedHeader(other, mine.signature)),
        Equivocation.of(*(SignedHeader(name, sign(name.proposal().statement)) for name in names)),
    )
    return Evidence(kinds[which % 4] if victim != me else kinds[which % 3])


def echo_of(signed: SignedHeader, sign: Sign) -> Echo:
    """The echo of a header, whatever else was echoed."""
    return Echo(signed.header.slot, signed.header.origin, sign(signed.header.echo().statement))


def _nowhere(slot: Slot, random: Random, recipe: Recipe, steps: int) -> Slot:
    """A slot that the recipe does not have."""
    exchange = recipe.exchanges[slot.exchange]
    beyond = Slot(slot.step, slot.exchange, exchange.sub_rounds(slot.step))
    return random.choice([beyond, Slot(slot.step, len(recipe.exchanges)), Slot(steps)])
