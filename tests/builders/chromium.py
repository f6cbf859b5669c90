"""A headless Chromium that a test drives through its DevTools pipe; no other package is needed."""

import base64
import io
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

PROGRAM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
MISSING = "Chromium is not installed (apt-get install chromium)"
#: Since version 144 software rendering of WebGL has to be asked for.
_SOFTWARE_WEBGL = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
_NO_WEBGL = ("--disable-gpu", "--disable-3d-apis")
_SECONDS = 60


class Chromium:
    """A browser with one tab."""

    def __init__(self, webgl=True):
        self._profile = tempfile.mkdtemp()
        read_commands, self._commands = os.pipe()
        self._answers, write_answers = os.pipe()

        def numbered():  # the pipe is on 3 and 4, whatever numbers it has here
            kept = os.dup(write_answers), os.dup(read_commands)
            os.dup2(kept[1], 3)
            os.dup2(kept[0], 4)

        self._process = subprocess.Popen(
            [
                PROGRAM,
                "--headless=new",
                "--no-sandbox",
                "--disable-dev-shm-usage",
                "--no-first-run",
                "--hide-scrollbars",
                "--remote-debugging-pipe",
                f"--user-data-dir={self._profile}",
                *(_SOFTWARE_WEBGL if webgl else _NO_WEBGL),
                "about:blank",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(3, 4),
            preexec_fn=numbered,  # noqa: PLW1509 - dup2 alone
            start_new_session=True,
        )
        os.close(read_commands)
        os.close(write_answers)
        self._buffer, self._number, self._session = b"", 0, None
        self.complaints, self.requests = [], []
        target = next(
            t for t in self._call("Target.getTargets")["targetInfos"] if t["type"] == "page"
        )
        attached = self._call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self._call(f"{domain}.enable")

    def open(self, path, width=1280, height=900, dark=False):
        """Load a file and wait until it is there; what it complains about is collected."""
        self._call("Page.navigate", url="about:blank")  # what is open would see the new size
        scheme = "dark" if dark else "light"
        self._call(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": scheme}],
        )
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        self.complaints, self.requests = [], []
        self._call("Page.navigate", url=Path(path).resolve().as_uri())
        self.wait("document.readyState === 'complete'")

    def evaluate(self, expression):
        """Return the value of an expression of JavaScript, a promise's when it is kept."""
        answer = self._call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"])
        return answer["result"].get("value")

    def wait(self, expression, seconds=_SECONDS):
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while not self.evaluate(expression):
            assert time.monotonic() < end, f"never true: {expression}; {self.complaints}"
            time.sleep(0.05)

    def press(self, key):
        """Press a key: Tab, Enter, ArrowUp ..."""
        codes = {"Tab": 9, "Enter": 13, "PageUp": 33, "PageDown": 34, "ArrowUp": 38, " ": 32}
        values = {"key": key, "code": key, "windowsVirtualKeyCode": codes[key]}
        if key == "Enter":
            values["text"] = "\r"
        self._call("Input.dispatchKeyEvent", type="keyDown", **values)
        self._call("Input.dispatchKeyEvent", type="keyUp", **values)

    def screenshot(self, whole=False):
        """Return a PNG of the view, or of the whole page."""
        clip = {}
        if whole:
            size = "({x: 0, y: 0, width: innerWidth, height: document.body.scrollHeight, scale: 1})"
            clip = {"clip": self.evaluate(size), "captureBeyondViewport": True}
        return base64.b64decode(self._call("Page.captureScreenshot", **clip)["data"])

    def pixels(self, selector):
        """Return what an element shows, (height, width, 3)."""
        place = f"document.querySelector({json.dumps(selector)})"
        self.evaluate(f"{place}.scrollIntoView({{block: 'center', behavior: 'instant'}})")
        box = self.evaluate(
            f"(() => {{ const b = {place}.getBoundingClientRect();"
            "return [b.left, b.top, b.right, b.bottom].map(Math.round); })()"
        )
        shot = Image.open(io.BytesIO(self.screenshot())).convert("RGB")
        return np.asarray(shot.crop(box)).astype(int)

    def pdf(self):
        """Return the printed page."""
        return base64.b64decode(self._call("Page.printToPDF", printBackground=False)["data"])

    def close(self):
        """End the browser."""
        os.killpg(self._process.pid, signal.SIGKILL)  # it has children
        self._process.wait()
        os.close(self._commands)
        os.close(self._answers)
        shutil.rmtree(self._profile, ignore_errors=True)

    def _call(self, method, **values):
        self._number += 1
        message = {"id": self._number, "method": method, "params": values}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            self._note(answer)

    def _next(self):
        while b"\0" not in self._buffer:
            assert select.select([self._answers], [], [], _SECONDS)[0], "Chromium does not answer"
            read = os.read(self._answers, 1 << 20)
            assert read, "Chromium ended"
            self._buffer += read
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def _note(self, event):
        method, values = event.get("method"), event.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.complaints.append(values["exceptionDetails"])
        if method == "Runtime.consoleAPICalled" and values["type"] in (
            "error",
            "warning",
            "assert",
        ):
            self.complaints.append([argument.get("value") for argument in values["args"]])
        if method == "Log.entryAdded" and values["entry"]["level"] in ("error", "warning"):
            self.complaints.append(values["entry"]["text"])
        if method == "Network.requestWillBeSent":
            url = values["request"]["url"]
            if not url.startswith(("file:", "data:", "blob:", "about:")):
                self.requests.append(url)
