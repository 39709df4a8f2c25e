"""The verbs for what comes before a run and after it: init, login, notify, list, search, export, map."""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from worker.escape import safe_text
from worker.files import make_folder

from .afterwards import corpus_map, remote
from .afterwards import export as exporting
from .afterwards.finished import Finished, load
from .errors import DataError, ProfileError, RunbookError
from .hosts.ssh import sign_in
from .profile import notify_spec, profile
from .report import outcome
from .result import exports, publication
from .run import first_profile, opening, run_mark, sending, telling
from .show.terminal import counting
from .show.words import moment, one_line


def init(args: argparse.Namespace) -> int:
    """Look at a corpus, write a profile for it, and say what was seen."""
    corpus = Path(args.corpus)
    target = Path(args.to or f"{first_profile.run_name(corpus)}.yaml")
    look = first_profile.write(corpus, target, args.model)
    files = f", {look.files} files" if look.files > 1 else ""
    print(f"{safe_text(str(corpus), 500)}: {look.format}{files}; the first of {look.sampled} documents looked at:")
    for key in ("text", "title", "id", "url"):
        if key in look.first:
            print(f"  {key:5}  {safe_text(look.names.get(key, 'the whole item'), 60)}: {look.first[key]}")
        elif key in ("title", "id"):
            print(f"  {key:5}  none was found: {'titles are empty' if key == 'title' else 'row numbers stand in'}")
    if others := [name for name in look.fields if name not in look.names.values()]:
        print("  other fields:", safe_text(", ".join(others), 300))
    print(f"written: {target}. Next: runbook check {target}")
    return 0


def log_in(args: argparse.Namespace) -> int:
    """Log in to a machine with its person there, for what is started after that; or end that connection."""
    print(sign_in.end(args.name) if args.end else sign_in.sign_in(args.name))
    return 0


def notify(args: argparse.Namespace) -> int:
    """Send a trial message to everybody whom the profile names, and say what became of each."""
    choices = profile.load(Path(args.profile))
    spec = choices.notify
    if not spec.wanted:
        raise ProfileError(
            f"{choices.path}: nobody is to be told anything. Expected, for example:\n"
            "notify: {urls: ~/.credentials/notify.urls}  # a file that only you can read, an address a line"
        )
    message = telling.Message(notify_spec.DONE, "This is a trial: messages of your runs will come here.", "", "trial")
    outcomes = sending.send(replace(telling.letter(spec, choices.run, message), tries=1))
    for each in outcomes:
        print(f"could not tell {each.to}: {telling.clean(each.why)}" if each.why else f"told {each.to}")
    print(f"to be told: {', '.join(spec.events)}")
    return 1 if any(each.why for each in outcomes) else 0


def list_runs(args: argparse.Namespace) -> int:
    """Print each run of a folder, the newest last: name, verdict, rows, when, where its result is."""
    folder = Path(args.folder)
    there = run_mark.oldest_first(folder)
    if not there:
        print(f"no runs in {folder.absolute()}. Next: runbook run PROFILE")
        return 0
    width = max(len(each.name) for each in there)
    for each in there:
        print(f"{safe_text(each.name):{width}}  {_line(each)}")
    return 0


def _line(folder: Path) -> str:
    try:
        this = opening.open_folder(folder)
        verdict = outcome.outcome(this)
        begun = next(this.journal.events("run created"), None)
        created = moment(datetime.fromisoformat(begun["at"])) if begun else "?"
        rows = f"{this.plan().documents:,} documents" if this.plan_file.is_file() else "not planned yet"
        published = publication.published(this)
        at = f", result of {moment(datetime.fromisoformat(published.at))}" if published else ""
    except (RunbookError, OSError, ValueError) as error:
        return f"cannot be read: {safe_text(str(error), 200)}"
    return f"{verdict.verdict:11}  {rows}, begun {created}{at}"


def search(args: argparse.Namespace) -> int:
    """Print the documents nearest to each question: cosine, row, title, the start of the text, address."""
    result = load(opening.find(args.run))
    model = Path(args.model) if args.model else None
    for question, vector in zip(args.question, result.embed(args.question, model), strict=True):
        print(safe_text(question, 300))
        for near in result.nearest(vector, args.count):
            title = safe_text(str(near.document.get("title") or f"row {near.row}"), 100)
            print(f"  {near.cosine:.3f}  {title}  (row {near.row}, id {safe_text(str(near.document.get('id')), 60)})")
            if url := near.document.get("url"):
                print(f"         {safe_text(url, 200)}")
            if args.texts:
                print(f"         {one_line(result.texts([near.row])[0], 200)}")
    return 0


def export(args: argparse.Namespace) -> int:
    """Write a result for other tools, and say where and what it cost."""
    if not remote.is_address(args.out):
        return _export(args, Path(args.out) if args.out else None, "")
    remote.look(args.out)
    output = load(opening.find(args.run)).run.profile.output.folder
    make_folder(output)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=output) as scratch:
        _export(args, Path(scratch) / "export", args.out)
        with counting("bytes sent and read back", 0) as on_bytes:
            size = remote.send(Path(scratch) / "export", args.out, on_bytes)
    print(f"{args.out}: {size / 1e6:.1f} MB sent, and read back as they were sent")
    return 0


def _export(args: argparse.Namespace, target: Path | None, shown: str) -> int:
    """Write it to `target`, called `shown` where that is not where it stays."""
    result = load(opening.find(args.run))
    if args.to in exports.KINDS:
        return _in_a_folder(result, args, target, shown)
    dtype = "float16" if args.float16 else "float32"
    with counting("rows written", result.manifest.documents) as on_rows:
        written = exporting.export(result, args.to, target, dtype, args.texts, on_rows)
    print(f"{shown or written.path}: {result.manifest.documents:,} documents, {written.bytes / 1e6:.1f} MB")
    print("every byte of the matrix was that which the run merged")
    if written.loss:
        print(f"what float16 costs: {written.loss}")
    return 0


def _in_a_folder(result: Finished, args: argparse.Namespace, target: Path | None, shown: str) -> int:
    if args.float16 or args.texts:
        raise DataError(f"export --to {args.to} holds vectors alone, in its own form; leave --float16 and --texts out")
    folder = target or result.run.profile.output.folder / f"{result.run.name}-{args.to}"
    index = exports.export(result.run, args.to, folder)
    print(f"{shown or folder}: {len(index.files)} files, {index.documents:,} x {index.dim}")
    if index.lowest_cosine is not None:
        recall = "" if index.recall_at_10 is None else f", recall@10 {index.recall_at_10:.4f}"
        print(f"against float32, over {index.sampled:,} rows: lowest cosine {index.lowest_cosine:.6f}{recall}")
    return 0


def draw_map(args: argparse.Namespace) -> int:
    """Write a page that shows a result in two dimensions, and say where."""
    result = load(opening.find(args.run))
    with counting("rows read", result.manifest.documents) as on_rows:
        page = corpus_map.write(
            result, Path(args.out) if args.out else None, args.by, lambda done: on_rows(done, result.manifest.documents)
        )
    print(f"{page.path}: {result.manifest.documents:,} documents, {page.bytes / 1e6:.1f} MB; open it in any browser")
    print(page.about)
    return 0
