"""A real JupyterLab and a real Chromium for the tests that look at notebooks and reports as people do.

python tests/helpers/browser.py install     Chromium, by apt-get when root; says what to do otherwise
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
NO_CHROMIUM = "no Chromium: python tests/helpers/browser.py install says what to do"
SHOTS = ROOT / "build" / "screenshots"


def chromium() -> str:
    """The path of an installed Chromium; empty when there is none."""
    return next(filter(None, map(shutil.which, NAMES)), "")


def install() -> str:
    """Install Chromium where that is possible; empty when it is there, else a sentence that says what to do."""
    if chromium():
        return ""
    packages = ["chromium", "fonts-dejavu-core"]
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return f"No Chromium here. On Debian and Ubuntu as root: apt-get install {' '.join(packages)}"
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for argv in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
        done = subprocess.run(
            ["apt-get", "-q", "-o", "DPkg::Lock::Timeout=300", *argv], env=environment, stdin=subprocess.DEVNULL
        )
        if done.returncode:
            return f"apt-get {argv[0]} ended with exit code {done.returncode}."
    return "" if chromium() else "apt-get installed no Chromium."


class Lab:
    """A running JupyterLab over one folder, with settings of its own."""

    def __init__(self, folder: Path, port: int, token: str) -> None:
        self.folder, self.port, self.token = folder, port, token

    def api(self, path: str) -> Any:
        """What its REST interface answers."""
        url = f"http://127.0.0.1:{self.port}/api/{path}?token={self.token}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)

    def page_of(self, notebook: str, workspace: str) -> str:
        """The address of a notebook in a fresh workspace."""
        return f"http://127.0.0.1:{self.port}/lab/workspaces/{workspace}/tree/{notebook}?reset&token={self.token}"

    def kernel(self, notebook: str) -> dict[str, Any]:
        """The kernel of an open notebook; empty before there is one."""
        found = [session["kernel"] for session in self.api("sessions") if session["path"] == notebook]
        return dict(found[0]) if found and found[0] else {}

    def ready(self, notebook: str) -> bool:
        """True when a page is connected to a kernel that is idle: before, Run All is dropped in silence."""
        kernel = self.kernel(notebook)
        return kernel.get("execution_state") == "idle" and kernel.get("connections", 0) > 0


@contextlib.contextmanager
def lab(folder: Path, private: Path) -> Iterator[Lab]:
    """JupyterLab on `folder`; its own settings in `private`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token = secrets.token_hex(12)
    found = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))  # another ipykernel, perhaps
    environment = {**os.environ, "PYTHONPATH": found, "JUPYTER_TOKEN": token}
    environment |= {f"JUPYTER_{kind}_DIR": str(private / kind.lower()) for kind in ("CONFIG", "DATA", "RUNTIME")}
    environment.pop("RUNBOOK_HEADLESS", None)
    argv = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--port={port}"]
    argv += ["--ServerApp.port_retries=0", "--LabApp.news_url="]
    argv += ["--allow-root"] if os.geteuid() == 0 else []
    private.mkdir(parents=True, exist_ok=True)
    with (private / "lab.log").open("wb") as log:
        server = subprocess.Popen(
            [*argv, str(folder)], cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    made = Lab(folder, port, token)
    try:
        for _ in range(1200):
            with contextlib.suppress(OSError):
                made.api("kernels")
                break
            assert server.poll() is None, (private / "lab.log").read_text()
            time.sleep(0.1)
        yield made
    finally:
        for session in made.api("sessions") if server.poll() is None else []:
            request = urllib.request.Request(
                f"http://127.0.0.1:{port}/api/kernels/{session['kernel']['id']}?token={token}", method="DELETE"
            )
            with contextlib.suppress(OSError):
                urllib.request.urlopen(request, timeout=10).close()
        server.terminate()
        server.wait(30)


@contextlib.contextmanager
def page(width: int = 1300, height: int = 1500, flags: Sequence[str] = ()) -> Iterator[Any]:
    """A page of a fresh Chromium, started with `flags` too.

    `page.wrong` lists its errors and `page.asked` what it asked a network for.
    """
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        found = play.chromium.launch(
            executable_path=chromium(), args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", *flags]
        )
        made = found.new_page(viewport={"width": width, "height": height})
        made.wrong, made.asked = [], []
        made.on("pageerror", lambda error: made.wrong.append(str(error)))
        made.on("request", lambda request: made.asked.append(request.url))
        try:
            yield made
        finally:
            found.close()


def run_all(lab: Lab, page: Any, notebook: str, within_s: float = 120.0) -> None:
    """Open a notebook in a workspace of its own and give Run All; returns when it was given."""
    page.goto(lab.page_of(notebook, uuid.uuid4().hex))
    page.wait_for_selector(".jp-Notebook", timeout=within_s * 1000)
    deadline = time.monotonic() + within_s
    while not lab.ready(notebook):
        assert time.monotonic() < deadline, f"the kernel of {notebook} is not idle after {within_s:g} s"
        time.sleep(0.2)
    time.sleep(1.0)
    page.click("text=Run >> nth=0")
    page.click("text=Run All Cells")


if __name__ == "__main__":
    if sys.argv[1:] != ["install"]:
        sys.exit(__doc__)
    sys.exit(install() or 0)
