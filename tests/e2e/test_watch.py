"""Real processes, one of which is stopped: who watches any of the others is told whom they wait for."""

import asyncio
import os
import re
import signal
import threading
import time

from p2pnode import testnet
from p2pnode.asking import ask
from p2pnode.errors import P2PNodeError
from p2pnode.netpage import NetPage
from p2pnode.observe.page import ASSETS
from p2pnode.top import EVERY_S, pictures
from tests.browser import chromium, tab

NODES, STEPS, FROZEN = 4, 300, "node3"
BEGUN = 5
"""Steps after which the usual delays are learned."""
PATIENCE_S = 300.0
"""Only a failing test waits so long."""
ROUNDING_S = 0.002

VALUES = {
    "seed": 1,
    "f": 0,
    "recipe": {"name": "trimmed"},
    "training": {"task": "digits", "steps": STEPS, "local_batch": 16, "momentum": 0.9, "lr": 0.5},
}


class Looks:
    """What one source says of one node, look by look, until it names the one that is stopped as late."""

    def __init__(self):
        self.seen = []

    def take(self, told):
        self.seen.append(told)

    @property
    def late(self):
        """The last word, if it names the stopped one."""
        named = [one for one in self.seen[-1]["late"] if one["peer"] == FROZEN] if self.seen else []
        return named[0] if named else None

    def check(self):
        """It was named in the very first look after its deadline had passed, by the node's own clock."""
        late = self.late
        became_late = self.seen[-1]["seconds"] - (late["seconds"] - late["deadline"])
        before = [told["seconds"] for told in self.seen if told["seconds"] < self.seen[-1]["seconds"]]
        assert late["seconds"] >= late["deadline"], "rounded, both"
        assert before[-1] <= became_late + ROUNDING_S


class Freezing(testnet.Testnet):
    """Stops a node in the middle, and looks at the others until they name it; then lets it go on."""

    async def _until_finished(self):
        frozen = next(node for node in self.nodes if node.name == FROZEN)
        await asyncio.to_thread(self._look_on, frozen.home)
        await super()._until_finished()

    def _look_on(self, home):
        others = {node.name: node.home for node in self.nodes if node.home is not home}
        self._wait(lambda: self._step(home) >= BEGUN)  # before that it may be late by itself
        self.statuses, self.rows = ({name: Looks() for name in others} for _ in range(2))
        ended = threading.Event()
        topping = threading.Thread(target=self._top, args=(ended,))
        topping.start()
        try:
            self._wait(lambda: all(looks.seen for looks in self.rows.values()))
            pid = int(home.pid.read_text())
            try:
                self._wait(lambda: self._named(pid, others))
            finally:
                os.kill(pid, signal.SIGCONT)
        finally:
            ended.set()
            topping.join()

    def _named(self, pid, others):
        os.kill(pid, signal.SIGSTOP)  # again and again: others may wake it
        for name, looks in self.statuses.items():
            if looks.late is None:
                looks.take(ask(others[name], "/status"))
        return all(looks.late for looks in [*self.statuses.values(), *self.rows.values()])

    def _top(self, ended):
        for rows in pictures([node.home for node in self.nodes]):
            for row in rows:
                looks = self.rows.get(row["node"])
                if looks is not None and "step" in row and looks.late is None:
                    looks.take(row)
            if ended.is_set():
                return

    def _step(self, home):
        try:
            return ask(home, "/status")["step"]
        except P2PNodeError:
            return -1

    def _wait(self, true):
        deadline = time.monotonic() + PATIENCE_S
        while not true():
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_who_is_stopped_is_named_with_what_it_owes_and_is_forgotten_when_it_goes_on(tmp_path):
    assert EVERY_S <= 0.5, "a look, and its answer, within a second"

    async def work():
        plan = testnet.Plan(tmp_path / "net", VALUES, NODES, 0, (), None, PATIENCE_S, evaluations=0)
        net = Freezing(plan, time.time(), lambda nodes: None)
        return net, await net.run()

    net, summary = asyncio.run(work())
    for looks in [*net.statuses.values(), *net.rows.values()]:
        looks.check()
    for looks in net.statuses.values():
        told = looks.seen[-1]
        assert told["phase"] == "waiting"
        assert (told["waiting"]["needed"], told["waiting"]["here"] < NODES) == (NODES, True)
        missing = {one["peer"]: one for one in told["waiting"]["missing"]}[FROZEN]
        assert missing["late"]
        assert missing["said"]["seconds"] > 0
    assert [(node["steps"], node["exit"]) for node in summary["honest"]] == [(STEPS, 0)] * NODES
    assert summary["evidence"] == []


NOTING = """
window.looks = [];
window.drawn = [];
const ask = window.fetch;
window.fetch = async (path, ...more) => {
  const answer = await ask(path, ...more);
  if (path === "status") window.looks.push(await answer.clone().json());
  return answer;
};
addEventListener("DOMContentLoaded", () => {
  const late = document.querySelector("#late");
  const note = () => window.drawn.push([window.looks.length, late.textContent]);
  new MutationObserver(note).observe(late, { childList: true });
});
"""
"""What the page was told, look by look, and after how many looks it wrote what of who is late."""

SEEN = "[looks, drawn, document.querySelector('#late-said').textContent]"


class Shown(testnet.Testnet):
    """Stops a node in the middle, and looks at a page of another and at the whole net's until both name it."""

    def __init__(self, plan, browser):
        super().__init__(plan, time.time(), lambda nodes: None)
        self._browser = browser
        self.shown = {}

    async def _until_finished(self):
        async with NetPage(self.nodes) as net:
            await asyncio.gather(self._look_on(net.address), super()._until_finished())

    async def _look_on(self, whole):
        frozen = next(node for node in self.nodes if node.name == FROZEN)
        while frozen.step < BEGUN:
            await asyncio.sleep(0.02)
        pid, single = frozen.pid, f"http://{self.nodes[0].home.admin.read_text().strip()}/"
        try:
            for address in (single, whole):
                async with tab(self._browser, address, NOTING) as page:
                    await page.show("light")
                    while not any(f"{FROZEN} is late" in text for _, text in await page.js("window.drawn")):
                        os.kill(pid, signal.SIGSTOP)  # again and again: others may wake it
                        await asyncio.sleep(0.02)
                    self.shown[address] = await page.js(SEEN)
                os.kill(pid, signal.SIGCONT)
        finally:
            os.kill(pid, signal.SIGCONT)


def named(look, whole):
    """Who is late in what a page was told, as those say who are awake."""
    nodes = look["nodes"] if whole else [{"name": look["name"], "silent": 0, "status": look}]
    return {one["peer"] for node in nodes if node["name"] != FROZEN for one in node["status"].get("late", [])}


def test_a_page_names_who_is_stopped_in_its_first_look_after_the_deadline(tmp_path):
    look_ms = int(re.search(r"LOOK_MS = (\d+)", (ASSETS / "page.js").read_text()).group(1))

    async def work(browser):
        plan = testnet.Plan(tmp_path / "net", VALUES, NODES, 0, (), None, PATIENCE_S, evaluations=0)
        net = Shown(plan, browser)
        await net.run()
        return plan, net.shown

    (tmp_path / "chromium").mkdir()
    with chromium(tmp_path / "chromium") as browser:
        plan, shown = asyncio.run(work(browser))
    assert look_ms / 1000 + 2 * plan.poll_s <= 0.9, "two looks in a row, and their answers, within a second"
    assert len(shown) == 2
    for whole, (looks, drawn, aloud) in enumerate(shown.values()):
        first = next(i for i, look in enumerate(looks) if FROZEN in named(look, whole))
        after, text = next((count, text) for count, text in drawn if FROZEN in text)
        assert after == first + 1
        line = next(line for line in re.split("… ", text) if line.startswith(FROZEN))
        assert re.search(r"is late since [\d:]+, for [\d.]+ s.*: it owes slot [\d.]+, expected within [\d.]+ s", line)
        assert re.search(r"Last heard: [a-z ]+( of slot [\d.]+)?, at [\d:]+, [\d.]+ s ago", line)
        assert FROZEN in aloud
