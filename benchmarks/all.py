"""Every benchmark that something is promised of, in turn; RESULTS.md says of each row whether it passes.

    python benchmarks/all.py --corpus FILE --questions FILE --peers FOLDER      all, one to two hours on two cores
    python benchmarks/all.py --only minilm-2 int8 ...                           only these
    python benchmarks/all.py --page                                             RESULTS.md and pictures made anew

What is measured is kept at once in results.json, and not measured again by the same command (`--again` does so); what
was measured with another corpus, other rounds or other peers is. RESULTS.md and the pictures are made from results.json
alone. Without `--corpus` (any that a profile may name) texts are made up; `--questions` is a list of {"question": ...,
"passage_index": the row that answers it, if known}. Peers that need libraries of their own: `peers.py make FOLDER`.
Leave the machine alone meanwhile; what others took is told in each row. Exit code 0: no row falls short (but for 8
bits, which then stay out of the product) and nothing failed; a peer that is missing is told and is no failure.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import encoding
import measuring
import page
import peers
import pictures
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rows import SHORT, Measurement, rows_of
from ways import versions
from work import CORES, MEASURED, Encoding, Int8, Script

HERE = Path(__file__).resolve().parent
What = Encoding | Int8 | Script


def parsed(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [what.name for what in MEASURED]
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=f"of {', '.join(names)}")
    parser.add_argument("--corpus", type=Path, help="real passages")
    parser.add_argument("--questions", type=Path, help="real questions")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="the smallest sizes, one round: a trial; see --out")
    parser.add_argument("--again", action="store_true", help="measure also what is in results.json")
    parser.add_argument("--page", action="store_true", help="measure nothing; make RESULTS.md from results.json")
    parser.add_argument("--out", type=Path, help="a folder (default: this one; for --quick build/benchmarks)")
    parser.add_argument("--peers", type=Path, help="the folder of peers.py")
    for name in peers.INSTALLED:
        parser.add_argument(f"--{name}-python", type=Path, help=f"a Python that has {name}")
    told = parser.parse_args(argv)
    told.out = told.out or (HERE.parent / "build" / "benchmarks" if told.quick else HERE)
    return told


def given_by(told: argparse.Namespace) -> encoding.Given:
    """What a measurement needs of the command line."""
    pythons = {name: peers.find(name, told.peers, getattr(told, f"{name}_python")) for name in peers.INSTALLED}
    return encoding.Given(told.corpus, told.questions, 1 if told.quick else told.rounds, told.quick, pythons)


def command_of(told: argparse.Namespace) -> str:
    """The command as it is written down: names of files, not where they lie."""
    words = ["python benchmarks/all.py", "--quick" if told.quick else f"--rounds {told.rounds}"]
    words += [f"--{key} {path.name}" for key in ("corpus", "questions", "peers") if (path := getattr(told, key))]
    return " ".join(words)


def texts_by(given: encoding.Given) -> str:
    """Which texts, by name and sum."""
    if given.corpus is None:
        return "made up"
    words = f"{given.corpus.name}, sha256 {hashlib.sha256(given.corpus.read_bytes()).hexdigest()[:16]}"
    return words + (f"; questions of {given.questions.name}" if given.questions else "")


# -------------------------------------------------------------------------------------------------------- measuring


def settings_of(what: What, given: encoding.Given, texts: str) -> dict[str, Any]:
    """What must be the same for a measurement to be kept."""
    settings: dict[str, Any] = {"quick": given.quick}
    if isinstance(what, Script):
        settings |= {"rounds": given.rounds} if what.rounds else {}
        return settings | ({"texts": texts} if what.corpus else {})
    there, _ = encoding.pythons(encoding.ways_of(what), given)
    return settings | {"rounds": encoding.rounds_of(what, given), "texts": texts, "ways": [*there]}


def script_figures(what: Script, given: encoding.Given) -> dict[str, Any]:
    """The figures that a benchmark keeps itself, or how it ended and its last lines. Raises RuntimeError."""
    name, *options = what.quick if given.quick else what.argv
    options += [what.rounds, str(given.rounds)] if what.rounds else []
    options += ["--corpus", str(given.corpus)] if what.corpus and given.corpus and not given.quick else []
    with tempfile.TemporaryDirectory() as scratch:
        kept = Path(scratch) / "figures.json"
        options += ["--json", str(kept)] if what.json else []
        argv = [sys.executable, str(HERE / name), *options]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        if what.json and done.returncode == 0:
            figures: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
            return figures
    lines = [line.rstrip() for line in done.stdout.splitlines() if line.strip()]
    if what.json or not lines:
        last = (done.stderr + done.stdout).strip().splitlines()[-1:]
        raise RuntimeError(f"{name} ended with exit code {done.returncode}: {''.join(last)[:300]}")
    return {"code": done.returncode, "lines": lines[-24:]}


def measure(what: What, given: encoding.Given, tell: measuring.Tell) -> dict[str, Any]:
    """Figures and load of one measurement; an error in their place where it failed."""
    if not given.quick:
        tell("waiting for a quiet machine")
        measuring.settle()
    own = CORES if isinstance(what, Script) else what.threads
    load, began = measuring.Load(own, detached=isinstance(what, Script)), time.monotonic()
    found: dict[str, Any] = {}
    try:
        if isinstance(what, Script):
            tell("running")
            found["figures"] = script_figures(what, given)
        else:
            found["figures"] = encoding.measure(what, given, tell)
    except Exception as error:  # one that fails must not cost the others
        found["error"] = f"it failed: {type(error).__name__}: {error}"
    return {**found, "load": load.end(), "took_s": round(time.monotonic() - began)}


# ---------------------------------------------------------------------------------------------------------- keeping


def load(out: Path) -> dict[str, Measurement]:
    """What is in results.json, by name."""
    file = out / "results.json"
    found: dict[str, Measurement] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return found


def store(out: Path, results: dict[str, Measurement]) -> None:
    """Write results.json, then the page and the pictures that follow from it."""
    out.mkdir(parents=True, exist_ok=True)
    order = {what.name: results[what.name] for what in MEASURED if what.name in results}
    temporary = out / "results.json.part"
    temporary.write_text(json.dumps(order, indent=1) + "\n", encoding="utf-8")
    temporary.replace(out / "results.json")
    for what in MEASURED:
        measured = results.get(what.name, {})
        if "figures" in measured and (bars := pictures.bars_of(what, measured["figures"])):
            pictures.draw(what.title, bars, out / "pictures" / f"{what.name}.svg")
    (out / "RESULTS.md").write_text(page.page(results, out), encoding="utf-8")


def run(told: argparse.Namespace) -> int:
    """Measure what is missing, write after each, give the exit code."""
    given, results = given_by(told), load(told.out)
    chosen = [what for what in MEASURED if not told.only or what.name in told.only]
    texts = texts_by(given)
    about = {"date": time.strftime("%Y-%m-%d"), "machine": measuring.machine(), "versions": versions()}
    about |= {"texts": texts, "commit": measuring.git_commit(), "command": command_of(told)}
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns) as progress:
        bar = progress.add_task("", total=sum(what.minutes for what in chosen))
        for what in chosen:

            def tell(line: str, name: str = what.name) -> None:
                progress.update(bar, description=f"{name}: {line}")

            settings, before = settings_of(what, given, texts), results.get(what.name, {})
            if told.again or "figures" not in before or before["settings"] != settings:
                tell("measuring")
                results[what.name] = {**about, "settings": settings, **measure(what, given, tell)}
                store(told.out, results)
            for row in rows_of(what, results[what.name]):
                progress.console.print(f"{row.work} / {row.beside}: {row.figure} {row.verdict} {row.why}", markup=False)
            progress.advance(bar, what.minutes)
    print(told.out / "RESULTS.md")
    failed = any("error" in results[what.name] for what in chosen)
    rows = [row for what in chosen if not isinstance(what, Int8) for row in rows_of(what, results[what.name])]
    return int(failed or (not told.quick and any(row.verdict == SHORT for row in rows)))


def main(argv: list[str] | None = None) -> int:
    """Measure, or only make the page."""
    told = parsed(argv)
    if told.page:
        store(told.out, load(told.out))
        print(told.out / "RESULTS.md")
        return 0
    return run(told)


if __name__ == "__main__":
    sys.exit(main())
