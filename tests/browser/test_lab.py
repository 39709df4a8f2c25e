"""Notebook 03 in a real JupyterLab with a live run, and what is left of it offline, seen by a real Chromium."""

import json
import os
import shutil
import signal
import subprocess

import browser
import forking
import pytest
from small_run import DEMO, PROFILE, runbook
from waiting import wait_for

from runbook_lib.hosts import hosts as machines
from runbook_lib.phases import workers
from runbook_lib.run import opening
from worker import process

ROOT = browser.ROOT
MONITOR = "03_monitor.ipynb"
pytestmark = pytest.mark.skipif(not browser.chromium(), reason=browser.NO_CHROMIUM)


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    """A run of the real model whose workers have begun, and a folder with notebook 03 made ready for it."""
    folder = tmp_path_factory.mktemp("lab")
    shutil.copy(DEMO / "corpus.jsonl", folder / "corpus.jsonl")
    shutil.copy(DEMO / "questions.json", folder / "questions.json")
    profile = folder / "small.yaml"
    profile.write_text(PROFILE)
    for name in ("01_preflight", "02_launch"):
        subprocess.run(
            [forking.python(), "-m", "papermill", f"{name}.ipynb", f"{folder}/{name}.ipynb", "-p", "profile", profile],
            cwd=ROOT / "notebooks", env={**os.environ, "RUNBOOK_HEADLESS": "1", "PYTHONPATH": str(ROOT)},
            check=True, capture_output=True, stdin=subprocess.DEVNULL, timeout=300,
        )  # fmt: skip
    (this,) = (opening.open_folder(path) for path in (folder / "runs").iterdir() if (path / "plan.json").exists())
    send(this, signal.SIGSTOP)  # so that there is something left to see when the page is open
    notebook = json.loads((ROOT / "notebooks" / MONITOR).read_text())
    cell = next(c for c in notebook["cells"] if "parameters" in c["metadata"].get("tags", []))
    cell["source"] = f'profile = {str(profile)!r}\nrun = ""\nhosts = ""\n'
    (folder / "notebooks").mkdir()
    (folder / "notebooks" / MONITOR).write_text(json.dumps(notebook))
    yield this, folder
    send(this, signal.SIGCONT)
    workers.stop(this)


def workers_of(this):
    """The processes of the workers, as their supervisors know them."""
    readings = machines.side_by_side(this, lambda host: host.poll()).values()
    found = [slot.process for reading in readings for slot in reading.supervisor.slots.values()]
    return [identity for identity in found if process.alive(identity)]


def send(this, signum):
    for identity in workers_of(this):
        assert process.send(identity, signum)


def grow(page, this, more_than):
    """Let the workers work until the bars show it."""
    send(this, signal.SIGCONT)
    wait_for(lambda: bars(page) > more_than, "the bars grow", 120)
    send(this, signal.SIGSTOP)


def bars(page):
    """How many rows the bars of all slots show together."""
    found = page.locator('.widget-html progress[aria-label$=", rows committed"]')
    return sum(found.evaluate_all("all => all.map(b => b.value)"))


def prompts(page):
    return [text.strip() for text in page.locator(".jp-CodeCell .jp-InputPrompt").all_inner_texts()]


def shot(page, name):
    browser.SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=browser.SHOTS / f"{name}.png")


def test_a_person_watches_writes_a_note_reloads_and_stops_watching(live, tmp_path):
    this, folder = live
    with browser.lab(folder / "notebooks", tmp_path / "jupyter") as lab, browser.page() as page:
        browser.run_all(lab, page, MONITOR)
        page.wait_for_selector(".widget-html progress", timeout=90_000)
        first = bars(page)
        assert first < this.plan().rows
        grow(page, this, first)
        shot(page, "monitor_live")
        assert prompts(page)[-2:] == ["[*]:", "[*]:"], "the cells after the watching wait for it"

        page.get_by_placeholder("a remark for the journal").fill("seen <b>by a person</b>")
        page.get_by_role("button", name="Add note").click()
        wait_for(lambda: list(this.journal.events("note")), "the note is in the journal")

        before = bars(page)
        page.keyboard.press("Control+s")
        wait_for(lambda: "widget-view" in (folder / "notebooks" / MONITOR).read_text(), "the notebook is saved")
        page.reload()
        page.wait_for_selector(".widget-html progress", timeout=90_000)
        assert bars(page) >= before, "what was reached is shown again"
        reached = bars(page)
        grow(page, this, reached)

        page.get_by_role("button", name="Stop watching").click()
        page.wait_for_selector("text=Watching has ended", timeout=5_000)
        shot(page, "monitor_stopped")
        wait_for(lambda: lab.kernel(MONITOR)["execution_state"] == "idle", "the cells after it have run", 60)

        page.click("text=Run >> nth=0")
        page.click("text=Run All Cells")
        page.wait_for_selector("text=Watching has ended", state="detached", timeout=60_000)
        page.wait_for_selector(".widget-html progress", timeout=60_000)
        page.click("text=Kernel >> nth=0")
        page.click("text=Interrupt Kernel")
        page.wait_for_selector("text=Watching stopped. The workers go on", timeout=30_000)
        wait_for(lambda: lab.kernel(MONITOR)["execution_state"] == "idle", "the interrupted cell has ended", 60)
        shot(page, "monitor_interrupted")
        assert not page.wrong
    assert len(list(this.journal.events("watching interrupted"))) == 2
    assert len(workers_of(this)) == 2, "the workers go on"
    send(this, signal.SIGCONT)


def test_the_archive_is_whole_offline(live):
    this, folder = live
    runbook("run", folder / "small.yaml", cwd=folder)
    report, notebook = this.report / "report.html", this.report / MONITOR
    assert report.stat().st_size < 2_000_000
    assert notebook.stat().st_size < 150_000
    assert "widget-view" not in notebook.read_text()
    with browser.page() as page:
        page.context.set_offline(True)
        page.goto(report.as_uri())
        shot(page, "report_first_screen")
        assert page.locator(".verdict b").first.inner_text() == "Succeeded: all checks hold"
        page.locator("details").evaluate_all("all => all.forEach(d => d.open = true)")
        drawn = "all => all.map(i => [i.complete && i.naturalWidth > 0, i.alt.length > 20])"
        images = page.locator("img").evaluate_all(drawn)
        assert len(images) >= 5 and all(all(image) for image in images)
        assert {url.split(":")[0] for url in page.asked} <= {"file", "data"}
        assert not page.wrong
        shot(page, "report_whole")
        assert "seen <b>by a person</b>" in page.locator("#attention").inner_text()


def test_the_report_is_printed_and_the_archive_still_holds(live):
    this, folder = live
    page = this.report / "report.pdf"
    said = runbook("report", this.folder, "--pdf", cwd=folder)  # it finds the notebooks that were executed here, too
    assert said.splitlines()[-1] == str(page) and "executed notebooks now in the report" in said
    assert page.read_bytes().startswith(b"%PDF")
    runbook("verify", this.folder, cwd=folder)
    runbook("report", this.folder, cwd=folder)
    assert not page.exists(), "a PDF of an earlier page does not stay"
    runbook("verify", this.folder, cwd=folder)
