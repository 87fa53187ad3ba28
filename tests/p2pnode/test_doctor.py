"""The doctor: a sound home is found sound and left as it is; each planted fault is found, with its remedy."""

import asyncio
import json
import socket
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest

from p2pnode import doctor, identity
from p2pnode.config import NodeConfig
from p2pnode.doctor import examine
from p2pnode.home import Home
from p2pnode.membership import occupant
from p2pnode.net import reach
from p2pnode.net.mesh import Mesh
from p2pnode.storage.checkpoint import Checkpoint, save_checkpoint
from p2pnode.storage.vectors import Verdict
from tests.loopback import LogBook, found_network


@pytest.fixture
def network(tmp_path):
    return found_network(tmp_path / "net", 5, 1)


def examined(home):
    return examine(home, patience_s=5.0)


def bad(findings):
    return {finding.check: finding.told for finding in findings if finding.verdict == "bad"}


def tree(folder):
    return {path: path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


def test_a_sound_home_is_found_sound_and_left_as_it_is(network):
    genesis, homes = network
    before = tree(homes[0].path)
    findings = examined(homes[0])
    assert tree(homes[0].path) == before
    assert bad(findings) == {}
    told = {finding.check: finding for finding in findings}
    assert genesis.network.hex()[:16] in told["genesis"].told
    assert told["task"].told == "4,810 parameters"
    for peer in range(1, 5):
        assert told[f"peer node{peer}"].verdict == "note"
        assert "Connection refused" in told[f"peer node{peer}"].told
    assert "waits until 3 are there" in told["peers"].told


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def another_genesis(home, tmp_path):
    other, _ = found_network(tmp_path / "other", 5, 1)
    other.save(home.genesis)


def beyond_the_theorem(home, tmp_path):
    charter = json.loads(home.genesis.read_text())
    home.genesis.write_text(json.dumps({**charter, "f": 2}))


def in_use(home, tmp_path):
    host, port = NodeConfig.load(home.config).listen.split(":")
    return socket.create_server((host, int(port)))


FAULTS = {
    "no home": (lambda home, _: home.path.rename(home.path.with_name("away")), "home", "p2pnode keygen"),
    "no key": (lambda home, _: home.key.unlink(), "key", "p2pnode keygen"),
    "a key that others read": (lambda home, _: home.key.chmod(0o644), "key file", "chmod 600"),
    "a setting misspelt": (lambda home, _: edit(home.config, "listen", "lissen"), "settings", "mend its spelling"),
    "no genesis": (lambda home, _: home.genesis.unlink(), "genesis", "make one with"),
    "more liars than the theorem covers": (beyond_the_theorem, "genesis", "use n ≥ 9 nodes"),
    "the genesis of another network": (another_genesis, "member", "copy the right one"),
    "a name that is no member's": (lambda home, _: edit(home.config, "node0", "nobody"), "member", "correct the name"),
    "a journal cut at its beginning": (lambda home, _: home.journal.write_bytes(b"\0" * 40), "journal", "Remedy"),
    "no journal": (lambda home, _: home.journal.unlink(), "journal", "Remedy"),
    "a port in use": (in_use, "ports", "change `listen`"),
    "a GPU that is not there": (
        lambda home, _: edit(home.config, 'device = "cpu"', 'device = "cuda:9"'),
        "device",
        "choose one of",
    ),
    "one of several devices that is not there": (
        lambda home, _: edit(home.config, 'device = "cpu"', 'device = "cpu,cuda:9"'),
        "device",
        "'cuda:9' is not available",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found_with_its_remedy(network, tmp_path, fault):
    plant, check, remedy = FAULTS[fault]
    home = network[1][0]
    held = plant(home, tmp_path)
    try:
        found = bad(examined(home))
    finally:
        if isinstance(held, socket.socket):
            held.close()
    assert set(found) == {check}
    assert remedy in found[check]


def test_data_that_are_not_there_are_found(tmp_path):
    genesis, homes = found_network(tmp_path, 5, 1, data_dir=str(tmp_path / "nowhere"))
    training = genesis.training.model_copy(update={"task": "mnist"})
    genesis.model_copy(update={"training": training}).save(homes[0].genesis)
    assert "nowhere" in bad(examined(homes[0]))["task"]


@pytest.mark.parametrize(("what", "check"), [("disk", "disk"), ("descriptors", "limits")])
def test_too_little_room_is_found(network, monkeypatch, what, check):
    if what == "disk":
        monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    else:
        monkeypatch.setattr(doctor.resource, "getrlimit", lambda _: (70, 70))
    assert "Remedy" in bad(examined(network[1][0]))[check]


def test_a_total_broadcast_needs_room_for_others_vectors(tmp_path, monkeypatch):
    free = SimpleNamespace(free=doctor._DISK_SPARE_BYTES + 4 * 4810 * (4 + 6 + 4 * 4) - 1)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: free)
    for name, broadcast in (("echoed", "signed-echo"), ("total", "reliable")):
        (tmp_path / name).mkdir()
        _, homes = found_network(tmp_path / name, 5, 1, recipe={"name": "trimmed", "broadcast": broadcast})
        assert ("disk" in bad(examined(homes[0]))) == (broadcast == "reliable")


def test_a_checkpoint_that_is_damaged_stops_nobody_and_is_told(network):
    genesis, homes = network
    save_checkpoint(homes[0].checkpoint, genesis.network, Checkpoint(7, {}))
    told = {finding.check: finding for finding in examined(homes[0])}
    assert (told["checkpoint"].verdict, told["checkpoint"].told) == ("good", "of step 7")
    data = bytearray(homes[0].checkpoint.read_bytes())
    data[len(data) // 2] ^= 1
    homes[0].checkpoint.write_bytes(data)
    told = {finding.check: finding for finding in examined(homes[0])}
    assert told["checkpoint"].verdict == "note"
    assert "goes on with the first model" in told["checkpoint"].told


def test_a_running_node_is_named_and_its_port_is_its_own(network):
    home = network[1][0]
    with home.occupied(), in_use(home, None):
        findings = examined(home)
        assert bad(findings) == {}
        assert "runs its node" in findings[0].told
        assert Home(home.path).holder() is not None
    assert home.holder() is None


# Peers.


class Peer:
    """A mesh that takes no part."""

    def __init__(self, genesis, home):
        self.config = NodeConfig.load(home.config)
        me, _ = occupant(home, genesis, self.config.name)
        self.mesh = Mesh(me, home, genesis, self.config, self, LogBook())

    def received(self, peer, message): ...
    def vector(self, peer, digest, vector): ...
    def again(self, peer, digest): ...
    def connected(self, peer): ...
    def disconnected(self, peer, reason): ...

    def judge(self, peer, slot, digest, nbytes):
        return Verdict.REFUSE

    def welcome(self, peer):
        return True


@asynccontextmanager
async def running(genesis, *homes):
    peers = [Peer(genesis, home) for home in homes]
    for peer in peers:
        await peer.mesh.start()
    try:
        yield
    finally:
        for peer in peers:
            await peer.mesh.stop()


def test_peers_that_answer_are_told_from_those_that_do_not(network, monkeypatch):
    genesis, homes = network

    async def work():
        async with running(genesis, homes[1], homes[4]):
            return await asyncio.to_thread(examined, homes[2])

    told = {finding.check: finding for finding in asyncio.run(work())}
    assert [told[f"peer node{peer}"].verdict for peer in (0, 1, 3, 4)] == ["note", "good", "note", "good"]
    assert told["peers"].told.startswith("2 reached")
    monkeypatch.setattr(reach, "time", SimpleNamespace(time=lambda: 1e9))
    told = {finding.check: finding for finding in asyncio.run(work())}
    assert told["peer node1"].verdict == "note"
    assert "NTP" in told["peer node1"].told


def test_a_peer_of_another_genesis_and_one_at_anothers_address_are_told(network, tmp_path):
    genesis, homes = network
    swapped = list(genesis.members)
    swapped[1], swapped[4] = (
        swapped[1].model_copy(update={"address": swapped[4].address}),
        swapped[4].model_copy(update={"address": swapped[1].address}),
    )
    taken = {member.address for member in genesis.members}
    drawn = (found_network(tmp_path / f"other{attempt}", 5, 1) for attempt in range(20))  # ports may be drawn again
    foreign, foreign_homes = next(one for one in drawn if taken.isdisjoint(m.address for m in one[0].members))
    strange = genesis.members[3].model_copy(update={"address": foreign.members[0].address})
    swapped[3] = strange
    genesis.model_copy(update={"members": tuple(swapped)}).save(homes[0].genesis)

    async def work():
        async with running(genesis, homes[1], homes[4]), running(foreign, foreign_homes[0]):
            return await asyncio.to_thread(examined, homes[0])

    found = bad(asyncio.run(work()))
    assert set(found) == {"peer node1", "peer node3", "peer node4"}
    assert "node4 answers" in found["peer node1"]
    assert "same genesis" in found["peer node3"]


def test_a_sealed_home_is_examined_with_its_passphrase(network, monkeypatch):
    monkeypatch.setattr(identity, "SEAL_MEMORY_BYTES", 8192)
    home = network[1][0]
    identity.Identity.load(home.key).resave(home.key, b"right")
    assert bad(examine(home, 0.2, lambda: b"right")) == {}
    assert "the passphrase is another" in bad(examine(home, 0.2, lambda: b"wrong"))["key"]
