"""What is written of each measurement: rows with a ratio, what was needed, and whether it passes or falls short."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from measuring import OTHERS, QUIET, spread
from work import BESIDE_ENCODING, CALLED, COSINE, MEASURED, NEXT_BATCH_S, RECALL_LOSS, Encoding, Int8, Script

PASS, SHORT, NOT_MEASURED, COMPARED = "pass", "falls short", "not measured", "for comparison"
FLOP_A_TOKEN = 6 * (4 * 384 * 384 + 2 * 384 * 1536) * 2  # of the linear layers of all-MiniLM-L6-v2
Measurement = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    work: str
    beside: str
    figure: str = ""  # median, and in brackets the lowest and the highest
    needed: str = ""
    verdict: str = NOT_MEASURED
    why: str = ""  # what the verdict does not say by itself
    padding: str = ""  # of the yardstick
    cosine: str = ""
    recall: str = ""
    load: str = ""


def rows_of(what: Encoding | Int8 | Script, measured: Measurement | None) -> list[Row]:
    """The rows of one measurement; where there is none, what is not measured."""
    if measured is None or "error" in measured:
        why = measured["error"] if measured else "it was not run"
        return [Row(what.title, beside, why=why) for beside in _besides(what)]
    load, found = load_words(measured["load"]), measured["figures"]
    if isinstance(what, Encoding):
        rows = [_encoding_row(what, found, peer) for peer in ("encode", *what.peers)]
    elif isinstance(what, Int8):
        rows = [_int8_row(found, way) for way in what.ways]
    else:
        rows = SCRIPTS[what.name](what, found) if what.json else [_goals(what, found)]
    if measured["settings"]["quick"]:
        rows = [replace(row, verdict=NOT_MEASURED, why=row.why or "smallest sizes, only a trial") for row in rows]
    return [replace(row, load=load) for row in rows]


def _besides(what: Encoding | Int8 | Script) -> list[str]:
    if isinstance(what, Encoding):
        return [CALLED[peer] for peer in ("encode", *what.peers)]
    return [CALLED[way] for way in what.ways] if isinstance(what, Int8) else [""]


def load_words(load: dict[str, Any]) -> str:
    """The load at start and end, and whether the machine was quiet."""
    words, others = f"{load['start']:.1f}, {load['end']:.1f}", load["others"]
    # At the end the load is our own work too: others' share tells, where it can be had.
    loud = load["start"] > QUIET or (load["end"] - load["own"] > QUIET if others is None else others > OTHERS)
    if others is not None:
        words += f"; others {others:.2f}"
    return f"{words}: not quiet" if loud else words


def figure(values: list[float], unit: str = "x", places: int = 2) -> str:
    """Median (lowest to highest)."""
    middle, low, high = spread(values)
    return f"{middle:.{places}f}{unit} ({low:.{places}f} to {high:.{places}f})"


def ratios(found: Measurement, way: str, yardstick: str, clock: int = 0) -> list[float]:
    """How many times as fast as the yardstick a way was, round by round. Clock 0: wall; 1: CPU of its own process."""
    ways = found["ways"]
    pairs = zip(ways[yardstick]["seconds"], ways[way]["seconds"], strict=True)
    return [theirs[clock] / max(1e-9, ours[clock]) for theirs, ours in pairs]


# --------------------------------------------------------------------------------------------------------- encoding


def _encoding_row(what: Encoding, found: Measurement, peer: str) -> Row:
    needed = what.needed if peer == "encode" else 1.0
    words = f"{needed:.2f}x" if peer == "encode" else "not slower"
    beside = CALLED[peer]
    if peer in found["failed"]:
        return Row(what.title, beside, needed=words, why=found["failed"][peer])
    if note := found["ways"][peer]["note"]:
        beside += f" ({note})"
    ours, theirs = found["ways"]["packed"], found["ways"][peer]
    values = ratios(found, "packed", peer)
    fast, close = spread(values)[0] >= needed, ours["cosine"] >= COSINE
    far = f"its vectors are too far: lowest cosine {ours['cosine']:.6f}, needed {COSINE}"
    both = peer != "encode"
    return Row(
        what.title, beside, figure(values), words, PASS if fast and close else SHORT, "" if close else far,
        padding=f"{found['padding']:.2f}x",
        cosine=_beside(ours["cosine"], theirs["cosine"] if both else None, 7),
        recall=_beside(ours["recall"], theirs["recall"] if both else None, 4),
    )  # fmt: skip


def _beside(ours: float, theirs: float | None, places: int) -> str:
    words = f"{floor(ours, places)}"
    return words if theirs is None else f"{words}, theirs {floor(theirs, places)}"


def floor(value: float, places: int) -> str:
    """So many places, cut and not rounded: 0.99999996 is not 1."""
    whole = int(min(1.0, value + 1e-12) * 10**places)
    return f"{whole / 10**places:.{places}f}"


def _int8_row(found: Measurement, way: str) -> Row:
    title, needed = CALLED[way], f"recall@10 loss below {100 * RECALL_LOSS:g} %"
    if way in found["failed"]:
        return Row(title, CALLED["encode"], needed=needed, why=found["failed"][way])
    own, exact = found["ways"][way], found["ways"]["encode"]
    losses = {"of the ten nearest rows": 1 - own["recall"]}
    if own["answered"] is not None:
        losses["of the answers found in ten rows"] = 1 - own["answered"] / exact["answered"]
    fits = max(losses.values()) < RECALL_LOSS
    why = ", ".join(f"{100 * loss:.2f} % {of}" for of, loss in losses.items())
    return Row(
        title, CALLED["encode"], figure(ratios(found, way, "encode")), needed, PASS if fits else SHORT,
        f"lost: {why}; {'it may come in' if fits else 'it stays out'}", padding=f"{found['padding']:.2f}x",
        cosine=floor(own["cosine"], 7), recall=floor(own["recall"], 4),
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------------------ others


def _goals(what: Script, found: Measurement) -> Row:
    """A benchmark with goals of its own, which are met where it ends with exit code 0."""
    verdict = PASS if found["code"] == 0 else SHORT
    return Row(what.title, "the goals of " + what.argv[0], needed="exit code 0", verdict=verdict,
               why="" if found["code"] == 0 else found["lines"][-1])  # fmt: skip


def _restart(what: Script, found: Measurement) -> list[Row]:
    """Seconds from a kill to the next batch."""
    plain = f"a plain start: {figure(found['plain'], ' s')}"
    verdict = PASS if spread(found["kills"])[0] <= NEXT_BATCH_S else SHORT
    return [Row(what.title, plain, figure(found["kills"], " s"), f"{NEXT_BATCH_S:g} s", verdict)]


def _whole_run(what: Script, found: Measurement) -> list[Row]:
    share = 1 - found["encoding"] / found["whole"]
    verdict = PASS if share <= BESIDE_ENCODING else SHORT
    rest = found["whole"] - found["encoding"]
    beside = f"{found['rows']:,} rows, {found['whole']:.0f} s in all, {rest:.0f} s beside encoding"
    return [Row(what.title, beside, f"{100 * share:.1f} %", f"{100 * BESIDE_ENCODING:g} %", verdict)]


def _transfer(what: Script, found: Measurement) -> list[Row]:
    """How many times as fast as scp and rsync ours is; the other side of a file that must survive is synced."""
    rows = []
    for name, rounds in found.items():
        for peer in ("scp", "scp, synced", "rsync"):
            title = f"{what.title}: {name}"
            theirs = [_peer_seconds(each, peer) for each in rounds]
            values = [took / each["ours"][0] for took, each in zip(theirs, rounds, strict=True) if took is not None]
            # Ours syncs what it writes: what must be as fast is a copy that does so too.
            held = peer != "scp"
            if not values:
                rows.append(Row(title, peer, needed="not slower", why=f"no {peer} on this machine. Next: install it"))
                continue
            verdict = COMPARED if not held else PASS if spread(values)[0] >= 1 else SHORT
            rows.append(Row(title, peer, figure(values), "not slower" if held else "", verdict))
    return rows


def _peer_seconds(took: dict[str, list[float] | None], peer: str) -> float | None:
    """Seconds of a peer in one round; scp with the sync of its files, or without."""
    seconds = took["rsync" if peer == "rsync" else "scp"]
    if seconds is None:
        return None
    synced = took["sync"] if peer == "scp, synced" else None
    return seconds[0] + (synced[0] if synced else 0.0)


def _limits(what: Script, found: Measurement) -> list[Row]:
    rows = [
        Row(
            f"{what.title}: matrix product{how}, threads: {threads}",
            "",
            figure(values, " GFLOP/s", 0),
            verdict=COMPARED,
        )
        for by, how in (("gemm", ""), ("onednn", " by oneDNN"))
        for threads, values in found.get(by, {}).items()
    ]
    for name, values in (("writing a file, synced", found["disk"]["write"]), ("loopback", found["loopback"]["tcp"])):
        rows.append(Row(f"{what.title}: {name}", "", figure(values, " MB/s", 0), verdict=COMPARED))
    return rows


SCRIPTS = {"restart": _restart, "whole-run": _whole_run, "transfer": _transfer, "limits": _limits}


def reached(measurements: dict[str, Measurement]) -> list[Row]:
    """The share of the matrix product's rate that the worker reaches with MiniLM, by its linear layers alone."""
    rows, found = [], measurements.get("limits", {}).get("figures", {})
    limits = {
        threads: max(spread(found.get(by, {}).get(threads, values))[0] for by in ("gemm", "onednn"))
        for threads, values in found.get("gemm", {}).items()
    }
    for what in MEASURED:
        found = measurements.get(what.name, {}).get("figures")
        if not isinstance(what, Encoding) or what.shape != "minilm" or not found or str(what.threads) not in limits:
            continue
        most = limits[str(what.threads)]
        rates = [FLOP_A_TOKEN * found["tokens"] / wall / 1e9 for wall, _ in found["ways"]["packed"]["seconds"]]
        share = figure([100 * rate / most for rate in rates], " %", 0)
        beside = f"the matrix product, {most:.0f} GFLOP/s"
        rows.append(Row(f"{what.title}: reached by the worker", beside, share, verdict=COMPARED))
    return rows
