"""A headless Chromium for tests of HTML pages, controlled with the DevTools protocol."""

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
    """An open page.

    Attributes:
        requests: Requested URLs except ``data:`` URLs.
        console: Console messages and errors.
    """

    _socket: Any
    requests: list[str] = field(default_factory=list)
    console: list[str] = field(default_factory=list)
    _number: int = 0

    async def call(self, method: str, **params: Any) -> Any:
        """Send a DevTools command and return its result. Events received meanwhile are recorded."""
        self._number += 1
        await self._socket.send_json({"id": self._number, "method": method, "params": params})
        while True:
            message = json.loads((await self._socket.receive()).data)
            self._record(message)
            if message.get("id") == self._number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return message["result"]

    async def event(self, name: str) -> None:
        """Wait for a DevTools event."""
        while True:
            message = json.loads((await self._socket.receive()).data)
            self._record(message)
            if message.get("method") == name:
                return

    def _record(self, message: dict[str, Any]) -> None:
        method, params = message.get("method"), message.get("params", {})
        if method == "Network.requestWillBeSent":
            address = params["request"]["url"]
            self.requests += [] if address.startswith("data:") else [address]
        elif method in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
            self.console.append(json.dumps(params, ensure_ascii=False)[:500])

    async def evaluate(self, script: str) -> Any:
        """Evaluate a JavaScript expression in the page."""
        result = await self.call("Runtime.evaluate", expression=script, returnByValue=True)
        return result["result"].get("value")

    async def resize(self, width: int, height: int = 900, *, dark: bool = False) -> None:
        """Set the size in pixels and the color scheme."""
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
        """Save a PNG of the visible part, or of the whole page."""
        shot = await self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))

    async def pdf(self) -> bytes:
        """Print the page on A4."""
        printed = await self.call("Page.printToPDF", preferCSSPageSize=True, **_A4)
        return base64.b64decode(printed["data"])


@asynccontextmanager
async def open_page(file: Path) -> AsyncIterator[Page]:
    """Open a page in a new Chromium."""
    assert CHROMIUM is not None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        argv: Sequence[str] = (CHROMIUM, f"--user-data-dir={profile}", *_FLAGS)
        environment = os.environ | {"TMPDIR": profile}  # removed with the profile
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
    raise RuntimeError("Chromium exited before it opened its DevTools port")


def page_count(pdf: bytes) -> int:
    """Number of pages of a PDF made by Chromium."""
    return len(re.findall(rb"/Type\s*/Page\b(?!s)", pdf))
