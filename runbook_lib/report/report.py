"""The report: one self-contained page, verdict first, and the founding plan's execution report; then the seal.

Everything on the page is read from the run's files. It asks for nothing from elsewhere and runs no script: a policy in
its head forbids both, whatever a title or a log line says.
"""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from worker.files import write_atomic

from ..result import facts
from ..result.facts import Event, Facts, section
from ..result.sealed import SEALED
from ..run.disk import in_words
from ..run.run import PHASES, Run
from ..show import pictures
from ..show.markup import text
from ..show.words import exactly, many
from . import archive, figures_shown, notebook_pages, page, pdf
from .archive import verify
from .figures_shown import Figure
from .form import execution_report, failure_log
from .style import CSS
from .verdict import NOT_PROVED, all_checks, held, records, sentence, troubles

__all__ = ["build", "execution_report", "failure_log", "seal", "verify"]

LONG = 18  # characters of a figure that still fit its box in large letters
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
PACKAGES = ("numpy", "pyarrow", "paramiko", "papermill", "nbconvert", "ipykernel", "matplotlib", "huggingface-hub")


@in_words("making the report")
def build(run: Run) -> Path:
    """Write report.html from the run's files. What is missing is shown as missing."""
    found = facts.gather(run)
    parts = [
        ("figures", "Figures", _figures(found)),
        ("phases", "Phases", _phases(found)),
        ("attention", "Faults, recoveries, warnings", _attention(found)),
        ("pictures", "Pictures", _pictures(found)),
        ("checks", "Checks", _checks(found)),
        ("not-proved", "What is not proved", _not_proved()),
        ("notebooks", "Notebooks", _notebooks(run)),
        ("files", "Files", _files(found)),
        ("environment", "Environment", _environment(found)),
    ]
    links = "".join(f'<li><a href="#{key}">{text(title)}</a></li>' for key, title, _ in parts)
    body = "\n".join(page.block(key, title, content) for key, title, content in parts)
    written = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>Report of run {text(run.name)}</title>
<style>{CSS}</style></head><body><a class="skip" href="#main">Skip to the content</a>
<header><p>Embedding runbook, report of a run</p><h1>{text(run.name)}</h1>{_verdict(found)}</header>
<nav aria-label="Sections"><ul>{links}</ul></nav>
<main id="main">{body}</main>
<footer>Written {page.at_utc(datetime.now(UTC))} from the run's files. To check every file of the run:
<code>runbook verify {text(run.name)}</code></footer></body></html>
"""
    path = run.report / "report.html"
    write_atomic(path, written.encode())
    return path


@in_words("sealing the run")
def seal(run: Run, as_pdf: bool = False) -> Path:
    """Write the reports, then the sha256 of every file of the run. The journal's last event is the sealing.

    Never over a loss: raises DataError where a file is not what its record says, or not what was sealed before.
    A PDF of an earlier page would contradict this one, so it is removed, or made anew where that is asked for.
    """
    trial = archive.before_sealing(run)
    run.journal.write(SEALED)
    page_file = build(run)
    page_file.with_suffix(".pdf").unlink(missing_ok=True)
    if as_pdf:
        pdf.write(page_file)
    write_notes(run)
    return archive.write_sums(run, trial)


@in_words("writing the notes")
def write_notes(run: Run) -> None:
    """Write what a person files: the execution report and failures.log, of a run that failed as well."""
    execution_report(run)
    failure_log(run)


# ----------------------------------------------------------------------------------------------------------- verdict


def _verdict(found: Facts) -> str:
    """Whether it succeeded: in words, with a shape, then in colour."""
    good = found.ok
    title = "Succeeded: all checks hold" if good else "Not succeeded"
    return (
        f'<div class="verdict {"good" if good else "bad"}"><div class="shape" aria-hidden="true">{"✓" if good else "✗"}'
        f"</div><div><b>{title}</b><div>{text(sentence(found), 1000)}</div>"
        f"<div>{text(troubles(found), 1000)}</div></div></div>"
    )


# ---------------------------------------------------------------------------------------------------------- sections


def _figures(found: Facts) -> str:
    return f'<dl class="figures">{"".join(map(_card, figures_shown.key_figures(found)))}</dl>'


def _card(figure: Figure) -> str:
    note = f"<dd>{text(figure.note)}</dd>" if figure.note else ""
    value = text(figure.value) if figure.value else page.MISSING
    long = ' class="long"' if len(figure.value) > LONG else ""
    return f"<div><dt>{text(figure.name)}</dt><dd{long}>{value}</dd>{note}</div>"


def _phases(found: Facts) -> str:
    rows = []
    for phase in PHASES:
        spans = [span for span in found.spans if span.phase == phase]
        result = found.results[phase]
        checks = records(result or {}, "checks")
        failed = sum(check.get("verdict") == "FAILED" for check in checks)
        counted = f"{len(checks) - failed} of {len(checks)} hold" if result else page.MISSING
        outcome = (
            page.mark("FAILED" if failed else "ok" if held(found, phase) else "FAILED") if result else page.MISSING
        )
        seconds = [span.seconds for span in spans if span.seconds is not None]
        took = text(exactly(sum(seconds))) if seconds else page.MISSING
        rows.append(
            (text(phase), outcome, counted, took, str(len(spans)), page.at_utc(spans[-1].stop) if spans else "–")
        )
    return page.table("", ("phase", "result", "checks", "time", "executions", "last ended"), rows)


def _attention(found: Facts) -> str:
    marked = [(facts.kind(event), event) for event in found.events if facts.told(event)]
    checks = [(phase, c) for phase, c in all_checks(found) if c.get("verdict") in ("FAILED", "warning")]
    faults = page.table(
        "Faults, recoveries and what a person undid, by the journal",
        ("event", "kind", "when", "what the journal says"),
        [
            (text(event["event"]), page.mark(kind), page.at_utc(event["when"]), page.words(facts.details(event)))
            for kind, event in marked
        ],
    )
    warned = page.table(
        "Checks that fail or warn",
        ("check", "verdict", "phase", "where", "seen", "what to do"),
        [
            (name, verdict, phase, where, seen, remedy)
            for phase, check in checks
            for name, verdict, where, seen, _, remedy in [_check(check)]
        ],
    )
    unread = "".join(f"<li>{text(what, 500)}</li>" for what in found.missing)
    return "".join(
        (
            faults if marked else "<p>No fault and no recovery in the journal.</p>",
            warned if checks else "<p>No check fails and none warns.</p>",
            f"<h3>Missing</h3><ul>{unread}</ul>" if unread else "",
            page.fold(f"The whole journal: {many(len(found.events), 'event')}", _journal(found.events)),
        )
    )


def _journal(events: Sequence[Event]) -> str:
    rows = [(text(e["event"]), page.at_utc(e["when"]), page.words(facts.details(e), 500)) for e in events]
    return page.table("", ("event", "when", "what it says"), rows)


def _pictures(found: Facts) -> str:
    figures = section(found.validation, "figures")
    plan = found.plan
    strip = _figure(lambda: pictures.row_strip(plan)) if plan else "<p>No plan, so no rows to show.</p>"
    pair = _figure(lambda: pictures.projection(figures)) + _figure(lambda: pictures.norm_histogram(figures))
    return (
        f'{_figure(lambda: pictures.timeline(found.run))}{strip}<div class="pair">{pair}</div>'
        f'<h3>Questions and their nearest documents</h3><div class="scroll">{_nearest(figures)}</div>'
    )


def _figure(draw: Callable[[], pictures.Picture]) -> str:
    """A picture with its numbers in words under it; one that cannot be drawn must not cost the report."""
    try:
        picture = draw()
    except Exception as error:
        return f'<p class="missing">This picture cannot be drawn: {text(f"{type(error).__name__}: {error}")}</p>'
    return f"<figure>{picture.html()}<figcaption>{text(picture.caption, 600)}</figcaption></figure>"


def _nearest(figures: dict[str, Any]) -> str:
    try:
        return pictures.nearest(figures).html()
    except (AttributeError, TypeError, ValueError, KeyError) as error:
        return f'<p class="missing">This table cannot be drawn: {text(error)}</p>'


def _checks(found: Facts) -> str:
    blocks = []
    for phase in PHASES:
        checks = records(found.results[phase] or {}, "checks")
        groups = [(str(name), list(items)) for name, items in groupby(checks, lambda check: check.get("group"))]
        content = "".join(_group(name, items) for name, items in groups) or f"<p>{page.MISSING}</p>"
        blocks.append(page.block(f"checks-{phase}", phase, content, level=3))
    return "".join(blocks)


def _not_proved() -> str:
    return f"<ul>{''.join(f'<li>{text(what, 1000)}</li>' for what in NOT_PROVED)}</ul>"


def _group(name: str, checks: Sequence[dict[str, Any]]) -> str:
    verdicts = [str(check.get("verdict")) for check in checks]
    worst = next((v for v in ("FAILED", "warning") if v in verdicts), "ok")
    counted = many(len(checks), "check") + ("" if worst == "ok" else f", {verdicts.count(worst)} {worst}")
    heads = ["check", "verdict", "where", "seen", "expected", *(["what to do"] if worst != "ok" else [])]
    rows = [_check(check)[: len(heads)] for check in checks]
    summary = f'<span class="{page.COLOURS.get(worst, "")}">{page.SHAPES[worst]}</span> {text(name)} ({text(counted)})'
    return page.fold(summary, page.table("", heads, rows, fixed=True), opened=worst == "FAILED")


def _check(check: dict[str, Any]) -> list[str]:
    verdict = str(check.get("verdict"))
    seen, expected, remedy = (page.words(check.get(key)) for key in ("seen", "expected", "remedy"))
    name, where = text(check.get("name")), text(check.get("where"))
    return [name, page.mark(verdict), where, seen, expected, remedy if verdict != "ok" else ""]


def _notebooks(run: Run) -> str:
    return "".join(page.block(f"notebook-{phase}", phase, _notebook(run, phase), level=3) for phase in PHASES)


def _notebook(run: Run, phase: str) -> str:
    """The executed notebook; where no execution counted, the last one that was tried."""
    path, note = run.report / f"{phase}.ipynb", ""
    if not path.exists():
        tried = list((run.report / "attempts").glob(f"{phase}.attempt-*.ipynb"))
        if not tried:
            return f"<p>{page.MISSING}: {_by_hand(run, phase)}</p>"
        path = max(tried, key=lambda attempt: attempt.stat().st_mtime_ns)
        note = f"<p>No execution counted; this is the last one tried, <code>{text(path.name)}</code>.</p>"
    try:
        body, cells = notebook_pages.fragment(path, phase)
    except Exception as error:  # whatever a half-written notebook makes of its converter, the report stands
        return f'<p class="missing">{text(error)}</p>'
    return note + page.fold(f"{text(path.name)}, {many(cells, 'cell')}", f'<div class="notebook">{body}</div>')


def _by_hand(run: Run, phase: str) -> str:
    """Why there is no executed notebook of a phase, and how one that a person executed comes into the archive."""
    if not run.result_file(phase).exists():
        return "not executed by the chain, and not by hand"
    kept = f"{run.report.name}/{phase}.ipynb"
    return (
        "not executed by the chain but by hand, and the notebook was not kept here; its checks are above. To keep it, "
        f"save the executed notebook as <code>{text(kept)}</code> in the run's folder, then "
        f"<code>runbook report {text(run.name)}</code>"
    )


def _files(found: Facts) -> str:
    rows = []
    for name, stated in section(found.manifest, "outputs").items():
        if isinstance(stated, dict):
            rows.append((f"merged/{text(name)}", page.size(stated.get("bytes")), page.mono(stated.get("sha256"))))
    for kind in ("founding", "backup"):
        stated = found.output(kind)
        if stated:
            path = f'{text(kind)}: <span class="mono">{text(stated.get("path"))}</span>'
            rows.append((path, page.size(stated.get("bytes")), page.mono(stated.get("sha256"))))
    table = (
        page.table("Checksums of the result", ("file", "size", "sha256"), rows) if rows else f"<p>{page.MISSING}</p>"
    )
    return f"{table}<p>Every file of the run, this page too, is in <code>{found.run.sums.name}</code>.</p>"


def _environment(found: Facts) -> str:
    rows = [
        (
            "where this page was written",
            f"Python {platform.python_version()} ({sys.implementation.name}), {platform.platform()}",
        )
    ]
    rows.append(("where this page was written", ", ".join(f"{name} {_version(name)}" for name in PACKAGES)))
    for host in section(found.hosts, "hosts").items():
        told = ", ".join(f"{key} {facts.shown(value)}" for key, value in host[1].items() if value) if host[1] else ""
        rows.append((host[0], told))
    seen = section(found.manifest, "seen")
    rows += [(f"parts: {key}", facts.shown(value)) for key, value in seen.items()]
    rows.append(("encoded on", ", ".join(found.encoding.devices) or "unknown"))
    return page.table("", ("where", "what"), [(text(where), page.words(what)) for where, what in rows])


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "missing"
