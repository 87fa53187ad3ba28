"""Four unusual nodes: one that moved, one that comes late, one whose clock is wrong, one that cannot write.

Real drivers in one process, as in `test_driver`; the disk that is read-only is a real mount.
"""

import asyncio
import itertools
import random
import re
import subprocess
import sys
import time

import pytest
import uvloop

from p2pnode.driver import Driver
from p2pnode.genesis import Genesis
from p2pnode.process import EXIT_FAILED, EXIT_SETTINGS
from p2pnode.testnet import free_ports
from tests.loopback import LogBook, found_network, until
from tests.machines import needs_mounts

RUN_S = 60.0


def make(home):
    return Driver(home, LogBook())


def begin(*drivers):
    return [asyncio.create_task(driver.run()) for driver in drivers]


async def ends(*runs):
    return await asyncio.wait_for(asyncio.gather(*runs), RUN_S)


def accused(*drivers):
    return [fault for driver in drivers for fault in driver._log.of("fault")]


def move(home):
    """Let the node listen elsewhere; its new address."""
    address = f"127.0.0.1:{free_ports(1)[0]}"
    text, count = re.subn(r'listen = "[^"]*"', f'listen = "{address}"', home.config.read_text())
    assert count == 1
    home.config.write_text(text)
    return address


def test_the_first_member_moves_and_nobody_must_be_told_as_it_opens_its_links_itself(tmp_path):
    _, homes = found_network(tmp_path, 5, 1, steps=60)

    async def work():
        first, *others = map(make, homes)
        runs = begin(first, *others)
        await until(lambda: first.node.position.step >= 5, "a few steps")
        first.stop()
        await runs[0]
        move(homes[0])
        again = make(homes[0])
        assert (await ends(*runs[1:], *begin(again)))[-1].mixed.keys() == {f"node{i}" for i in range(5)}
        for other in others:
            assert [said["peer"] for said in other._log.of("connected")].count("node0") == 2
        assert accused(first, again, *others) == []

    uvloop.run(work())


def test_the_last_member_moves_and_those_that_are_told_reach_it_and_the_network_is_the_same(tmp_path):
    genesis, homes = found_network(tmp_path, 5, 1, steps=60, linger_s=0.5)

    async def work():
        drivers = [make(home) for home in homes]
        runs = begin(*drivers)
        await until(lambda: all(driver.node.position.step >= 5 for driver in drivers), "a few steps")
        for driver in drivers:
            driver.stop()
        await ends(*runs)
        moved = genesis.members[4].model_copy(update={"address": move(homes[4])})
        for home in homes[:2]:  # who is not told learns on without it
            genesis.model_copy(update={"members": (*genesis.members[:4], moved)}).save(home.genesis)
            assert Genesis.load(home.genesis).network == genesis.network
        again = [make(home) for home in homes]
        runs = begin(*again)
        reached = [again[0], again[1]]
        await until(lambda: all(4 in driver._mesh.connected for driver in reached), "links to where it is now")
        assert [4 in driver._mesh.connected for driver in again[2:4]] == [False, False]
        again[4].stop()  # two of four do not reach it, so it has no quorum
        await ends(*runs)
        assert [driver.node.finished for driver in again[:4]] == [True] * 4
        assert accused(*drivers, *again) == []

    uvloop.run(work())


@pytest.mark.parametrize("when", ["while the others learn", "when they are done"])
def test_who_is_started_long_after_the_others_finishes_with_their_model(tmp_path, when):
    _, homes = found_network(tmp_path, 5, 1, steps=40)

    async def work():
        others = [make(home) for home in homes[:4]]
        runs = begin(*others)
        if when == "when they are done":
            await until(lambda: all(driver.node.finished for driver in others), "the end")
        else:
            await until(lambda: others[0].node.position.step >= 15, "many steps")
        late = make(homes[4])
        *results, result = await ends(*runs, *begin(late))
        assert late.node.finished
        assert [each.steps for each in results] == [40] * 4, "nobody waited for it"
        assert result.accuracy >= min(each.accuracy for each in results) - 0.05
        assert accused(late, *others) == []

    uvloop.run(work())


def test_no_clock_on_the_wall_decides_anything(tmp_path, monkeypatch):
    """Each time it is looked at, it shows another year between 1970 and 2070."""
    _, homes = found_network(tmp_path, 5, 1, steps=6)
    years = random.Random(0)
    looks = itertools.count()

    def leap():
        next(looks)
        return years.uniform(0, 100 * 365.25 * 86400)

    async def work():
        drivers = [make(home) for home in homes]
        results = await ends(*begin(*drivers))
        assert [result.steps for result in results] == [6] * 5
        assert accused(*drivers) == []

    monkeypatch.setattr(time, "time", leap)
    uvloop.run(work())
    assert next(looks) >= 10, "it is looked at, for when steps were taken"


@needs_mounts
def test_a_disk_that_is_read_only_is_refused_with_a_remedy_and_found_by_the_doctor(tmp_path):
    _, (home, *_) = found_network(tmp_path, 5, 1)
    before = {path: path.read_bytes() for path in home.path.rglob("*") if path.is_file()}
    mounted = f"mount --bind {home.path} {home.path} && mount -o remount,bind,ro {home.path} && exec "
    for words, code in (("run", EXIT_SETTINGS), ("doctor --patience 0.1", EXIT_FAILED)):
        line = f"{mounted}{sys.executable} -m p2pnode {words} {home.path}"
        done = subprocess.run(["unshare", "-m", "sh", "-c", line], capture_output=True, text=True, check=False)
        told = " ".join((done.stdout + done.stderr).split())
        assert done.returncode == code, told
        assert "Read-only file system. Remedy: let this user write there" in told
        assert "Traceback" not in told
    assert {path: path.read_bytes() for path in home.path.rglob("*") if path.is_file()} == before
