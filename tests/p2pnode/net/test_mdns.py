"""Announcements over real multicast on loopback: who is announced is heard of by its key, and found."""

import asyncio
import sys

import pytest
import uvloop

from p2pnode.driver import Driver
from p2pnode.errors import ConfigError
from p2pnode.net import mdns
from p2pnode.net.mdns import Announcer
from tests.loopback import PATIENCE_S, LogBook, found_network, until
from tests.p2pnode.net.test_whereabouts import moved


class Heard:
    """Takes what is heard."""

    def __init__(self):
        self.said = set()

    def hear(self, key, address):
        self.said.add((key, address))


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_two_nodes_hear_of_each_other_and_are_not_disturbed_by_nonsense(run):
    pytest.importorskip("zeroconf")

    async def work():
        heard = [Heard(), Heard()]
        nodes = [
            Announcer("a", "aa" * 32, "127.0.0.1:7001", heard[0]),
            Announcer("b", "", "127.0.0.1:7002", Heard()),
            Announcer("c", "cc" * 32, "127.0.0.1:7003", heard[1]),
        ]
        for node in nodes:
            await node.start()
        try:
            await until(lambda: ("cc" * 32, "127.0.0.1:7003") in heard[0].said, "c, by a")
            await until(lambda: ("aa" * 32, "127.0.0.1:7001") in heard[1].said, "a, by c")
            assert not [said for said in heard[0].said if said[1] == "127.0.0.1:7002"]
        finally:
            for node in nodes:
                await node.stop()

    run(work())


def test_a_node_whose_address_changed_is_found_and_learned_with(tmp_path):
    pytest.importorskip("zeroconf")
    genesis, homes = found_network(tmp_path, 2, steps=2, discovery="mdns")
    moved(genesis, 1, "127.0.0.1:1").save(homes[0].genesis)
    logs = [LogBook(), LogBook()]

    async def work():
        drivers = [Driver(home, log) for home, log in zip(homes, logs, strict=True)]
        async with asyncio.timeout(PATIENCE_S):
            return await asyncio.gather(*(driver.run() for driver in drivers))

    assert [result.steps for result in uvloop.run(work())] == [2, 2]
    assert logs[0].of("found elsewhere") == [{"peer": "node1", "address": genesis.members[1].address}]


def test_a_flood_of_announcements_is_looked_into_a_few_at_a_time(monkeypatch):
    pytest.importorskip("zeroconf")
    from zeroconf import ServiceStateChange

    looked = []

    async def look(self, zeroconf, name):
        looked.append(name)
        await asyncio.sleep(60)

    monkeypatch.setattr(Announcer, "_look_into", look)

    async def work():
        node = Announcer("a", "aa", "127.0.0.1:7001", Heard())
        for number in range(1000):
            node._changed(None, "", str(number), ServiceStateChange.Added)
        await asyncio.sleep(0)
        assert len(looked) == mdns._LOOKUPS_MAX
        await node.stop()

    asyncio.run(work())


def test_without_the_library_one_is_told_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "zeroconf", None)
    with pytest.raises(ConfigError, match=r"Remedy: pip install p2pnode\[discovery\]"):
        mdns.check_installed()
