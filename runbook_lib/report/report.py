"""The report: one self-contained page with the verdict first, and the founding plan's execution report; then the seal.

Everything on the page is read from the run's files. It loads nothing from elsewhere and runs no script: a policy in its
head forbids both, whatever a title or a log line contains.
"""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path

from worker.files import write_atomic

from ..result import facts
from ..result.facts import DatedEvent, RunFacts
from ..run.disk import explain_disk_errors
from ..run.phase_result import CheckRecord
from ..run.run import PHASES, Run
from ..show import nearest, pictures
from ..show.markup import Markup, joined, tag, text
from ..show.words import exactly, many
from . import (
    archive,
    descriptions,
    made_with,
    notebook_pages,
    origin_shown,
    page,
    pdf,
    printed,
    signature,
    verification,
)
from .form import execution_report, failure_log
from .printed import Printed
from .style import CSS
from .verdict import NOT_PROVED, all_checks, held, troubles
from .verification import verify

__all__ = ["build", "execution_report", "failure_log", "seal", "verify"]

LONG = 18  # a longer figure does not fit its box in large letters
POLICY = Markup("default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'")
LINE_END = Markup("\n")
VERIFIER = Path(__file__).with_name("verify.py")
PACKAGES = ("numpy", "pyarrow", "paramiko", "papermill", "nbconvert", "ipykernel", "matplotlib", "huggingface-hub")


@explain_disk_errors("making the report")
def build(run: Run) -> Path:
    """Write report.html from the run's files. Missing files are shown as missing."""
    run_facts = facts.gather(run)
    parts = [
        ("figures", "Figures", _figures(run_facts)),
        ("origin", "What was embedded", origin_shown.section(run_facts)),
        ("phases", "Phases", _phases(run_facts)),
        ("promised", "Promise and fact", origin_shown.promised(run_facts)),
        ("attention", "Faults, recoveries, warnings", _attention(run_facts)),
        ("pictures", "Pictures", _pictures(run_facts)),
        ("checks", "Checks", _checks(run_facts)),
        ("not-proved", "What is not proved", _not_proved()),
        ("notebooks", "Notebooks", _notebooks(run)),
        ("files", "Files", _files(run_facts)),
        ("next", "Next steps", origin_shown.steps(run_facts)),
        ("environment", "Environment", _environment(run_facts)),
    ]
    links = [tag("li", tag("a", text(title), href=f"#{key}")) for key, title, _ in parts]
    body = joined((page.block(key, title, content) for key, title, content in parts), LINE_END)
    written = joined(
        (
            _head(run),
            tag("a", Markup("Skip to the content"), class_="skip", href="#main") + LINE_END,
            tag("header", tag("p", text(signature.in_words(run), 1000)), tag("h1", text(run.name)),
                _verdict(run_facts)) + LINE_END,
            tag("nav", tag("ul", *links), aria_label="Sections") + LINE_END,
            tag("main", body, id="main") + LINE_END,
            _foot(run),
        )
    )  # fmt: skip
    path = run.report / "report.html"
    write_atomic(path, written.encode())
    return path


def _head(run: Run) -> Markup:
    """Return the page up to the beginning of its body."""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        LINE_END,
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", Markup("Report of run "), text(run.name)),
        LINE_END,
        tag("style", CSS),
    )
    return joined((Markup('<!doctype html>\n<html lang="en">'), head, Markup("<body>")))


def _foot(run: Run) -> Markup:
    """Return the time of writing, and the end of the page."""
    at = text(page.at_utc(datetime.now(UTC)))
    advice = Markup(" from the run's files. To check every file of the run:\n")
    verify = tag("code", Markup("runbook verify "), text(run.name))
    return tag("footer", Markup("Written "), at, advice, verify) + Markup("</body></html>\n")


@explain_disk_errors("sealing the run")
def seal(run: Run, as_pdf: bool = False) -> Path:
    """Write the reports, then the sha256 of every file of the run. The journal's last event is the sealing.

    A loss is never sealed: raises DataError if a file differs from its record, from the previous seal, or from what
    validation finds in the arrays and texts now. A PDF of an earlier page would contradict the new page, so it is
    removed, or made again with `as_pdf`.
    """
    trial = archive.check_before_sealing(run)
    verification.check_before_sealing(run)
    signature.try_key(run)
    page_file = build(run)
    page_file.with_suffix(".pdf").unlink(missing_ok=True)
    more = [pdf.write(page_file)] if as_pdf else []
    more += [_verifier(run), made_with.write(run), *descriptions.write(run)]
    key = run.profile.signing_key
    archive.write_sums(run, trial, [page_file, *more, *write_notes(run)], signature.fingerprint(key) if key else "")
    signature.sign(run)
    return run.sums


def _verifier(run: Run) -> Path:
    """Copy the verifier that needs no software of ours into the archive: for convenience, it is no witness."""
    target = run.folder / VERIFIER.name
    write_atomic(target, VERIFIER.read_bytes())
    return target


@explain_disk_errors("writing the notes")
def write_notes(run: Run) -> tuple[Path, Path]:
    """Write the notes for a person, also for a failed run: the execution report and failures.log."""
    return execution_report(run), failure_log(run)


# ----------------------------------------------------------------------------------------------------------- verdict


def _verdict(run_facts: RunFacts) -> Markup:
    """Return whether the run succeeded: in words, with a shape and a colour."""
    good = run_facts.ok
    title = "Succeeded: all checks hold" if good else "Not succeeded"
    lines = [tag("div", _data(printed.verdict(run_facts))), tag("div", text(troubles(run_facts), 1000))]
    shape = tag("div", text("✓" if good else "✗"), class_="shape", aria_hidden="true")
    return tag("div", shape, tag("div", tag("b", text(title)), *lines), class_=f"verdict {'good' if good else 'bad'}")


# ---------------------------------------------------------------------------------------------------------- sections


def _figures(run_facts: RunFacts) -> Markup:
    return tag("dl", *map(_card, printed.cards(run_facts)), class_="figures")


def _card(card: printed.Card) -> Markup:
    note = [tag("dd", _data(card.note))] if card.note else []
    value = _data(card.figure) if card.figure.text else page.MISSING
    long = {"class_": "long"} if len(card.figure.text) > LONG else {}
    return tag("div", tag("dt", text(card.name)), tag("dd", value, **long), *note)


def _data(what: Printed) -> Markup:
    """Print a figure so that a program finds it again: `printed.read` does, when the archive is verified."""
    return tag("data", text(what.text, printed.LONGEST), id=what.key, value=what.value)


def _phases(run_facts: RunFacts) -> Markup:
    rows = []
    for phase in PHASES:
        spans = [span for span in run_facts.spans if span.phase == phase]
        result = run_facts.results[phase]
        checks = run_facts.checks(phase)
        failed = sum(check.verdict == "FAILED" for check in checks)
        counted = text(f"{len(checks) - failed} of {len(checks)} hold") if result else page.MISSING
        outcome = (
            page.mark("FAILED" if failed else "ok" if held(run_facts, phase) else "FAILED") if result else page.MISSING
        )
        seconds = [span.seconds for span in spans if span.seconds is not None]
        took = text(exactly(sum(seconds))) if seconds else page.MISSING
        ended = text(page.at_utc(spans[-1].stop) if spans else "–")
        rows.append((text(phase), outcome, counted, took, text(len(spans)), ended))
    return page.table("", ("phase", "result", "checks", "time", "executions", "last ended"), rows)


def _attention(run_facts: RunFacts) -> Markup:
    marked = [(facts.kind(event), event) for event in run_facts.events if facts.is_reported(event)]
    checks = [(phase, c) for phase, c in all_checks(run_facts) if c.verdict in ("FAILED", "warning")]
    faults = page.table(
        "Faults, recoveries and what a person undid, by the journal",
        ("event", "kind", "when", "what the journal says"),
        [
            (text(event["event"]), page.mark(kind), _at(event), page.words(facts.details(event)))
            for kind, event in marked
        ],
    )
    warned = page.table(
        "Checks that fail or warn",
        ("check", "verdict", "phase", "where", "seen", "what to do"),
        [
            (name, verdict, text(phase), where, actual, remedy)
            for phase, check in checks
            for name, verdict, where, actual, _, remedy in [_check(check)]
        ],
    )
    unread = [tag("li", text(what, 500)) for what in run_facts.missing]
    return joined(
        (
            faults if marked else Markup("<p>No fault and no recovery in the journal.</p>"),
            warned if checks else Markup("<p>No check fails and none warns.</p>"),
            *((Markup("<h3>Missing</h3>"), tag("ul", *unread)) if unread else ()),
            page.fold(text(f"The whole journal: {many(len(run_facts.events), 'event')}"), _journal(run_facts.events)),
        )
    )


def _at(event: DatedEvent) -> Markup:
    return text(page.at_utc(event["when"]))


def _journal(events: Sequence[DatedEvent]) -> Markup:
    rows = [(text(event["event"]), _at(event), page.words(facts.details(event), 500)) for event in events]
    return page.table("", ("event", "when", "what it says"), rows)


def _pictures(run_facts: RunFacts) -> Markup:
    figures, plan = run_facts.figures, run_facts.plan
    strip = _figure(lambda: pictures.row_strip(plan)) if plan else Markup("<p>No plan, so no rows to show.</p>")
    pair = _figure(lambda: pictures.projection(figures)), _figure(lambda: pictures.norm_histogram(figures))
    return joined(
        (
            _figure(lambda: pictures.timeline(run_facts.run)),
            strip,
            tag("div", *pair, class_="pair"),
            Markup("<h3>Questions and their nearest documents</h3>"),
            tag("div", pictures.nearest(figures).html(), class_="scroll"),
            Markup("<h3>Some documents and their nearest</h3>"),
            tag("div", nearest.beside(figures.neighbours), class_="scroll") if figures.neighbours else page.MISSING,
        )
    )


def _figure(draw: Callable[[], pictures.Picture]) -> Markup:
    """Return a picture with its numbers in words under it; a drawing error must not stop the report."""
    try:
        picture = draw()
    except Exception as error:
        reason = Markup("This picture cannot be drawn: "), text(f"{type(error).__name__}: {error}")
        return tag("p", *reason, class_="missing")
    return tag("figure", picture.html(), tag("figcaption", text(picture.caption, 600)))


def _checks(run_facts: RunFacts) -> Markup:
    blocks = []
    for phase in PHASES:
        groups = [(name, list(items)) for name, items in groupby(run_facts.checks(phase), lambda check: check.group)]
        content = joined(_group(name, items) for name, items in groups) or tag("p", page.MISSING)
        blocks.append(page.block(f"checks-{phase}", phase, content, level=3))
    return joined(blocks)


def _not_proved() -> Markup:
    return tag("ul", *(tag("li", text(what, 1000)) for what in NOT_PROVED))


def _group(name: str, checks: Sequence[CheckRecord]) -> Markup:
    verdicts = [check.verdict for check in checks]
    worst = next((v for v in ("FAILED", "warning") if v in verdicts), "ok")
    counted = many(len(checks), "check") + ("" if worst == "ok" else f", {verdicts.count(worst)} {worst}")
    heads = ["check", "verdict", "where", "seen", "expected", *(["what to do"] if worst != "ok" else [])]
    rows = [_check(check)[: len(heads)] for check in checks]
    shape = tag("span", text(page.SHAPES[worst]), class_=page.COLOURS.get(worst, ""))
    summary = joined((shape, Markup(" "), text(name), text(f" ({counted})")))
    return page.fold(summary, page.table("", heads, rows, fixed=True), opened=worst == "FAILED")


def _check(check: CheckRecord) -> list[Markup]:
    actual, expected, remedy = (page.words(each) for each in (check.seen, check.expected, check.remedy))
    remedy = remedy if check.verdict != "ok" else Markup("")
    return [text(check.name), page.mark(check.verdict), text(check.where), actual, expected, remedy]


def _notebooks(run: Run) -> Markup:
    return joined(page.block(f"notebook-{phase}", phase, _notebook(run, phase), level=3) for phase in PHASES)


def _notebook(run: Run, phase: str) -> Markup:
    """Return the executed notebook; if no execution counted, the last one that was tried."""
    path, note = run.report / f"{phase}.ipynb", Markup("")
    if not path.exists():
        tried = list((run.report / "attempts").glob(f"{phase}.attempt-*.ipynb"))
        if not tried:
            return tag("p", page.MISSING, Markup(": "), _by_hand(run, phase))
        path = max(tried, key=lambda attempt: attempt.stat().st_mtime_ns)
        remark = Markup("No execution counted; this is the last one tried, ")
        note = tag("p", remark, tag("code", text(path.name)), Markup("."))
    try:
        body, cells = notebook_pages.fragment(path, phase)
    except Exception as error:  # a half-written notebook must not stop the report
        return tag("p", text(error), class_="missing")
    summary = text(path.name) + text(f", {many(cells, 'cell')}")
    return note + page.fold(summary, tag("div", body, class_="notebook"))


def _by_hand(run: Run, phase: str) -> Markup:
    """Return why there is no executed notebook of a phase, and how to add one that a person executed."""
    if not run.result_file(phase).exists():
        return Markup("not executed by the chain, and not by hand")
    advice = Markup(
        "executed by hand, and the notebook was not kept here; its checks are above. To keep it, save it, then "
    )
    command = tag("code", text(f"runbook report {run.name} --notebook {phase}.ipynb"))
    return advice + command


def _files(run_facts: RunFacts) -> Markup:
    rows = []
    for name, written in (run_facts.manifest.outputs if run_facts.manifest else {}).items():
        rows.append((Markup("merged/") + text(name), page.size(written.bytes), _sum(f"merged/{name}", written.sha256)))
    for kind in ("founding", "backup"):
        if output := run_facts.output(kind):
            path = text(f"{kind}: ") + page.mono(output.path)
            rows.append((path, page.size(output.bytes), _sum(kind, output.sha256)))
    table = tag("p", page.MISSING)
    if rows:
        table = page.table("Checksums of the result", ("file", "size", "sha256"), rows)
    remark = Markup("Every file of the run, this page too, is in ")
    return table + tag("p", remark, tag("code", text(run_facts.run.sums.name)), Markup("."))


def _sum(name: str, sha256: str) -> Markup:
    return tag("span", _data(printed.checksum(name, sha256)), class_="mono")


def _environment(run_facts: RunFacts) -> Markup:
    rows = [
        (
            "where this page was written",
            f"Python {platform.python_version()} ({sys.implementation.name}), {platform.platform()}",
        )
    ]
    rows.append(("where this page was written", ", ".join(f"{name} {_version(name)}" for name in PACKAGES)))
    for host, known in run_facts.hosts.items():
        rows.append((host, ", ".join(f"{key} {facts.as_text(value)}" for key, value in known.items() if value)))
    counts = run_facts.manifest.seen if run_facts.manifest else {}
    rows += [(f"parts: {key}", facts.as_text(value)) for key, value in counts.items()]
    rows.append(("encoded on", ", ".join(run_facts.encoding.devices) or "unknown"))
    return page.table("", ("where", "what"), [(text(where), page.words(what)) for where, what in rows])


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "missing"
