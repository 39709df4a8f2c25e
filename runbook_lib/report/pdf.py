"""The report as PDF, printed by an installed Chromium: nothing is downloaded."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from ..errors import RunbookError

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
APPLICATION = "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"
PRINT_S = 120.0


def write(page: Path) -> Path:
    """Print `page` to a PDF beside it. Raises RunbookError if there is no Chromium, or it prints nothing."""
    program = next(filter(None, map(shutil.which, (*NAMES, APPLICATION))), None)
    if program is None:
        raise RunbookError("no PDF: it is printed by Chromium or Chrome, and there is none here; install one")
    target = page.with_suffix(".pdf")
    with tempfile.TemporaryDirectory() as private:
        argv = [program, "--headless", "--disable-gpu", "--no-pdf-header-footer", f"--user-data-dir={private}"]
        argv += ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium refuses to run as root with it
        printed = Path(private) / "printed.pdf"
        argv += [f"--print-to-pdf={printed}", page.resolve().as_uri()]
        try:
            done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=PRINT_S, check=False)
        except subprocess.TimeoutExpired:
            raise RunbookError(f"no PDF: {program} did not end within {PRINT_S:g} s; try again") from None
        if not printed.exists() or not printed.read_bytes().startswith(b"%PDF"):
            last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
            raise RunbookError(f"no PDF: {program} ended with {done.returncode} and printed nothing: {''.join(last)}")
        shutil.copyfile(printed, target)
    return target
