"""Which harm is found, by which step: a fault table, from faults that are injected one by one into whole runs.

    python benchmarks/faults.py [--dtype bfloat16] [--seeds 10] [--more 200] [--documents 566] [--drawn 10] [--lowest 4]
                                [--write PAGE]

At the host: vectors of the real small model are changed before they are hashed, so all records agree; the result is
merged and validated by the product. What the audit computes again is taken from memory, where the same model put it
before. Few rows are drawn, as in a large run. In the worker: the encoder itself does its texts wrong, and each step
that could see it is asked. In the archive: a sealed run is edited; plainly, with the sums made anew, with the sealing
made anew too, with every record and the journal made to agree (`forging.py`), and all this where the list was signed.
With --write a page's tables are replaced.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # of so small arrays more threads only wait for each other

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks"), str(ROOT / "tests" / "helpers")]

import edits  # noqa: E402
import forging  # noqa: E402
import harms  # noqa: E402
import real_run  # noqa: E402
import worker_harms  # noqa: E402

from runbook_lib import records  # noqa: E402
from runbook_lib.errors import DataError, RunbookError  # noqa: E402
from runbook_lib.phases import audit, canaries, fencing, singled_out  # noqa: E402
from runbook_lib.report import archive, signature, verification  # noqa: E402
from runbook_lib.result import alike, digits, misfits  # noqa: E402
from runbook_lib.result.sampling import most_bad  # noqa: E402
from runbook_lib.run.run import Run  # noqa: E402
from worker import again, canary, second  # noqa: E402
from worker.files import sha256_file  # noqa: E402
from worker.wire import Opinion  # noqa: E402

PARTS = singled_out.PARTS
LARGE, SAMPLED = 250_000, (299, 1000)
MODES = ("plainly", "sums made anew", "and the sealing", "and the journal", "and it was signed")


def remembered(documents: int, dtypes: Sequence[str]) -> Any:
    """What `audit.answers` gives, without computing: each text's vector as the model gave it before, by dtype."""
    by_dtype = {
        dtype: {
            text: Opinion(None, count, tuple(vector.tolist()))
            for text, vector, count in zip(*real_run._encoded(documents, dtype), strict=True)
        }
        for dtype in dtypes
    }

    def answers(run: Any, plan: Any, model: Any, asked: Any, dtype: str, within_s: float) -> Iterator[Opinion]:
        return iter([by_dtype[dtype].get(text, Opinion("a title")) for text, _ in asked])

    return answers


# ------------------------------------------------------------------------------------------------------- at the host


def found_by(harm: harms.Harm, seed: int, folder: Path, documents: int, dtype: str) -> str:
    """The step that finds one harm; empty if none does."""
    # In so small a run a row of each part would meet single rows far more often than in a large one.
    singled_out.PARTS = PARTS if harm.rows >= harms.PART // 2 else 0
    made = real_run.real_run(folder, documents, dtype, part_rows=36, computed=dtype)
    rng = np.random.default_rng(seed)
    start = int(rng.integers(documents // 36)) * 36
    part = slice(start, min(start + 36, documents))
    try:
        checks, _ = real_run.validated(made, lambda vectors: harm.do(vectors[:documents], rng, part))
    except DataError:
        return "part refused"
    failed = [check.name for check in checks.failed if not check.name.startswith("9 ")]
    failed = [name for name in failed if name != fencing.NAME]  # what follows from the others
    if failed and failed != [audit.AUDIT]:
        return f"check: {next(name for name in failed if name != audit.AUDIT)}"
    if not failed:
        return ""
    kept = records.read(audit.Audit, made.run.report / audit.FILE)
    assert kept is not None
    wrong = {row for row, _ in audit.wrong_rows(kept)}
    last = max(place for place, each in enumerate(kept.rows) if each.uniform)
    if wrong & {each.row for each in kept.rows[:last] if not each.uniform}:
        return "stands out"
    return "a row of each part" if wrong & {each.row for each in kept.rows[last + 1 :]} else "drawn"


def hosts_table(
    kinds: Sequence[harms.Harm], seeds: int, more: int, documents: int, folder: Path, dtype: str
) -> list[str]:
    """A line a kind: how often it was found, by what, and how likely a draw alone meets it in a large run.

    Kinds that are found sometimes are tried with `more` seeds, and told with their interval.
    """
    size = f"{documents} documents of the demo in {dtype}, {seeds} seeds a kind"
    size += f", {more} where some were found and some not (95 %)" if more > seeds else ""
    drawn = f"the {misfits.LOOKED_AT} rows that fit least are computed again, then {audit.DRAWN} drawn ones."
    lines = [
        f"{size}; {drawn}",
        "",
        "| harm at the host | found | by | met in a large run, with 299 drawn | with 1,000 |",
        "|---|---:|---|---:|---:|",
    ]
    for harm in kinds:
        by: Counter[str] = Counter()
        tried = 0
        while tried < seeds or (tried < more and 0 < by[""] < tried):
            with tempfile.TemporaryDirectory(dir=folder) as place:
                by[found_by(harm, tried, Path(place), documents, dtype)] += 1
            tried += 1
        found = tried - by.pop("", 0)
        steps = ", ".join(f"{step} {times}" for step, times in by.most_common()) or "–"
        chances = [f"{100 * _met(harm.rows, drawn):.3g} %" for drawn in SAMPLED] if harm.rows else ["–", "–"]
        low, high = interval(found, tried)
        shown = f"{found} of {tried}" + (f" ({100 * low:.0f}–{100 * high:.0f} %)" if tried > seeds else "")
        lines.append(f"| {harm.name} | {shown} | {steps} | {' | '.join(chances)} |")
        print(lines[-1], flush=True)
    return lines


def interval(found: int, tried: int, level: float = 0.95) -> tuple[float, float]:
    """Return the bounds of a share by Clopper and Pearson: exact, so never too narrow."""

    def at_most(count: int, share: float) -> float:
        return sum(math.comb(tried, k) * share**k * (1 - share) ** (tried - k) for k in range(count + 1))

    def solved(function: Callable[[float], float], wanted: float) -> float:
        low, high = 0.0, 1.0  # `function` falls
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if function(middle) > wanted else (low, middle)
        return low

    tail = (1 - level) / 2
    low = solved(lambda share: at_most(found - 1, share), 1 - tail) if found else 0.0
    high = solved(lambda share: at_most(found, share), tail) if found < tried else 1.0
    return low, high


def _met(bad: int, drawn: int) -> float:
    """How likely a draw among `LARGE` rows, or the row of each part that is looked at too, meets a bad one."""
    by_part = min(1.0, bad / harms.PART) if bad >= harms.PART // 2 else 0.0
    return 1 - (1 - by_part) * (1 - _drawn(bad, drawn))


def _drawn(bad: int, drawn: int) -> float:
    """How likely a draw among `LARGE` rows meets one of the bad ones."""
    none = 1.0
    for number in range(drawn):
        none *= max(0, LARGE - bad - number) / (LARGE - number)
    return 1 - none


# ----------------------------------------------------------------------------------------------------- in the worker


def workers_table(kinds: Sequence[worker_harms.Wrong], documents: int, dtype: str) -> list[str]:
    """A line a kind of wrong worker: which step sees it, on its own host and from here; and how a slot of it fares."""
    encoder, processor = real_run.encoder(dtype), real_run.encoder()
    texts = list(real_run._encoded(documents)[0])[:documents]

    def encoded(by: Any, some: Sequence[str]) -> np.ndarray:
        return np.asarray(by.encode(some, by.lengths(some), range(len(some))))

    def right(some: Sequence[str]) -> np.ndarray:
        return encoded(encoder, some)

    fixed = canary.texts("{text}", None)
    here, known, rows = (encoded(processor, some) for some in (fixed, second.KNOWN, texts))
    tolerance, apart = _tolerances(right, fixed, here, texts, rows, dtype)
    lines = [
        f"{documents} documents of the demo in {dtype}; a slot does 15,625 of 250,000 rows so. A row counts as off "
        f"from {tolerance:.2g} on, canaries from {apart:.2g}.",
        "",
        "| a worker with | seen on its host | canaries off by | rows off | digits | a draw of 299 meets it |",
        "|---|---|---:|---:|---|---:|",
    ]
    for kind in kinds:
        of_known, of_fixed, of_rows = (kind.do(right, encoder, some) for some in (second.KNOWN, fixed, texts))
        far = alike.furthest(of_fixed.astype(float), here.astype(float))
        share = float(np.mean([off > tolerance for off in _off(of_rows, rows)]))
        by_host = _on_its_host(encoder, of_known, known, of_rows, rows)
        few = float(np.mean(digits.scaled(of_rows) | digits.coarse(of_rows))) if dtype == "float32" else 0.0
        verdict = f"**{far:.2g}**" if far > apart else f"{far:.2g}"
        met = f"{100 * _drawn(round(harms.SLOT * share), SAMPLED[0]):.3g} %" if share else "–"
        digit = "every row" if few == 1 else f"{few:.0%} of rows" if few else "–"
        lines.append(f"| {kind.name} | {by_host or '–'} | {verdict} | {share:.0%} | {digit} | {met} |")
        print(lines[-1], flush=True)
    return lines


def _off(some: np.ndarray, right: np.ndarray) -> list[float]:
    return [alike.furthest(a[None].astype(float), b[None].astype(float)) for a, b in zip(some, right, strict=True)]


def _tolerances(
    right: Any, fixed: Any, here: np.ndarray, texts: Any, rows: np.ndarray, dtype: str
) -> tuple[float, float]:
    """How far a row of the audit may be off, and a canary: in 16 bits by what that dtype does to texts here."""
    if dtype == "float32":
        return audit.TOLERANCE[dtype], alike.APART[dtype]
    longest = sorted(range(len(texts)), key=lambda row: -len(texts[row]))[: audit.CALIBRATED]
    worst = max(_off(right([texts[row] for row in longest]), rows[longest]))
    of_fixed = alike.furthest(right(fixed).astype(float), here.astype(float))
    apart = max(alike.APART[dtype], min(canaries.ROOM * of_fixed, canaries.MOST))
    return max(audit.TOLERANCE[dtype], audit.ROOM * worst), apart


def _on_its_host(encoder: Any, known: np.ndarray, right: np.ndarray, rows: np.ndarray, truth: np.ndarray) -> str:
    """What a worker's own checks say where its processor is right: where both are wrong alike, they say nothing."""
    if encoder.bad_rows(rows):
        return "bad norms"
    if any(second._distance(a, b) > second.DISTANCE[encoder.dtype] for a, b in zip(known, right, strict=True)):
        return "known texts, at its start"
    seen = float(np.mean([not _alike(a, b) >= again.COSINE[encoder.dtype] for a, b in zip(rows, truth, strict=True)]))
    return f"one row in 200 done twice ({seen:.0%} of rows show it)" if seen else ""


def _alike(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.dot(a, b) / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-12))


# ----------------------------------------------------------------------------------------------------- in the archive


def archive_table(kinds: Sequence[edits.Edit], folder: Path) -> list[str]:
    """A line a kind: found by whom, for each way to hide it."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "key")], check=True)
    signers = folder / "allowed_signers"
    signers.write_text(f"owner {(folder / 'key.pub').read_text()}")
    whole = real_run.sealed(folder / "sealed", folder / "key")
    lines = [f"| edit in the archive | {' | '.join(MODES)} |", "|---|" + "---|" * len(MODES)]
    for edit in kinds:
        cells = []
        for mode in MODES:
            copy = Run(folder / "copy", replace(whole.profile, signing_key=None))
            shutil.copytree(whole.folder, copy.folder)
            before = forging.sums(copy)
            edit.do(copy)
            hide(copy, mode, before)
            checks = verification.verify(copy, signers=signers if mode == MODES[-1] else None)
            failed = [check.name for check in checks.failed]
            cells.append(failed[0] if failed else "not found")
            shutil.rmtree(copy.folder)
        lines.append(f"| {edit.name} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    return lines


def hide(run: Run, mode: str, before: dict[str, str]) -> None:
    """Make what was edited look sealed, where it can be. `before`: the sums of all files before the edit."""
    with suppress(RunbookError):  # a link cannot be sealed
        if mode == "sums made anew":
            names = [name for name in archive.files(run) if name != run.sums.name]
            run.sums.write_text("".join(f"{sha256_file(run.folder / name)}  {name}\n" for name in names))
        elif mode == "and the sealing":
            archive.write_sums(run)
        elif mode != "plainly":
            forge(run, before)
    if mode in ("and the sealing", "and the journal"):
        signature.file_of(run).unlink(missing_ok=True)


def forge(run: Run, before: dict[str, str]) -> None:
    """Make every record and the journal agree with an edit; with some edits they cannot, and only the seal is new."""
    try:
        forging.make_agree(run, before)
    except (RunbookError, OSError, ValueError, LookupError, TypeError, AssertionError):
        archive.write_sums(run)


# ------------------------------------------------------------------------------------------------------------ writing


def put(path: Path, tables: dict[str, list[str]]) -> None:
    """Replace the tables between the marks of a page."""
    page = path.read_text()
    for name, lines in tables.items():
        whole = re.compile(f"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        page = whole.sub(lambda found, lines=lines: found[1] + "\n".join(lines) + "\n" + found[2], page)
    path.write_text(page)


def main() -> int:
    """Inject, print and perhaps write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of hosts and workers")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--more", type=int, default=0, help="seeds of a kind that is found sometimes")
    parser.add_argument("--documents", type=int, default=566)
    parser.add_argument("--drawn", type=int, default=10, help="rows that the audit draws")
    parser.add_argument("--lowest", type=int, default=4, help="rows that fit least and come first")
    parser.add_argument("--kinds", default="", help="only kinds whose name has these words")
    parser.add_argument("--only", choices=("hosts", "workers", "archive"), help="one of the tables")
    parser.add_argument("--write", type=Path, help="the page whose tables are replaced")
    options = parser.parse_args()
    usual = misfits.LOOKED_AT
    audit.DRAWN, misfits.LOOKED_AT, answers = options.drawn, options.lowest, audit.answers
    misfits.PAIRS = max(1, options.lowest // 4)
    bound = most_bad(options.documents, options.drawn) / options.documents
    print(f"{options.documents} documents, {options.drawn} drawn: a clean draw bounds the share at {100 * bound:.1f} %")
    tables: dict[str, list[str]] = {}
    dtype, of_dtype = options.dtype, "" if options.dtype == "float32" else f" in {options.dtype}"

    def wanted(table: str, kinds: Sequence[Any]) -> list[Any]:
        return [kind for kind in kinds if options.kinds in kind.name and options.only in (None, table)]

    with tempfile.TemporaryDirectory() as place:
        if kinds := wanted("hosts", harms.HOST):
            audit.answers = remembered(options.documents, ("float32", dtype))
            sizes = (options.seeds, options.more, options.documents)
            tables[f"hosts{of_dtype}"] = hosts_table(kinds, *sizes, Path(place), dtype)
        audit.answers = answers
        if kinds := wanted("workers", worker_harms.WRONG):
            tables[f"workers{of_dtype}"] = workers_table(kinds, min(options.documents, 200), dtype)
        misfits.LOOKED_AT = usual
        if (kinds := wanted("archive", edits.ARCHIVE)) and dtype == "float32":
            tables["archive"] = archive_table(kinds, Path(place))
    if options.write:
        put(options.write, tables)
    return 0


if __name__ == "__main__":
    sys.exit(main())
