"""A headless Chromium that tests drive by its own protocol, through two pipes."""

import base64
import contextlib
import itertools
import json
import os
import subprocess
import tempfile
from pathlib import Path

from tests.browser import find_browser

_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--hide-scrollbars",
    "--remote-debugging-pipe", "--no-proxy-server",
)  # fmt: skip
_LONGEST = 120  # seconds of a browser that hangs


class Page:
    """A page in it, as its server sends it: with its policy, headers and script."""

    def __init__(self, send, receive, axe):
        self._send, self._receive, self._axe = send, receive, axe
        self._numbers, self._session, self._rest = itertools.count(1), None, b""
        self.console = []
        (target,) = [
            each for each in self.ask("Target.getTargets")["targetInfos"] if each["type"] == "page"
        ]
        self._session = self.ask(
            "Target.attachToTarget", targetId=target["targetId"], flatten=True
        )["sessionId"]
        for domain in ("Page", "Runtime", "Log", "DOM"):
            self.ask(f"{domain}.enable")

    def ask(self, method, **parameters):
        """Returns what a method of the protocol returns."""
        number = next(self._numbers)
        request = {"id": number, "method": method, "params": parameters}
        if self._session:
            request["sessionId"] = self._session
        os.write(self._send, json.dumps(request).encode() + b"\0")
        while True:
            message = self._read()
            if message.get("id") == number:
                assert "error" not in message, message["error"]
                return message["result"]
            if message.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown"):
                self.console.append(json.dumps(message["params"]))

    def _read(self):
        while b"\0" not in self._rest:
            chunk = os.read(self._receive, 1 << 16)
            assert chunk, "the browser has ended"
            self._rest += chunk
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def open(self, url, *, width=1200, dark=False):
        """Opens a page, on a screen of so many pixels."""
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=900, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])
        self.ask("Page.navigate", url=url)
        self.wait(f"location.href.startsWith({url!r}) && document.readyState === 'complete'")

    def run(self, code):
        """Returns the value of an expression, a promise's where it is one."""
        done = self.ask("Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def wait(self, condition):
        """Waits until an expression is true."""
        look = f"try {{ if ({condition}) return done(); }} catch {{}} setTimeout(look, 20);"
        self.run(f"new Promise(done => {{ const look = () => {{ {look} }}; look(); }})")

    def choose(self, selector, *paths):
        """Chooses files, as a person does in the dialog of an input."""
        root = self.ask("DOM.getDocument")["root"]["nodeId"]
        node = self.ask("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.ask("DOM.setFileInputFiles", nodeId=node, files=list(map(str, paths)))

    def drop(self, selector, path):
        """Drops a file, as a person does with the mouse."""
        data = base64.b64encode(Path(path).read_bytes()).decode()
        self.run(
            f"""(() => {{
              const bytes = Uint8Array.from(atob({data!r}), char => char.charCodeAt(0));
              const files = new DataTransfer();
              files.items.add(new File([bytes], {json.dumps(Path(path).name)}));
              const event = new DragEvent("drop",
                {{dataTransfer: files, bubbles: true, cancelable: true}});
              document.querySelector({selector!r}).dispatchEvent(event);
            }})()"""
        )

    def inspect(self):
        """Returns what axe-core finds: impact, rule, and the first element of each."""
        self.run(Path(self._axe).read_text() + ";0")
        return self.run(
            "axe.run().then(found => found.violations.map("
            "it => [it.impact, it.id, it.nodes[0].html]))"
        )

    def photograph(self, path):
        """Writes what the page shows as a PNG file."""
        shot = self.ask("Page.captureScreenshot", captureBeyondViewport=True)
        Path(path).write_bytes(base64.b64decode(shot["data"]))


@contextlib.contextmanager
def open_browser():
    """Yields a page of a browser of its own, or skips the test."""
    browser, axe = find_browser()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        their_in, our_out = os.pipe()
        our_in, their_out = os.pipe()
        # Chromium reads requests from descriptor 3 and writes answers to 4.
        script = f'exec 3<&{their_in} 4>&{their_out}; exec "$@"'
        child = subprocess.Popen(
            ["bash", "-c", script, "bash", browser, *_FLAGS, f"--user-data-dir={profile}",
             "about:blank"],
            pass_fds=(their_in, their_out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(their_in)
        os.close(their_out)
        try:
            page = Page(our_out, our_in, axe)
            yield page
            page.ask("Browser.close")
        finally:
            os.close(our_out)
            os.close(our_in)
            child.terminate()
            child.wait(_LONGEST)
