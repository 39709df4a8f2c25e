"""The corpus of a run: numbered once, and refused where source, questions or prompts changed since."""

from __future__ import annotations

from pathlib import Path

from ..corpus import corpus as corpora
from ..corpus import inspection, numbering, sources
from ..errors import CorpusError
from ..result import whole as wholes
from ..run import model as models
from ..run.run import Run
from . import reuse
from .progress import OnProgress


def numbered(run: Run, model: models.Model, on_progress: OnProgress) -> corpora.Corpus:
    """Return the numbered corpus of this run; the existing one is used if source and choices did not change."""
    spec = run.profile.corpus
    if (run.corpus / "corpus.json").exists():
        corpus, whole = corpora.load(run.corpus), wholes.load(run)
        if wrong := _not_as_numbered(run, whole.corpus if whole else corpus, model):
            raise CorpusError(wrong)
        return corpus

    def build(folder: Path) -> corpora.Corpus:
        built = numbering.build(
            spec.path,
            inspection.Fields.of(spec),
            spec.documents,
            run.profile.questions,
            model.template,
            model.question_template,
            folder,
            lambda done: on_progress("documents read", done, spec.documents or 0),
        )
        on_progress("documents read", built.documents, built.documents)
        return built

    return reuse.number(run, reuse.check_earlier(run, model), build) if run.since else build(run.corpus)


def _not_as_numbered(run: Run, corpus: corpora.Corpus, model: models.Model) -> str:
    """Return why the corpus that this run numbered is not the one of its profile now; empty if it is.

    A missing source is no reason: the run uses its own copy.
    """
    spec, new = run.profile.corpus, "or start a new run (runbook run PROFILE --new)"
    mended = f"{new}, or, if only texts of the same documents were corrected: runbook run PROFILE --amend"
    if sources.exists(spec.path) and not corpus.source_unchanged(spec.path):
        return f"{spec.path}: changed since this run numbered it. Next: put it back as it was, {mended}"
    asked = run.profile.questions
    if (asked is None or asked.exists()) and not corpus.questions_unchanged(asked):
        return (
            f"{asked or 'questions'}: changed since this run numbered them. Next: put them back as they were, {mended}"
        )
    if spec.documents not in (None, corpus.documents):
        return f"corpus.documents: expected {spec.documents:,} documents, this run numbered {corpus.documents:,}"
    if (corpus.template, corpus.question_template) != (model.template, model.question_template):
        return f"the model's prompts changed since this run numbered the corpus. Next: put the model back, {new}"
    return ""
