"""RESULTS.md: the table of all rows and a section each, made from the figures in results.json alone."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rows import Measurement, Row, figure, floor, reached, rows_of
from work import CALLED, MEASURED, Encoding, Int8, Script

TITLE = "# Results of the benchmarks\n"
HOW = """
Made by `python benchmarks/all.py` from the figures in `results.json`; do not edit it. The command measures what is
missing and keeps what is there; `--again` measures anew, `--only NAME` one of them.

How to read a row:

- **figure**: `1.50x` means that the worker was 1.5 times as fast as what it stands beside, in the same run on the same
  texts. It is the median of the rounds; in brackets are the lowest and the highest.
- **needed**: what is promised. **verdict**: `pass`, `falls short`, `not measured` (and why), or `for comparison` where
  nothing is promised.
- **pads**: tokens that the library's `encode()` computes for one real token of these texts. The more it pads, the more
  is to be gained, so a ratio says nothing without it.
- **lowest cosine**: of any vector of the worker with the one that `encode()` gives. Below 0.99999 the worker falls
  short, however fast it is.
- **recall@10**: how many of the ten nearest rows by the vectors of `encode()` are found by the worker's. It is asked
  by questions where some are given, else by some of the texts.
- **load**: the load average of the machine at start and end (at the end it is the benchmark itself), then the cores
  that other processes took meanwhile; `not quiet` where other work disturbed.
"""
COLUMNS = ("work", "beside", "figure", "needed", "verdict", "pads", "lowest cosine", "recall@10", "load")
HEAD = f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}"
QUICK = "**These are the smallest sizes, a trial of the benchmarks themselves: the figures say nothing.**\n"
SENTENCES = {
    "limits": "No program here can be faster than this: a matrix product of the size that MiniLM needs, one new file "
    "written and synced, bytes sent by the machine to itself.",
    "int8": "Numbers of 8 bits are faster and less exact. They come into the product only where they lose less than "
    "0.5 % of the ten nearest rows on real texts, and of the answers to real questions too. Each way encodes the "
    "questions itself; ratios are against `encode()` in float32.",
    "restart": "A worker is killed with SIGKILL while it computes; the time runs until its successor begins its next "
    "batch. The host is warm: it has the libraries imported.",
    "whole-run": "One `runbook run` on this machine, from the command to the sealed report. Encoding is what the parts "
    "of the busiest slot took by their records; the rest is all else: checks, notebooks, starting, loading the model, "
    "merging, the report.",
    "transfer": "Copying from and to a host over SSH on this machine, direct and behind a delay. Ours compares every "
    "byte by its sha256 and syncs it to the disk; plain `scp` and `rsync` do neither.",
    "merge": "Merging, checking and backing up, beside the founding plan's way. The goal is that no step takes more "
    "than 300 MB of memory.",
    "polls": "Asking a host of eight workers how it is, beside the founding plan's way.",
}


def sentence(what: Encoding | Int8 | Script) -> str:
    """What the rows of a measurement mean, for a newcomer."""
    if not isinstance(what, Encoding):
        return SENTENCES[what.name]
    texts = "articles, made of passages that follow each other," if what.articles else "passages"
    large = " They are chosen so that `encode()` pads about as in a call of 1,024 texts." if what.of_large else ""
    threads = "1 thread" if what.threads == 1 else f"{what.threads} threads"
    return (
        f"About {what.texts:,} {texts} are encoded in turn by the worker and by what stands beside it, each loaded "
        f"once in a process of its own with {threads}; `encode()` gets all texts in one call.{large}"
    )


def line(row: Row) -> str:
    """A row of the table."""
    verdict = f"**{row.verdict}**" + (f": {row.why}" if row.why else "")
    cells = (row.work, row.beside, row.figure, row.needed, verdict, row.padding, row.cosine, row.recall, row.load)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def distinct(values: Iterable[str]) -> list[str]:
    """Each once, in order."""
    return list(dict.fromkeys(values))


def head(measurements: dict[str, Measurement]) -> list[str]:
    """When, where, with which versions and by which command it was measured."""
    there = list(measurements.values())
    if not there:
        return ["Nothing is measured yet.\n"]
    dates = sorted(each["date"] for each in there)
    lines = [f"- date: {dates[0]}" + (f" to {dates[-1]}" if dates[-1] != dates[0] else "")]
    machines = distinct("{cpu}, {cores} cores, {memory_gib} GiB, {system}".format(**each["machine"]) for each in there)
    lines += [f"- machine: {words}" for words in machines]
    lines += [f"- versions: {words}" for words in distinct(versions(each["versions"]) for each in there)]
    for way, words in sorted({(way, versions(of)) for each in there for way, of in peer_versions(each)}):
        lines.append(f"- versions of {CALLED[way]}: {words}")
    lines += [f"- texts: {words}" for words in distinct(each["texts"] for each in there)]
    lines += [f"- commit: {words}" for words in distinct(each["commit"] for each in there)]
    lines += [f"- command: `{words}`" for words in distinct(each["command"] for each in there)]
    return [*lines, ""]


def versions(found: dict[str, str]) -> str:
    """Versions in a row of words."""
    return ", ".join(f"{name} {version}" for name, version in found.items())


def peer_versions(measured: Measurement) -> Iterable[tuple[str, dict[str, str]]]:
    """(way, its versions) of the ways that ran in an environment of their own."""
    for way, found in measured.get("figures", {}).get("ways", {}).items():
        if found["versions"] != measured["figures"]["ways"]["encode"]["versions"]:
            yield way, found["versions"]


def details(what: Encoding | Int8 | Script, measured: Measurement, folder: Path) -> list[str]:
    """A section: what it means, its picture, and what is to be known beside the table."""
    lines = [f"## {what.title}\n", f"`{what.name}`. {sentence(what)}\n"]
    picture = Path("pictures") / f"{what.name}.svg"
    if (folder / picture).exists():
        lines.append(f"![{what.title}]({picture.as_posix()})\n")
    figures = measured.get("figures", {})
    if ways := figures.get("ways"):
        lines += ["| way | wall s | CPU s of its process | lowest cosine | recall@10 |", "|---|---|---|---|---|"]
        lines += [way_line(way, found) for way, found in ways.items()]
        lines.append("")
        part = f"; parts of {figures['part_rows']} rows" if "part_rows" in figures else ""
        lines.append(f"{figures['texts']:,} texts, {figures['tokens']:,} tokens{part}.\n")
    elif said := figures.get("lines"):
        lines += ["```", *said, "```", ""]
    return lines


def way_line(way: str, found: dict[str, Any]) -> str:
    """Medians of one way."""
    wall, cpu = ([pair[k] for pair in found["seconds"]] for k in (0, 1))
    cells = (CALLED[way], figure(wall, ""), figure(cpu, ""), floor(found["cosine"], 7), floor(found["recall"], 4))
    return f"| {' | '.join(cells)} |"


def page(measurements: dict[str, Measurement], folder: Path) -> str:
    """The whole page; `folder` holds the pictures."""
    rows = [row for what in MEASURED for row in rows_of(what, measurements.get(what.name))]
    rows += reached(measurements)
    lines = [TITLE, *head(measurements), HEAD, *map(line, rows), HOW]
    if any(each["settings"]["quick"] for each in measurements.values()):
        lines.insert(1, QUICK)
    for what in MEASURED:
        if what.name in measurements and "error" not in measurements[what.name]:
            lines += details(what, measurements[what.name], folder)
    return "\n".join(lines).rstrip() + "\n"
