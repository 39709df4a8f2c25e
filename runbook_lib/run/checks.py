"""A check compares a fact with what is expected and carries the remedy; a `Checks` shows itself as a table."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field

from worker.escape import safe_text


@dataclass(frozen=True)
class Check:
    """One fact: `ok` False stops the phase, `warn` True is shown and does not stop it."""

    name: str
    ok: bool
    seen: str
    expected: str = ""
    remedy: str = ""
    where: str = "here"
    warn: bool = False

    @property
    def verdict(self) -> str:
        """`ok`, `warning` or `FAILED`, as shown to people."""
        if not self.ok:
            return "FAILED"
        return "warning" if self.warn else "ok"


MARKS = {"ok": "✓", "warning": "!", "FAILED": "✗"}


@dataclass
class Checks:
    """The checks of one question ("is this machine ready?"), in the order they were made; `stamp`: shown below."""

    title: str
    items: list[Check] = field(default_factory=list)
    stamp: str = ""

    def add(
        self,
        name: str,
        ok: bool,
        seen: object,
        expected: object = "",
        remedy: str = "",
        where: str = "here",
        warn: bool = False,
    ) -> bool:
        """Record one check and return its `ok`, so that what depends on it can be skipped."""
        self.items.append(
            Check(name, bool(ok), safe_text(str(seen)), safe_text(str(expected)), safe_text(remedy), where, warn)
        )
        return bool(ok)

    def extend(self, checks: Iterable[Check]) -> None:
        """Add checks that were made elsewhere."""
        self.items.extend(checks)

    @property
    def ok(self) -> bool:
        """True when no check failed; warnings do not count."""
        return all(item.ok for item in self.items)

    @property
    def failed(self) -> list[Check]:
        """The checks that do not hold."""
        return [item for item in self.items if not item.ok]

    def as_dicts(self) -> list[dict[str, object]]:
        """JSON-ready records, each with its title and verdict."""
        return [{"group": self.title, **asdict(item), "verdict": item.verdict} for item in self.items]

    def grid(self) -> Grid:
        """Return the same checks as a table of places by checks, with the remedies below."""
        return Grid(self)

    def __iter__(self) -> Iterator[Check]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    def __repr__(self) -> str:
        lines = [f"{self.title}: {'ok' if self.ok else 'FAILED'}"]
        for item in self.items:
            want = f" (expected {item.expected})" if item.expected and item.verdict != "ok" else ""
            lines.append(f"  {MARKS[item.verdict]} {item.where}: {item.name}: {item.seen}{want}")
            if item.remedy and item.verdict != "ok":
                lines.append(f"      -> {item.remedy}")
        return "\n".join([*lines, *([f"  {self.stamp}"] if self.stamp else [])])

    def _repr_html_(self) -> str:
        heads = ("verdict", "where", "check", "seen", "expected", "what to do")
        rows = [
            (_marked(i), i.where, i.name, i.seen, i.expected, i.remedy if i.verdict != "ok" else "") for i in self.items
        ]
        stamp = f"<p>{html.escape(self.stamp)}</p>" if self.stamp else ""
        return _table(self, heads, rows, names=2, style="text-align:left") + stamp


CONSEQUENCE = "hold first"  # how the remedy of a check ends that only waits for others


def to_mend(failed: Sequence[Check]) -> list[str]:
    """Return each cause once, with what to do: one line for all places with the same, none for what only follows."""
    causes: dict[tuple[str, str, str], list[str]] = {}
    of_their_own = [item for item in failed if not item.remedy.endswith(CONSEQUENCE)]
    for item in of_their_own or failed:
        places = causes.setdefault((item.name, item.seen, item.remedy), [])
        if item.where not in places:
            places.append(item.where)
    return [
        f"{', '.join(places)}: {name}: {seen}{f' -> {remedy}' if remedy else ''}"
        for (name, seen, remedy), places in causes.items()
    ]


@dataclass(frozen=True)
class Grid:
    """Checks as a table: a row for each place, a column for each check; details and remedies of what does not hold."""

    checks: Checks

    def _table(self) -> tuple[list[str], dict[str, dict[str, Check]]]:
        columns: list[str] = []
        rows: dict[str, dict[str, Check]] = {}
        for item in self.checks:
            if item.name not in columns:
                columns.append(item.name)
            before = rows.setdefault(item.where, {}).get(item.name)
            if before is None or before.ok:  # of two checks of one name, show the one that failed
                rows[item.where][item.name] = item
        return columns, rows

    def __repr__(self) -> str:
        return repr(self.checks)

    def _repr_html_(self) -> str:
        columns, rows = self._table()
        cells = [(where, *(_cell(checks.get(name)) for name in columns)) for where, checks in rows.items()]
        to_do = "".join(
            f"<li><b>{html.escape(f'{item.where}: {item.name}')}</b>: {html.escape(item.remedy)}</li>"
            for item in self.checks
            if item.remedy and item.verdict != "ok"
        )
        table = _table(self.checks, ("where", *columns), cells, names=0, style="text-align:left;vertical-align:top")
        return table + (f"<p>What to do:</p><ul>{to_do}</ul>" if to_do else "")


def _cell(item: Check | None) -> str:
    return "" if item is None else f"{_marked(item)}: {item.seen}"


def _marked(item: Check) -> str:
    return f"{MARKS[item.verdict]} {item.verdict}"


def _table(checks: Checks, heads: Sequence[str], rows: Sequence[Sequence[str]], names: int, style: str) -> str:
    """Plain text as an HTML table: every cell is escaped here. `names`: the column that names its row."""
    head = "".join(f"<th scope='col' style='{style}'>{html.escape(name)}</th>" for name in heads)
    body = "".join(
        f"<tr>{''.join(_element(cell, place == names, style) for place, cell in enumerate(row))}</tr>" for row in rows
    )
    verdict = "all hold" if checks.ok else f"{len(checks.failed)} of {len(checks)} FAILED"
    title = f"<caption style='{style}'>{html.escape(checks.title)}: <b>{verdict}</b></caption>"
    return f"<table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _element(cell: str, is_name: bool, style: str) -> str:
    if is_name:
        return f"<th scope='row' style='{style}'>{html.escape(cell)}</th>"
    return f"<td style='{style}'>{html.escape(cell)}</td>"
