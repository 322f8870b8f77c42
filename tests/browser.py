"""Pages in a real browser: a headless Chromium, and axe-core in the page."""

import html
import importlib.util
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--hide-scrollbars",
    "--allow-file-access-from-files", "--enable-logging=stderr", "--virtual-time-budget=60000",
)  # fmt: skip
_WIDTHS = {"desktop": 1200, "phone": 375}
_POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
_ASK = """
addEventListener("load", () => axe.run().then(found => parent.postMessage({
  name: window.name,
  violations: found.violations.map(it => [it.impact, it.id, it.nodes[0].html]),
  passes: found.passes.length,
  resources: performance.getEntriesByType("resource").map(it => it.name),
  background: getComputedStyle(document.body).backgroundColor,
  wider_by: document.documentElement.scrollWidth - innerWidth,
}, "*")));
"""
_COLLECT = """
const seen = {};
addEventListener("message", event => {
  seen[event.data.name] = event.data;
  document.getElementById("seen").textContent = JSON.stringify(seen);
});
"""


def find_browser():
    """Returns Chromium and the script of axe-core, or skips the test; in CI it fails instead."""
    browser = next(filter(None, map(shutil.which, _NAMES)), None)
    spec = importlib.util.find_spec("axe_core_python")
    script = Path(spec.origin).with_name("axe.min.js") if spec else None
    if browser and script:
        return browser, os.environ.get("TL_TOOLKIT_AXE", script)
    reason = f"no {'axe-core-python' if browser else 'Chromium'} for tests of pages"
    if os.environ.get("TL_TOOLKIT_REQUIRE_BROWSER"):
        pytest.fail(reason)
    pytest.skip(reason)


def inspect_page(page, folder, *, dark=False):
    """Opens a page as on a desktop and on a phone, in one browser.

    Returns what axe-core and the browser say of each, and what the browser says of the page as it
    is, with its content security policy.
    """
    browser, script = find_browser()
    asked = _POLICY.sub("", page.read_text()).replace(
        "</body>", f"<script>{Path(script).read_text()}</script><script>{_ASK}</script></body>"
    )
    (folder / "asked.html").write_text(asked)
    frames = "".join(
        f'<iframe name="{name}" src="asked.html" width="{width}" height="900"></iframe>'
        for name, width in _WIDTHS.items()
    )
    frames += f'<iframe name="plain" src="{page.as_uri()}" width="900" height="900"></iframe>'
    (folder / "frames.html").write_text(f'<pre id="seen"></pre><script>{_COLLECT}</script>{frames}')
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    profile = f"--user-data-dir={folder / 'profile'}"
    done = subprocess.run(
        [browser, *_FLAGS, scheme, profile, "--dump-dom", (folder / "frames.html").as_uri()],
        capture_output=True, text=True, check=True, timeout=600,  # one that hangs
    )  # fmt: skip
    shutil.rmtree(folder / "profile", ignore_errors=True)
    seen = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, re.S)
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return json.loads(html.unescape(seen[1])), console
