"""Merge: verify every part, then write each row at its place, in constant memory. The manifest commits the result."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from worker.escape import safe_text
from worker.files import read_json, sha256_file
from worker.layout import FORMAT, quarantined
from worker.rows import Range, missing

from ..corpus import corpus as corpora
from ..corpus.corpus import Corpus
from ..errors import DataError
from ..records import Written
from ..result import earlier, founding, home, publication, taken
from ..result import whole as wholes
from ..result.array_file import ITEM_BYTES
from ..result.large_files import write
from ..result.manifest import Amended, Chunked, Manifest, MergedPart, SlotShare, Tallies, Tally
from ..result.merged import AGAIN, Merged, differences
from ..result.parts import Part, Piece, cover, first_few, read, row_bytes, verify, with_plan_slot, within
from ..result.placed import Placed
from ..result.taken import RowRecord
from ..result.whole import Whole
from ..run.disk import explain_disk_errors
from ..run.plan import Plan
from ..run.run import Run
from .progress import OnProgress, ignore

SEEN = ("device", "torch", "python", "max_tokens", "batching")  # of a part's record: each value, and in how many parts


@explain_disk_errors("merging")
def merge(run: Run, on_progress: OnProgress = ignore) -> Manifest:
    """Return the manifest of the merged result: a candidate made now, or an earlier result of the same parts.

    Writes embeddings.npy, questions.npy, articles.jsonl and the file in the founding shape; manifest.json comes last
    and commits them. None of them has its final name: `publish.publish` gives it when the checks pass. `on_progress`
    counts bytes. Raises DataError with every part that must not be merged, or the rows that no part has.
    """
    plan, corpus = run.plan(), corpora.load(run.corpus)
    _same_corpus(plan, corpus)
    publication.finish_publication(run)
    for merged in (Merged(run.merged), Merged(run.candidate)):
        if manifest := _unchanged(run, merged, plan, corpus):
            if merged.folder != run.candidate:
                publication.discard_candidate(run)
            size = sum(stated.bytes for stated in manifest.outputs.values())
            on_progress("merged before, verified", size, size)
            return manifest
    parts = _verified(run, plan, corpus, on_progress)
    pieces = _covering(run, plan, parts)
    publication.discard_candidate(run)
    return _write(run, plan, corpus, parts, pieces, on_progress)


@explain_disk_errors("writing the file in the founding shape")
def write_founding(run: Run) -> Placed:
    """Return final path, sha256 and size of the file in the founding shape; write it again if it changed.

    Raises DataError if nothing is merged, or the merged files differ from the manifest.
    """
    result = publication.current_result(run)
    manifest = result.merged.manifest()
    if manifest is None:
        raise DataError(f"{result.merged.manifest_file}: nothing merged yet; {AGAIN}")
    stated = Placed(manifest.founding.sha256, manifest.founding.bytes, str(run.founding_file))
    if differences(result.founding, stated):
        founding.save(run.founding_candidate, result.merged.content(manifest), stated.sha256)
    return stated


def _same_corpus(plan: Plan, corpus: Corpus) -> None:
    facts = ("fingerprint", "documents", "questions")
    wanted = (plan.corpus, plan.documents, plan.questions)
    present = (corpus.fingerprint, corpus.documents, corpus.questions)
    for fact, expected, actual in zip(facts, wanted, present, strict=True):
        if expected != actual:
            raise DataError(
                f"merging: the corpus changed since the plan was made: {fact} expected {expected}, found {actual}; "
                "restore the run's corpus folder, or start a new run (runbook run PROFILE --new)"
            )


# ------------------------------------------------------------------------------------------------ is it done already


def _unchanged(run: Run, merged: Merged, plan: Plan, corpus: Corpus) -> Manifest | None:
    """Return the manifest if it was made from this plan and these parts, and all its files are unchanged; else None."""
    try:
        manifest = merged.manifest()
        if manifest is None or manifest.plan != plan.sha256 or manifest.corpus != plan.corpus:
            return None
        if manifest.since != (whole.since if (whole := wholes.load(run)) else None):
            return None
        paths, stated = run.committed_parts, {part.name: part for part in manifest.parts}
        if {path.name for path in paths} != stated.keys():
            return None
        fingerprints = corpus.fingerprints()
        if any(_differs(path, stated[path.name], plan, fingerprints) for path in paths) or merged.problems(manifest):
            return None
    except DataError:
        return None  # the old result is damaged: a new one is made from the parts
    return manifest


def _sums_of(parts: Sequence[Part]) -> set[tuple[str, str]]:
    return {(part.name, part.sha256) for part in parts}


def _differs(path: Path, stated: MergedPart, plan: Plan, fingerprints: np.ndarray) -> bool:
    """Return whether a part is another one than was merged; one is held at a time."""
    part = read(path)
    as_merged = (part.sha256, sha256_file(path.with_suffix(".json"))) == (stated.sha256, stated.record)
    return not as_merged or bool(verify(part, plan, fingerprints))


# ---------------------------------------------------------------------------------------------------- what may go in


def _verified(run: Run, plan: Plan, corpus: Corpus, on_progress: OnProgress) -> list[Part]:
    """Verify every downloaded part. Raises one DataError with all parts that must not be merged."""
    fingerprints = corpus.fingerprints()
    paths = run.committed_parts
    sizes = [path.stat().st_size if path.exists() else 0 for path in paths]
    parts, refused, bad, done = [], [], [], 0
    for path, size in zip(paths, sizes, strict=True):
        host = ""
        try:
            part = read(path)
            host = part.host
            problems = verify(part, plan, fingerprints)
        except DataError as error:
            problems = [str(error)]
        if problems:
            refused.append(f"{path.name}: {'; '.join(problems)}{f' (from {host})' if host else ''}")
            bad.append(path)
        else:
            parts.append(with_plan_slot(part, plan).without_row_data())
        done += size
        on_progress("verifying parts", done, sum(sizes))
    if refused:
        for path, why in zip(bad, refused, strict=True):
            home.put_aside(run, path, why)
        raise DataError(
            f"merging: {len(refused)} of {len(paths)} parts are not what this run needs:\n  "
            + first_few(refused, "\n  ")
            + f"\nThey were put aside, in {run.refused}. Next: run again: parts that hosts still have are verified "
            "and fetched again, and the rows of missing parts are redone"
        )
    return parts


def _covering(run: Run, plan: Plan, parts: Sequence[Part]) -> list[Piece]:
    """Choose each row once. Raises DataError with the missing rows, and the reasons of given-up rows."""
    lost = missing(0, plan.rows, ((part.start, part.stop) for part in parts))
    if given_up := [row for row in quarantined(run.local.quarantine) if _in(row, lost)]:
        names = corpora.load(run.corpus).row_names(given_up)
        reasons = [f"{names[row]}: {_reason(run, row)}" for row in given_up]
        raise DataError(
            f"merging: {len(given_up)} rows were given up, no worker could encode them:\n  "
            + first_few(reasons, "\n  ")
            + "\nThe same command alone would fail again. Next: correct the texts of these documents in the corpus, "
            "then runbook run PROFILE --amend: only they are done again. Where a machine was the cause, and is well: "
            f"runbook restart {run.name}: each is tried once more"
        )
    return cover(parts, plan.rows)


def _in(row: int, ranges: Sequence[Range]) -> bool:
    return any(low <= row < high for low, high in ranges)


def _reason(run: Run, row: int) -> str:
    try:
        record = read_json(run.local.quarantined(row)) or {}
    except (OSError, ValueError):
        record = {}
    return safe_text(str(record.get("reason", "reason not known")), 300)


# ----------------------------------------------------------------------------------------------------------- writing


def _write(
    run: Run, plan: Plan, corpus: Corpus, parts: Sequence[Part], pieces: Sequence[Piece], on_progress: OnProgress
) -> Manifest:
    merged, dim, whole = Merged(run.candidate), plan.model.dim, wholes.load(run)
    documents = within(pieces, 0, plan.documents)
    rows = plan.documents if whole is None else whole.documents
    remedy = "Free space in the runs folder, then merge again."

    matrix = _matrix(documents, dim, on_progress)
    if whole is not None:
        matrix = _whole_matrix(run.since, whole, documents, dim, on_progress)
    outputs = {merged.embeddings.name: write(merged.embeddings, matrix, rows * dim * ITEM_BYTES, remedy)}
    if plan.questions:
        asked = within(pieces, plan.documents, plan.rows)
        size = plan.questions * dim * ITEM_BYTES
        outputs[merged.questions.name] = write(merged.questions, _matrix(asked, dim, on_progress), size, remedy)
    of_documents, of_questions = _Tallying(), _Tallying()
    records = _row_records(documents) if whole is None else taken.records(whole, _row_records(documents))
    articles = _articles(corpus if whole is None else whole.corpus, of_documents.through(records), whole)
    outputs[merged.articles.name] = write(merged.articles, articles, rows * 200, remedy)
    for _ in of_questions.through(_row_records(within(pieces, plan.documents, plan.rows))):
        pass
    lengths = Tallies(of_documents.tally(), of_questions.tally())

    manifest = _manifest(plan, parts, pieces, lengths, _timestamp(run, plan, parts), outputs)
    manifest = replace(manifest, documents=rows, since=None if whole is None else whole.since)
    manifest = replace(manifest, chunked=of_documents.chunked(plan))
    manifest = replace(manifest, founding=founding.save(run.founding_candidate, merged.content(manifest)))
    merged.commit(manifest)
    return manifest


def _whole_matrix(
    earlier_run: str, whole: Whole, work: Sequence[Piece], dim: int, on_progress: OnProgress
) -> Iterator[bytes]:
    """Return the bytes of a .npy file with the vectors of all documents, taken and computed, in order."""
    before, rows = earlier.open_matrix(Path(earlier_run), whole.since.matrix, dim), taken.WorkRows(work)
    yield _npy_head(whole.documents, dim)
    for low, take in taken.blocks(whole, dim):
        yield taken.vectors(take, before, rows).tobytes()
        on_progress("writing vectors", (low + len(take)) * dim * ITEM_BYTES, whole.documents * dim * ITEM_BYTES)


def _timestamp(run: Run, plan: Plan, parts: Sequence[Part]) -> str:
    """Return the time of the merge; the same parts keep the earlier time, so that the result is byte-identical."""
    try:
        before = Merged(run.merged).manifest()
    except DataError:
        before = None
    if before and before.plan == plan.sha256 and _sums_of(parts) == before.part_sums:
        return before.timestamp
    return datetime.now(UTC).isoformat()


def _matrix(pieces: Sequence[Piece], dim: int, on_progress: OnProgress) -> Iterator[bytes]:
    """Return the bytes of a .npy file with the rows of `pieces`, in order."""
    rows = sum(high - low for _, low, high in pieces)
    yield _npy_head(rows, dim)
    done = 0
    for piece in pieces:
        yield from row_bytes(piece)
        done += piece[2] - piece[1]
        on_progress("writing vectors", done * dim * ITEM_BYTES, rows * dim * ITEM_BYTES)


def _npy_head(rows: int, dim: int) -> bytes:
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "<f4", "fortran_order": False, "shape": (rows, dim)})
    return head.getvalue()


def _row_records(pieces: Sequence[Piece]) -> Iterator[RowRecord]:
    """Return the record of each row, in order; one part's record at a time."""
    for part, low, high in pieces:
        again = read(part.path)
        if again.sha256 != part.sha256 or again.without_row_data().record != part.record:
            raise DataError(f"{part.path}: its record changed while it was merged. Run the merge again")
        record, cut = again.record, set(again.record.truncated)
        for row in range(low, high):
            at = row - part.start
            chunks = record.chunks[at] if record.chunks else 0
            yield RowRecord(
                row, record.tokens[at], row in cut, chunks, record.fingerprints[at] or "", record.max_tokens
            )


def _articles(corpus: Corpus, records: Iterator[RowRecord], whole: Whole | None) -> Iterator[bytes]:
    """Return one line for each document: the corpus's record and the fields that the encoding adds.

    With --since a line also names the run that computed the vector.
    """
    lines: list[bytes] = []
    articles = iter(corpus.articles())
    by = None if whole is None else whole.computed_by()
    for row, tokens, cut, chunks, fingerprint, _ in records:
        article = next(articles, None)
        if article is None or article["row"] != row:
            raise DataError(
                f"merging: the corpus has no record of row {row} at its place; "
                f"delete {corpus.folder} and run again: it is numbered again"
            )
        line: dict[str, object] = {**article, "tokens": tokens, "truncated": cut, "fingerprint": fingerprint}
        if chunks:
            line["chunks"] = chunks
        if whole is not None and by is not None:
            line["computed_by"] = whole.since.runs[by[row]].run
        lines.append(json.dumps(line, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n")
        if len(lines) == 1000:
            yield b"".join(lines)
            lines = []
    yield b"".join(lines)


# ---------------------------------------------------------------------------------------------------------- manifest


def _manifest(
    plan: Plan,
    parts: Sequence[Part],
    pieces: Sequence[Piece],
    lengths: Tallies,
    timestamp: str,
    outputs: dict[str, Written],
) -> Manifest:
    """Describe the merged result, without the file in the founding shape."""
    taken = {part.name: (low, high) for part, low, high in pieces}
    slots = _shares(parts, taken)
    return Manifest(
        format=FORMAT,
        run=plan.run,
        timestamp=timestamp,
        plan=plan.sha256,
        epoch=plan.epoch,
        corpus=plan.corpus,
        model=plan.model,
        dtype=plan.dtype,
        prompt=plan.prompt,
        question_prompt=plan.question_prompt,
        dim=plan.model.dim,
        documents=plan.documents,
        questions=plan.questions,
        parts=tuple(_merged_part(part, taken.get(part.name, ())) for part in parts),
        rows_done_twice=sum(part.rows for part in parts) - sum(high - low for low, high in taken.values()),
        slots=slots,
        seconds=round(sum(share.seconds for share in slots.values()), 3),
        seen={key: _value_counts(parts, key) for key in SEEN},
        redone_float32=sum(len(part.record.redone_float32) for part in parts),
        lengths=lengths,
        outputs=outputs,
        founding=Written("", 0),
        amended=tuple(Amended(each.epoch, each.rows) for each in plan.amendments),
    )


def _merged_part(part: Part, rows: tuple[int, ...]) -> MergedPart:
    record = sha256_file(part.path.with_suffix(".json"))
    return MergedPart(part.name, part.sha256, part.slot, part.host, part.record.epoch, rows, record)


def _shares(parts: Sequence[Part], taken: dict[str, Range]) -> dict[str, SlotShare]:
    """Return what each slot gave; a part whose rows came from other parts counts no row."""
    slots: dict[str, SlotShare] = {}
    for part in parts:
        low, high = taken.get(part.name, (part.start, part.start))
        before = slots.get(part.slot, SlotShare(part.host, 0, 0, 0.0))
        seconds = round(before.seconds + _number(part.record.seconds), 4)
        slots[part.slot] = SlotShare(before.host, before.parts + 1, before.rows + high - low, seconds)
    return slots


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _value_counts(parts: Sequence[Part], key: str) -> dict[str, int]:
    """Return each value of a record's key, with the number of parts that have it."""
    return dict(Counter(safe_text(str(getattr(part.record, key)), 200) for part in parts))


class _Tallying:
    """Counts the tokens of the rows that pass through."""

    def __init__(self) -> None:
        self._tokens = self._truncated = self._lost = self._chunks = self._in_chunks = 0

    def through(self, records: Iterator[RowRecord]) -> Iterator[RowRecord]:
        """Return the same records; they are counted as they are taken."""
        for record in records:
            self._tokens += record.tokens
            self._chunks += record.chunks
            self._in_chunks += record.chunks > 1
            if record.cut:
                self._truncated += 1
                self._lost += max(0, record.tokens - (record.limit or record.tokens))
            yield record

    def tally(self) -> Tally:
        """Return what was counted."""
        share = round(self._lost / self._tokens, 6) if self._tokens else 0.0
        return Tally(self._tokens, self._truncated, self._lost, share)

    def chunked(self, plan: Plan) -> Chunked | None:
        """Return what was counted of chunks; None where long texts are cut."""
        return Chunked(plan.chunk_tokens, self._in_chunks, self._chunks) if plan.chunk_tokens else None
