"""A testnet's page asks the testnet's nodes, and nobody else, for anybody."""

import asyncio
import json

import aiohttp
import pytest

from p2pnode.admin import AdminServer
from p2pnode.home import Home
from p2pnode.netpage import NetPage
from p2pnode.testnet import NodeView

STEPS = {"steps": [{"step": 1}, {"step": 2}], "measured": [{"step": 2}, {"step": 3}]}


def asking(tmp_path, path, *, alive=False, left=None, headers=None):
    """(status, text) of what the page's server answers, of node0 whose history is asked for at /history."""
    home = Home(tmp_path / "node0")
    home.path.mkdir()
    if left is not None:
        home.history.write_text(left)

    async def work():
        node = AdminServer("127.0.0.1:0", dict, lambda: None, lambda since: {"alive since": since})
        await node.start()
        if alive:
            home.admin.write_text(node.address + "\n")
        view = NodeView("node0", home, honest=True)
        async with NetPage([view]) as net, aiohttp.request("GET", net.address + path, headers=headers) as answer:
            found = answer.status, await answer.text()
        await node.stop()
        return found

    return asyncio.run(work())


def test_a_node_is_asked_from_the_step_that_is_wanted(tmp_path):
    assert json.loads(asking(tmp_path, "history?node=node0&since=7", alive=True)[1]) == {"alive since": 7}


def test_of_a_node_that_ended_what_it_left_is_told(tmp_path):
    status, text = asking(tmp_path, "history?node=node0&since=2", left=json.dumps(STEPS))
    assert (status, json.loads(text)) == (200, {"steps": [{"step": 2}], "measured": [{"step": 2}, {"step": 3}]})


@pytest.mark.parametrize("left", [None, "{", '["steps"]'])
def test_of_a_node_that_left_nothing_it_is_said_so(tmp_path, left):
    assert asking(tmp_path, "history?node=node0", left=left)[0] == 503


@pytest.mark.parametrize("name", ["", "node1", "../node0", "127.0.0.1:80/x?"])
def test_who_is_no_node_of_the_testnet_is_not_asked(tmp_path, name):
    assert asking(tmp_path, f"history?node={name}", alive=True)[0] == 404


@pytest.mark.parametrize("path", ["", "status", "history?node=node0"])
def test_a_page_of_another_host_reads_nothing_whatever_its_name_resolves_to(tmp_path, path):
    for host, wanted in [("evil.example", 421), ("localhost", 200)]:
        folder = tmp_path / host
        folder.mkdir()
        assert asking(folder, path, alive=True, headers={"Host": host})[0] == wanted


@pytest.mark.parametrize("since", ["-1", "x", "", "1.5", "²", "9" * 5000])
def test_what_is_no_step_is_refused(tmp_path, since):
    status, text = asking(tmp_path, f"history?node=node0&since={since}", alive=True)
    assert (status, "Remedy" in text) == (400, True)
