"""The owner's endpoint: what the node does, whether it lives, whether it is ready; and the commands that ask."""

import asyncio
import json
import threading

import aiohttp
import pytest
from typer.testing import CliRunner

from p2pnode import cli
from p2pnode.admin import AdminServer
from p2pnode.errors import LinkError
from p2pnode.home import Home
from tests.loopback import PATIENCE_S
from tests.p2pnode.observe.test_metrics import STATUS


def asked(tmp_path, *arguments, unready=None):
    """(exit code, what was told) of `p2pnode status` while a node answers."""

    async def work():
        server = AdminServer("127.0.0.1:0", lambda: {"step": 3}, lambda: unready)
        await server.start()
        Home(tmp_path).admin.write_text(server.address)
        try:
            return await asyncio.to_thread(CliRunner().invoke, cli.app, ["status", str(tmp_path), *arguments])
        finally:
            await server.stop()

    done = asyncio.run(work())
    return done.exit_code, json.loads(done.stdout)


def test_a_node_tells_its_status(tmp_path):
    assert asked(tmp_path, "--json") == (0, {"step": 3})


def test_a_node_that_answers_lives_though_it_is_not_ready(tmp_path):
    assert asked(tmp_path, "--probe", "live", unready="alone") == (0, {"healthy": True})
    assert asked(tmp_path, "--probe", "ready", unready="alone") == (1, {"ready": False, "reason": "alone"})
    assert asked(tmp_path, "--probe", "ready") == (0, {"ready": True, "reason": None})


def test_metrics_are_told_in_the_format_that_is_asked_for_while_the_node_goes_on():
    async def work():
        server = AdminServer("127.0.0.1:0", lambda: STATUS)
        await server.start()
        try:
            address = f"http://{server.address}/metrics"
            async with aiohttp.ClientSession() as session, session.get(address) as answer:
                plain = answer.content_type, await answer.text()
            accept = {"Accept": "application/openmetrics-text"}
            async with aiohttp.ClientSession() as session, session.get(address, headers=accept) as answer:
                return plain, (answer.content_type, await answer.text())
        finally:
            await server.stop()

    (kind, text), (open_kind, open_text) = asyncio.run(work())
    assert (kind, open_kind) == ("text/plain", "application/openmetrics-text")
    assert "p2pnode_step 3.0" in text.splitlines()
    assert open_text.endswith("# EOF\n")


def test_what_a_node_saw_is_told_in_a_thread_of_its_own():
    """It may take long, and the loop has the peers to hear."""

    async def work():
        asking, told = asyncio.Event(), threading.Event()
        loop = asyncio.get_running_loop()

        def history(since):
            loop.call_soon_threadsafe(asking.set)
            assert told.wait(PATIENCE_S)
            return {"since": since}

        server = AdminServer("127.0.0.1:0", dict, history=history)
        await server.start()
        async with aiohttp.ClientSession() as session:
            answer = asyncio.create_task(session.get(f"http://{server.address}/history?since=4"))
            await asking.wait()  # the loop goes on meanwhile
            told.set()
            assert await (await answer).json() == {"since": 4}
        await server.stop()

    asyncio.run(work())


def test_an_address_in_use_is_said_with_the_remedy():
    async def work():
        one = AdminServer("127.0.0.1:0", dict)
        await one.start()
        try:
            with pytest.raises(LinkError, match="change `admin`"):
                await AdminServer(one.address, dict).start()
        finally:
            await one.stop()

    asyncio.run(work())
