"""The page in a real browser: it shows what the node says, asks nobody else, and can be read by everyone."""

import asyncio
import json
import re
import time
from contextlib import asynccontextmanager

import numpy as np
import pytest
from aiohttp import web

from p2pnode import netpage
from p2pnode.admin import AdminServer
from p2pnode.driver import PHASES
from p2pnode.home import Home
from p2pnode.netpage import NetPage
from p2pnode.observe import page as page_module
from p2pnode.observe.history import History
from p2pnode.recipe import choose
from p2pnode.testnet import NodeView
from protocols.committee import Committee
from protocols.effects import Gathered
from protocols.header import Slot
from tests.browser import chromium, tab
from tests.loopback import PATIENCE_S, until

NAMES = [f"node{i}" for i in range(7)]
LENGTH = 200


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("chromium")) as address:
        yield address


class Node:
    """What a node says of itself: node5 is silent, node6 lies and was convicted, node4 is banned, node3 is late."""

    def __init__(self, names=NAMES, recipe="trimmed", steps=30, seconds=1.0, every=1):
        self.names = names
        limits = {"time_share": 0.02, "lap": lambda: self.now} if every > 1 else {}
        self.history = History(names, 0, choose(recipe, Committee(len(names), 1)), 1, LENGTH, lambda: 1e9, 1, **limits)
        look = self.history._look

        def looking(*given):
            self.now += 0.02 * (every - 0.5)  # steps take a second: the next that may be looked at is `every` later
            return look(*given)

        self.history._look = looking
        self.random = np.random.default_rng(2)
        self.step = 0
        self.faults = [{"peer": names[6], "fault": "equivocated", "count": 3}]
        self.seconds = seconds
        said = {"what": "echo", "step": 28, "exchange": 0, "sub_round": 0, "seconds": 3.0}
        owed = {"step": 29, "exchange": 0, "sub_round": 0}
        self.late = [{"peer": names[3], **owed, "seconds": 2.5, "deadline": 0.5, "said": said}]
        for _ in range(steps):
            self.go_on()

    def go_on(self):
        self.now = float(self.step)
        peers = [0, 1, 2, 3, 4, 6]
        rows = self.random.standard_normal((6, LENGTH)).astype(np.float32)
        rows[5] -= 3
        values = tuple((peer, bytes(32)) for peer in peers)
        for exchange in range(len(self.history.told()["exchanges"])):
            self.history.mixed(Gathered(Slot(self.step, exchange), values), rows, rows[:5].mean(axis=0), range(6), 0.5)
        spent = {phase: (0.01 + 0.001 * len(phase)) * self.step for phase in (*PHASES, "idle", "wire")}
        self.history.stepped(self.step, spent, lambda slot: ())
        self.step += 1
        self.history.measured(self.step, 1 / self.step, 1 - 1 / (1 + self.step))

    def status(self):
        self.seconds += 1
        return {
            "name": self.names[0],
            "network": "ab" * 32,
            "recipe": "trimmed",
            "step": self.step,
            "steps": 100,
            "phase": "waiting",
            "sub_round": 0,
            "waits_for": [self.names[5]],
            "late": self.late,
            "connected": self.names[1:],
            "accuracy": 0.9012,
            "loss": 0.25,
            "faults": self.faults,
            "banned": [self.names[4]],
            "seconds": self.seconds,
            "finished": False,
        }

    def tell_history(self, since):
        proof = {"accused": self.names[6], "step": 7, "exchange": 0, "sub_round": 0, "digests": ["aa" * 32, "bb" * 32]}
        return {**self.history.told(since), "evidence": [{**proof, "check": "p2pnode verify-evidence FILE"}]}

    def server(self, address="127.0.0.1:0"):
        return AdminServer(address, self.status, lambda: None, self.tell_history)


def looking(browser, work, node=None):
    """Do the work with a tab that shows a node's page, once it has drawn what it was told."""
    node = node or Node()

    async def look():
        server = node.server()
        await server.start()
        try:
            async with tab(browser, f"http://{server.address}/") as page:
                await page.show("light")
                await page.until("document.querySelector('#time .main-svg, #time p') !== null")
                await work(page, server, node)
        finally:
            await server.stop()

    asyncio.run(look())


def table(page, selector):
    """The texts of a table's cells, a list for each row."""
    return page.js(
        f"[...document.querySelector('{selector}').rows].map(row => [...row.cells].map(cell => cell.innerText))"
    )


def test_it_shows_what_the_node_says_and_goes_on_with_it(browser):
    async def work(page, server, node):
        assert await page.text("#title") == "node0"
        assert "30 of 100" in await page.text("#now")
        assert "90.1 %" in await page.text("#now")
        states = {row[0]: row[1] for row in (await table(page, "#peers"))[1:]}
        assert states == {
            "node0": "● this node",
            "node1": "✓ in step",
            "node2": "✓ in step",
            "node3": "… late",
            "node4": "✕ banned",
            "node5": "– silent",
            "node6": "! accused, with proof",
        }
        rows = {row[0]: row for row in (await table(page, "#peers"))[1:]}
        assert [rows[name][2] for name in ("node1", "node5")] == ["100 %", "0 %"]
        assert float(rows["node6"][3].split()[0]) > 2 * float(rows["node1"][3].split()[0])
        assert "late by 2 s" in rows["node3"][5]
        assert "equivocated: it signed two vectors for step 7" in await page.text("#evidence")
        assert "bb" * 32 in await page.text("#evidence")
        for chart in ("loss", "accuracy", "distance", "left", "time"):
            assert await page.js(f"document.querySelectorAll('#{chart} .main-svg').length") > 0, chart
        assert await page.js("document.querySelector('#distance').data[1].z.length") == 7
        time = await page.js("document.querySelector('#time').data.map(one => [one.name, one.marker.color])")
        assert [name for name, _ in time] == [*PHASES, "idle", "wire"], "their places do not change with what they take"
        assert len({colour for _, colour in time}) == len(time)
        node.go_on()
        await page.until("document.querySelector('#now').innerText.includes('31 of 100')")
        await page.until("document.querySelector('#distance').data[1].x.at(-1) === 30")
        assert page.errors == []

    looking(browser, work)


CLOCK = r"\d\d:\d\d:\d\d"


def test_who_is_late_is_said_with_since_when_what_it_owes_and_what_it_said_last(browser):
    async def work(page, server, node):
        words = await page.text("#late")
        told = rf"… node3 is late since {CLOCK}, for 2\.\d s: it owes slot 29\.0\.0, expected within 0\.5 s\. "
        said = rf"Last heard: echo of slot 28\.0\.0, at {CLOCK}, 3\.0 s ago\."
        assert re.fullmatch(told + said, words), words
        assert await page.js("document.title") == "node3 late. node0: step 30 of 100"
        # Read out once, whatever is drawn anew, and though the one comes and goes; and who came besides.
        aloud = await page.js("document.querySelector('#late-said').textContent")
        assert re.fullmatch(rf"node3 is late since {CLOCK}; last heard: echo of slot 28\.0\.0 at {CLOCK}\.", aloud)
        assert await page.js("document.querySelector('#late-said').getAttribute('role')") == "status"
        await page.js(
            "window.aloud = 0; new MutationObserver(() => window.aloud++)"
            ".observe(document.querySelector('#late-said'), {childList: true, characterData: true, subtree: true})"
        )
        was, node.late = node.late, []
        await page.until("document.querySelector('#late').textContent === 'Nobody is late.'")
        node.late = was
        await page.until("document.querySelector('#late').textContent.includes('node3')")
        assert await page.js("window.aloud") == 0
        node.late = [*was, {**was[0], "peer": "node1", "said": None}]
        await page.until("document.querySelectorAll('#late li').length === 2")
        assert "Last heard: nothing yet." in await page.text("#late")
        aloud = await page.js("document.querySelector('#late-said').textContent")
        assert re.fullmatch(rf"node1 is late since {CLOCK}; last heard: nothing yet\.", aloud)
        assert page.errors == []

    looking(browser, work)


@asynccontextmanager
async def answering(views):
    """What a testnet heard of these nodes is always its newest."""

    async def go_on():
        while True:
            for view in views:
                view.heard_at = time.monotonic()
            await asyncio.sleep(0.05)

    task = asyncio.create_task(go_on())
    try:
        yield
    finally:
        task.cancel()


PATIENT = "AbortSignal.timeout = () => new AbortController().signal;"


def test_a_node_that_answers_nothing_holds_up_nothing_of_the_others(browser, tmp_path, monkeypatch):
    """A process that is stopped takes every connection, and answers none: here for ever."""
    monkeypatch.setattr(netpage, "_PATIENCE_S", 1e6)

    async def work():
        views = [NodeView(name, Home(tmp_path / name), honest=True) for name in NAMES[:2]]
        stopped = await asyncio.start_server(lambda reader, writer: asked.set(), "127.0.0.1", 0)
        node, asked = Node(), asyncio.Event()
        node.late = []
        server = node.server()
        await server.start()
        addresses = [server.address, f"127.0.0.1:{stopped.sockets[0].getsockname()[1]}"]
        for view, address in zip(views, addresses, strict=True):
            view.home.path.mkdir()
            view.home.admin.write_text(address)
            view.status = {**node.status(), "name": view.name}
        views[1].heard_at -= 60
        async with answering(views[:1]), NetPage(views) as net, tab(browser, net.address, PATIENT) as page:
            await page.show("light")
            await asyncio.wait_for(asked.wait(), PATIENCE_S)
            await page.until("document.querySelector('#late').textContent === 'Nobody is late.'")
            assert (await table(page, "#nodes"))[2][1].startswith("no answer for ")
            # What it found before it was stopped counts no more.
            views[1].status["late"] = Node().late
            views[0].status = {**node.status(), "late": [{**Node().late[0], "peer": "node1"}]}
            await page.until("document.querySelector('#late').textContent.includes('… node1 is late since')")
            assert (await page.text("#late")).endswith("Seen by node0.")
            assert "node3" not in await page.text("#late")
        stopped.close()
        await server.stop()

    asyncio.run(work())


def test_every_control_does_what_it_says(browser):
    async def work(page, server, node):
        assert await page.js("document.querySelector('#distance').data[1].x.length") == 60
        await page.choose("#span", "0")
        assert await page.js("document.querySelector('#distance').data[1].x.length") == 80
        await page.choose("#exchange", "1")
        assert "model" in await page.text("#distance-note")
        await page.choose("#exchange", "0")
        assert "gradient" in await page.text("#distance-note")
        assert not await page.js("document.querySelector('#distance-table').checkVisibility()")
        await page.click("section[aria-labelledby=distance-heading] summary")
        await page.until("document.querySelector('#distance-table').checkVisibility()")
        cells = await table(page, "#distance-table")
        assert cells[0][-1] == "step 79"
        assert cells[6][-1] == "did not come"
        await page.click("#pause")
        await page.until("document.querySelector('#answer').innerText.includes('Paused')")
        node.go_on()
        await page.js(
            "{ const wait = setTimeout; window.turns = 0;window.setTimeout = (next) => wait(next, 5, window.turns++); }"
        )
        await page.until("window.turns > 1")  # whatever was under way is over
        asked = len(page.requests)
        await page.until("window.turns > 20")
        assert len(page.requests) == asked
        assert "80 of 100" in await page.text("#now")
        await page.click("#pause")
        await page.until("document.querySelector('#now').innerText.includes('81 of 100')")

    looking(browser, work, Node(recipe="jungle-rb", steps=80))


def test_steps_that_were_not_looked_at_are_not_made_up(browser):
    async def work(page, server, node):
        assert await page.js("document.querySelector('#distance').data[1].x") == list(range(0, 30, 3))
        assert "Of these 30 steps 10 were looked at, so that looking takes 2 % of the time" in await page.text(
            "#distance-note"
        )
        rows = {row[0]: row for row in (await table(page, "#peers"))[1:]}
        assert [rows[name][2] for name in ("node1", "node5")] == ["100 %", "0 %"]
        assert float(rows["node6"][3].split()[0]) > 2 * float(rows["node1"][3].split()[0])
        assert rows["node5"][1] == "– silent"

    looking(browser, work, Node(every=3))


LOADING = """
window.loading = (one, from) => new Promise((done, failed) => {
  Object.assign(one, { onload: done, onerror: failed, src: from });
  document.head.append(one);
});
"""


def test_no_request_leaves_the_machine_nor_goes_to_anyone_else_on_it(browser):
    async def work(page, server, node):
        await page.until("document.querySelector('#distance').data[1].x.length > 0")
        own = f"http://{server.address}/"
        assert [address for address in page.requests if not address.startswith((own, "data:", "blob:"))] == []
        await until(lambda: f"{own}history?since=26" in page.requests)  # only what is new, or may yet change

        heard = []

        async def hear(request):
            heard.append(request.path)
            return web.Response(text="", headers={"Access-Control-Allow-Origin": "*"})

        app = web.Application()
        app.router.add_get("/{what}", hear)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        other = f"http://127.0.0.1:{runner.addresses[0][1]}"
        ways = [
            f"fetch('{other}/fetch')",
            f"loading(new Image(), '{other}/image')",
            f"loading(document.createElement('script'), '{other}/script')",
            f"navigator.sendBeacon('{other}/beacon') || Promise.reject()",
            "eval('1')",
        ]
        await page.js(LOADING)
        for way in ways:
            code = f"Promise.resolve().then(() => {way}).then(() => 'went', () => 'refused')"
            assert await page.js(code) == "refused" or "beacon" in way
        assert await page.js(f"fetch('{own}status').then(() => 'went')") == "went"
        await runner.cleanup()
        assert heard == []

    looking(browser, work)


def test_it_says_when_the_node_does_not_answer_any_more_and_when_it_does_again(browser):
    async def work(page, server, node):
        await server.stop()
        await page.until("document.querySelector('#answer').classList.contains('lost')")
        assert "No answer from node0 since" in await page.text("#answer")
        assert "30 of 100" in await page.text("#now")  # its last word stays
        again = Node(steps=12).server(server.address)
        await again.start()
        try:
            await page.until("document.querySelector('#answer').innerText === 'Live.'")
            await page.until("document.querySelector('#now').innerText.includes('12 of 100')")
            # It runs anew: what it saw before is not mixed with what it sees now.
            await page.until("document.querySelector('#distance').data[1].x.length === 12")
        finally:
            await again.stop()

    looking(browser, work, Node(seconds=500))


def test_a_name_is_text_and_never_markup(browser):
    evil = '<img src=x onerror="window.owned=1">'
    link = '<a href="http://example.com/">x</a><b>y</b>'

    async def work(page, server, node):
        assert [row[0] for row in await table(page, "#peers")][2:4] == [evil, link]
        assert evil in await page.text("#evidence")
        for within in ("#peers", "#graph", "#distance", "#left", "#evidence", "#now", "#loss"):
            found = await page.js(f"document.querySelectorAll('{within} :is(img, a, b, script)').length")
            assert found == 0, within
        ticks = await page.js("[...document.querySelectorAll('#distance .ytick text')].map(one => one.textContent)")
        assert link in ticks
        assert await page.js("window.owned") is None
        assert not any("example.com" in address or address.endswith("/x") for address in page.requests)

    looking(browser, work, Node(["me", evil, link, *NAMES[3:6], evil + "6"]))


CONTRAST = """
(() => {
  const part = (text) => text.match(/[0-9.]+/g).map(Number);
  const light = (rgb) => rgb.slice(0, 3).map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (one) => {
    for (; one; one = one.parentElement) {
      const colour = part(getComputedStyle(one).backgroundColor);
      if (colour[3] !== 0) return colour;
    }
  };
  const found = [];
  for (const one of document.querySelectorAll("body *")) {
    const own = [...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || !one.checkVisibility() || one.closest(".skip, noscript, option")) continue;
    const style = getComputedStyle(one);
    const ink = one instanceof SVGElement ? style.fill : style.color;
    const inside = one.closest("#graph .me") && one.classList.contains("sign");
    const within = inside ? part(getComputedStyle(one.previousSibling).fill) : ground(one);
    const [a, b] = [light(part(ink)), light(within)].sort((x, y) => y - x);
    found.push([(a + 0.05) / (b + 0.05), one.textContent.slice(0, 30), one.className.baseVal ?? one.className]);
  }
  return found.sort((x, y) => x[0] - y[0]);
})()
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_from_its_ground(browser, scheme):
    async def work(page, server, node):
        await page.show(scheme)
        await page.until(f"matchMedia('(prefers-color-scheme: {scheme})').matches")
        await page.until("(document.querySelector('#answer').textContent === 'Live.')")
        await page.choose("#span", "60")  # draws anew
        found = await page.js(CONTRAST)
        assert len(found) > 100
        assert found[0][0] >= 4.5, found[:5]

    looking(browser, work)


@pytest.mark.parametrize("width", [1024, 1280, 1920])
def test_all_that_is_said_of_peers_is_seen_on_a_common_screen(browser, width):
    """With a member accused and another one late: a column that must be scrolled to is one that nobody looks at."""

    async def work(page, server, node):
        await page.show("light", width)
        await page.until("document.querySelector('#peers').innerText.includes('accused, with proof')")
        cut = "(table => table.scrollWidth - table.parentElement.clientWidth)(document.querySelector('#peers'))"
        assert await page.js(cut) <= 0

    looking(browser, work)


def test_it_can_be_read_without_eyes_and_used_without_a_mouse(browser):
    async def work(page, server, node):
        assert await page.js("document.documentElement.lang") == "en"
        for landmark in ("header", "nav", "main", "footer"):
            assert await page.js(f"document.querySelectorAll('{landmark}').length") == 1
        heading = "document.getElementById(one.getAttribute('aria-labelledby'))?.textContent"
        words = "one.getAttribute('aria-label') || one.querySelector('title')?.textContent"
        assert await page.js(f"[...document.querySelectorAll('section')].every(one => {heading})")
        assert await page.js(f"[...document.querySelectorAll('[role=img]')].every(one => {words})")
        assert "node5 silent" in await page.js("document.querySelector('#graph title').textContent")
        assert await page.js("[...document.querySelectorAll('th')].every(one => one.scope)")
        assert await page.js("document.querySelector('#answer').getAttribute('role')") == "status"
        assert await page.js("[...document.querySelectorAll('select')].every(one => one.labels[0].textContent.trim())")
        reached = []
        for _ in range(12):
            await page.press("Tab", 9)
            reached.append(
                await page.js(
                    "document.activeElement.id || document.activeElement.className || document.activeElement.localName"
                )
            )
        assert reached[0] == "skip"
        assert {"span", "pause", "summary"} <= set(reached)
        await page.js("document.querySelector('#pause').focus()")
        await page.call(
            "Input.dispatchKeyEvent", type="keyDown", key=" ", code="Space", windowsVirtualKeyCode=32, text=" "
        )
        await page.call("Input.dispatchKeyEvent", type="keyUp", key=" ", code="Space", windowsVirtualKeyCode=32)
        await page.until("document.querySelector('#pause').getAttribute('aria-pressed') === 'true'")
        # On a narrow screen nothing but tables is to be scrolled sideways.
        await page.show("light", width=360)
        await page.until("document.documentElement.scrollWidth <= 360")

    looking(browser, work)


def test_without_plotly_the_tables_say_the_same(browser, monkeypatch):
    async def work(page, server, node):
        assert "the tables say the same" in await page.text("#distance")
        assert (await table(page, "#peers"))[7][0] == "node6"

    monkeypatch.setattr(page_module, "plotly_file", lambda: None)
    looking(browser, work)


def test_a_testnet_s_page_shows_all_nodes_each_as_it_sees_the_others(browser, tmp_path):
    async def work():
        told, views = {name: Node() for name in NAMES[:2]}, []
        servers = []
        for name in NAMES[:3]:
            home = Home(tmp_path / name)
            home.path.mkdir()
            views.append(NodeView(name, home, honest=name != "node2"))
        for name, view in zip(told, views, strict=False):
            node = told[name]
            node.history._me = NAMES.index(name)
            view.status = {**node.status(), "name": name}
            servers.append(node.server())
            await servers[-1].start()
            view.home.admin.write_text(servers[-1].address)
        async with answering(views), NetPage(views) as net, tab(browser, net.address) as page:
            await page.show("light")
            await page.until("document.querySelector('#time .main-svg') !== null")
            assert [row[:2] for row in (await table(page, "#nodes"))[1:]] == [
                ["node0", "waiting"],
                ["node1", "waiting"],
                ["node2 (lies)", "starting"],
            ]
            assert await page.js("[...document.querySelector('#observer').options].map(one => one.value)") == NAMES[:2]
            await page.until("document.querySelector('#accuracy').data.length === 2")
            await page.choose("#observer", "node1")
            await page.until("document.querySelector('#graph .me text:last-child').textContent === 'node1'")
            # It ended, and what it saw is read from its home.
            told["node1"].go_on()
            views[1].home.history.write_text(json.dumps(told["node1"].tell_history(0)))
            views[1].exit = 0
            await servers[1].stop()
            await page.until("document.querySelector('#distance').data[1].x.at(-1) === 30")
            assert (await table(page, "#nodes"))[2][1] == "ended, exit code 0"
            assert page.errors == [], "nobody was asked for a history who has none"
            await servers[0].stop()

    asyncio.run(work())
