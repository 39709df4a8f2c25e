"""What a person does next with a run, by what is in it: sentences with a command each."""

from __future__ import annotations

import shlex
from contextlib import suppress

from ..errors import RunbookError
from ..phases.promise import MANY_CUT
from ..result import whole as wholes
from ..result.facts import RunFacts
from ..show.words import one_line


def next_steps(run_facts: RunFacts) -> list[tuple[str, str]]:
    """Return each step in words, with its command; an empty one where there is none."""
    name = run_facts.run.name
    if not run_facts.ok:
        return [
            ("See what is open", f"runbook status {name}"),
            ("Give the same command again: it goes on here", "runbook run PROFILE"),
        ]
    backup, manifest = run_facts.output("backup"), run_facts.manifest
    steps = []
    if backup and backup.same_disk:
        steps.append(("Copy the backup to another disk: it lies on that of the original", ""))
    if manifest and manifest.documents and manifest.lengths.documents.truncated_rows > MANY_CUT * manifest.documents:
        share = 100 * manifest.lengths.documents.truncated_rows / manifest.documents
        steps.append((f"{share:.0f} % of the documents were cut: model.too_long: chunk reads the long ones whole", ""))
    steps += [
        ("Check the archive, today or in a year", f"runbook verify {name}"),
        ("Ask the corpus something", f"runbook search {name} {shlex.quote(_asked(run_facts))}"),
        ("See all of it on one page", f"runbook map {name}"),
        ("Give it to other tools", f"runbook export {name} --to parquet"),
        ("List what is left on the hosts, then free them with --yes", f"runbook clean {name}"),
    ]
    return steps


def _asked(run_facts: RunFacts) -> str:
    """A question that fits the corpus: its own first one, else a title of its middle."""
    with suppress(RunbookError, OSError):
        corpus = wholes.all_documents(run_facts.run)
        for question in corpus.questions_list():
            return one_line(question["question"], 120)
        for row, article in enumerate(corpus.articles()):
            if row >= corpus.documents // 2 and (title := article.get("title")):
                return one_line(title, 120)
    return "your question"
