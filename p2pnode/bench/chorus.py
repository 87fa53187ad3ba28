"""All members of a network but one, in one process: what the one hears of them is what it would hear of real nodes.

`python -m p2pnode.bench.chorus FOLDER LENGTH LEAD` plays every member of the network founded in `FOLDER` but the last.
Of a real node each has its key, its signatures, its mutual TLS connections to the one that is measured, and the whole
conversation of `p2pnode.node`. What they say to each other stays in the process. They compute nothing, check no
signature, and keep no vector: each proposes a part of one long vector, one element further than the last, so that all
are different and take the memory of one. Over a broadcast with echoes the bytes of one of them are at the others when
they are at the one that is measured, which says so: alike links bring them to all at a time, and so its echo counts.

None gets ahead of the one that is measured, or all do by `LEAD` slots: they propose in a slot once it has proposed in
that slot, or in the one so many before. Left alone they would be done before it begins.
"""

import asyncio
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import uvloop

from p2pnode.bench.soloist import READY
from p2pnode.byzantine.behaviour import FaithlessSigner
from p2pnode.codec import Finished, Holding, Want, WireMessage
from p2pnode.config import NodeConfig
from p2pnode.genesis import Genesis
from p2pnode.home import Home
from p2pnode.identity import Identity
from p2pnode.net.mesh import Mesh
from p2pnode.node import (
    Arrived,
    Connected,
    Descend,
    Descended,
    Differentiate,
    Differentiated,
    Event,
    Mixed,
    Node,
    NodeEffect,
    Received,
    Started,
    Train,
    Trained,
)
from p2pnode.observe.log import open_log
from p2pnode.recipe import BROADCASTS
from p2pnode.storage.vectors import Vector, Verdict, digest_of
from protocols.effects import (
    Accuse,
    Broadcast,
    Certificate,
    DigestEcho,
    Echo,
    Expect,
    Fetch,
    Hello,
    Mix,
    Proposal,
    Send,
    Stream,
)
from protocols.header import FLOAT32, Digest, PeerId, Signature, Slot
from protocols.protocol import Party

_RETAINED_STEPS = 3
_NO_DIGEST = bytes(32)
"""Of an outcome that nobody proposes."""

_LOOK_EVERY_S = 0.01
"""How often to look whether the one that is measured is up."""


class Chorus:
    """The members that are played, and what they share.

    Args:
        folder: of the network.
        length: elements of a vector.
        lead: slots by which they are ahead of the one that is measured.
    """

    def __init__(self, folder: Path, length: int, lead: int) -> None:
        self.genesis = Genesis.load(folder / "genesis.json")
        self.length = length
        self.soloist = PeerId(len(self.genesis.members) - 1)
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._at_home = Home(folder / self.genesis.members[self.soloist].name)
        self._lead = lead
        steps, recipe = self.genesis.training.steps, self.genesis.plan
        self.slots = {
            slot: number
            for number, slot in enumerate(
                Slot(step, index, sub_round)
                for step in range(steps)
                for index, exchange in enumerate(recipe.exchanges)
                for sub_round in range(exchange.sub_rounds(step))
            )
        }
        count = len(self.slots) * self.soloist
        self._long = np.random.default_rng(0).random(length + count, np.float32)
        self._digests = [digest_of(self._long[at : at + length]) for at in range(count)]
        self._place = {digest: at for at, digest in enumerate(self._digests)}
        self.echoes = all(BROADCASTS[exchange.broadcast].consistent for exchange in recipe.exchanges)
        self._crossed: set[Digest] = set()
        self._waiting: defaultdict[Digest, list[Member]] = defaultdict(list)
        self.members = [Member(self, PeerId(me), folder) for me in range(self.soloist)]

    def digest(self, member: PeerId, slot: Slot) -> Digest:
        """Of the vector that a member proposes in a slot."""
        return self._digests[self.slots[slot] * self.soloist + member]

    def vector(self, digest: Digest) -> Vector:
        at = self._place[digest]
        return self._long[at : at + self.length]

    def due(self, slot: Slot, heard: int) -> bool:
        """Whether to propose in a slot, for who heard the one that is measured propose in so many."""
        return self.slots[slot] < heard + self._lead

    def said(self, to: PeerId, event: Event) -> None:
        self.members[to].later(event)

    def wait(self, member: "Member", digest: Digest) -> None:
        """Tell a member when the bytes of another one are there."""
        if digest in self._crossed or not self.echoes:
            member.later(Arrived(digest))
        else:
            self._waiting[digest].append(member)

    def cross(self, digest: Digest) -> None:
        """The bytes of one of them are with the one that is measured."""
        self._crossed.add(digest)
        for member in self._waiting.pop(digest, []):
            member.later(Arrived(digest))

    def fail(self, error: BaseException) -> None:
        if not self._ended.done():
            self._ended.set_exception(error)

    def _end(self) -> None:
        asyncio.get_running_loop().remove_reader(sys.stdin)
        if not self._ended.done():
            self._ended.set_result(None)

    async def run(self) -> None:
        """Play until standard input ends: whoever started both processes knows when the one that is measured is done,
        which may be before it has a link to each of them."""
        asyncio.get_running_loop().add_reader(sys.stdin, self._end)
        # Links that are tried in vain are tried ever more rarely.
        while not (self._at_home.admin.exists() or self._ended.done()):
            await asyncio.sleep(_LOOK_EVERY_S)
        for member in self.members:
            await member.mesh.start()
            member.later(Started())
        try:
            await self._ended
        finally:
            await asyncio.gather(*(member.mesh.stop() for member in self.members))


class Member:
    """One of them: the conversation of a real node, and its links to the one that is measured."""

    def __init__(self, chorus: Chorus, me: PeerId, folder: Path) -> None:
        genesis = chorus.genesis
        home = Home(folder / genesis.members[me].name)
        sign = Identity.load(home.key).sign
        party = Party(me, genesis.committee, genesis.network, FLOAT32, chorus.length, FaithlessSigner(sign), _believed)
        self._chorus = chorus
        self._me = me
        self._node = Node(party, genesis.plan, genesis.training.steps, _RETAINED_STEPS)
        self.mesh = Mesh(me, home, genesis, NodeConfig.load(home.config), self, open_log(home.log, home.path.name))
        self._greeted = False
        self._heard = 0
        self._arrived: set[Digest] = set()
        self._expected: set[Digest] = set()
        self._held_back: list[tuple[Slot, Event]] = []

    def later(self, event: Event) -> None:
        """Handle the event after all that came before it, whoever plays."""
        asyncio.get_running_loop().call_soon(self._handle, event)

    def _handle(self, event: Event) -> None:
        try:
            for effect in self._node.handle(event):
                self._perform(effect)
        except Exception as error:
            self._chorus.fail(error)
            raise

    def _perform(self, effect: NodeEffect) -> None:
        match effect:
            case Send(to, message):
                self._greeted |= isinstance(message, Hello)
                if to == self._chorus.soloist:
                    self.mesh.send(to, message)
                else:
                    self._chorus.said(to, Received(self._me, message))
            case Broadcast(message):
                self.mesh.broadcast(message)
                for fellow in range(self._chorus.soloist):
                    if fellow != self._me:
                        self._chorus.said(PeerId(fellow), Received(self._me, message))
            case Stream(header, to):
                if to in (None, self._chorus.soloist) and self._greeted:
                    self._stream(header.slot, header.digest)
            case Expect(header) | Fetch(header, _):
                if header.origin != self._chorus.soloist:
                    self._chorus.wait(self, header.digest)
                elif header.digest in self._arrived:
                    self.later(Arrived(header.digest))
                else:
                    self._expected.add(header.digest)
            case Train(step):
                self._propose(Slot(step), lambda digest: Trained(step, digest))
            case Mix(gathered, into):
                self._propose(into, lambda digest: Mixed(gathered.slot, digest))
            case Descend(slot, _, into):
                self._propose(into, lambda digest: Descended(slot, digest))
            case Differentiate(slot, _, into):
                self._propose(into, lambda digest: Differentiated(slot, digest))
            case Accuse(peer, fault):
                raise AssertionError(f"all are honest, and {self._me} accuses {peer} of {fault}")

    def _propose(self, slot: Slot | None, made: Callable[[Digest], Event]) -> None:
        """Say what was made when it is due; at once, where nobody proposes it."""
        if slot is None:
            self.later(made(_NO_DIGEST))
        elif self._chorus.due(slot, self._heard):
            self.later(made(self._chorus.digest(self._me, slot)))
        else:
            self._held_back.append((slot, made(self._chorus.digest(self._me, slot))))

    def _stream(self, slot: Slot, digest: Digest) -> None:
        self.mesh.stream(self._chorus.soloist, slot, digest, self._chorus.vector(digest))

    # What the links bring.

    def received(self, peer: PeerId, message: WireMessage) -> None:
        match message:
            case Want(slot, digest):
                self._stream(slot, digest)
            case Holding() | Finished():
                return  # of the one it holds nothing yet, and after the other it closes its links
            case _:
                if isinstance(message, Proposal | Certificate) and message.origin == peer:
                    self._heard_propose(message.slot)
                elif isinstance(message, Echo | DigestEcho) and message.origin == self._me:
                    self._chorus.cross(self._chorus.digest(self._me, message.slot))
                self.later(Received(peer, message))

    def _heard_propose(self, slot: Slot) -> None:
        self._heard = max(self._heard, self._chorus.slots[slot] + 1)
        held_back, self._held_back = self._held_back, []
        for slot, event in held_back:
            if self._chorus.due(slot, self._heard):
                self.later(event)
            else:
                self._held_back.append((slot, event))

    def judge(self, peer: PeerId, slot: Slot, digest: Digest, nbytes: int) -> Verdict:
        return Verdict.TAKE if nbytes == 4 * self._chorus.length else Verdict.REFUSE

    def vector(self, peer: PeerId, digest: Digest, vector: Vector) -> None:
        self._arrived.add(digest)
        if digest in self._expected:
            self.later(Arrived(digest))

    def welcome(self, peer: PeerId) -> bool:
        return peer == self._chorus.soloist

    def again(self, peer: PeerId, digest: Digest) -> None:
        raise AssertionError("it is sent whole")

    def connected(self, peer: PeerId) -> None:
        self.mesh.send(peer, Holding())
        self.later(Connected(peer))

    def disconnected(self, peer: PeerId, reason: BaseException | None) -> None:
        """It is done, or opens the link anew."""


def _believed(_member: PeerId, _statement: bytes, _signature: Signature, /) -> bool:
    """The processor is for the one that is measured, which checks all that it is told."""
    return True


def main() -> None:
    """Play the members, once both processes are ready."""
    folder, length, lead = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])

    async def run() -> None:
        chorus = Chorus(folder, length, lead)
        sys.stdout.buffer.write(READY)
        sys.stdout.flush()
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        await chorus.run()

    uvloop.run(run())


if __name__ == "__main__":
    main()
