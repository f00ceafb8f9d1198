"""Debian's Chromium for the tests of the page, and what the page asks the network for."""

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ABSENT = "the page's tests need a browser: `sudo apt-get install chromium`, or Chrome or Chromium by one of its usual names"
FLAGS = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-color-profile=srgb",
]
#: Two turns of the page's clock of frames: what is drawn in the next frame is there.
SETTLED = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"

#: Playwright's own waiting uses `eval`, which the page's policy refuses.
READY = """async () => {
  for (let turn = 0; !window.alexnet?.scene; turn++) {
    if (turn > 2000) throw new Error("no scene: " + document.body.innerText);
    await new Promise(done => setTimeout(done, 10));
  }
}"""


def installed() -> str:
    """Where the browser is; without one the test is skipped, unless CI says that it is there."""
    if CHROMIUM is None:
        assert not os.environ.get("ALEXNET_REQUIRE_BROWSER"), ABSENT
        pytest.skip(ABSENT)
    return CHROMIUM


def launch(playwright: Playwright) -> Browser:
    """The browser, without a window."""
    return playwright.chromium.launch(executable_path=installed(), args=FLAGS, chromium_sandbox=False)


@dataclass
class Tab:
    """One page in the browser.

    Attributes:
        page: Playwright's.
        asked: addresses that it asked for, but the page itself and data that it holds.
        faults: what it wrote to the console as an error, and errors that nothing caught.
    """

    page: Page
    asked: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("console", lambda message: self.faults.append(message.text) if message.type == "error" else None)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))

    def open(self, address: str | Path, place: str = "") -> "Tab":
        """Load a page at a place such as #view=layer, and wait for its scene."""
        if isinstance(address, Path):
            address = address.as_uri()
        self.page.goto(address + place)
        self.page.evaluate(READY)
        self.settle()
        return self

    def settle(self) -> None:
        """Wait until what is to be drawn is drawn."""
        self.page.evaluate(SETTLED)

    def goto(self, **state: Any) -> None:
        """Show a state of the page."""
        self.page.evaluate(f"async state => {{ alexnet.goto(state); await {SETTLED} }}", state)

    def foreign(self) -> list[str]:
        """What was asked of another place than the page's own."""
        own = self.page.url.split("#")[0]
        origin = "/".join(own.split("/")[:3]) + "/" if own.startswith("http") else own
        inside = ("data:", "blob:")
        return [url for url in self.asked if not url.startswith(inside) and not url.split("#")[0].startswith(origin)]

    def close(self) -> None:
        """Close it; nothing was asked of another place, and nothing went wrong."""
        foreign, faults = self.foreign(), self.faults
        self.page.context.close()
        assert foreign == [] and faults == []
