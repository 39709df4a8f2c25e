"""The panel: a `Snapshot` as HTML and as text, with every number in words. Pure: no notebook, no clock, no drawing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..slots.snapshot import SlotState, Snapshot
from . import listed
from .listed import BADGES, CALM, TROUBLE
from .listed import concern as _concern
from .markup import BLUE, CELL, INK, MUTED, NUMBER, RED, WIDE, Markup, badge, bar, joined, table, tag, text
from .words import clock_time, duration, many, one_line, percent, rate, spark

BAR = 24  # characters of a bar in a terminal
STALE_S = 60.0  # a slot without a heartbeat for so long is marked, whatever its state


def remaining(state: Snapshot) -> str:
    """Return the time left: `about 3 min`, `unknown yet`, `nothing left`."""
    if state.done:
        return "nothing left"
    return "unknown yet" if state.eta_s is None else f"about {duration(state.eta_s)}"


def between(state: Snapshot) -> str:
    """Return the range of the time left: `2 min to 5 min`; empty if both ends read the same."""
    if state.done or state.eta_range_s is None:
        return ""
    soon, late = map(duration, state.eta_range_s)
    return "" if soon == late else f"{soon} to {late}"


def pace(state: Snapshot) -> str:
    """Return rate and time left in words: `9.1 rows/s, about 7 min left, until 14:05`."""
    per_second = f"{rate(state.rate)[:-2]} rows/s" if state.rate else "" if state.done else "no rate yet"
    left = "done" if state.done else "time left unknown yet"
    if not state.done and state.eta_s is not None:
        left = f"{remaining(state)} left, until {clock_time(state.at + state.eta_s)}"
    return ", ".join(filter(None, (per_second, left)))


def outlook(state: Snapshot) -> str:
    """Return rate, time left and how many rows were given up, in words."""
    given_up = f", {many(len(state.quarantined), 'row')} given up" if state.quarantined else ""
    return pace(state) + given_up


def headline(state: Snapshot) -> str:
    """Return the whole state in one line."""
    return f"{state.committed:,} of {state.rows:,} rows ({percent(state.committed, state.rows)}), {outlook(state)}"


def log_lines(state: Snapshot) -> str:
    """Return the state in one line for a log, and a line for each alert."""
    alerts = "".join(f"\n  ! {one_line(alert, 500)}" for alert in _few(state.alerts))
    return f"{one_line(state.run, 100)}: {headline(state)}{alerts}"


def gpu(slot: SlotState) -> str:
    """Return the figures of a slot's GPU: use, memory, temperature, power; empty if unknown."""
    if slot.gpu is None:
        return ""
    use, used, warmth, watts = slot.gpu
    values = (
        None if use is None else f"{use} %",
        None if used is None else f"{used / 1024:.1f} GiB",
        None if warmth is None else f"{warmth} °C",
        None if watts is None else f"{watts:.0f} W",
    )
    return " ".join(filter(None, values))


def contact(slot: SlotState) -> str:
    """Return the age of a slot's last heartbeat, with a mark if it is old."""
    if slot.age_s is None:
        return "never" if not slot.done else "–"
    ago = f"{duration(max(0.0, slot.age_s))} ago"
    return f"{ago} !" if slot.age_s > STALE_S and not slot.done else ago


def notes(slot: SlotState) -> str:
    """Return how often a slot's worker was restarted, and why."""
    restarts = many(slot.restarts, "restart") if slot.restarts else ""
    return ": ".join(part for part in (restarts, one_line(slot.reason)) if part)


def _spark_cell(slot: SlotState) -> Markup:
    drawn = spark(slot.trend)
    described = f"rate at the last {len(slot.trend)} looks: {', '.join(f'{value:.1f}' for value in slot.trend)} rows/s"
    inside = [tag("span", text(drawn), role="img", aria_label=text(described), style=f"color:{BLUE}")] if drawn else []
    return tag("td", *inside, style=f"{CELL};font-family:monospace")


def _slot_row(slot: SlotState, with_gpu: bool) -> Markup:
    shape, colour = BADGES.get(slot.verdict or slot.state, TROUBLE)
    of_gpu = [tag("td", text(gpu(slot), 60), style=NUMBER)] if with_gpu else []
    coming = f" +{slot.in_part:,}" if slot.in_part and not slot.done else ""
    return tag(
        "tr",
        tag("th", text(slot.slot, 40), scope="row", style=f"{CELL};font-weight:600"),
        tag("td", badge(slot.verdict or slot.state, shape, colour), style=CELL),
        tag("td", text(slot.host, 64), style=CELL),
        tag("td", bar(slot.committed, slot.rows, f"{slot.slot}, rows committed", "6em"), style=CELL),
        tag("td", text(f"{slot.committed:,}/{slot.rows:,}"), style=NUMBER),
        tag("td", text(coming), style=f"{CELL};{MUTED}"),
        tag("td", text(rate(slot.rate)), style=NUMBER),
        _spark_cell(slot),
        tag("td", text(duration(slot.eta_s)), style=NUMBER),
        *of_gpu,
        tag("td", text(contact(slot)), style=CELL),
        tag("td", text(notes(slot)), style=WIDE),
    )


def _summary(state: Snapshot) -> Markup:
    facts = [
        ("rate", f"{rate(state.rate)[:-2]} rows/s" if state.rate else "–" if state.done else "unknown yet"),
        ("left", " ".join(filter(None, (remaining(state), between(state) and f"({between(state)})")))),
        ("watched for", duration(state.elapsed_s)),
        ("rows given up", f"{len(state.quarantined):,}"),
        ("texts cut", f"{state.truncated:,}"),
        ("norms zero or no number", f"{state.norms_bad:,}"),
    ]
    blank = Markup(" ")  # a narrow page may break the line there
    cells = [
        tag("span", tag("span", text(name), style=MUTED), blank, tag("b", text(value)),
            style="padding-right:24px;white-space:nowrap")
        for name, value in facts
    ]  # fmt: skip
    share = percent(state.committed, state.rows)
    rows = tag("b", text(f"{state.committed:,} of {state.rows:,} rows"), style="font-size:115%")
    of_run = tag("span", Markup("of run "), text(state.run, 100), style=MUTED)
    return joined(
        (
            tag("div", rows, text(f" ({share}) "), of_run, style="padding-bottom:2px"),
            tag("div", bar(state.committed, state.rows, f"all rows: {share}", "100%"), style="padding-bottom:4px"),
            tag("div", joined(cells, blank), style="padding-bottom:6px"),
        )
    )


def _hosts(state: Snapshot) -> Markup:
    """Return a table with a line for each host, if there are several; of very many, the worst, and one for the rest."""
    hosts, rest = listed.hosts(state)
    if len(hosts) < 2:
        return Markup("")
    others = len({slot.host for slot in rest})
    rows = [_host_row(host, slots) for host, slots in hosts]
    rows += [_host_row(f"{many(others, 'other host')}", rest)] if rest else []
    heads = [("host", CELL), ("committed", CELL), ("rows", NUMBER), ("rate", NUMBER), ("left", NUMBER)]
    caption = many(len(hosts) + others, "host")
    return table(caption, [*heads, ("slots done", NUMBER), ("in trouble", NUMBER)], rows)


def _host_row(name: str, slots: Sequence[SlotState]) -> Markup:
    rows_of, done = sum(slot.rows for slot in slots), sum(slot.committed for slot in slots)
    rates = [slot.rate for slot in slots if slot.rate]
    left = (rows_of - done) / sum(rates) if rates else None
    ended, troubled = sum(slot.done for slot in slots), sum(_concern(slot) < CALM for slot in slots)
    numbers = (
        f"{done:,}/{rows_of:,}",
        rate(sum(rates) if rates else None),
        "–" if done >= rows_of else duration(left),
        f"{ended} of {len(slots)}",
        f"{troubled} !" if troubled else "–",
    )
    head = tag("th", text(name, 64), scope="row", style=f"{CELL};font-weight:600")
    drawn = tag("td", bar(done, rows_of, f"{name}, all its rows"), style=CELL)
    return tag("tr", head, drawn, *(tag("td", text(number), style=NUMBER) for number in numbers))


def _few(alerts: Sequence[str]) -> list[str]:
    """The first alerts, and how many more there are."""
    more = len(alerts) - listed.ALERTS
    return [*alerts[: listed.ALERTS], *([f"and {many(more, 'alert')} more"] if more > 0 else [])]


def _alerts(state: Snapshot) -> Markup:
    if not state.alerts:
        return Markup("")
    lines = [tag("li", text(alert, 500), style="margin:0") for alert in _few(state.alerts)]
    return tag(
        "div",
        badge(many(len(state.alerts), "alert"), "!", RED),
        tag("ul", *lines, style="margin:2px 0;padding-left:18px"),
        style=f"border-left:4px solid {RED};padding:2px 0 2px 10px;margin-bottom:6px",
    )


def progress_html(state: Snapshot, picture: Markup | None = None, only: str = "") -> Markup:
    """Return the panel: all rows, alerts, a line for each slot to list (`listed.slots`), and below them `picture`."""
    shown = listed.slots(state, only)
    with_gpu = any(slot.gpu for slot in shown)
    heads = [
        ("slot", CELL),
        ("state", CELL),  # beside the name: what is further right may be out of sight
        ("host", CELL),
        ("committed", CELL),
        ("rows", NUMBER),
        ("", CELL),
        ("rate", NUMBER),
        ("of late", CELL),
        ("left", NUMBER),
        *([("GPU", NUMBER)] if with_gpu else []),
        ("last contact", CELL),
        ("restarts and reason", WIDE),
    ]
    caption = f"{listed.caption(state, shown, only)}; +n: rows of a part that is not committed yet"
    slots = table(caption, heads, (_slot_row(slot, with_gpu) for slot in shown))
    below = [tag("div", picture, style="padding-top:8px")] if picture else []
    style = "font-family:var(--jp-ui-font-family,system-ui,sans-serif);font-size:13px;line-height:1.45;"
    style += f"max-width:1120px;{INK}"
    return tag("div", _summary(state), _alerts(state), _hosts(state), slots, *below, style=style)


def text_bar(done: int, of: int, width: int = BAR) -> str:
    """Return a bar of ASCII characters; it is full only when everything is done."""
    filled = width if done >= of else min(width - 1, width * done // max(1, of))
    return "#" * filled + "-" * (width - filled)


def _columns(rows: Sequence[Sequence[str]], right: Iterable[int]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    right = set(right)
    return [
        "  ".join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def progress_text(state: Snapshot, only: str = "") -> str:
    """Return the panel as text, for a terminal or a notebook without HTML."""
    shown = listed.slots(state, only)
    rows: list[tuple[str, ...]] = [
        ("slot", "state", "host", "committed", "rows", "rate", "of late", "left", "GPU", "last contact", "why")
    ]
    rows += [
        (
            one_line(slot.slot, 40),
            one_line(slot.verdict or slot.state, 40),
            one_line(slot.host, 64),
            text_bar(slot.committed, slot.rows, 12),
            f"{slot.committed:,}/{slot.rows:,}",
            rate(slot.rate),
            spark(slot.trend),
            duration(slot.eta_s),
            gpu(slot),
            contact(slot),
            notes(slot),
        )
        for slot in shown
    ]
    if not any(slot.gpu for slot in shown):
        rows = [(*row[:8], *row[9:]) for row in rows]
    alerts = [f"! {one_line(alert, 500)}" for alert in _few(state.alerts)]
    first = f"{one_line(state.run, 100)}: {headline(state)}"
    which = [] if len(shown) == len(state.slots) else [listed.caption(state, shown, only)]
    lines = _columns(rows, right=(4, 5, 7)) if shown else []
    return "\n".join([first, text_bar(state.committed, state.rows, 60), *which, *lines, *alerts])
