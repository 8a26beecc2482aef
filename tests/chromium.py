"""Chromium without a window, driven over a pipe.

``--remote-debugging-pipe`` speaks the DevTools protocol as JSON with a zero byte behind it, so that no
driver and no web socket is needed, and no port is open.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import http.server
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from efquantface import assets
from efquantface.formats.web import RUNTIMES

CHROMIUM = next(
    (p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), None
)
_PATIENCE = 60  # seconds until a browser that does not answer fails a test
_QUICK = ("--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=0")
_FLAGS = (
    "--headless=new",
    "--no-sandbox",  # containers have none
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--remote-debugging-pipe",
)


def npm_packages() -> Path:
    """A ``node_modules`` with both runtimes, installed once into the cache of default parts.

    Raises:
        RuntimeError: npm is missing, or cannot install them.
    """
    folder, problem = _installed()
    if problem:
        raise RuntimeError(problem)
    return folder / "node_modules"


@functools.cache
def _installed() -> tuple[Path, str]:
    """The folder, and why there is nothing in it."""
    wanted = {k: v for runtime in RUNTIMES.values() for k, v in runtime.packages.items()}
    folder = assets.cache_dir() / ("npm-" + "-".join(wanted.values()))
    if folder.is_dir():
        return folder, ""
    npm = shutil.which("npm")
    if npm is None:
        return folder, "npm is not installed"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".npm-") as made:
        place = Path(made, "npm")
        place.mkdir()
        (place / "package.json").write_text(json.dumps({"dependencies": wanted}))
        command = [npm, "install", *_QUICK]
        try:
            done = subprocess.run(
                command, cwd=place, capture_output=True, text=True, timeout=120, check=False
            )
        except subprocess.TimeoutExpired:
            return folder, "npm does not come to an end"
        if done.returncode:
            return folder, f"npm cannot install the runtimes: {done.stderr[-300:]}"
        with contextlib.suppress(OSError):  # another process was faster
            place.rename(folder)
    return folder, ""


@contextlib.contextmanager
def served(folder: Path, *, isolated: bool = False) -> Iterator[str]:
    """The address of a folder on a server of this process; ``isolated`` pages may have threads."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def end_headers(self) -> None:
            if isolated:
                self.send_header("Cross-Origin-Opener-Policy", "same-origin")
                self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
            super().end_headers()

    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


class Page:
    """One page of a browser."""

    def __init__(self, browser: Browser, session: str) -> None:
        self.browser, self.session = browser, session
        self.context = ""
        self.requests: list[str] = []
        self.problems: list[str] = []
        for domain in ("Page", "Runtime", "Network", "Log", "DOM", "Accessibility"):
            self.send(f"{domain}.enable")

    def close(self) -> None:
        """Close it with all that it keeps."""
        del self.browser.pages[self.session]
        self.browser.send("Target.disposeBrowserContext", browserContextId=self.context)

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """What the page answers."""
        return self.browser.send(method, self.session, **params)

    def hear(self, event: dict[str, Any]) -> None:
        """Take down an event."""
        method, params = event["method"], event.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.problems.append(json.dumps(params["exceptionDetails"])[:500])
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.problems.append(params["entry"]["text"])

    def go(self, address: str) -> None:
        """Load an address, and wait for its model."""
        self.send("Page.navigate", url=address)
        self.until("document.querySelectorAll('.picture').length === 2")

    def js(self, code: str) -> Any:
        """The value of an expression, awaited."""
        answer = self.send(
            "Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in answer:
            raise AssertionError(json.dumps(answer["exceptionDetails"])[:1000])
        return answer["result"].get("value")

    def until(self, code: str) -> Any:
        """The value of an expression once it is something."""
        end = time.monotonic() + _PATIENCE
        while not (value := self.js(code)):
            if time.monotonic() > end:
                text = self.js("document.body.innerText")
                raise AssertionError(f"never: {code}; {self.problems}; {text}")
            time.sleep(0.05)
        return value

    def choose(self, selector: str, index: int, file: Path) -> None:
        """Put a file into the form's ``index``-th field of a kind."""
        code = f"document.querySelectorAll({selector!r})[{index}]"
        found = self.send("Runtime.evaluate", expression=code)["result"]["objectId"]
        self.send("DOM.setFileInputFiles", files=[str(file)], objectId=found)

    def key(self, name: str, code: int, text: str = "", *, shift: bool = False) -> None:
        """Press and release a key."""
        keys = {"key": name, "code": name, "windowsVirtualKeyCode": code}
        keys["modifiers"] = 8 if shift else 0
        down = {"type": "keyDown", "text": text} if text else {"type": "rawKeyDown"}
        self.send("Input.dispatchKeyEvent", **keys, **down)
        self.send("Input.dispatchKeyEvent", type="keyUp", **keys)

    def mouse(self, x: float, y: float, to: tuple[float, float] | None = None) -> None:
        """Click at a place, or drag from there."""
        button = {"button": "left", "clickCount": 1}
        self.send("Input.dispatchMouseEvent", type="mousePressed", x=x, y=y, **button)
        if to is not None:
            x, y = to
            self.send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y, button="left")
        self.send("Input.dispatchMouseEvent", type="mouseReleased", x=x, y=y, **button)

    def tree(self) -> list[dict[str, str]]:
        """Role, name and text value of what a screen reader is told."""
        nodes = self.send("Accessibility.getFullAXTree")["nodes"]
        wanted = ("role", "name", "value")
        return [
            {key: str(node.get(key, {}).get("value", "")) for key in wanted}
            for node in nodes
            if not node["ignored"]
        ]

    def looks(self, width: int, *, dark: bool = False) -> None:
        """Set the window's width and the scheme of colours."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1}
        self.send("Emulation.setDeviceMetricsOverride", **size, mobile=width < 600)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])


class Browser:
    """A Chromium and its pipe; :meth:`close` ends it."""

    def __init__(self) -> None:
        if CHROMIUM is None:
            raise RuntimeError("Chromium is not installed")
        self.profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        words = [CHROMIUM, *_FLAGS, f"--user-data-dir={self.profile.name}", "about:blank"]
        nothing = os.open(os.devnull, os.O_RDWR)
        # the browser reads from 3 and writes to 4; through higher numbers, so that none is covered
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in (theirs_in, theirs_out)]
        actions = [(os.POSIX_SPAWN_DUP2, nothing, k) for k in (0, 1, 2)]
        actions += [(os.POSIX_SPAWN_DUP2, fd, 3 + k) for k, fd in enumerate(high)]
        self.pid = os.posix_spawn(
            CHROMIUM, words, dict(os.environ), file_actions=actions, setpgroup=0
        )
        for fd in (theirs_in, theirs_out, nothing, *high):
            os.close(fd)
        self._rest = b""
        self._count = 0
        self.pages: dict[str, Page] = {}

    def send(self, method: str, session: str = "", **params: Any) -> dict[str, Any]:
        """What the browser answers; events that come first go to their pages."""
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._count:
                if "error" in answer:
                    raise AssertionError(f"{method}: {answer['error']}")
                return dict(answer["result"])
            page = self.pages.get(answer.get("sessionId", ""))
            if page is not None and "method" in answer:
                page.hear(answer)

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._in], [], [], _PATIENCE)
            data = os.read(self._in, 1 << 16) if ready else b""
            if not data:
                raise RuntimeError("Chromium does not answer" if not ready else "Chromium ended")
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\0")
        return dict(json.loads(line))

    def page(self) -> Page:
        """A new page that shares nothing with others."""
        context = self.send("Target.createBrowserContext")["browserContextId"]
        target = self.send("Target.createTarget", url="about:blank", browserContextId=context)
        session = self.send("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        name = session["sessionId"]
        self.pages[name] = page = Page(self, name)
        page.context = context
        return page

    def close(self) -> None:
        """End the browser."""
        with contextlib.suppress(OSError):
            os.killpg(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        for fd in (self._in, self._out):
            os.close(fd)
        self.profile.cleanup()
