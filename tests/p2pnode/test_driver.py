"""Real drivers with real links, training and files, several in one process: what is promised of one node's run."""

import asyncio
import errno
import json
import os
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path

import aiohttp
import numpy as np
import pytest
import torch
import uvloop
from safetensors.numpy import load_file

from p2pnode import checkers
from p2pnode import driver as driver_module
from p2pnode.bench.flooders import Intruder
from p2pnode.codec import Want, decode, decode_evidence, encode_evidence
from p2pnode.driver import Driver
from p2pnode.errors import ConfigError, DiskError, JournalCorrupt, JournalMissing, LinkError, NonFinite
from p2pnode.identity import Identity, KeyRing
from p2pnode.learning.wire import narrow, widen
from p2pnode.lookout import Lookout
from p2pnode.net import lane as lane_module
from p2pnode.net.lane import BulkLane
from p2pnode.net.mesh import Mesh
from p2pnode.node import Adopt, Arrived, Received
from p2pnode.punctuality import FIRST_S
from p2pnode.storage.checkpoint import OUTBOX_STEPS, Checkpoint, Outbox, load_checkpoint, save_checkpoint
from p2pnode.storage.signer import DurableSigner
from p2pnode.storage.vectors import ARRAYS, Vectors, digest_of
from protocols.effects import Accuse, Broadcast, Certificate, Echo, Hello, Proposal, Send, Stream
from protocols.faults import Equivocation, Fault
from protocols.header import BFLOAT16, FLOAT16, FLOAT32, Header, SignedHeader, Slot
from tests.loopback import LogBook, found_network, until

RUN_S = 60.0


def make(home, tamper=None):
    return Driver(home, LogBook(), tamper)


async def run_all(*drivers):
    """Each driver's result, in order."""
    return await asyncio.wait_for(asyncio.gather(*(driver.run() for driver in drivers)), RUN_S)


def model(home):
    return load_file(home.checkpoint)["model"]


def spread(homes):
    models = [model(home) for home in homes]
    return max(float(np.linalg.norm(one - other) / np.linalg.norm(one)) for one in models for other in models)


@pytest.mark.parametrize(
    ("nodes", "f", "recipe"),
    [(2, 0, "dsgd"), (3, 0, "trimmed"), (5, 1, "trimmed"), (6, 1, "monna")],
    ids=["dsgd", "trimmed f=0", "trimmed f=1", "monna f=1"],
)
def test_a_network_finishes_and_agrees(tmp_path, nodes, f, recipe):
    _, homes = found_network(tmp_path, nodes, f, steps=12, recipe={"name": recipe})

    async def work():
        drivers = [make(home) for home in homes]
        results = await run_all(*drivers)
        for driver, home, result in zip(drivers, homes, results, strict=True):
            assert (result.steps, result.name) == (12, home.path.name)
            assert result.accuracy > 0.5
            assert result.mixed[result.name] == 12
            assert sum(result.mixed.values()) >= 12 * (nodes - f)
            assert json.loads(home.result.read_text())["accuracy"] == result.accuracy
            assert driver._log.of("fault") == []
            assert not home.admin.exists()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    uvloop.run(work())
    assert spread(homes) < (1e-6 if f == 0 else 0.2)


def test_all_of_all_gathered_by_the_mean_are_one_model(tmp_path):
    """With f = 0 each node mixes the same vectors, in the same order: to the last bit the same model."""
    _, homes = found_network(tmp_path, 3, steps=5, recipe={"name": "dsgd"})
    uvloop.run(_run_homes(homes))
    assert len({model(home).tobytes() for home in homes}) == 1


def test_a_node_of_a_large_model_keeps_its_own_vector_of_one_step_in_memory_and_no_outcome(tmp_path, monkeypatch):
    """What it proposed in steps that it left it reads from disk; what it mixed nobody asks for."""
    _, homes = found_network(tmp_path, 2, steps=10, recipe={"name": "dsgd"})
    monkeypatch.setattr(driver_module, "_RETAINED_BYTES", 1)
    most = Counter()

    class Watched(driver_module.Vectors):
        def take(self, *what):
            most["own"] = max(most["own"], len(self._own))
            most["others"] = max(most["others"], len(self._held))
            return super().take(*what)

    monkeypatch.setattr(driver_module, "Vectors", Watched)
    uvloop.run(_run_homes(homes))
    assert most["own"] == 1
    assert most["others"] <= 2


async def _run_homes(homes):
    return await run_all(*(make(home) for home in homes))


@pytest.mark.parametrize(("wire", "dtype", "sub_rounds"), [("bfloat16", BFLOAT16, 1), ("float16", FLOAT16, 2)])
def test_all_mix_what_was_announced_in_half_the_bytes_and_adopt_what_is_not_rounded(tmp_path, wire, dtype, sub_rounds):
    """Of two sub-rounds the first one's mixture is rounded when it is announced; by then it is everybody's."""
    _, homes = found_network(tmp_path, 3, steps=4, recipe={"sub_rounds": sub_rounds, "wire": wire})
    mixed, sent = {}, []

    def overhear(driver):
        mix, stream = driver._local.mix, driver._mesh.stream

        def mixing(step, exchange, rows, own):
            assert own is not None
            mixed.setdefault((driver.me, step), []).append([row.tobytes() for row in rows])
            assert {row.dtype for row in rows} == {ARRAYS[dtype]}
            return mix(step, exchange, rows, own)

        def streaming(peer, slot, digest, vector, offset):
            assert digest == digest_of(vector)
            sent.append(vector.nbytes)
            stream(peer, slot, digest, vector, offset)

        driver._local.mix, driver._mesh.stream = mixing, streaming

    async def work():
        drivers = [make(home) for home in homes]
        for driver in drivers:
            overhear(driver)
        return await run_all(*drivers)

    results = uvloop.run(work())
    assert mixed.keys() == {(me, step) for me in range(3) for step in range(4)}
    for step in range(4):
        assert mixed[0, step] == mixed[1, step] == mixed[2, step], "of each member the same bytes, its own for itself"
        assert len(mixed[0, step]) == sub_rounds
    assert set(sent) == {2 * 4_810}
    assert sum(result.bytes_sent for result in results) < 1.25 * (3 * 2 * sub_rounds * 4) * (2 * 4_810)
    for home in homes:
        assert np.array_equal(widen(narrow(model(home), dtype)), model(home)) == (sub_rounds == 2)
    assert spread(homes) == 0


def test_what_was_said_rounded_before_a_crash_is_said_again_to_the_bit(tmp_path):
    _, homes = found_network(tmp_path, 2, steps=6, recipe={"name": "dsgd", "wire": "bfloat16"})

    async def work():
        drivers = [make(home) for home in homes]
        runs = [asyncio.create_task(driver.run()) for driver in drivers]
        await until(lambda: drivers[0].node.position.step >= 3, "a few steps")
        drivers[0].stop()
        await runs[0]
        kept = drivers[0]._proposals._outbox.kept()
        again = make(homes[0])
        assert {slot: vector.dtype for slot, vector in kept.items()} == dict.fromkeys(kept, np.uint16)
        assert again._proposals.said() == {slot: digest_of(vector) for slot, vector in kept.items()}
        results = await asyncio.wait_for(asyncio.gather(again.run(), runs[1]), RUN_S)
        assert all(result is not None for result in results)
        assert [driver._log.of("fault") for driver in (*drivers, again)] == [[], [], []]

    uvloop.run(work())


def test_a_model_too_large_for_the_wire_is_said_as_the_largest_there_is_and_told(tmp_path):
    """Infinity would count as not sent: the others would wait for it."""
    _, homes = found_network(tmp_path, 3, steps=3, recipe={"name": "dsgd", "wire": "float16"})

    async def work():
        drivers = [make(home) for home in homes]
        drivers[1]._trainer.step = lambda t: torch.full((drivers[1].vectors.length,), 1e6)
        results = await run_all(*drivers)
        assert [result.mixed["node1"] for result in results] == [3, 3, 3]
        assert [said["step"] for said in drivers[1]._log.of("vector saturated")] == [0, 1, 2]
        assert "beyond 65504" in drivers[1]._log.of("vector saturated")[0]["reason"]
        assert all(driver._log.of("fault") == [] for driver in drivers)

    uvloop.run(work())


# Gradients of the step before.


def test_a_stale_gradient_is_taken_while_peers_are_waited_for(tmp_path):
    """A node whose peer is not there yet has the next step's gradient; the last step's is followed by none."""
    _, homes = found_network(tmp_path, 2, steps=3, recipe={"name": "dsgd", "staleness": 1})

    async def work():
        first, late = make(homes[0]), make(homes[1])
        foreseen, foresee = [], first._trainer.foresee
        first._trainer.foresee = lambda t, at: (foreseen.append((t, at.numpy().copy())), foresee(t, at))
        run = asyncio.create_task(first.run())
        await until(lambda: foreseen, "the gradient of step 1")
        assert first.node.position == Slot(0), "nobody is here to agree with"
        assert (foreseen[0][0], digest_of(foreseen[0][1])) == (1, digest_of(first._proposals._outbox.get(Slot(0))))
        results = await asyncio.wait_for(asyncio.gather(run, late.run()), RUN_S)
        assert [result.steps for result in results] == [3, 3]
        assert [t for t, _ in foreseen] == [1, 2]

    uvloop.run(work())


def test_who_comes_back_without_its_stale_gradient_takes_a_fresh_one_and_goes_on(tmp_path):
    _, homes = found_network(tmp_path, 5, 1, steps=20, recipe={"staleness": 1})

    async def work():
        others, first = [make(home) for home in homes[:4]], make(homes[4])
        runs = [asyncio.create_task(driver.run()) for driver in others]
        stopped = asyncio.create_task(first.run())
        await until(lambda: first.node.position.step >= 5, "a few steps")
        first.stop()
        await stopped
        second = make(homes[4])
        results = await asyncio.wait_for(asyncio.gather(second.run(), *runs), RUN_S)
        assert [result.steps for result in results[1:]] == [20] * 4
        assert all(driver._log.of("fault") == [] for driver in (*others, first, second))

    uvloop.run(work())


# Durable before sent.


class Watch:
    """What was signed, and whether a flush came before it left."""

    def __init__(self):
        self.waiting, self.durable = set(), set()
        self.left = Counter()

    def leaves(self, message, me):
        for kind, signature in _signatures(message, me):
            assert signature in self.durable, f"a {kind} leaves before it is durable"
            self.left[kind] += 1


def _signatures(message, me):
    """Those of `me` that a message carries."""
    match message:
        case Proposal(signed) if signed.header.origin == me:
            yield "proposal", signed.signature
        case Certificate(signed, echoes):
            if signed.header.origin == me:
                yield "proposal", signed.signature
            yield from (("echo", signature) for member, signature in echoes if member == me)
        case Echo(_, _, signature):
            yield "echo", signature


@pytest.mark.parametrize("quick", [True, False])
def test_nothing_signed_leaves_before_it_is_durable(tmp_path, monkeypatch, quick):
    watches = {}

    class WatchedSigner(DurableSigner):
        def __init__(self, identity, path):
            super().__init__(identity, path)
            self.watch = watches.setdefault(path.parent.name, Watch())

        def sign(self, claim):
            signature = super().sign(claim)
            if signature not in self.watch.durable:
                self.watch.waiting.add(signature)
            return signature

        def flush(self):
            time.sleep(0.002)  # a slow disk: who does not wait for it is seen
            super().flush()
            self.watch.durable |= self.watch.waiting
            self.watch.waiting.clear()

    class WatchedMesh(Mesh):
        def send(self, peer, message):
            watches[self._config.name].leaves(message, self.me)
            super().send(peer, message)

        def broadcast(self, message):
            watches[self._config.name].leaves(message, self.me)
            super().broadcast(message)

    WatchedSigner.quick = quick
    monkeypatch.setattr(driver_module, "DurableSigner", WatchedSigner)
    monkeypatch.setattr(driver_module, "Mesh", WatchedMesh)
    _, homes = found_network(tmp_path, 5, 1, steps=6)
    uvloop.run(_run_homes(homes))
    for watch in watches.values():
        assert watch.left["proposal"] >= 6
        assert watch.left["echo"] >= 6


# Echoes that are signed together.


@pytest.fixture
def echoed(monkeypatch):
    """By slot and who signed them, the echoes that leave."""
    echoed = defaultdict(list)

    class WatchedMesh(Mesh):
        def send(self, peer, message):
            if isinstance(message, Echo):
                echoed[message.slot, self.me].append(message.signature)
            super().send(peer, message)

    monkeypatch.setattr(driver_module, "Mesh", WatchedMesh)
    return echoed


def test_vectors_that_a_slot_goes_on_with_are_echoed_under_one_signature(tmp_path, echoed, monkeypatch):
    monkeypatch.setattr("p2pnode.punctuality.FLOOR_S", 30.0)
    _, homes = found_network(tmp_path, 5, 0, steps=80)
    drivers = [make(home) for home in homes]
    uvloop.run(run_all(*drivers))
    for step in range(1, 80):
        for member in range(5):
            signatures = echoed[Slot(step), member]
            assert len(set(signatures)) == 1, (step, member)
            assert len(signatures[0]) == 64 + 32 * len(signatures)
    for driver in drivers:
        assert {slot.step for slot in driver._arrivals.known} <= set(range(driver.node.oldest - 1, 80))
        assert driver.node.oldest > 1


def test_too_few_vectors_to_go_on_with_are_echoed_all_the_same(tmp_path, echoed):
    _, homes = found_network(tmp_path, 3, 0)

    async def work():
        drivers = [make(home) for home in homes[:2]]
        runs = [asyncio.create_task(driver.run()) for driver in drivers]
        await until(lambda: all(echoed[Slot(0), member] for member in (0, 1)), "an echo of each")
        for driver in drivers:
            driver.stop()
        await asyncio.gather(*runs)

    uvloop.run(work())


@pytest.mark.parametrize("first", ["bytes", "certificate"])
def test_of_what_is_certified_the_node_is_told_at_once_and_what_is_here_is_not_asked_for(tmp_path, first):
    """However few others came: no echo of it is missed any more."""
    _, homes = found_network(tmp_path, 5, 0)
    driver, keys, asked = make(homes[0]), [Identity.load(home.key) for home in homes], []
    header = driver.node.party.header(1, Slot(0), digest_of(vector := np.zeros(driver.node.party.length, np.float32)))
    signed = SignedHeader(header, keys[1].sign(header.proposal().statement))
    echoes = tuple((member, keys[member].sign(header.echo().statement)) for member in (2, 3, 4))

    async def fetch(header, holders):
        asked.append(header)

    def told(message):
        for effect in driver.node.handle(Received(1, message)):
            driver._perform(effect)

    async def work():
        driver._fetch = fetch
        told(Proposal(signed))
        if first == "bytes":
            driver.vector(1, header.digest, vector)
            assert not driver._inbox, "held back"
        told(Certificate(signed, echoes))
        if first == "certificate":
            assert not driver._inbox
            driver.vector(1, header.digest, vector)
        assert driver._inbox == [Arrived(header.digest)]
        driver.node.handle(*driver._inbox)
        assert driver.node.here(Slot(0)) == {1}
        await asyncio.sleep(0)
        assert asked == ([header] if first == "certificate" else [])

    uvloop.run(work())
    driver._signer.close()


# What may go wrong.


def test_a_gradient_that_is_not_finite_costs_its_update_and_nothing_else(tmp_path):
    _, homes = found_network(tmp_path, 5, 1, steps=8)

    async def work():
        drivers = [make(home) for home in homes]
        healthy = drivers[2]._trainer.step

        def step(t):
            if t in (0, 3):
                raise NonFinite("boom")
            return healthy(t)

        drivers[2]._trainer.step = step
        results = await run_all(*drivers)
        assert [result.steps for result in results] == [8] * 5
        assert [said["step"] for said in drivers[2]._log.of("update discarded")] == [0, 3]
        assert all(driver._log.of("fault") == [] for driver in drivers)

    uvloop.run(work())


def test_vectors_that_are_not_finite_are_charged_to_their_sender_and_never_mixed(tmp_path):
    _, homes = found_network(tmp_path, 5, 1, steps=5)

    async def work():
        drivers = [make(home) for home in homes]
        drivers[4]._trainer.step = lambda t: torch.full((drivers[4].vectors.length,), torch.nan)
        runs = [asyncio.create_task(driver.run()) for driver in drivers]
        await until(lambda: all(driver._result is not None for driver in drivers[:4]), "four results", RUN_S)
        for driver in drivers:
            driver.stop()
        results = await asyncio.gather(*runs)
        for result, driver in zip(results[:4], drivers[:4], strict=True):
            assert result.steps == 5
            assert result.mixed.get("node4", 0) == 0
            assert driver._accusations.faults[4, Fault.MALFORMED] > 0
            assert {peer for peer, _ in driver._accusations.faults} == {4}

    uvloop.run(work())


def test_a_failure_of_ours_ends_the_run_and_is_seen(tmp_path):
    _, (home,) = found_network(tmp_path, 1)

    async def work():
        one = make(home)
        one._trainer.step = lambda t: 1 / 0
        with pytest.raises(ZeroDivisionError):
            await asyncio.wait_for(one.run(), RUN_S)
        assert not home.checkpoint.exists(), "what a failed run holds is not to be gone on from"

    uvloop.run(work())


def test_an_address_in_use_ends_the_run_and_gives_everything_back(tmp_path):
    genesis, homes = found_network(tmp_path, 2, steps=4)

    async def work():
        squatter = await asyncio.start_server(lambda r, w: w.close(), *genesis.members[0].address.split(":"))
        with pytest.raises(LinkError, match="change `listen`"):
            await asyncio.wait_for(make(homes[0]).run(), RUN_S)
        squatter.close()
        await squatter.wait_closed()
        assert not homes[0].admin.exists()
        assert [result.steps for result in await run_all(*(make(home) for home in homes))] == [4, 4]

    uvloop.run(work())


# Stopping and going on.


def test_a_run_that_is_stopped_anywhere_goes_on_to_the_very_same_model(tmp_path):
    """A node alone computes the same model whether it is stopped on the way or not, to the last bit."""
    _, (home,) = found_network(tmp_path / "whole", 1, steps=40, checkpoint_every=7)
    uvloop.run(_run_homes([home]))
    wanted = model(home)

    _, (other,) = found_network(tmp_path / "pieces", 1, steps=40, checkpoint_every=7)

    async def work():
        steps = [0]
        while not other.result.exists():
            driver = make(other)
            assert driver.node.position.step == steps[-1], "it begins where the last one ended"
            stop_at = steps[-1] + 3
            handle = driver.node.handle

            def stopping(event, driver=driver, handle=handle, stop_at=stop_at):
                effects = handle(event)
                if any(isinstance(effect, Adopt) and effect.step == stop_at for effect in effects):
                    driver.stop()
                return effects

            driver.node.handle = stopping
            result = await asyncio.wait_for(driver.run(), RUN_S)
            steps.append(load_checkpoint(other.checkpoint, driver.genesis.network).step)
            assert result is None or steps[-1] == 40, "told to stop at the last step, it may or may not have measured"
        assert steps == sorted(steps)
        assert len(steps) > 10

    uvloop.run(work())
    assert model(other).tobytes() == wanted.tobytes()


def test_a_stop_after_the_last_step_and_before_its_model_is_measured_loses_no_step(tmp_path):
    _, (home,) = found_network(tmp_path, 1, steps=5, checkpoint_every=0)

    async def work():
        driver = make(home)
        handle = driver.node.handle

        def stopping(event):
            effects = handle(event)
            if driver.node.finished:
                driver._finish = lambda: None  # what is cancelled in the worker's queue
                driver.stop()
            return effects

        driver.node.handle = stopping
        assert await asyncio.wait_for(driver.run(), RUN_S) is None
        assert not home.result.exists()
        assert load_checkpoint(home.checkpoint, driver.genesis.network).step >= 4
        assert (await asyncio.wait_for(make(home).run(), RUN_S)).steps == 5

    uvloop.run(work())


def test_a_stop_keeps_the_model_of_the_last_step_though_its_turn_in_the_worker_never_came(tmp_path):
    _, (home,) = found_network(tmp_path, 1, steps=40, checkpoint_every=0)

    async def work():
        driver, cancelled = make(home), threading.Event()
        adopt, shut_down = driver._adopt, driver._worker.shutdown

        def adopting(step, digest):
            if step == 3:
                driver._work(lambda: cancelled.wait(RUN_S))
                driver.stop()
            adopt(step, digest)

        def shutting_down(cancel_futures):
            shut_down(wait=False, cancel_futures=cancel_futures)
            cancelled.set()
            shut_down()

        driver._adopt, driver._worker.shutdown = adopting, shutting_down
        assert await asyncio.wait_for(driver.run(), RUN_S) is None
        assert driver._log.of("node stops") == [{"step": 4}]
        kept = load_checkpoint(home.checkpoint, driver.genesis.network)
        assert kept.step == 4
        assert kept.tensors["model"].tobytes() == driver._agreed[1].tobytes()
        again = make(home)
        assert again.node.position == Slot(4)
        assert again._trainer.vector.numpy().tobytes() == kept.tensors["model"].tobytes()

    uvloop.run(work())


def test_a_stop_while_the_disk_is_waited_for_loses_nothing_that_the_node_has_moved_on_by(tmp_path, monkeypatch):
    class SlowDisk(DurableSigner):
        def forget_before(self, step):
            loop.call_soon_threadsafe(driver.stop)
            time.sleep(0.2)  # who does not wait for the end of the turn shuts down meanwhile
            super().forget_before(step)

    monkeypatch.setattr(driver_module, "DurableSigner", SlowDisk)
    _, (home,) = found_network(tmp_path, 1, steps=40, checkpoint_every=0)

    async def work():
        nonlocal driver, loop
        driver, loop = make(home), asyncio.get_running_loop()
        handle = driver.node.handle

        def moving_on(event):
            effects = handle(event)
            if any(isinstance(effect, Adopt) and effect.step == 3 for effect in effects):
                driver._forget_before = 1
            return effects

        driver.node.handle = moving_on
        assert await asyncio.wait_for(driver.run(), RUN_S) is None
        assert driver._log.of("node stops") == [{"step": 4}]
        assert load_checkpoint(home.checkpoint, driver.genesis.network).step == 4

    driver = loop = None
    uvloop.run(work())


def test_a_stop_ends_the_last_evaluation_which_is_made_when_the_node_runs_again(tmp_path):
    _, (home,) = found_network(tmp_path, 1, steps=3, checkpoint_every=0)

    async def work():
        driver, begun = make(home), threading.Event()
        evaluate = driver._trainer.evaluate

        def evaluating(limit=None, abort=lambda: False):
            begun.set()
            while not abort():
                time.sleep(0.001)
            return evaluate(1)

        driver._trainer.evaluate = evaluating
        run = asyncio.create_task(driver.run())
        await until(begun.is_set, "the evaluation")
        driver.stop()
        assert await asyncio.wait_for(run, RUN_S) is None
        assert not home.result.exists()
        assert load_checkpoint(home.checkpoint, driver.genesis.network).step == 3
        result = await asyncio.wait_for(make(home).run(), RUN_S)
        assert (result.steps, json.loads(home.result.read_text())["accuracy"]) == (3, result.accuracy)

    uvloop.run(work())


def test_a_model_that_is_kept_already_is_not_written_again_at_the_end(tmp_path, monkeypatch):
    """A large one takes seconds."""
    written = []

    def saving(path, network, checkpoint):
        written.append(checkpoint.step)
        save_checkpoint(path, network, checkpoint)

    monkeypatch.setattr(driver_module, "save_checkpoint", saving)
    _, (home, _) = found_network(tmp_path, 2, steps=40)

    async def work():
        for _ in range(2):
            driver = make(home)
            run = asyncio.create_task(driver.run())
            await until(lambda driver=driver: driver.status()["waits_for"] == ["node1"], "the wait for the other")
            driver.stop()
            assert await run is None

    uvloop.run(work())
    assert written == [0]


def test_a_client_that_does_not_end_its_request_does_not_hold_up_a_stop(tmp_path):
    _, (home, _) = found_network(tmp_path, 2, steps=40)

    async def work():
        driver = make(home)
        run = asyncio.create_task(driver.run())
        await until(lambda: home.admin.exists() and home.admin.read_text().endswith("\n"), "the start")
        host, port = home.admin.read_text().strip().split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /status HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n")
        assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
        driver.stop()
        assert await asyncio.wait_for(run, 5) is None
        writer.close()

    uvloop.run(work())


def test_who_is_stopped_and_comes_back_finishes_with_the_others_and_is_accused_by_nobody(tmp_path):
    _, homes = found_network(tmp_path, 5, 1, steps=30)

    async def work():
        others = [make(home) for home in homes[:4]]
        first = make(homes[4])
        runs = [asyncio.create_task(driver.run()) for driver in others]
        stopped = asyncio.create_task(first.run())
        await until(lambda: first.node.position.step >= 5, "a few steps")
        first.stop()
        assert await stopped is None
        second = make(homes[4])
        begun = second.node.position.step
        assert begun == load_checkpoint(homes[4].checkpoint, first.genesis.network).step >= 4
        result = await asyncio.wait_for(second.run(), RUN_S)
        results = await asyncio.wait_for(asyncio.gather(*runs), RUN_S)
        assert [each.steps for each in results] == [30] * 4
        assert second.node.finished
        assert begun < result.steps <= 30
        assert all(driver._log.of("fault") == [] for driver in (*others, first, second))

    uvloop.run(work())


def test_who_comes_back_soon_says_again_what_peers_heard_and_let_go_of_and_holds_up_nothing(tmp_path):
    """Nobody goes on without it, so its vector of today must not wait behind that of yesterday."""
    _, homes = found_network(tmp_path, 3, steps=12)

    async def work():
        others = [make(home) for home in homes[:2]]
        runs = [asyncio.create_task(driver.run()) for driver in others]
        for step in (3, 6, 9):
            driver = make(homes[2])
            run = asyncio.create_task(driver.run())
            await until(lambda step=step: all(other.node.position.step >= step for other in others), "a few steps")
            driver.stop()
            assert await run is None
        results = await run_all(make(homes[2]))
        assert results[0].mixed.keys() == {"node0", "node1", "node2"}
        assert [(await run).steps for run in runs] == [12, 12]

    uvloop.run(work())


@pytest.mark.parametrize("retained", ["in memory", "on disk"])
def test_who_comes_late_while_others_speak_hears_their_vectors_in_order(tmp_path, monkeypatch, retained):
    """A vector of today before those of yesterday would wait on the wire, and they behind it, for ever."""
    if retained == "on disk":
        monkeypatch.setattr(driver_module, "_RETAINED_BYTES", 1)
    from_disk = []

    class WatchedVectors(driver_module.Vectors):
        def _from_disk(self, digest):
            vector = super()._from_disk(digest)
            if digest in self._on_disk:
                assert vector is not None, "the disk has all that is told again"
                from_disk.append(digest)
            return vector

    class SlowDisk(DurableSigner):
        quick = False

        def flush(self):
            time.sleep(0.01)  # links come up meanwhile
            super().flush()

    monkeypatch.setattr(driver_module, "DurableSigner", SlowDisk)
    monkeypatch.setattr(driver_module, "Vectors", WatchedVectors)
    _, homes = found_network(tmp_path, 5, 1, steps=14)

    async def work():
        early = [make(home) for home in homes[:4]]
        runs = [asyncio.create_task(driver.run()) for driver in early]
        await until(lambda: early[0].node.position.step >= 6, "a few steps")
        results = await run_all(make(homes[4]))
        if retained == "in memory":
            assert (results[0].steps, from_disk) == (14, [])
        else:
            assert driver_module.RETAINED_STEPS_MIN <= results[0].steps < 14
            assert len(set(from_disk)) >= driver_module.RETAINED_STEPS_MIN
        assert [(await run).steps for run in runs] == [14] * 4

    uvloop.run(work())


def test_links_that_are_lost_in_the_middle_of_vectors_or_after_them_cost_no_byte_twice(tmp_path, monkeypatch):
    """Nobody goes on without anyone, and every few vectors one of the two ends loses the link."""
    update, begun, bodies, cut = BulkLane._body_updated, Counter(), Counter(), Counter()
    steps, every = 8, 3
    middles = Counter()

    def lossy(lane, nbytes):
        peer, drivers_mesh = lane.receiver.peer, lane.receiver.delegate
        bodies[drivers_mesh] += nbytes
        before = lane._arrival
        update(lane, nbytes)
        begun[drivers_mesh, peer] += before is not None and lane._arrival is None
        done, middle = begun[drivers_mesh, peer], lane._arrival is not None
        if done >= (cut[drivers_mesh, peer] + 1) * every and middle == (cut[drivers_mesh, peer] % 2 == 0):
            cut[drivers_mesh, peer] += 1
            middles[drivers_mesh] += middle
            asyncio.get_running_loop().call_soon(lane.close)

    monkeypatch.setattr(BulkLane, "_body_updated", lossy)
    monkeypatch.setattr(lane_module, "_TURN_BYTES", 4096)
    monkeypatch.setattr(Lookout, "deadline", lambda *_: 60.0)
    _, homes = found_network(tmp_path, 3, steps=steps)

    async def work():
        drivers = [make(home) for home in homes]
        results = await run_all(*drivers)
        assert [result.steps for result in results] == [steps] * 3
        for driver in drivers:
            assert driver._log.of("fault") == []
            vectors = 2 * steps * driver.recipe.slots(steps)
            assert bodies[driver] == vectors * driver.vectors.nbytes
            assert len(driver._mesh.unfinished) == 0
            assert sum(count for (where, _), count in cut.items() if where is driver) > middles[driver] > 0

    uvloop.run(work())


def test_half_a_vector_that_was_wrong_costs_that_vector_once_more_and_nobody_its_name(tmp_path, monkeypatch):
    """A liar sends one peer a wrong beginning and goes; the honest one that sends the rest is not blamed."""
    update, spoilt, wants = BulkLane._body_updated, [], []

    def wrong(lane, nbytes):
        begun = lane._arrival
        if lane.receiver.delegate is victim and lane.receiver.peer == liar.me and not spoilt and begun is not None:
            begun.vector.view(np.uint8)[begun.filled] ^= 1
            spoilt.append(lane._pending[1])
            asyncio.get_running_loop().call_soon(lane.close)
        update(lane, nbytes)

    def keep_back(parcels):
        ship([one for one in parcels if (one.to, one.digest) not in {(victim.me, digest) for digest in spoilt}])

    def overhear(peer, message):
        if isinstance(message, Want) and (peer, message.digest) == (honest.me, spoilt[0]):
            wants.append(message.offset)
        send(peer, message)

    monkeypatch.setattr(BulkLane, "_body_updated", wrong)
    monkeypatch.setattr(lane_module, "_TURN_BYTES", 4096)
    _, homes = found_network(tmp_path, 3, steps=3)
    victim, honest, liar = drivers = [make(home) for home in homes]
    ship, send = liar._ship, victim._mesh.send
    liar._ship, victim._mesh.send = keep_back, overhear

    async def work():
        results = await run_all(*drivers)
        assert [result.steps for result in results] == [3] * 3
        assert results[0].mixed == {"node0": 3, "node1": 3, "node2": 3}

    uvloop.run(work())
    first, *again = wants
    assert (first > 0, again) == (True, [0])
    assert all(driver._log.of("fault") == [] for driver in drivers)


def test_a_finished_node_that_is_started_again_is_done_and_says_nothing_wrong(tmp_path):
    _, homes = found_network(tmp_path, 5, 1, steps=4, linger_s=0.5)
    uvloop.run(_run_homes(homes))
    before = [model(home).tobytes() for home in homes]

    async def work():
        drivers = [make(home) for home in homes]
        results = await run_all(*drivers)
        assert [result.accuracy for result in results] == [
            json.loads(home.result.read_text())["accuracy"] for home in homes
        ]
        assert all(driver._log.of("fault") == [] for driver in drivers)

    uvloop.run(work())
    assert [model(home).tobytes() for home in homes] == before


def test_a_vector_that_was_signed_before_a_crash_is_sent_again_not_computed_again(tmp_path):
    """The gradient would come out otherwise today, and the signer would refuse it for ever."""
    _, (home,) = found_network(tmp_path, 1, steps=1)

    async def work():
        first = make(home)
        first._adopt = lambda step, digest: first.stop()  # it dies with its vector signed and nothing adopted
        await asyncio.wait_for(first.run(), RUN_S)
        signed = first._proposals._outbox.get(Slot(0))
        home.checkpoint.unlink(missing_ok=True)
        second = make(home)
        healthy = second._trainer.step
        second._trainer.step = lambda t: healthy(t) * 1.5
        await asyncio.wait_for(second.run(), RUN_S)
        return signed

    signed = uvloop.run(work())
    assert model(home).tobytes() == signed.tobytes(), "alone, the model is one's own vector"


def test_who_crashes_begins_in_the_last_step_it_spoke_in_and_says_the_same_again(tmp_path):
    """Without a checkpoint, and though all would come out otherwise today."""
    _, homes = found_network(tmp_path, 5, 1, steps=30)
    said = [{}, {}]

    def overhear(driver, heard):
        send, sign = driver._mesh._send_bytes, driver._signer.sign

        def sending(peer, data):
            message = decode(data)
            if isinstance(message, Proposal | Certificate) and message.origin == driver.me:
                heard.setdefault(message.slot, message.signed.header.digest)
                assert heard[message.slot] == message.signed.header.digest
            send(peer, data)

        def signing(claim):
            signature = sign(claim)
            assert signature is not None, "it says nothing that it would have to take back"
            return signature

        driver._mesh._send_bytes, driver._signer.sign = sending, signing

    async def work():
        others = [make(home) for home in homes[:4]]
        first = make(homes[4])
        overhear(first, said[0])
        first._save_checkpoint = lambda: None
        runs = [asyncio.create_task(driver.run()) for driver in others]
        stopped = asyncio.create_task(first.run())
        await until(lambda: first.node.position.step >= 5, "a few steps")
        first.stop()
        assert await stopped is None
        assert not homes[4].checkpoint.exists()
        kept = {slot: digest_of(vector) for slot, vector in first._proposals._outbox.kept().items()}
        second = make(homes[4])
        assert second.node.position == max(kept) >= Slot(4)
        overhear(second, said[1])
        healthy = second._trainer.step
        second._trainer.step = lambda t: healthy(t) * 1.5
        await asyncio.wait_for(asyncio.gather(second.run(), *runs), RUN_S)
        assert {slot: digest for slot, digest in said[1].items() if slot in kept} == kept
        again = said[0].keys() & said[1].keys()
        assert len(again) >= 1
        assert all(said[0][slot] == said[1][slot] for slot in again)
        assert all(driver._log.of("fault") == [] for driver in (*others, first, second))

    uvloop.run(work())


def test_a_node_begins_where_its_own_vectors_end_and_not_where_another_networks_do(tmp_path):
    genesis, (home,) = found_network(tmp_path, 1)
    vector = np.ones(make(home).vectors.length, np.float32)
    Outbox(home.outbox, b"x" * 32).put(Slot(3), vector, digest_of(vector))
    other = make(home)
    assert (other.node.position, other._proposals.said()) == (Slot(0), {})
    Outbox(home.outbox, genesis.network).put(Slot(3), vector, digest_of(vector))
    mine = make(home)
    assert (mine.node.position, mine._proposals.said()) == (Slot(3), {Slot(3): digest_of(vector)})
    assert mine.vectors.get(digest_of(vector)) is not None
    state = {name: tensor.numpy() for name, tensor in mine._trainer.state().items()}
    for checkpoint, first in ((1, 3), (5, 5)):
        save_checkpoint(home.checkpoint, genesis.network, Checkpoint(checkpoint, state))
        assert make(home).node.position == Slot(first)
    home.checkpoint.unlink()
    Outbox(home.outbox, genesis.network).put(Slot(3), vector[1:], digest_of(vector[1:]))
    assert make(home).node.position == Slot(0), "a vector of another length is none of this task"


@pytest.mark.parametrize("writes", ["flush", "forget_before"])
def test_the_journal_is_not_closed_while_it_is_written(tmp_path, monkeypatch, writes):
    """The thread that writes outlives the task that waits for it, and the file's number may soon be another file's."""
    closed, closed_meanwhile = threading.Event(), []

    class SlowDisk(DurableSigner):
        quick = False

        def close(self):
            closed.set()
            super().close()

    def slow(signer, *arguments):
        loop.call_soon_threadsafe(driver.stop)
        closed_meanwhile.append(closed.wait(0.3))
        getattr(DurableSigner, writes)(signer, *arguments)

    setattr(SlowDisk, writes, slow)
    monkeypatch.setattr(driver_module, "DurableSigner", SlowDisk)
    _, (home,) = found_network(tmp_path, 1, steps=10**6, checkpoint_every=2)

    async def work():
        nonlocal driver, loop
        driver, loop = make(home), asyncio.get_running_loop()
        await asyncio.wait_for(driver.run(), RUN_S)

    driver = loop = None
    uvloop.run(work())
    assert closed_meanwhile == [False]


@pytest.mark.parametrize("quick", [True, False])
def test_only_a_quick_disk_is_waited_for_by_the_loop(tmp_path, monkeypatch, quick):
    by_the_loop = set()

    class Disk(DurableSigner):
        def flush(self):
            by_the_loop.add(threading.current_thread() is threading.main_thread())
            super().flush()

    Disk.quick = quick
    monkeypatch.setattr(driver_module, "DurableSigner", Disk)
    _, homes = found_network(tmp_path, 3, steps=3)
    assert [result.steps for result in uvloop.run(run_all(*map(make, homes)))] == [3] * 3
    assert by_the_loop == {quick}


# Exchanges of gradients.


def test_a_network_that_agrees_on_gradients_mixes_as_often_as_the_recipe_says_and_learns(tmp_path):
    _, homes = found_network(tmp_path, 4, 1, steps=6, recipe={"name": "jungle-rb"})

    async def work():
        drivers = [make(home) for home in homes]
        slots = [[] for _ in drivers]
        for driver, mixed in zip(drivers, slots, strict=True):
            driver._mix = lambda gathered, rows, into, mix=driver._mix, mixed=mixed: (
                mixed.append(gathered.slot) or mix(gathered, rows, into)
            )
        results = await run_all(*drivers)
        assert [result.steps for result in results] == [6] * 4
        assert all(result.accuracy > 0.3 for result in results)
        assert all(driver._log.of("fault") == [] for driver in drivers)
        rounds = {0: (2, 2), 1: (2, 2), 2: (3, 2), 3: (3, 2), 4: (4, 2), 5: (4, 2)}
        wanted = [Slot(step, e, k) for step, counts in rounds.items() for e in (0, 1) for k in range(counts[e])]
        assert slots == [wanted] * 4

    uvloop.run(work())
    assert spread(homes) < 0.5


def test_a_gradient_that_is_not_finite_is_proposed_as_none_and_a_direction_that_is_not_costs_the_step(tmp_path):
    _, (home,) = found_network(tmp_path, 1, steps=3, recipe={"name": "jungle-rb"})

    async def work():
        driver = make(home)
        before = driver._trainer.vector.numpy().copy()
        direction, descend, directions = driver._trainer.direction, driver._trainer.descend, []

        def broken_direction(step, at=None):
            if step == 0:
                raise NonFinite("boom")
            return direction(step, at)

        def broken_descend(step, along):
            directions.append(along.clone())
            if step == 1:
                raise NonFinite("boom")
            return descend(step, along)

        driver._trainer.direction, driver._trainer.descend = broken_direction, broken_descend
        models = []
        driver._adopted = lambda steps, vector, adopted=driver._adopted: (
            models.append(vector.copy()) or adopted(steps, vector)
        )
        await run_all(driver)
        assert not directions[0].any()
        assert directions[1].any()
        assert [said["step"] for said in driver._log.of("update discarded")] == [0, 1]
        assert models[0].tobytes() == models[1].tobytes() == before.tobytes()
        assert models[2].tobytes() != before.tobytes()

    uvloop.run(work())


def test_a_liar_that_tells_two_stories_is_caught_with_a_proof_that_holds(tmp_path):
    from p2pnode.byzantine.behaviour import liar
    from p2pnode.identity import KeyRing

    genesis, homes = found_network(tmp_path, 5, 1, steps=10)

    async def work():
        honest = [make(home) for home in homes[:4]]
        lying = make(homes[4], liar(homes[4], ["equivocate"], ["node4"]))
        runs = [asyncio.create_task(driver.run()) for driver in (*honest, lying)]
        results = await asyncio.wait_for(asyncio.gather(*runs[:4]), RUN_S)
        lying.stop()
        await runs[4]
        assert [result.steps for result in results] == [10] * 4
        assert all({peer for peer, _ in driver._accusations.faults} == {4} for driver in honest)
        for driver in honest:
            assert [said["peer"] for said in driver._log.of("banned")] == ["node4"]
            reasons = [said["reason"] for said in driver._log.of("disconnected") if said["peer"] == "node4"]
            assert "banned for 60 s" in reasons

    uvloop.run(work())
    proofs = [file for home in homes[:4] for file in home.evidence.glob("*")]
    assert len(proofs) == 4, "those whom it told one story only hold one too"
    keys = KeyRing([bytes.fromhex(member.public_key) for member in genesis.members])
    for file in proofs:
        assert file.name == "node4.equivocated.evidence"
        evidence = decode_evidence(file.read_bytes())
        assert (evidence.accused, evidence.holds(genesis.network, keys)) == (4, True)


def test_a_proof_outlives_a_restart_and_reaches_who_comes_later_and_a_damaged_one_makes_way(tmp_path):
    genesis, homes = found_network(tmp_path, 5, 1, steps=2)
    proofs = {liar: equivocation(genesis, homes, liar) for liar in (3, 4)}
    homes[0].evidence.mkdir()
    files = {liar: homes[0].evidence / f"node{liar}.equivocated.evidence" for liar in (2, 3, 4)}
    files[4].write_bytes(encode_evidence(proofs[4]))
    files[3].write_bytes(encode_evidence(proofs[3])[:-1])
    files[2].write_bytes(encode_evidence(proofs[4]))

    async def work():
        holder, other = make(homes[0]), make(homes[1])
        assert {said["file"] for said in holder._log.of("evidence discarded")} == {files[2].name, files[3].name}
        runs = [asyncio.create_task(driver.run()) for driver in (holder, other)]
        copy = homes[1].evidence / files[4].name
        await until(copy.exists, "the proof")
        assert decode_evidence(copy.read_bytes()) == proofs[4]
        assert other._log.of("fault") == [{"peer": "node4", "fault": "equivocated"}]
        assert other.status()["banned"] == ["node4"]
        assert not (homes[1].evidence / files[3].name).exists()
        holder._accuse(Accuse(3, Fault.EQUIVOCATED, proofs[3]))
        await until(lambda: files[3].read_bytes() == encode_evidence(proofs[3]), "the new proof")
        for driver in (holder, other):
            driver.stop()
        await asyncio.gather(*runs)

    uvloop.run(work())


def equivocation(genesis, homes, liar):
    """Two headers that a member signed for one slot."""
    sign = Identity.load(homes[liar].key).sign
    headers = [Header(genesis.network, liar, Slot(0), FLOAT32, 10, bytes([value]) * 32) for value in (1, 2)]
    return Equivocation.of(*(SignedHeader(header, sign(header.proposal().statement)) for header in headers))


def test_no_more_of_a_peer_is_taken_than_may_wait_for_the_node_until_it_gets_to_it(tmp_path):
    _, homes = found_network(tmp_path, 3)

    async def work():
        driver, told = make(homes[0]), []
        driver._mesh.pause = lambda peer, paused: told.append((peer, paused))
        for _ in range(driver_module._UNREAD_MAX - 1):
            driver.received(1, Hello(0))
            driver.received(2, Hello(0))
        assert told == []
        driver.received(1, Hello(0))
        assert told == [(1, True)], "a slow disk must not fill the memory"
        conversing = asyncio.create_task(driver._converse())
        await until(lambda: told[1:] == [(1, False), (2, False)], "its turn")
        conversing.cancel()

    asyncio.run(work())


# Bans.


def test_a_member_that_sends_no_messages_is_banned_within_ten_and_remembered_and_stops_nobody(tmp_path):
    genesis, homes = found_network(tmp_path, 5, 1, steps=30)

    async def work():
        honest = [make(home) for home in homes[1:]]
        runs = [asyncio.create_task(driver.run()) for driver in honest]
        liar = Intruder(homes[0], genesis, victim=1)
        await until(lambda: honest[0].node.position.step >= 1, "a running network")
        links = 0
        while await liar.open():
            links += 1
            assert links <= 10
            await liar.say("control", b"\xff" * 64)
            await liar.closed("control")
        assert honest[0]._log.of("banned") == [{"peer": "node0", "seconds": 60.0}]
        assert honest[0].status()["banned"] == ["node0"]
        assert not await liar.open("control")
        assert [result.steps for result in await asyncio.wait_for(asyncio.gather(*runs), RUN_S)] == [30] * 4
        assert all({peer for peer, _ in driver._accusations.faults} <= {0} for driver in honest)

    uvloop.run(work())
    again = make(homes[1])
    assert not again.welcome(0)
    assert all(again.welcome(peer) for peer in (2, 3, 4))
    data = bytearray(homes[1].conduct.read_bytes())
    data[-3] ^= 1
    homes[1].conduct.write_bytes(data)
    anew = make(homes[1])
    assert anew.welcome(0)
    assert anew._log.of("conduct discarded") == [{"reason": "damaged, or of another network"}]


def test_peers_that_leave_in_the_middle_of_a_frame_again_and_again_are_held_nothing_against(tmp_path):
    """As crashing, restarting and badly linked ones do; with every kind of end that a lane can have."""
    genesis, homes = found_network(tmp_path, 5, 1, steps=10, control_backlog_bytes_max=2**20)
    frame, head = b"\x00\x00\x01\x00" + b"half of it", bytes(40)

    async def work():
        driver = make(homes[1])
        running = asyncio.create_task(driver.run())
        peer = Intruder(homes[0], genesis, victim=1)
        await until(lambda: driver._log.of("node starts"), "the node")
        for turn in range(20):
            opened = await peer.open(*[("control",), ("bulk",), ()][turn % 3])
            while not opened:  # while it is not listening yet
                opened = await peer.open()
            for lane in peer.lanes:
                await peer.say(lane, frame[: turn % 14] if lane == "control" else head[: 2 * turn])
            peer.leave()
        assert driver._accusations.conduct.score(0, 0.0) == 0.0
        assert len(driver._accusations.conduct) == 0
        assert driver.welcome(0)
        driver.stop()
        await running

    uvloop.run(work())
    assert not homes[1].conduct.exists()


def test_who_waits_for_its_peers_at_the_end_does_not_wait_for_the_banned(tmp_path):
    _, homes = found_network(tmp_path, 5, 1, steps=3)

    async def work():
        honest = [make(home) for home in homes[1:]]
        runs = [asyncio.create_task(driver.run()) for driver in honest]
        await until(lambda: all(driver._result is not None for driver in honest), "all results", RUN_S)
        assert not any(run.done() for run in runs), "node0 may yet come"
        for driver in honest:
            driver._accuse(Accuse(0, Fault.EQUIVOCATED))
        assert [result.steps for result in await asyncio.wait_for(asyncio.gather(*runs), 5)] == [3] * 4

    uvloop.run(work())


def test_status_tells_whom_a_node_waits_for(tmp_path):
    _, homes = found_network(tmp_path, 3, steps=2)

    async def work():
        one, other = make(homes[0]), make(homes[1])
        runs = [asyncio.create_task(driver.run()) for driver in (one, other)]
        await until(lambda: one.status()["waits_for"] == ["node2"], "the wait for the third")
        told = one.status()
        assert (told["step"], told["phase"], told["connected"]) == (0, "waiting", ["node1"])
        assert (told["accuracy"], told["finished"], told["faults"]) == (None, False, [])
        assert (told["waiting"]["here"], told["waiting"]["needed"]) == (2, 3)
        [missing] = told["waiting"]["missing"]
        assert (missing["peer"], missing["connected"], missing["lacks"]) == ("node2", False, "announcement")
        assert json.loads(json.dumps(told)) == told
        assert one.unready() == "2 of 3 members that are waited for are here"
        results = await run_all(make(homes[2]))
        assert results[0].steps == 2
        assert [(await run).steps for run in runs] == [2, 2]
        assert one.status()["finished"] is True
        assert one.unready() is None
        assert one.status()["mixed"] == {"node0": 2, "node1": 2, "node2": 2}
        links = one.status()["links"]
        assert [link.pop("peer") for link in links] == ["node1", "node2"]
        sent = sum(link["control_sent"] + link["bulk_sent"] for link in links)
        received = sum(link["control_received"] + link["bulk_received"] for link in links)
        assert (sent, received) == (one.status()["bytes_sent"], one.status()["bytes_received"])
        assert all(count > 0 for link in links for count in link.values())

    uvloop.run(work())


# Who is late.


class Clock:
    """What the driver takes for time; it stands until it is moved."""

    time = staticmethod(time.time)

    def __init__(self, monkeypatch):
        self.now = 1000.0
        monkeypatch.setattr(driver_module, "time", self)

    def monotonic(self):
        return self.now


def late(driver):
    return [said["peer"] for said in driver.status()["late"]]


def test_who_is_late_is_named_once_the_deadline_has_passed_and_until_its_vector_is_here(tmp_path, monkeypatch):
    _, homes = found_network(tmp_path, 3, steps=2)
    clock = Clock(monkeypatch)

    async def work():
        one, other = make(homes[0]), make(homes[1])
        runs = [asyncio.create_task(driver.run()) for driver in (one, other)]
        await until(lambda: one.status()["waits_for"] == ["node2"], "the wait for the third")
        clock.now += FIRST_S
        assert late(one) == []
        clock.now += 0.25
        owed = {"peer": "node2", "step": 0, "exchange": 0, "sub_round": 0, "said": None}
        assert one.status()["late"] == [{**owed, "seconds": FIRST_S + 0.25, "deadline": FIRST_S}]
        await until(lambda: one._log.of("late"), "its report")
        results = await run_all(make(homes[2]))
        assert results[0].steps == 2
        assert [(await run).steps for run in runs] == [2, 2]
        told = {"peer": "node2", "step": 0, "exchange": 0, "sub_round": 0, "seconds": 1.25, "deadline": 1.0}
        assert one._log.of("late") == [told], "once"
        assert late(one) == []
        assert len(one._accusations.conduct) == 0, "nobody is charged for being slow"
        assert one.status()["faults"] == []

    uvloop.run(work())


def test_who_is_silent_while_the_others_go_on_without_it_is_late_and_they_are_not(tmp_path, monkeypatch):
    class Mute:
        def __init__(self, *honest):
            pass

        def handle(self, event):
            return []

    _, homes = found_network(tmp_path, 5, 1, steps=10**6)
    clock = Clock(monkeypatch)

    async def work():
        drivers = [make(home, Mute if home is homes[4] else None) for home in homes]
        runs = [asyncio.create_task(driver.run()) for driver in drivers]
        honest = drivers[:4]
        await until(lambda: all(driver.node.position.step >= 3 for driver in honest), "a few steps")
        assert [late(driver) for driver in honest] == [[]] * 4
        clock.now += 10
        await until(lambda: all(late(driver) == ["node4"] for driver in honest), "the silent one")
        clock.now += 10**6
        await until(lambda: all(late(driver) == ["node4"] for driver in honest), "the silent one, a step later")
        for driver in honest:
            driver._accuse(Accuse(4, Fault.EQUIVOCATED))
        assert [late(driver) for driver in honest] == [[]] * 4, "who is banned owes nothing"
        for driver in drivers:
            driver.stop()
        await asyncio.gather(*runs)

    uvloop.run(work())


def test_what_the_late_owe_is_asked_of_others_once_a_slot(tmp_path):
    """A member that sends its vectors to one peer only: over plain links nothing else would bring them to the other."""
    _, homes = found_network(tmp_path, 3, steps=6, recipe={"name": "dsgd"})

    async def work():
        drivers, asked, sought = [make(home) for home in homes], [], Counter()
        stream, send, fetch = drivers[2]._mesh.stream, drivers[0]._mesh.send, drivers[0]._fetch

        def slow(peer, slot, digest, vector, offset):
            if peer != 0 or slot.step < 3:
                stream(peer, slot, digest, vector, offset)

        def sending(peer, message):
            if isinstance(message, Want):
                asked.append((peer, message.slot.step))
            send(peer, message)

        def fetching(header, holders):
            sought[header.origin, header.slot] += 1
            assert len(holders) == 1, "f+1"
            return fetch(header, holders)

        drivers[2]._mesh.stream, drivers[0]._mesh.send, drivers[0]._fetch = slow, sending, fetching
        results = await run_all(*drivers)
        assert results[0].mixed == {"node0": 6, "node1": 6, "node2": 6}
        assert [step for peer, step in asked if peer == 1 and step >= 3] == [3, 4, 5]
        assert set(sought.values()) == {1}
        assert drivers[0]._log.of("fault") == []
        assert len(drivers[0]._accusations.conduct) == 0

    uvloop.run(work())


def test_who_asks_in_vain_waits_longer_each_time_and_asks_nobody_twice(tmp_path, monkeypatch):
    _, homes = found_network(tmp_path, 7)
    driver, slept, asked = make(homes[0]), [], []
    header = driver.node.party.header(1, Slot(0), bytes(32))

    async def sleep(seconds):
        slept.append(seconds)

    async def work():
        driver.vectors.expect(header)
        with monkeypatch.context() as patch:
            patch.setattr(asyncio, "sleep", sleep)
            driver._mesh.send = lambda peer, message: asked.append((peer, message))
            await driver._fetch(header, (2, 3, 4, 5, 6))

    asyncio.run(work())
    assert asked == [(peer, Want(Slot(0), bytes(32))) for peer in (2, 3, 4, 5, 6)]
    assert slept == [FIRST_S * factor for factor in (1, 2, 4, 8, 8)]
    driver._signer.close()


@pytest.mark.parametrize("at_least", [1, 10**6])
def test_certificates_that_come_together_are_checked_beside_the_loop(tmp_path, monkeypatch, at_least):
    _, homes = found_network(tmp_path, 4, steps=3)
    loop, beside = Counter(), Counter()

    class WatchedRing(KeyRing):
        def __call__(self, member, statement, signature, /):
            here = threading.current_thread() is threading.main_thread()
            (loop if here else beside)[statement.partition(b"/v1")[0]] += 1
            return super().__call__(member, statement, signature)

    monkeypatch.setattr(driver_module, "KeyRing", WatchedRing)
    monkeypatch.setattr(checkers, "_AHEAD_MIN", at_least)
    monkeypatch.setattr(checkers, "_CHECKERS", 2)
    drivers = [make(home) for home in homes]
    results = uvloop.run(run_all(*drivers))
    assert [result.steps for result in results] == [3] * 4
    assert [driver._log.of("fault") for driver in drivers] == [[]] * 4
    if at_least > 1:
        assert not beside
        assert loop[b"p2pnode/echo"] >= 4 * 3 * 3, "the origins', and those of certificates"
    else:
        assert beside[b"p2pnode/echo"] > 0
        assert loop[b"p2pnode/echo"] < beside[b"p2pnode/echo"], "but for the origins' and those of slots to come"


def test_no_more_is_taken_for_checked_than_what_holds(tmp_path, monkeypatch):
    """One wrong signature in a certificate, or none, among certificates that came together."""
    _, homes = found_network(tmp_path, 4, steps=3)
    monkeypatch.setattr(checkers, "_AHEAD_MIN", 1)
    monkeypatch.setattr(checkers, "_CHECKERS", 2)
    driver, keys = make(homes[0]), [Identity.load(home.key) for home in homes]

    def certificate(origin, wrong=None):
        header = driver.node.party.header(origin, Slot(0), bytes(32))
        signatures = [keys[origin].sign(header.proposal().statement)]
        signatures += [keys[member].sign(header.echo().statement) for member in range(1, 4)]
        if wrong is not None:
            signatures[wrong] = signatures[wrong][::-1]
        return Certificate(SignedHeader(header, signatures[0]), tuple(enumerate(signatures[1:], start=1)))

    async def ahead(*certificates):
        await driver._checkers.verify_ahead([Received(1, each) for each in certificates], driver.node)
        return [[driver._checkers._keys.known(signed) for signed in each.signed_by()] for each in certificates]

    bad = [certificate(2, wrong) for wrong in range(4)]
    assert uvloop.run(ahead(certificate(1), *bad)) == [[True] * 4] + [[False] * 4] * 4
    driver._signer.close()


def test_a_certificate_of_no_slot_in_play_costs_no_check(tmp_path, monkeypatch):
    _, homes = found_network(tmp_path, 4, steps=3)
    driver = make(homes[0])
    echoes = tuple((member, bytes(64)) for member in range(3))

    def ahead(step, echoes=echoes):
        signed = SignedHeader(driver.node.party.header(1, Slot(step), bytes(32)), bytes(64))
        return checkers._awaits(driver.node, Certificate(signed, echoes))

    assert ahead(0)
    assert ahead(1)
    assert not ahead(2)
    assert not ahead(0, echoes * 2)
    driver._signer.close()


def test_a_result_tells_where_the_time_went(tmp_path):
    _, homes = found_network(tmp_path, 3, steps=8, checkpoint_every=2)

    async def work():
        drivers = [make(home) for home in homes[:2]]
        runs = [asyncio.create_task(driver.run()) for driver in drivers]
        one = drivers[0]
        await until(lambda: one.status()["waits_for"] == ["node2"], "the wait for the third")
        waited = one.status()["phases"]
        await until(lambda: one.status()["phases"]["wire"] > waited["wire"], "waiting is counted")
        await run_all(make(homes[2]))
        for driver, run in zip(drivers, runs, strict=True):
            result = await run
            assert set(result.phases) == {*driver_module.PHASES, "idle", "wire"}
            assert min(result.phases.values()) > 0
            # The clock was read before the phases, and is read again now: they add up to a time in between.
            assert result.seconds <= sum(result.phases.values()) + 1e-6
            assert sum(result.phases.values()) <= driver.status()["seconds"] + 1e-6
        told = json.loads(homes[0].result.read_text())
        assert told["phases"] == (await runs[0]).phases
        assert told["seconds"] <= one.status()["seconds"]

    uvloop.run(work())


def test_a_node_tells_what_it_saw_while_it_runs_and_leaves_it_in_its_home(tmp_path):
    _, homes = found_network(tmp_path, 3, steps=6, evaluate_every=2, observe=1.0)
    norms = {}

    def overhear(driver):
        mix = driver._local.mix

        def mixing(step, exchange, rows, own):
            mixed, kept = mix(step, exchange, rows, own)
            norms[driver.me, step] = [float(np.linalg.norm(row - mixed)) for row in rows]
            return mixed, kept

        driver._local.mix = mixing

    async def work():
        drivers = [make(home) for home in homes]
        for driver in drivers:
            overhear(driver)
        await run_all(*drivers)
        return [driver.history() for driver in drivers]

    for me, (home, told) in enumerate(zip(homes, uvloop.run(work()), strict=True)):
        assert told == json.loads(home.history.read_text())
        assert [step["step"] for step in told["steps"]] == list(range(6))
        assert [one["step"] for one in told["measured"]] == [2, 4, 6]
        assert told["evidence"] == []
        for step in told["steps"]:
            assert step["exchanges"][0]["distance"] == pytest.approx(norms[me, step["step"]], rel=0.15)
            assert step["loss"] > 0
            assert set(step["seconds"]) <= {*driver_module.PHASES, "idle", "wire"}
            assert step["seconds"]["observe"] > 0


def test_a_node_answers_its_owner_by_its_own_name_and_those_in_its_settings(tmp_path):
    _, homes = found_network(tmp_path, 3, steps=3, admin_names=["watched.example.org"])

    async def work():
        admin = make(homes[0])._admin
        await admin.start()
        try:
            async with aiohttp.ClientSession() as session:
                found = []
                for name in ("node0", "watched.example.org", "node1", "evil.example.org"):
                    async with session.get(f"http://{admin.address}/healthz", headers={"Host": name}) as answer:
                        found.append(answer.status)
                return found
        finally:
            await admin.stop()

    assert uvloop.run(work()) == [200, 200, 421, 421]


def test_a_node_that_is_not_to_look_at_vectors_tells_the_rest(tmp_path):
    _, homes = found_network(tmp_path, 3, steps=3, observe=0.0)

    async def work():
        drivers = [make(home) for home in homes]
        for driver in drivers:
            driver._history._look = None  # whoever calls it fails
        await run_all(*drivers)
        return [driver.history() for driver in drivers]

    for told in uvloop.run(work()):
        assert told["time_share"] == 0
        assert [step["step"] for step in told["steps"]] == [0, 1, 2]
        for step in told["steps"]:
            [view] = step["exchanges"]
            assert (view["looked"], set(view["distance"])) == (False, {None})
            assert step["loss"] > 0


# A home that is wrong.


def set_name(home, genesis):
    home.config.write_text(home.config.read_text().replace('"node0"', '"nobody"'))


def other_key(home, genesis):
    home.key.unlink()
    Identity.generate().save(home.key)


def no_key(home, genesis):
    home.key.unlink()


def other_certificate(home, genesis):
    home.certificate.write_text(genesis.members[1].certificate)


def no_certificate(home, genesis):
    home.certificate.unlink()


def no_genesis(home, genesis):
    home.genesis.unlink()


def large_batch(home, genesis):
    home.genesis.write_text(home.genesis.read_text().replace('"local_batch": 16', '"local_batch": 10000'))


def uncovered(home, genesis):
    home.genesis.write_text(home.genesis.read_text().replace('"f": 0', '"f": 1'))


@pytest.mark.parametrize(
    ("spoil", "wanted"),
    [
        (set_name, r"node\.toml: name = 'nobody': no such member in .*; correct the name"),
        (other_key, r"key\.pem: not the key of node0 in .*; copy the right one"),
        (no_key, r"key\.pem: No such file or directory; make one with `p2pnode keygen`"),
        (other_certificate, r"cert\.pem: not the certificate of node0; copy it from"),
        (no_certificate, r"cert\.pem: not the certificate of node0; copy it from"),
        (no_genesis, r"genesis\.json: No such file or directory; make one with `p2pnode init`"),
        (large_batch, r"local_batch: 10000 samples cannot be drawn .*; use a smaller batch"),
        (uncovered, r"f = 1: .*n ≥ 4f\+1.*Remedy: use n ≥ 5 nodes"),
    ],
)
def test_a_wrong_home_is_refused_with_its_remedy(tmp_path, spoil, wanted):
    genesis, (home, _) = found_network(tmp_path, 2)
    spoil(home, genesis)
    before = home.journal.read_bytes()
    with pytest.raises(ConfigError, match=wanted):
        make(home)
    assert home.journal.read_bytes() == before, "nothing is signed for a home that is wrong"


def test_a_damaged_journal_halts_the_node(tmp_path):
    _, (home,) = found_network(tmp_path, 1, steps=2, linger_s=0.1)
    uvloop.run(_run_homes([home]))
    data = bytearray(home.journal.read_bytes())
    data[20] ^= 1
    home.journal.write_bytes(data)
    with pytest.raises(JournalCorrupt, match="must not sign"):
        make(home)


def test_a_journal_that_is_missing_halts_the_node_and_is_not_begun_anew(tmp_path):
    """Of a node that never ran, too: its home had one from the beginning."""
    for name, steps in (("young", 0), ("old", 2)):
        _, (home,) = found_network(tmp_path / name, 1, steps=2, linger_s=0.1)
        if steps:
            uvloop.run(_run_homes([home]))
        home.journal.unlink()
        for _ in range(2):
            with pytest.raises(JournalMissing, match=f"{home.journal}: there is none.*must not sign.*Remedy: give it"):
                make(home)
            assert not home.journal.exists()


# Bytes that come behind others.


class Withholder:
    """Sends its vectors to members 1 and 2 only, and from a step on says nothing."""

    LAST = 8

    def __init__(self, node, *_):
        self._node = node

    def handle(self, event):
        said = []
        for effect in self._node.handle(event):
            if isinstance(effect, Stream):
                said += [Stream(effect.header, peer) for peer in ((1, 2) if effect.to is None else {effect.to} - {0})]
            else:
                said.append(effect)
        if self._node.position.step < self.LAST:
            return said
        return [effect for effect in said if not isinstance(effect, Send | Broadcast | Stream)]


class AtOnceOnDisk(Vectors):
    """Others' vectors of past slots make way when the slot is left, and not only for those that come in."""

    def window(self, *slots):
        super().window(*slots)
        for _ in range(len(self)):
            self._make_way()


@pytest.mark.parametrize("retained", ["64 MiB", "3 steps", "on disk"])
def test_who_must_fetch_a_vector_gets_it_though_others_wait_before_it_on_the_wire(tmp_path, monkeypatch, retained):
    """One liar of four sends its vectors to two members, which go on without the third; then they need it."""
    if retained != "64 MiB":
        monkeypatch.setattr(driver_module, "_RETAINED_BYTES", 1)
    if retained == "on disk":
        monkeypatch.setattr(driver_module, "_SPARE_BYTES", 0)
        monkeypatch.setattr(driver_module, "Vectors", AtOnceOnDisk)
    read = []

    class WatchedSpool(driver_module.Spool):
        def get(self, digest):
            read.append(digest)
            return super().get(digest)

    monkeypatch.setattr(driver_module, "Spool", WatchedSpool)
    _, homes = found_network(tmp_path, 4, 1, steps=12, recipe={"name": "jungle-rb"}, linger_s=0.5)

    async def work():
        honest, liar = [make(home) for home in homes[:3]], make(homes[3], Withholder)
        monkeypatch.setattr(liar._courier, "asked", lambda peer, want: [])
        lying = asyncio.create_task(liar.run())
        results = await run_all(*honest)
        liar.stop()
        await lying
        return results

    assert [result.accuracy > 0.3 for result in uvloop.run(work())] == [True] * 3
    assert (len(read) > 0) == (retained == "on disk")


# A home that is damaged.


def flip(file):
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def test_of_each_damaged_file_it_is_told_once_what_is_done_without_it_and_what_is_lost(tmp_path):
    _, (home,) = found_network(tmp_path, 1, steps=6, checkpoint_every=2, linger_s=0.1)
    uvloop.run(_run_homes([home]))
    assert make(home)._log.of("file unusable") == []
    vectors = sorted(home.outbox.iterdir())
    assert len(vectors) == 5
    for file in (home.checkpoint, *vectors):
        flip(file)
    vectors = vectors[-OUTBOX_STEPS:]
    driver = make(home)
    driver._proposals.said()
    told = {said.pop("file"): said for said in driver._log.of("file unusable")}
    assert len(driver._log.of("file unusable")) == 1 + OUTBOX_STEPS
    assert told.keys() == {str(home.checkpoint), *map(str, vectors)}
    assert told[str(home.checkpoint)] == {
        "reason": "it is damaged: its checksum is another",
        "instead": "go on with the first model, until an exchange brings that of the peers",
        "lost": "what this node learned since; nothing signed",
    }
    assert told[str(vectors[0])] == {
        "reason": "it is damaged: its checksum is another",
        "instead": "compute this vector again, and say nothing in its slot if it comes out otherwise",
        "lost": "one vector of this node; nothing signed",
    }
    assert driver.node.position == Slot(driver._signer.floor) > Slot(0), "before that it may not speak"


def test_a_home_that_crashed_is_not_called_damaged(tmp_path):
    _, (home,) = found_network(tmp_path, 1, steps=4, linger_s=0.1)
    uvloop.run(_run_homes([home]))
    whole = home.journal.read_bytes()
    home.journal.write_bytes(whole + whole[:30])
    for file in (home.checkpoint, *home.outbox.iterdir(), home.journal):
        file.with_name(file.name + ".new").write_bytes(b"half of it")
    driver = make(home)
    assert driver._log.said == []
    assert home.journal.read_bytes() == whole


def test_a_checkpoint_that_may_not_be_read_is_refused_with_a_remedy(tmp_path, monkeypatch):
    _, (home,) = found_network(tmp_path, 1, steps=4, linger_s=0.1)
    home.checkpoint.write_bytes(b"x")
    opens = Path.open

    def forbidden(path, *given, **named):
        if path == home.checkpoint:
            raise PermissionError(errno.EACCES, "Permission denied")
        return opens(path, *given, **named)

    monkeypatch.setattr(Path, "open", forbidden)
    with pytest.raises(ConfigError, match=f"{home.checkpoint}: Permission denied. Remedy: let this user read"):
        make(home)


# A disk that is full.


def fill_disk(monkeypatch, file, after):
    """From the call number `after` on, nothing can be written to files of this name, or flushed."""
    count = [0]
    for name in ("write", "fdatasync"):
        call = getattr(os, name)

        def full(fd, *data, call=call):
            if Path(f"/proc/self/fd/{fd}").readlink().is_relative_to(file):
                count[0] += 1
                if count[0] > after:
                    raise OSError(errno.ENOSPC, "No space left on device")
            return call(fd, *data)

        monkeypatch.setattr(os, name, full)


@pytest.mark.parametrize(("name", "after"), [("journal", 4), ("journal", 5), ("outbox", 2), ("checkpoint", 1)])
def test_a_full_disk_halts_the_node_which_signs_no_more_and_goes_on_when_there_is_room(
    tmp_path, monkeypatch, name, after
):
    _, (home,) = found_network(tmp_path, 1, steps=40, checkpoint_every=2, linger_s=0.1)
    file = getattr(home, name)

    async def work():
        driver = make(home)
        signed, sign = [], driver._signer.sign
        driver._signer.sign = lambda claim: signed.append(claim.step) or sign(claim)
        with monkeypatch.context() as disk:
            fill_disk(disk, file if name != "checkpoint" else file.with_name(file.name + ".new"), after)
            with pytest.raises(DiskError, match=f"^{file}.*: No space left on device. Remedy: make room"):
                await asyncio.wait_for(driver.run(), RUN_S)
        assert signed[-1] < 10, "it did not go on"
        assert driver._log.of("node stops")
        again = make(home)
        assert again._log.said == []
        assert again.node.position.step <= signed[-1] + 1
        assert await asyncio.wait_for(again.run(), RUN_S)

    uvloop.run(work())


def test_a_disk_that_is_full_when_the_node_is_stopped_is_told_and_the_journal_closed(tmp_path, monkeypatch):
    _, (home, _) = found_network(tmp_path, 2, steps=40)

    async def work():
        driver = make(home)
        run = asyncio.create_task(driver.run())
        await until(home.admin.exists, "the start")
        with monkeypatch.context() as disk:
            fill_disk(disk, home.path, 0)
            driver.stop()
            with pytest.raises(DiskError, match=f"{home.path}.*: No space left on device"):
                await run
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(driver._signer._journal._fd)

    uvloop.run(work())
