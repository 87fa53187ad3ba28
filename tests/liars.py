"""Byzantine members of a `World`: an honest core whose effects are tampered with, and which signs what it likes."""

from dataclasses import replace
from random import Random

from p2pnode.node import Received
from p2pnode.recipe import BROADCASTS
from protocols.effects import Accuse, Broadcast, Certificate, Deliver, Echo, Proposal, Send, Sighting, Stream
from protocols.header import SignedHeader, Slot
from tests.ideal import JUNK, Faithless, certificate, digest, echo, header, signed
from tests.world import VECTOR


class Liar:
    """Takes part as an honest member does, but accuses nobody, and leaves it to `lie` what it proposes."""

    def __init__(self, world, me):
        self.world, self.me, self.node = world, me, world.nodes[me]
        self.random = Random(f"{world.random.random()} liar")
        self.others = [peer for peer in range(world.n) if peer != me]
        self.party = replace(self.node.party, signer=Faithless(me))

    def handle(self, event):
        out = []
        for effect in self.node.handle(event):
            match effect:
                case Accuse():
                    pass
                case Stream(named, None) if named.origin == self.me:
                    out += self.lie(named)
                case Broadcast(Proposal(one) | Certificate(one)) if one.header.origin == self.me:
                    out += self.echoed(effect.message)
                case _:
                    out.append(effect)
        return out

    def some(self, peers, chance=0.5):
        return [peer for peer in peers if self.random.random() < chance]

    def vector(self, slot, *of):
        """A vector of its own, at hand for whoever shall have it."""
        named = digest("lie", self.me, slot, *of)
        self.world.vectors[self.me].put(slot, named, VECTOR)
        return named

    def lie(self, named):
        """What it sends instead of its vector."""
        return [Stream(named)]

    def echoed(self, message):
        """What it sends instead of its proposal, or of its certificate."""
        return [Broadcast(message)]


class Equivocator(Liar):
    """Proposes two vectors a slot to peers drawn at random, and shows their certificates to whom it pleases."""

    show = 0.5

    def __init__(self, world, me):
        super().__init__(world, me)
        self.lies = {}

    def handle(self, event):
        if isinstance(event, Received) and isinstance(event.message, Echo) and event.message.origin == self.me:
            lies = self.lies.get(event.message.slot, [])
            return [e for lie in lies for effect in lie.handle(event.sender, event.message) for e in self.told(effect)]
        return super().handle(event)

    def lie(self, named):
        kind = BROADCASTS[self.world.recipe.exchanges[0].broadcast]
        self.lies[named.slot] = lies = [kind(self.party, named.slot, self.me) for _ in range(2)]
        started = [lie.start(self.vector(named.slot, side)) for side, lie in enumerate(lies)]
        told = {peer: self.random.sample((0, 1), k=self.random.choice((1, 1, 2))) for peer in self.others}
        out = []
        for peer, sides in told.items():
            for side in sides:
                out += [Stream(lies[side].signed.header, peer), Send(peer, Proposal(lies[side].signed))]
        return out + [e for effects in started for effect in effects[2:] for e in self.told(effect)]

    def echoed(self, message):
        return []

    def told(self, effect):
        if not isinstance(effect, Broadcast):
            assert isinstance(effect, Accuse | Deliver)
            return []
        return [Send(peer, effect.message) for peer in self.some(self.others, self.show)]


class TwoFaced(Equivocator):
    """Shows both certificates to all."""

    show = 1.0


class Withholder(Liar):
    """Proposes a vector, and sends its bytes to nobody."""

    def lie(self, named):
        return []


class Partial(Liar):
    """Sends its vector, its proposal and its certificate to some."""

    def lie(self, named):
        return [Stream(named, peer) for peer in self.some(self.others)]

    def echoed(self, message):
        return [Send(peer, message) for peer in self.some(self.others)]


class Forger(Liar):
    """Proposes as an honest member does, and then makes up everything that its key and its imagination give it."""

    def lie(self, named):
        slot, me = named.slot, self.me
        out = [Stream(named)]
        for peer in self.others:
            mine = signed(me, self.vector(slot, peer), slot)
            victim = self.random.choice([other for other in self.others if other != peer])
            forged = SignedHeader(header(victim, digest("forged", peer), slot), JUNK)
            quorum = self.party.committee.echo_quorum
            repeated = Certificate(mine, certificate(mine, [me]).echoes * quorum)
            short = certificate(mine, [me])
            sub_rounds = self.world.recipe.exchanges[0].sub_rounds
            nowhere = self.random.choice([Slot(slot.step, 0, sub_rounds), Slot(slot.step, 1), Slot(self.world.steps)])
            beyond = signed(me, mine.header.digest, nowhere)
            out += [Stream(mine.header, peer)]
            out += [
                Send(peer, message)
                for message in self.some(
                    [
                        repeated,
                        short,
                        Certificate(mine, tuple((other, JUNK) for other in range(quorum))),
                        Proposal(forged),
                        Sighting(forged),
                        Certificate(forged, tuple((other, JUNK) for other in range(quorum))),
                        Proposal(beyond),
                        echo(victim, signed(peer, named.digest, slot)),
                        Echo(slot, me, JUNK),
                    ]
                )
            ]
        return out
