"""A real browser for the tests of pages: headless Chromium through its own driver, which speaks the W3C's WebDriver protocol, JSON over HTTP.

Debian's packages `chromium` and `chromium-driver` are installed where they are missing and this process may install them (root, apt, a network);
else the tests are skipped, and say why.
"""
from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

_PACKAGES = ("chromium", "chromium-driver")
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # WebDriver's name for a reference to an element
_ARGUMENTS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--force-color-profile=srgb",
    "--disable-background-networking", "--no-first-run",
)


class Browser:
    """One window of headless Chromium."""

    def __init__(self, driver: str, binary: str) -> None:
        self._process = subprocess.Popen([driver, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self._process.stdout is not None
        port = next(line.rsplit(" ", 1)[1].strip(". \n") for line in self._process.stdout if "started successfully on port" in line)
        self._address = f"http://127.0.0.1:{port}/session"
        options = {"binary": binary, "args": list(_ARGUMENTS)}
        wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"}}
        self._address += "/" + self._call("POST", "", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]

    def close(self) -> None:
        """End the browser and its driver."""
        with contextlib.suppress(OSError):
            self._call("DELETE", "", None)
        self._process.terminate()
        self._process.wait(10)

    def open(self, page: Path, fragment: str = "") -> None:
        """Load a file anew."""
        self._call("POST", "/url", {"url": "about:blank"})  # else a new fragment alone would only move within a page that is loaded already
        self._call("POST", "/url", {"url": page.as_uri() + fragment})

    def run(self, script: str, *arguments: Any) -> Any:
        """The value of a script's `return`; a promise is waited for."""
        return self._call("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def protocol(self, command: str, **parameters: Any) -> Any:
        """A command of Chromium's DevTools protocol."""
        return self._call("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def view(self, width: int, height: int, *, dark: bool = False, touch: bool = False, scale: float = 1) -> None:
        """Size of the viewport in CSS pixels, colour scheme, and whether it is touched."""
        self.protocol("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=touch)
        self.protocol("Emulation.setTouchEmulationEnabled", enabled=touch)
        self.protocol("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])

    def click(self, selector: str) -> None:
        """Click the middle of the first element that the CSS selector finds."""
        self.run("document.querySelector(arguments[0]).scrollIntoView({block: 'center', behavior: 'instant'})", selector)
        found = self._call("POST", "/element", {"using": "css selector", "value": selector})[_ELEMENT]
        self._call("POST", f"/element/{found}/click", {})

    def point(self, selector: str, x: float, y: float, *, kind: str = "mouse", to: tuple[float, float] | None = None) -> None:
        """Press at a share (x, y) of an element's width and height, with "mouse" or "touch", and release there or, by way of the middle, at `to`."""
        area = self.run(
            "const e = document.querySelector(arguments[0]); e.scrollIntoView({block: 'center', behavior: 'instant'});"
            "const r = e.getBoundingClientRect(); return [r.left, r.top, r.width, r.height]", selector,
        )
        places = [(x, y)] if to is None else [(x, y), ((x + to[0]) / 2, (y + to[1]) / 2), to]
        moves = [{"type": "pointerMove", "duration": 30, "x": round(area[0] + a * area[2]), "y": round(area[1] + b * area[3])} for a, b in places]
        actions = [moves[0], {"type": "pointerDown", "button": 0}, *moves[1:], {"type": "pointerUp", "button": 0}]
        self._act({"type": "pointer", "id": kind, "parameters": {"pointerType": kind}, "actions": actions})

    def press(self, *keys: str) -> None:
        """Press and release keys one after another: characters, or names of `KEYS`."""
        codes = [KEYS.get(key, key) for key in keys]
        self._act({"type": "key", "id": "keys", "actions": [{"type": kind, "value": code} for code in codes for kind in ("keyDown", "keyUp")]})

    def logged(self, kind: str) -> list[dict[str, Any]]:
        """What came since the last question: of "browser" the console's messages, of "performance" the DevTools events."""
        entries: list[dict[str, Any]] = self._call("POST", "/se/log", {"type": kind})
        return entries

    def requests(self) -> list[str]:
        """The addresses asked for since the last question, those inside the page (data:, blob:, about:) left out."""
        events = [json.loads(entry["message"])["message"] for entry in self.logged("performance")]
        asked = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
        return [address for address in asked if not address.startswith(("data:", "blob:", "about:"))]

    def screenshot(self, path: Path, *, whole: bool = False) -> Path:
        """The viewport, or the whole page, as PNG."""
        taken = self.protocol("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(taken["data"]))
        return path

    def _act(self, actions: dict[str, Any]) -> None:
        self._call("POST", "/actions", {"actions": [actions]})

    def _call(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._address + path, content, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{method} {path}: {json.load(error)['value']['message']}") from None


KEYS = {
    "Left": "\ue012", "Up": "\ue013", "Right": "\ue014", "Down": "\ue015", "Tab": "\ue004", "Enter": "\ue007", "Escape": "\ue00c",
}


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """The browser, one for all tests."""
    driver, binary = _installed()
    browser = Browser(driver, binary)
    yield browser
    browser.close()


def _installed() -> tuple[str, str]:
    """The paths of driver and browser, installed first where that is possible; skips the test where it is not."""
    if (found := _found()) is not None:
        return found
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        pytest.skip(f"no Chromium here, and {' and '.join(_PACKAGES)} can be installed by root through apt only")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update", "-qq"], ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *_PACKAGES]):
        try:
            subprocess.run(command, capture_output=True, text=True, env=environment, timeout=140, check=True)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            pytest.skip(f"no Chromium here, and it can't be installed: {error} {error.stderr or ''}")
    found = _found()
    assert found is not None, "Debian's packages were installed, but neither chromium nor chromedriver is there"
    return found


def _found() -> tuple[str, str] | None:
    driver = shutil.which("chromedriver")
    binary = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
    return (driver, binary) if driver and binary else None
