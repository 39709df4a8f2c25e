"""The last cell of the last notebook: the run is sealed, and here is what to do with it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ..result import publication
from ..run import driver
from ..run.run import PHASES, Run
from ..show.markup import CELL, Markup, joined, tag, text
from . import by_hand, report, sealing


@dataclass(frozen=True)
class Ending:
    """A sealed run: where its files are, how they are loaded, and which executed notebooks the report has not.

    `untold`: the hosts that could not be told of the seal, in words.
    `links`: whether the report is named as a link, for a person who executes this notebook.
    """

    run: str
    folder: Path
    rows: tuple[tuple[str, str], ...]
    lacking: tuple[str, ...]
    untold: tuple[str, ...]
    links: bool

    @property
    def example(self) -> str:
        """How a program loads it."""
        return f'import runbook_lib\nresult = runbook_lib.load("{self.folder}")\nresult.search("a question", 5)'

    @property
    def _last(self) -> list[str]:
        after = [f"look at every byte: runbook verify {self.run}"]
        after += [f"the seal is not kept by {line}" for line in self.untold]
        if self.lacking:
            kept = f"runbook report {self.run} --notebook FILE.ipynb"
            after.append(f"not in the report: {', '.join(self.lacking)}. Save this notebook, then: {kept}")
        return after

    def __repr__(self) -> str:
        lines = [f"run {self.run} is sealed", *(f"  {name:8}  {value}" for name, value in self.rows)]
        return "\n".join([*lines, *self.example.splitlines(), *self._last])

    def _repr_html_(self) -> str:
        rows = [
            tag("tr", tag("th", text(name), scope="row", style=CELL), tag("td", self._value(name, value), style=CELL))
            for name, value in self.rows
        ]
        title = tag("p", text(f"Run {self.run} is sealed."))
        after = tag("ul", *(tag("li", text(line, 1000)) for line in self._last))
        return joined((title, tag("table", tag("tbody", *rows)), tag("pre", text(self.example, 2000)), after))

    def _value(self, name: str, value: str) -> Markup:
        if name == "report" and self.links:
            return tag("a", text(value, 1000), href=os.path.relpath(value))
        return text(value, 1000)


def seal(run: Run) -> Ending:
    """Seal the run, with the notebooks of this folder that a person executed for it. Raises what `report.seal` does."""
    by_hand.add_beside(run, [Path.cwd()])
    by_person = not driver.driven(run)
    untold = sealing.seal(run) if by_person else []
    if not by_person:
        report.seal(run)  # the chain seals once more, when this notebook's own file is there, and tells the hosts
    lacking = [phase for phase in PHASES if not (run.report / f"{phase}.ipynb").exists()] if by_person else []
    return Ending(run.name, run.folder, tuple(_rows(run)), tuple(lacking), tuple(untold), by_person)


def _rows(run: Run) -> list[tuple[str, str]]:
    rows = [("report", str(run.report / "report.html"))]
    result = publication.current_result(run)
    if manifest := result.merged.manifest():
        shape = f"{manifest.documents:,} documents x {manifest.dim}"
        rows += [("vectors", f"{result.merged.embeddings} ({shape}, float32)"), ("pickle", str(run.founding_file))]
    return rows
