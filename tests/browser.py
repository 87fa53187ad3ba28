"""A real browser without a screen, driven over its debugging protocol: chromium, if there is one on this machine."""

import asyncio
import base64
import json
import os
import shutil
import subprocess
import time
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import aiohttp
import pytest

PATIENCE_S = 60.0
"""For what takes a second on an idle machine; only a failing test waits so long."""

FLAGS = (
    "--headless",
    "--no-sandbox",  # it refuses to run as root with one, and sees pages of ours only
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
)


@contextmanager
def chromium(folder: Path):
    """The address of the debugging protocol of a fresh browser; skips the test where there is none."""
    program = next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
    )
    if not program:
        pytest.skip("no browser here. Remedy: apt-get install chromium")
    told = folder / "DevToolsActivePort"
    environment = {**os.environ, "HOME": str(folder)}
    command = [program, *FLAGS, f"--user-data-dir={folder}", "about:blank"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not (told.exists() and len(told.read_text().split()) == 2):
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.skip(f"{program} does not start here, exit code {process.poll()}")
            time.sleep(0.05)
        yield f"http://127.0.0.1:{told.read_text().split()[0]}"
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


class Tab:
    """One tab. `requests` are the addresses that it asked for, `errors` what its console complained of."""

    def __init__(self, socket):
        self._socket = socket
        self._calls = {}
        self.requests = []
        self.errors = []

    async def call(self, method, **parameters):
        number = len(self._calls)
        self._calls[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        return await asyncio.wait_for(self._calls[number], PATIENCE_S)

    async def listen(self):
        async for frame in self._socket:
            told = json.loads(frame.data)
            if "id" in told:
                self._calls[told["id"]].set_result(told.get("result", told))
            elif told["method"] == "Network.requestWillBeSent":
                self.requests.append(told["params"]["request"]["url"])
            elif told["method"] == "Runtime.exceptionThrown":
                self.errors.append(told["params"]["exceptionDetails"])
            elif told["method"] == "Log.entryAdded" and told["params"]["entry"]["level"] == "error":
                self.errors.append(told["params"]["entry"]["text"])

    async def js(self, expression):
        """What the expression comes to, a promise's value included."""
        how = {"awaitPromise": True, "returnByValue": True, "allowUnsafeEvalBlockedByCSP": False}
        told = await self.call("Runtime.evaluate", expression=expression, **how)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    async def until(self, expression):
        """Wait until the expression is true."""
        deadline = time.monotonic() + PATIENCE_S
        while not await self.js(expression):
            assert time.monotonic() < deadline, f"not within {PATIENCE_S:g} s: {expression}"
            await asyncio.sleep(0.05)

    async def text(self, selector):
        return await self.js(f"document.querySelector({json.dumps(selector)}).innerText")

    async def click(self, selector):
        """Click as a user does: on what lies at that place."""
        await self.js(
            f"window.one = document.querySelector({json.dumps(selector)}); one.scrollIntoView({{block: 'center'}})"
        )
        box = await self.js("one.getBoundingClientRect().toJSON()")
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        for kind in ("mousePressed", "mouseReleased"):
            await self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    async def press(self, key, code):
        for kind in ("keyDown", "keyUp"):
            text = {"text": key} if len(key) == 1 and kind == "keyDown" else {}
            await self.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **text)

    async def choose(self, selector, value):
        where = f"document.querySelector({json.dumps(selector)})"
        await self.js(f"{where}.value = {json.dumps(value)}; {where}.dispatchEvent(new Event('change'))")

    async def show(self, scheme, width=1280, height=1000):
        """Be of this size, for someone who prefers this colour scheme."""
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )
        await self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    async def picture(self, path):
        told = await self.call("Page.captureScreenshot", captureBeyondViewport=True)
        Path(path).write_bytes(base64.b64decode(told["data"]))


@asynccontextmanager
async def tab(browser, address, first=""):
    """A tab that has gone to an address, where this script ran before the page's own."""
    async with aiohttp.ClientSession() as session:
        async with session.put(f"{browser}/json/new?about:blank") as answer:
            made = await answer.json()
        async with session.ws_connect(made["webSocketDebuggerUrl"], max_msg_size=0) as socket:
            one = Tab(socket)
            listening = asyncio.create_task(one.listen())
            try:
                for domain in ("Network", "Runtime", "Log", "Page"):
                    await one.call(f"{domain}.enable")
                await one.call("Page.addScriptToEvaluateOnNewDocument", source=first)
                await one.call("Page.navigate", url=address)
                yield one
            finally:
                listening.cancel()
                with suppress(asyncio.CancelledError):
                    await listening
        async with session.get(f"{browser}/json/close/{made['id']}"):
            pass
