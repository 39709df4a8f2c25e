"""Sixteen slots, and many more, in a real JupyterLab, seen by a real Chromium: made-up states, no host."""

import json

import browser
import pytest
from local_run import new_run, planned
from waiting import wait_for

pytestmark = pytest.mark.skipif(not browser.chromium(), reason=browser.NO_CHROMIUM)

CELL = """
import asyncio, sys
from pathlib import Path
from dataclasses import replace
sys.path[:0] = {paths!r}
from runbook_lib.run import opening
from runbook_lib.show.console import Console
from runbook_lib.show.live import Live
from states import slot, state
console = Console(opening.open_folder(Path({folder!r})))
view = Live(display=console, every_s=0.0)
for look in range(1000):
    slots = [slot(i, committed=1000 + look, state="stuck" if i == {bad} else "running") for i in range({slots})]
    view.show(replace(state({slots}), slots=tuple(slots), elapsed_s=float(look)))
    await asyncio.sleep(0.3)
"""


def notebook(source):
    cell = {"cell_type": "code", "id": "a", "metadata": {}, "source": source, "outputs": [], "execution_count": None}
    spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return json.dumps({"cells": [cell], "metadata": {"kernelspec": spec}, "nbformat": 4, "nbformat_minor": 5})


def looks(page):
    """What the bar of a slot shows: it grows with every look."""
    return page.locator('.widget-html progress[aria-label$=", rows committed"]').first.evaluate("bar => bar.value")


def test_many_slots_fit_the_screen_and_stay_where_they_were_scrolled_to(tmp_path):
    (tmp_path / "notebooks").mkdir()
    for slots in (16, 64):
        this = new_run(tmp_path / str(slots), count=slots * 3, slots=slots // 2)
        planned(this, cores=64)
        paths = [str(browser.ROOT), *(str(browser.ROOT / "tests" / name) for name in ("helpers",))]
        source = CELL.format(paths=paths, folder=str(this.folder), slots=slots, bad=slots - 1)
        (tmp_path / "notebooks" / f"n{slots}.ipynb").write_text(notebook(source))
    with browser.lab(tmp_path / "notebooks", tmp_path / "jupyter") as lab, browser.page(height=900) as page:
        browser.run_all(lab, page, "n16.ipynb")
        page.wait_for_selector(".widget-html progress", timeout=90_000)
        whole = page.locator(".widget-html").first.bounding_box()
        assert whole["height"] < 800, "sixteen slots are seen at once"
        browser.SHOTS.mkdir(parents=True, exist_ok=True)
        page.locator(".widget-html").first.screenshot(path=browser.SHOTS / "slots_16.png")

        browser.run_all(lab, page, "n64.ipynb")
        page.wait_for_selector(".widget-html progress", timeout=90_000)
        panel = page.locator(".widget-html").first
        assert panel.bounding_box()["height"] < 900 < panel.evaluate("box => box.scrollHeight")
        first = page.locator(".widget-html table").nth(1).locator("tbody th").first.inner_text()
        assert first == "cluster7_gpu7", "the worst slot of the worst host comes first"
        browser.SHOTS.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=browser.SHOTS / "slots_64.png")
        panel.evaluate("box => { box.scrollTop = 700 }")
        before = looks(page)
        wait_for(lambda: looks(page) > before + 2, "it is refreshed", 60)
        assert panel.evaluate("box => box.scrollTop") == 700, "a look moves nothing under the reader's eyes"
        assert page.get_by_role("button", name="Stop watching").is_visible()
        assert not page.wrong
