"""A member that attacks the memory and the patience of a real node, over real TLS, while honest ones go on learning.

Memory is what the system says that this process holds, four honest nodes that train and the attacker in it. Patience is
counted in steps that the honest take meanwhile.
"""

import asyncio
from contextlib import suppress

import pytest

from p2pnode.bench.flooders import FLOODS, Attacker
from p2pnode.bench.memory import forget_peak, peak
from p2pnode.driver import Driver
from tests.loopback import LogBook, found_network, until

MIB = 2**20
CAP = 48 * MIB
"""More than twice what was seen, 19 MiB, some of which the nodes take when they are left alone."""
STEPS = 10**6
MEANWHILE = 2
RUN_S = 120.0


@pytest.mark.parametrize("attack", FLOODS.values(), ids=FLOODS)
def test_a_hostile_member_is_bounded_and_the_others_are_served_meanwhile(tmp_path, attack):
    genesis, homes = found_network(tmp_path, 5, 1, steps=STEPS, evaluate_every=0, checkpoint_every=0, ban_s=0.0)

    async def work():
        honest = [Driver(home, LogBook()) for home in homes[1:]]
        runs = [asyncio.create_task(driver.run()) for driver in honest]

        def steps():
            return [driver.node.position.step for driver in honest]

        await until(lambda: min(steps()) >= 2, "a running network")
        attacker = Attacker(homes[0], genesis, victim=1)
        before, begun = forget_peak(), max(steps())
        attacking = asyncio.create_task(attack(attacker))
        await until(lambda: min(steps()) >= begun + MEANWHILE, "steps of the honest", RUN_S)
        with suppress(asyncio.TimeoutError, OSError):
            await asyncio.wait_for(attacking, 1.0)
        after = max(steps())
        await until(lambda: min(steps()) >= after + MEANWHILE, "more steps", RUN_S)
        attacker.leave()
        if before is not None:
            assert peak() - before < CAP, f"{(peak() - before) / MIB:.1f} MiB"
        assert all({peer for peer, _ in driver._accusations.faults} <= {0} for driver in honest)
        for driver in honest:
            driver.stop()
        await asyncio.gather(*runs)

    asyncio.run(work())
