"""The promise: what a run will take, before anything is spent; kept, so that the report can hold it against the facts.

Lengths and rates are from the rehearsal, so of this corpus on these machines. Time is that of encoding: all tokens that
are read, by all hosts together, which share the rows that are left.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from .. import records
from ..corpus import corpus as corpora
from ..errors import DataError
from ..run import model as models
from ..run import planning
from ..run.checks import Checks
from ..run.machine_facts import MachineFacts
from ..run.reading import Reading
from ..run.run import Run
from . import rehearsal
from .rehearsal import Lengths

RECORD = "promise.json"
LINE_BYTES = 170  # a row's share of a part's record, and what a merged document has beside title, id and address
COPIES = 4  # of the vectors on this machine: parts, merged, founding shape, backup
MANY_CUT = 0.05
LONGEST_S = 100 * 365 * 86400.0  # a host may say anything: no later end is promised
MEMORY_SHARE = 0.9  # of a machine's memory: what is above it others need


@dataclass(frozen=True)
class Takes:
    """What a host takes: so many slots, and of each the watts of its GPU and the bytes of memory; 0 where not known.

    `device`: of its GPU's own memory. `there`: the machine's memory, and that of its smallest GPU.
    """

    host: str
    slots: int
    watts: float
    bytes: int
    device_bytes: int
    there: int
    device_there: int


@dataclass(frozen=True)
class Promise:
    """What is promised. `encode_s`: seconds of encoding; None where a host was not tried. `ends`: UTC, in ISO form.

    `bytes`: of the corpus as numbered and of the result, on this machine. `missing`: hosts without a rate.
    """

    at: str
    rows: int
    lengths: Lengths | None
    limit: int | None
    tokens_s: float | None
    load_s: float
    encode_s: float | None
    ends: str
    bytes: int
    missing: tuple[str, ...] = ()
    takes: tuple[Takes, ...] = ()  # of the hosts that were tried
    chunk_tokens: int | None = None  # long documents are read in chunks of so many; `limit` is then None

    @property
    def rows_s(self) -> float | None:
        """Rows a second, by all hosts together."""
        return self.rows / self.encode_s if self.encode_s else None

    @property
    def energy_wh(self) -> float | None:
        """Watt hours of the GPUs that tell their power, while they encode; None where none does."""
        watts = sum(each.slots * each.watts for each in self.takes)
        return watts * self.encode_s / 3600 if watts and self.encode_s else None


def make(
    run: Run, model: models.Model, corpus: corpora.Corpus, facts: Mapping[str, MachineFacts], load_s: float
) -> Promise:
    """Make the promise from what the rehearsal found, and keep it. `load_s`: how long the model takes to load."""
    reading = Reading.of(run.profile.model, model)
    lengths, now = rehearsal.lengths(run, corpus.documents), datetime.now(UTC)
    tokens_s, missing = _together(run, facts)
    encode_s = None
    if lengths and tokens_s and not missing:
        encode_s = lengths.read / lengths.texts * corpus.rows / tokens_s
        encode_s = encode_s if encode_s <= LONGEST_S else None
    made = Promise(
        at=now.isoformat(timespec="seconds"),
        rows=corpus.rows,
        lengths=lengths,
        limit=reading.limit(model),
        tokens_s=tokens_s,
        load_s=load_s,
        encode_s=encode_s,
        ends=(now + timedelta(seconds=load_s + encode_s)).isoformat(timespec="seconds") if encode_s else "",
        bytes=_bytes(corpus, model.dim or 0),
        missing=tuple(missing),
        takes=tuple(_takes(run, facts)),
        chunk_tokens=reading.chunk_tokens,
    )
    run.save_json(RECORD, records.plain(made))
    return made


def _bytes(corpus: corpora.Corpus, dim: int) -> int:
    """Return the bytes that corpus and result will have here; those of the notebooks are not counted."""
    numbered = sum(file.stat().st_size for file in corpus.folder.iterdir() if file.is_file())
    articles = (corpus.folder / "articles.jsonl").stat().st_size
    return numbered + COPIES * corpus.rows * dim * 4 + 3 * articles + 2 * LINE_BYTES * corpus.rows


def _together(run: Run, facts: Mapping[str, MachineFacts]) -> tuple[float | None, list[str]]:
    """Return the tokens a second of all hosts, and the hosts that were not tried. A processor is one for its slots."""
    rates, missing, total = rehearsal.rates(run), [], 0.0
    processor_counted = False
    for spec in run.profile.hosts:
        rate = rates.get(spec.name)
        if rate is None or spec.name not in facts:
            missing.append(spec.name)
        elif not (spec.computes_here and spec.device == "cpu" and processor_counted):
            total += rate.tokens_s * planning.sharing(run, spec, facts)[0] / rate.slots
            processor_counted |= spec.computes_here and spec.device == "cpu"
    return total or None, missing


def _takes(run: Run, facts: Mapping[str, MachineFacts]) -> Iterator[Takes]:
    found = rehearsal.taken(run)
    for spec in run.profile.hosts:
        if spec.name not in found or spec.name not in facts:
            continue
        one, machine, slots = found[spec.name], facts[spec.name], planning.slots_of(spec, facts[spec.name])
        cards = [2**20 * total for gpu in machine.get("gpus", []) if (total := gpu.get("total_mib"))]
        memory = machine.get("memory_bytes") or 0
        yield Takes(spec.name, slots, one.watts, one.process_bytes, one.device_bytes, memory, min(cards, default=0))


def kept(run: Run) -> Promise | None:
    """Return the promise that was made for a run; None where none was, or its record cannot be read."""
    with suppress(DataError):
        return records.read(Promise, run.report / RECORD)
    return None


# ------------------------------------------------------------------------------------------------------------- checks


def add_checks(checks: Checks, run: Run, made: Promise) -> None:
    """Say the promise in checks; with `too_long: refuse` a document that would be cut stops the run."""
    _lengths(checks, run, made)
    for host, why in rehearsal.errors(run).items():
        remedy = "see the message: a worker tries such a document alone, and gives it up if no device can do it"
        checks.add("texts of the corpus", True, why, "encode", remedy, where=host, warn=True)
    if made.encode_s is not None:
        each = f"{made.rows_s:,.1f} rows/s, {made.tokens_s:,.0f} tokens/s by all hosts together"
        checks.add("rate", True, each)
    checks.add("time", True, in_words(made))
    checks.add("disk here", True, f"{made.bytes / 1e6:,.1f} MB for corpus, parts, result and backup")
    for taker in made.takes:
        _memory(checks, taker)
    if made.energy_wh is not None:
        checks.add("energy", True, energy_in_words(made))


def energy_in_words(made: Promise) -> str:
    """Return the energy of the GPUs, and which of them are counted."""
    told = [each for each in made.takes if each.watts]
    cards = ", ".join(f"{each.slots} of {each.host} at {each.watts:,.0f} W" for each in told)
    wh = made.energy_wh or 0.0
    much = f"{wh / 1000:,.2f} kWh" if wh >= 1000 else f"{wh:,.3g} Wh"
    return f"{much} by GPUs while they encode ({cards}); what else these machines draw is not told"


def _memory(checks: Checks, each: Takes) -> None:
    name, remedy = "memory", f"fewer slots for {each.host}, or one at a time: slots: 1"
    if each.device_bytes:
        of = f" of {each.device_there / 1e9:,.0f} GB" if each.device_there else ""
        checks.add(name, True, f"{each.device_bytes / 1e9:,.1f} GB of a GPU{of}", where=each.host)
        return
    whole = each.slots * each.bytes
    of = f" of {each.there / 1e9:,.0f} GB" if each.there else ""
    slots = f"{each.slots} slots of {each.bytes / 1e9:,.1f} GB" if each.slots > 1 else "one slot"
    tight = bool(each.there) and whole > MEMORY_SHARE * each.there
    checks.add(name, True, f"{whole / 1e9:,.1f} GB{of} ({slots})", "", remedy, where=each.host, warn=tight)


def in_words(made: Promise) -> str:
    """Return how long encoding takes, and by this machine's clock until when."""
    if made.encode_s is None:
        why = f"{', '.join(made.missing)}: not tried" if made.missing else "no text of the corpus was tried"
        if made.lengths and made.tokens_s and not made.missing:
            why = f"by what the hosts say, {made.tokens_s:.2g} tokens/s, it would be more than 100 years"
        return f"time of encoding not known: {why}"
    ends = datetime.fromisoformat(made.ends).astimezone()
    took = f"{_duration(made.encode_s)} of encoding, after {made.load_s:.0f} s to load the model"
    return f"{took}: launched now, all rows are committed at about {ends:%H:%M on %Y-%m-%d} ({ends:%Z})"


def _lengths(checks: Checks, run: Run, made: Promise) -> None:
    found, refuse = made.lengths, run.profile.model.too_long == "refuse"
    remedy = "a model that reads more, or model.too_long: truncate or chunk; or split these documents"
    if found is None:
        if made.limit is not None:
            checks.add("texts cut", True, "not known: no host counted tokens", warn=refuse)
        return
    of = f"all {found.texts:,} documents" if found.exact else f"{found.texts:,} documents drawn at random"
    mean = f"{found.tokens / found.texts:,.0f} tokens in the mean, {found.longest:,} at most"
    checks.add("tokens", True, f"{mean}, of {of}")
    if made.chunk_tokens:
        chunks = f"{found.in_chunks:,} of {found.texts:,} documents are longer than {made.chunk_tokens:,} tokens"
        checks.add("texts in chunks", True, f"{chunks}; {found.chunks:,} chunks in all, and no text is cut")
    if made.limit is None:
        return
    about = "" if found.exact else f" ± {100 * found.margin:.1f}"
    cut = (
        f"{found.cut:,} of {found.texts:,} ({100 * found.share_cut:.2f}{about} %) are longer than the {made.limit:,} "
        f"tokens that are read; {100 * found.tokens_cut:.2f} % of all tokens are not read"
    )
    if not found.cut:
        cut = f"none of {of} is longer than the {made.limit:,} tokens that are read"
    warn = found.share_cut > MANY_CUT or (refuse and not found.exact)
    checks.add("texts cut", not (refuse and found.cut), cut, "none" if refuse else "", remedy, warn=warn)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
