"""A real Chromium for tests of pages: what a page asks for, complains of, and looks like."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--remote-debugging-port=0",
    "about:blank",
)
_A4 = {"paperWidth": 8.27, "paperHeight": 11.69, "printBackground": True}
_EVENTS = ["Page.enable", "Runtime.enable", "Log.enable", "Network.enable"]


@dataclass
class Page:
    """A page that is open.

    Attributes:
        requests: Addresses it asked for, but for ``data:``.
        complaints: Errors and messages on its console.
    """

    _socket: Any
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    _number: int = 0

    async def call(self, method: str, **params: Any) -> Any:
        """One command of the DevTools protocol; events that come first are kept."""
        self._number += 1
        await self._socket.send_json({"id": self._number, "method": method, "params": params})
        while True:
            message = json.loads((await self._socket.receive()).data)
            self._note(message)
            if message.get("id") == self._number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return message["result"]

    async def event(self, name: str) -> None:
        """Wait for an event."""
        while True:
            message = json.loads((await self._socket.receive()).data)
            self._note(message)
            if message.get("method") == name:
                return

    def _note(self, message: dict[str, Any]) -> None:
        method, params = message.get("method"), message.get("params", {})
        if method == "Network.requestWillBeSent":
            address = params["request"]["url"]
            self.requests += [] if address.startswith("data:") else [address]
        elif method in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
            self.complaints.append(json.dumps(params, ensure_ascii=False)[:500])

    async def ask(self, script: str) -> Any:
        """The value of an expression in the page."""
        result = await self.call("Runtime.evaluate", expression=script, returnByValue=True)
        return result["result"].get("value")

    async def look(self, width: int, height: int = 900, *, dark: bool = False) -> None:
        """Show it at a size, in a colour scheme."""
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", media="", features=[scheme])

    async def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """As a PNG."""
        shot = await self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))

    async def pdf(self) -> bytes:
        """Printed on A4."""
        printed = await self.call("Page.printToPDF", preferCSSPageSize=True, **_A4)
        return base64.b64decode(printed["data"])


@asynccontextmanager
async def opened(file: Path) -> AsyncIterator[Page]:
    """Open a page in a Chromium of its own."""
    assert CHROMIUM is not None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        argv: Sequence[str] = (CHROMIUM, f"--user-data-dir={profile}", *_FLAGS)
        environment = os.environ | {"TMPDIR": profile}  # so that nothing is left behind
        process = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True, env=environment)
        try:
            port = await asyncio.to_thread(_port, process)
            async with aiohttp.ClientSession() as session:
                async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                    target = next(one for one in await answer.json() if one["type"] == "page")
                async with session.ws_connect(
                    target["webSocketDebuggerUrl"], max_msg_size=0
                ) as socket:
                    page = Page(socket)
                    for name in _EVENTS:
                        await page.call(name)
                    await page.call("Page.navigate", url=file.absolute().as_uri())
                    await page.event("Page.loadEventFired")
                    yield page
        finally:
            process.terminate()
            process.wait()


def _port(process: subprocess.Popen[str]) -> int:
    assert process.stderr is not None
    for line in process.stderr:
        found = re.search(r"DevTools listening on ws://127\.0\.0\.1:(\d+)/", line)
        if found:
            return int(found[1])
    raise RuntimeError("Chromium ended before it listened")


def pages_of(pdf: bytes) -> int:
    """How many pages a PDF of Chromium has."""
    return len(re.findall(rb"/Type\s*/Page\b(?!s)", pdf))
