"""The owner's endpoint: what the node does, whether it lives, whether it is ready; and the commands that ask."""

import asyncio
import json
import re
import threading
from pathlib import Path

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


def answered(hosts, address="127.0.0.1:0", names=("node0", "Node.Example.org"), path="/status"):
    """The status of each answer to a request that names this host; None names none."""

    async def one(port, host):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        named = "" if host is None else f"Host: {host.replace('PORT', str(port))}\r\n"
        version = "1.0" if host is None else "1.1"
        writer.write(f"GET {path} HTTP/{version}\r\n{named}Connection: close\r\n\r\n".encode())
        status = (await reader.readline()).split()[1]
        text = (await reader.read()).decode()
        writer.close()
        return int(status), text

    async def work():
        server = AdminServer(address, lambda: {"secret": 1}, lambda: None, lambda since: {"secret": 2}, names)
        await server.start()
        try:
            return [await one(int(server.address.rpartition(":")[2]), host) for host in hosts]
        finally:
            await server.stop()

    return asyncio.run(work())


OWN = ["127.0.0.1:PORT", "localhost:PORT", "LOCALHOST", "localhost.:PORT", "10.1.2.3:PORT", "[::1]:PORT", "[::1]", None]
"""As browsers, tunnels, probes of a cluster by the address of the pod, and `p2pnode status` name it."""

NAMES = ["node0:PORT", "node0", "node.example.org:PORT", "node.example.org."]
"""As Prometheus names the services of a compose file, and a proxy what it was told to."""

FOREIGN = [
    "evil.example:PORT",
    "evil.example",
    "node0.evil.example:PORT",
    "localhost.evil.example",
    "127.0.0.1.evil.example:PORT",
    "127.0.0.1@evil.example",
    "node1:PORT",
    "",
    ":PORT",
    "0x7f.1:PORT",
]


@pytest.mark.parametrize("path", ["/", "/status", "/metrics", "/history", "/healthz", "/readyz", "/page.js", "/none"])
def test_a_page_of_another_host_reads_nothing_whatever_its_name_resolves_to(path):
    for host, (status, text) in zip(FOREIGN, answered(FOREIGN, path=path), strict=True):
        assert status in (400, 421), host
        assert "secret" not in text
    assert "Remedy" in answered(FOREIGN[:1], path=path)[0][1]


def test_the_node_answers_to_its_addresses_and_to_the_names_that_it_is_told():
    assert {status for status, _ in answered([*OWN, *NAMES])} == {200}
    assert {status for status, _ in answered(["localhost:PORT"], "localhost:0", ())} == {200}
    assert {status for status, _ in answered(NAMES, names=())} == {421}


def test_prometheus_asks_the_nodes_of_the_example_by_their_own_names():
    root = Path(__file__).parents[2]
    asked = re.findall(r'"([^":]+):\d+"', (root / "deploy" / "prometheus.yaml").read_text())
    members = re.findall(r"--address (\w+)=", (root / "compose.watch.yaml").read_text())
    assert len(asked) >= 4
    assert set(asked) <= set(members)


def test_two_hosts_in_one_request_are_not_taken_for_the_one_that_is_allowed():
    for status, text in answered(["localhost\r\nHost: evil.example", "evil.example\r\nHost: localhost"]):
        assert status in (400, 421)
        assert "secret" not in text


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
