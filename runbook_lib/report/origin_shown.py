"""Sections of the report: what was embedded, how and by whom; what was promised, beside what came; what is next."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from .. import records
from ..corpus import corpus as corpora
from ..errors import DataError, RunbookError
from ..phases import promise
from ..result import whole as wholes
from ..result.facts import RunFacts
from ..run import model_card
from ..run.run import Run
from ..show.markup import Markup, joined, tag, text
from ..show.words import exactly, one_line
from . import page
from .next_steps import next_steps

SAMPLE = 3  # documents
NOT_RECORDED = Markup('<span class="missing">not recorded by the version that began this run</span>')


def section(run_facts: RunFacts) -> Markup:
    """Return what was embedded, by which model, software, profile and command, and who began it."""
    run = run_facts.run
    created = next((event for event in run_facts.events if event["event"] == "run created"), None)
    told = ("", "", "")
    if created:
        told = created.get("software", ""), created.get("by", ""), created.get("command", "")
    rows = [*_corpus(run), *_model(run_facts)]
    for name, words in zip(("software", "begun by", "begun with"), told, strict=True):
        rows.append((text(name), page.mono(words) if words else NOT_RECORDED))
    return page.table("", ("what", "which"), rows) + _profile(run) + _citation(run)


def _corpus(run: Run) -> list[tuple[Markup, Markup]]:
    try:
        corpus = wholes.all_documents(run)
        path = _source(corpus)
        titles = list(_titles(corpus))
    except (RunbookError, OSError):
        return [(text("corpus"), page.MISSING)]
    size = page.size(corpus.source_bytes)
    where = joined((page.mono(path or run.profile.corpus.path.name), text(" — "), size))
    asked = f" and {corpus.questions:,} questions" if corpus.questions else ""
    return [
        (text("corpus"), where),
        (text("its sha256"), page.mono(corpus.source_sha256)),
        (text("documents"), text(f"{corpus.documents:,}{asked}")),
        (text("such as"), text("; ".join(titles) or "documents without titles", 500)),
    ]


def _source(corpus: corpora.Corpus) -> str:
    """The name of the file that was numbered, by the corpus's own record."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        return Path(json.loads((corpus.folder / "corpus.json").read_bytes())["source"]["path"]).name
    return ""


def _titles(corpus: corpora.Corpus) -> list[str]:
    wanted = [corpus.documents * number // SAMPLE for number in range(SAMPLE)]
    found = [article for row, article in enumerate(corpus.articles()) if row in wanted]
    return [one_line(title, 120) for article in found if (title := article.get("title"))]


def _model(run_facts: RunFacts) -> list[tuple[Markup, Markup]]:
    plan, card = run_facts.plan, _card(run_facts.run)
    if plan is None:
        return [(text("model"), page.MISSING)]
    licence = text(card.licence) if card.licence else text("its card names none: ask its maker")
    return [
        (text("model"), page.mono(f"{plan.model.name} at {plan.model.revision}")),
        (text("its digest"), page.mono(plan.model.digest)),
        (text("its licence"), licence),
    ]


def _card(run: Run) -> model_card.ModelCard:
    with suppress(DataError, OSError):
        return records.read(model_card.ModelCard, run.report / model_card.RECORD) or model_card.ModelCard()
    return model_card.ModelCard()


def _profile(run: Run) -> Markup:
    try:
        words = run.profile_file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return Markup("")
    return page.fold(text("The profile as used"), tag("pre", text(words, 50_000), class_="copy"))


def _citation(run: Run) -> Markup:
    citation = _card(run).citation
    return page.fold(text("How the model wants to be cited"), tag("pre", text(citation, 4000), class_="copy")) \
        if citation else Markup("")  # fmt: skip


def steps(run_facts: RunFacts) -> Markup:
    """Return what a person does next, with the commands."""
    items = [
        tag("li", text(words), *((Markup(": "), tag("code", text(command, 500))) if command else ()))
        for words, command in next_steps(run_facts)
    ]
    return tag("ol", *items)


# ------------------------------------------------------------------------------------------------- promise and fact


def promised(run_facts: RunFacts) -> Markup:
    """Return what preflight promised, beside what came."""
    made = promise.kept(run_facts.run)
    if made is None:
        return Markup("<p>Nothing was promised: this run's preflight was made by an earlier version.</p>")
    rows = [*_cut(run_facts, made), *_time(run_facts, made), *_room(run_facts, made)]
    rows += [_row("energy of GPUs", promise.energy_in_words(made), "")] if made.energy_wh is not None else []
    return page.table("What preflight said before anything was spent", ("what", "promised", "came", "difference"), rows)


def _row(name: str, before: str, after: str, difference: str = "") -> tuple[Markup, ...]:
    return text(name), text(before or "not known"), text(after) if after else page.MISSING, text(difference)


def _cut(run_facts: RunFacts, made: promise.Promise) -> list[tuple[Markup, ...]]:
    found, manifest = made.lengths, run_facts.manifest
    if found is not None and made.chunk_tokens:
        chunked = manifest.chunked if manifest is not None and manifest.documents else None
        share = chunked.documents / manifest.documents if manifest and chunked else None
        fact = f"{100 * share:.2f} %" if share is not None else ""
        return [_row("documents in several chunks", f"{100 * found.in_chunks / found.texts:.2f} %", fact, "")]
    if found is None or made.limit is None:
        return []
    about = "" if found.exact else f" ± {100 * found.margin:.1f}, of a sample"
    before = [f"{100 * found.share_cut:.2f} %{about}", f"{100 * found.tokens_cut:.2f} %"]
    after, difference = ["", ""], ["", ""]
    if manifest is not None and manifest.documents:
        came = manifest.lengths.documents
        shares = (came.truncated_rows / manifest.documents, came.share_cut)
        after = [f"{100 * share:.2f} %" for share in shares]
        pairs = zip(shares, (found.share_cut, found.tokens_cut), strict=True)
        difference = [
            f"{100 * (one - other):+.2f} points" if abs(one - other) > 5e-5 else "none" for one, other in pairs
        ]
    names = ("documents cut", "tokens not read")
    return [_row(*each) for each in zip(names, before, after, difference, strict=True)]


def _time(run_facts: RunFacts, made: promise.Promise) -> list[tuple[Markup, ...]]:
    took = run_facts.encoding.busy_s
    whole = run_facts.encoding.rows >= made.rows > 0
    rate = made.rows_s
    rows = [
        _row(
            "time of encoding",
            exactly(made.encode_s) if made.encode_s else "",
            exactly(took) if whole else "",
            _percent(took, made.encode_s) if whole else "",
        )
    ]
    if rate:
        came = run_facts.encoding.rate
        rows.append(_row("rate", f"{rate:,.1f} rows/s", f"{came:,.1f} rows/s" if came else "", _percent(came, rate)))
    return rows


def _room(run_facts: RunFacts, made: promise.Promise) -> list[tuple[Markup, ...]]:
    run = run_facts.run
    if run_facts.manifest is None or run_facts.since is not None:
        return []
    files = [path for folder in (run.corpus, run.local.parts, run.merged) for path in folder.glob("*")]
    came = sum(path.stat().st_size for path in files if path.is_file())
    came += sum(output.bytes or 0 for kind in ("founding", "backup") if (output := run_facts.output(kind)))
    before, after = (f"{size / 1e6:,.1f} MB" for size in (made.bytes, came))
    return [_row("room here, for corpus, parts and result", before, after, _percent(came, made.bytes))]


def _percent(came: float | None, before: float | None) -> str:
    return f"{100 * (came / before - 1):+.1f} %" if came and before else ""
