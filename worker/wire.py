"""The wire: all that passes between machines or processes as JSON, field by field, with units. Standard library only.

A record is read at one place, `from_json`, and is used by its attributes from there on: a false value is
refused with where it came from, the field, what was seen and what was expected. Fields that are not known here are
passed over and a field that may be None may be missing, since older and newer workers talk to us. `to_json` gives the
same names back; it leaves out what has a default and is None.

Records are frozen dataclasses. What is only handed back to its sender (a process's identity) stays the JSON that
it was, typed. Times are seconds since 1970 by the clock of the host that wrote them; rows are numbered by the corpus.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Mapping, TypedDict  # noqa: UP035  (Python 3.9 on lab boxes)

from .fields import (
    COSINE,
    COUNT,
    ENTRIES,
    FLAG,
    FLOAT,
    HOST,
    LAX_CODE,
    LAX_COUNT,
    LAX_FLAG,
    LAX_PROCESS,
    LAX_RANGE,
    LAX_SOME,
    LAX_TEXT,
    LAX_TIME,
    LAX_WORDS,
    LEAST_1,
    MAYBE_CODE,
    MAYBE_COUNT,
    MAYBE_FLAG,
    MAYBE_LIMIT,
    MAYBE_RATE,
    MAYBE_SOME,
    MAYBE_TEXT,
    MAYBE_TIME,
    MAYBE_WORDS,
    MODULE,
    PROCESS,
    PYTHON,
    RANGE,
    RANGES,
    ROW,
    SHA256,
    SLOT,
    SOME,
    TEXT,
    TIME,
    WORDS_BY_ROW,
    Identity,
    Record,
    by_name,
    identity,
    is_count,
    is_number,
    lax,
    left_out,
    many,
    maybe,
    of,
    one,
    refuse,
)
from .files import read_json
from .layout import FORMAT
from .rows import Range

# How texts are put together for one computation: one row of tokens, or rows that are padded to one length.
PACKED, PADDED = BATCHINGS = ("packed", "padded")


def _batching(value: Any, where: str, name: str) -> str:
    """One of the two; a version that knew only padded batches said nothing."""
    if value is None:
        return PADDED
    if value not in BATCHINGS:
        raise refuse(where, name, value, " or ".join(BATCHINGS))
    return str(value)


# ------------------------------------------------------------------------------------- what can change a vector; parts


@dataclass(frozen=True)
class ModelName(Record):
    """Which model: `digest` is over all its files."""

    name: str | None = field(metadata=MAYBE_TEXT)
    revision: str | None = field(metadata=MAYBE_TEXT)
    digest: str | None = field(metadata=MAYBE_TEXT)


@dataclass(frozen=True)
class EncodingIdentity(Record):
    """All that can change a vector but its text, the device and the versions: parts of two of these never mix."""

    model: ModelName = field(metadata=of(ModelName))
    dtype: str | None = field(metadata=MAYBE_TEXT)
    prompt: str | None = field(metadata=MAYBE_TEXT)  # what a document is filled into, `{text}` in it
    question_prompt: str | None = field(metadata=MAYBE_TEXT)
    max_tokens: int | None = field(metadata=MAYBE_LIMIT)  # where documents are cut, as used; None: nowhere
    normalises: bool | None = field(metadata=MAYBE_FLAG)  # by the model's own contract
    dim: int = field(metadata=LEAST_1)  # numbers of a vector
    batching: str = field(metadata={"read": _batching})  # packed or padded: another order of sums, so other last bits
    chunk_tokens: int | None = field(metadata=left_out(MAYBE_LIMIT))  # of a long document's chunks; None: it is cut


@dataclass(frozen=True)
class Described(Record):
    """The device and the versions, in words, and what the model says of itself."""

    device: str | None = field(metadata=MAYBE_TEXT)
    torch: str | None = field(metadata=MAYBE_TEXT)
    python: str | None = field(metadata=MAYBE_TEXT)
    model_max_tokens: int | None = field(metadata=MAYBE_LIMIT)  # the model's own limit of a document; None: it has none


@dataclass(frozen=True)
class RowsRecord(Record):
    """What follows from the texts of some rows and their vectors: lists row by row, or of row numbers in order."""

    fingerprints: tuple[str | None, ...] = field(metadata=many(MAYBE_TEXT, RANGES))  # see `worker.rows.fingerprint`
    tokens: tuple[int, ...] = field(metadata=many(one("tokens", lambda n: is_count(n, 10**12)), RANGES))  # before cut
    norms: tuple[float, ...] = field(metadata=many(one("a norm", lambda n: is_number(n, 1e30)), RANGES))
    truncated: tuple[int, ...] = field(metadata=many(ROW, RANGES))  # rows that were cut
    redone_float32: tuple[int, ...] = field(metadata=many(ROW, RANGES))  # on the device or by the processor
    done_by_processor: dict[str, str] | None = field(metadata=maybe(WORDS_BY_ROW))  # row -> why not by the device
    by_processor: int | None = field(metadata=MAYBE_COUNT)  # rows of these that fit into the device's memory
    real_tokens: int | None = field(metadata=MAYBE_COUNT)
    padded_tokens: int | None = field(metadata=MAYBE_COUNT)
    out_of_memory: int | None = field(metadata=MAYBE_COUNT)  # times
    seconds: float | None = field(metadata=maybe(one("seconds", lambda n: is_number(n, 1e12))))
    chunks: tuple[int, ...] | None = field(metadata=left_out(maybe(many(LEAST_1, RANGES))))  # None: long texts are cut


@dataclass(frozen=True)
class Again(Record):
    """A row of a part that was computed a second time, on the processor in float32 (`worker.recheck`)."""

    row: int = field(metadata=ROW)
    cosine: float | None = field(default=None, metadata=maybe(COSINE))  # of both vectors
    why: str | None = field(default=None, metadata=MAYBE_TEXT)  # there is no second vector


@dataclass(frozen=True)
class PartRecord(RowsRecord, Described, EncodingIdentity):
    """The record of a part, `rows_<start>_<stop>.json`: it commits the array beside it and is never modified."""

    start: int = field(metadata=COUNT)
    stop: int = field(metadata=COUNT)
    sha256: str = field(metadata=SHA256)  # of the array's file
    bytes: int = field(metadata=COUNT)  # of the array's file
    slot: str = field(metadata=SLOT)  # who did it
    host: str = field(metadata=HOST)
    run: str | None = field(metadata=MAYBE_TEXT)
    run_id: str = field(metadata={"read": lambda value, where, name: MAYBE_TEXT["read"](value, where, name) or ""})
    corpus: str | None = field(metadata=MAYBE_TEXT)  # its fingerprint
    epoch: int | None = field(metadata=maybe(one("a revision of the plan", lambda n: is_count(n, 10**9))))
    threads: int | None = field(metadata=MAYBE_COUNT)
    written_at: float | None = field(metadata=MAYBE_TIME)
    format: int | None = field(default=FORMAT, metadata=MAYBE_COUNT)
    capability: str | None = field(default=None, metadata=MAYBE_TEXT)  # of the device, in older versions
    why_padded: str | None = field(default=None, metadata=MAYBE_TEXT)  # as the plan has it
    again: tuple[Again, ...] | None = field(default=None, metadata=maybe(many(of(Again))))  # None: by a version before

    @classmethod
    def from_json(cls, value: Any, where: str = "", name: str = "") -> PartRecord:
        """As of every record; one from before the model's own limit was told had the one that was used."""
        if isinstance(value, dict):
            value = {"model_max_tokens": value.get("max_tokens"), **value}
        return super().from_json(value, where, name)


# ------------------------------------------------------------------------------------------------------ what is to do


@dataclass(frozen=True)
class ModelFiles(ModelName):
    """The model that a host has."""

    folder: str = field(metadata=TEXT)


@dataclass(frozen=True)
class ShardSpec(Record):
    """Rows [start, stop) to do: their parts are cut from `grid` on, their texts are in the file of the rows `file`."""

    start: int = field(metadata=ROW)
    stop: int = field(metadata=ROW)
    grid: int = field(metadata=ROW)
    file: Range = field(metadata=RANGE)
    sha256: str = field(metadata=TEXT)  # of that file


@dataclass(frozen=True)
class SlotSpec(Record):
    """What one slot is to do, on which device."""

    slot: str = field(metadata=TEXT)
    device: str = field(metadata=TEXT)  # cpu, cuda, mps or xpu
    gpu: str | None = field(metadata=MAYBE_TEXT)  # its UUID
    threads: int = field(metadata=LEAST_1)
    part_rows: int = field(metadata=LEAST_1)
    shards: tuple[ShardSpec, ...] = field(metadata=many(of(ShardSpec), RANGES))
    fenced: str | None = field(default=None, metadata=MAYBE_TEXT)  # why it must not work: it was found wrong


@dataclass(frozen=True)
class Assignment(Record):
    """What a host is to do, `hosts/<host>.json`: written by staging, anew where rows move."""

    run: str = field(metadata=TEXT)
    run_id: str = field(metadata=TEXT)
    host: str = field(metadata=TEXT)
    epoch: int = field(metadata=SOME)  # the plan's revision
    corpus: str = field(metadata=TEXT)  # its fingerprint
    model: ModelFiles = field(metadata=of(ModelFiles))
    dtype: str = field(metadata=TEXT)
    prompt: str = field(metadata=TEXT)
    question_prompt: str = field(metadata=TEXT)
    max_tokens: int | None = field(metadata=MAYBE_LIMIT)  # where documents are to be cut, if before the model's limit
    python: str = field(metadata=TEXT)  # the path of the one that workers run with
    slots: tuple[SlotSpec, ...] = field(metadata=many(of(SlotSpec)))
    plan: str | None = field(default=None, metadata=MAYBE_TEXT)  # its sha256
    documents: int | None = field(default=None, metadata=MAYBE_SOME)  # the rows from this one on are questions
    batching: str = field(default=PADDED, metadata={"read": _batching})  # packed or padded, for the whole run
    why_padded: str | None = field(default=None, metadata=MAYBE_TEXT)
    stuck_s: float | None = field(default=None, metadata=MAYBE_TIME)  # without a row: a worker is ended
    first_progress_s: float | None = field(default=None, metadata=MAYBE_TIME)  # the same while it loads
    keep_awake: bool | None = field(default=None, metadata=MAYBE_FLAG)  # whether the machine must not sleep meanwhile
    scheduler: str | None = field(default=None, metadata=MAYBE_TEXT)  # slurm: it places the supervisor and may end it
    heartbeat_s: float | None = field(default=None, metadata=MAYBE_TIME)  # between two reports: seldom on a shared disk
    chunk_tokens: int | None = field(default=None, metadata=MAYBE_LIMIT)  # long documents are read in chunks of so many
    format: int | None = field(default=FORMAT, metadata=MAYBE_COUNT)
    # What launch leaves to the worker's own constants.
    stall_s: float | None = field(default=None, metadata=MAYBE_TIME)  # instead of first_progress_s
    poll_s: float | None = field(default=None, metadata=MAYBE_TIME)  # between two looks of the supervisor
    look_s: float | None = field(default=None, metadata=MAYBE_TIME)  # between two looks of a worker at its supervisor
    answer_s: float | None = field(default=None, metadata=MAYBE_TIME)  # so long the processor may take for one text
    back_off_s: tuple[float, ...] | None = field(default=None, metadata=maybe(many(TIME)))  # before start after start


def read_assignment(path: Path) -> Assignment | None:
    """What a host is to do, or None where there is no such file. Raises ValueError for anything else in its place."""
    value = read_json(path)
    return None if value is None else Assignment.from_json(value, f"{path}:")


# ------------------------------------------------------------------------------------------------- who does it, and how


@dataclass(frozen=True)
class WorkerReport(Record):
    """What a worker says of itself, `progress/<slot>.json`: one writer, anew with each beat. All may lack."""

    slot: str | None = field(default=None, metadata=LAX_TEXT)
    host: str | None = field(default=None, metadata=LAX_TEXT)
    run: str | None = field(default=None, metadata=LAX_TEXT)
    epoch: int | None = field(default=None, metadata=LAX_SOME)  # the plan's revision that it works by
    process: Identity | None = field(default=None, metadata=PROCESS)
    state: str | None = field(default=None, metadata=MAYBE_WORDS)  # starting, loading model, running, done, stopped ...
    started_at: float | None = field(default=None, metadata=MAYBE_TIME)
    ended_at: float | None = field(default=None, metadata=MAYBE_TIME)
    exit_code: int | None = field(default=None, metadata=LAX_CODE)
    reason: str | None = field(default=None, metadata=MAYBE_TEXT)  # why it ended
    device: str | None = field(default=None, metadata=MAYBE_TEXT)
    loaded_s: float | None = field(default=None, metadata=MAYBE_TIME)  # what loading the model took
    rows_committed: int | None = field(default=None, metadata=MAYBE_SOME)  # of its own rows, by whomever
    computed: int | None = field(default=None, metadata=LAX_SOME)  # by this process, committed
    part: Range | None = field(default=None, metadata=LAX_RANGE)  # the rows that it computes now
    rows_in_part: int | None = field(default=None, metadata=MAYBE_SOME)  # of them computed
    helping: str | None = field(default=None, metadata=LAX_TEXT)  # the slot whose rows they are, if not its own
    processing_time: float | None = field(default=None, metadata=MAYBE_TIME)  # seconds since the model was loaded
    rate: float | None = field(default=None, metadata=MAYBE_RATE)  # rows a second, committed, since then
    rows_per_s: float | None = field(default=None, metadata=MAYBE_RATE)  # rows a second, computed, over the last minute
    out_of_memory: int | None = field(default=None, metadata=LAX_COUNT)  # times
    doing: str | None = field(default=None, metadata=LAX_TEXT)  # a sign of work that is no row
    canaries: tuple[str, ...] | None = field(default=None, metadata=lax(many(SHA256, 100)))  # see `worker.canary`
    heartbeat: int | None = field(default=None, metadata=LAX_COUNT)  # beats since it began
    heartbeat_at: float | None = field(default=None, metadata=MAYBE_TIME)
    broken: str | None = field(default=None, metadata=LAX_TEXT)  # why the report before could not be written
    unreadable: str | None = field(default=None, metadata=LAX_TEXT)  # instead of all others: what is wrong with it


@dataclass(frozen=True)
class Exit(Record):
    """How a worker ended, by its supervisor."""

    at: float | None = field(metadata=LAX_TIME)
    code: int | None = field(metadata=LAX_CODE)  # below 0: by that signal; None: not known, or no process
    reason: str = field(metadata=TEXT)
    left: int | None = field(metadata=LAX_SOME)  # rows of its slot
    deaths: int | None = field(metadata=LAX_SOME)  # in a row, without progress
    state: str | None = field(metadata=LAX_WORDS)  # of the slot after it


@dataclass(frozen=True)
class Exits(Record):
    """The last ends of a slot's workers, the newest last: `progress/<slot>.exits.json`."""

    slot: str | None = field(metadata=MAYBE_TEXT)
    exits: tuple[Exit, ...] = field(metadata=many(of(Exit), or_none=True))


@dataclass(frozen=True)
class SupervisedSlot(Record):
    """A slot by its supervisor's word."""

    state: str | None = field(metadata=MAYBE_WORDS)  # waiting, running, done, fenced, stopped
    process: Identity | None = field(metadata=PROCESS)  # its worker's
    deaths: int | None = field(metadata=MAYBE_SOME)  # in a row, without progress
    wait_s: float | None = field(metadata=LAX_TIME)  # before the next start
    hung: bool | None = field(metadata=LAX_FLAG)  # its last worker was ended as it hung while it loaded


@dataclass(frozen=True)
class SupervisorReport(Record):
    """What a host's supervisor says, `progress/host_<host>.json`: one writer, anew with each beat. All may lack."""

    host: str | None = field(metadata=LAX_TEXT)
    process: Identity | None = field(metadata=PROCESS)
    predecessor: Identity | None = field(metadata=LAX_PROCESS)  # which was gone while it had work
    heartbeat_at: float | None = field(metadata=LAX_TIME)
    working: bool | None = field(metadata=LAX_FLAG)  # whether a slot runs, or waits to start again
    slots: Mapping[str, SupervisedSlot] = field(metadata=by_name(SupervisedSlot))
    gpus: str | None = field(metadata=MAYBE_TEXT)  # a line a GPU (`worker.machine.gpu_sample`)
    gpus_at: float | None = field(metadata=LAX_TIME)
    unreadable: str | None = field(default=None, metadata=LAX_TEXT)  # instead of all others: what is wrong with it


@dataclass(frozen=True)
class Suspected(Record):
    """The rows that a worker computes right now, `progress/<slot>.suspects.json`: read after a death. All may lack."""

    rows: tuple[int, ...] = field(metadata=many(ROW, RANGES, or_none=True))
    deaths: int | None = field(metadata=MAYBE_SOME)  # that they were there at
    boot: str | None = field(metadata=MAYBE_TEXT)  # of the machine: one that went down kills all


@dataclass(frozen=True)
class Holder(Record):
    """Who holds a lock file, written into it. All may lack."""

    process: Identity | None = field(default=None, metadata=PROCESS)
    verb: str | None = field(default=None, metadata=MAYBE_TEXT)  # of `python -m worker`
    host: str | None = field(default=None, metadata=MAYBE_TEXT)
    step: str | None = field(default=None, metadata=MAYBE_TEXT)  # of making an environment


@dataclass(frozen=True)
class Canary(Record):
    """What the canaries of a kind of slot give, `canaries/<digest>.json`: `kind` is all that decides the bits.

    `exact`: the same bits come out each time; then every slot of this kind must give them.
    """

    kind: str = field(metadata=TEXT)
    exact: bool = field(metadata=FLAG)
    dim: int = field(metadata=LEAST_1)
    vectors: str = field(metadata=TEXT)  # float32, (16, dim), base64


@dataclass(frozen=True)
class PartAgain(Record):
    """Rows of a part of which one batch, by `draw`, is to be computed again; or all of them, each `alone`."""

    start: int = field(metadata=ROW)  # of the part
    documents: int = field(metadata=SOME)  # the rows from this one on are questions
    rows: tuple[int, ...] = field(metadata=many(ROW, RANGES))
    texts: tuple[str, ...] = field(metadata=many(TEXT, RANGES))
    draw: int = field(default=0, metadata=COUNT)
    avoid: tuple[int, ...] = field(default=(), metadata=many(ROW, RANGES))  # rows that were not done in a batch
    alone: bool = field(default=False, metadata=FLAG)


@dataclass(frozen=True)
class PartsAgain(Record):
    """What a slot is to compute again of others' parts, `doubled/<slot>.json`."""

    parts: tuple[PartAgain, ...] = field(metadata=many(of(PartAgain)))


@dataclass(frozen=True)
class DoubledBatch(Record):
    """A batch that was computed again: its rows, in its order, and their vectors; or the error."""

    start: int = field(metadata=ROW)  # of the part
    rows: tuple[int, ...] = field(metadata=many(ROW, RANGES))
    dim: int = field(metadata=COUNT)
    vectors: str = field(metadata=TEXT)  # float32, (rows, dim), base64
    error: str = field(metadata=TEXT)


@dataclass(frozen=True)
class Doubled(Record):
    """The answer, `doubled/<slot>.answer.json`."""

    device: str = field(metadata=TEXT)
    torch: str = field(metadata=TEXT)
    batches: tuple[DoubledBatch, ...] = field(metadata=many(of(DoubledBatch)))


@dataclass(frozen=True)
class Opinion(Record):
    """What the processor makes of a text, a line from `python -m worker second`; the first one is blank: it loaded."""

    error: str | None = field(default=None, metadata=MAYBE_TEXT)  # instead of the others
    tokens: int | None = field(default=None, metadata=MAYBE_COUNT)  # before the cut
    vector: tuple[float, ...] | None = field(default=None, metadata=maybe(many(FLOAT, RANGES)))  # (dim,)
    chunks: int | None = field(default=None, metadata=MAYBE_COUNT)  # it was read in; None: long texts are cut


@dataclass(frozen=True)
class Known(Record):
    """What the known texts give on the processor: printed by its process, and, with the last two, `known.json`."""

    error: str | None = field(default=None, metadata=MAYBE_TEXT)
    vectors: tuple[tuple[float, ...], ...] = field(default=(), metadata=many(many(FLOAT, RANGES), or_none=True))
    key: str | None = field(default=None, metadata=MAYBE_TEXT)  # of the model, and how it reads (`second.known_key`)
    sha256: str | None = field(default=None, metadata=MAYBE_TEXT)  # of the vectors


@dataclass(frozen=True)
class FaultyLine(Record):
    """A line of the requirements of an environment, from 1 on."""

    number: int = field(metadata=COUNT)
    text: str = field(metadata=TEXT)


@dataclass(frozen=True)
class EnvironmentFailure(Record):
    """Why making an environment failed, `environments/<stem>.failed.json`. All may lack."""

    at: float | None = field(metadata=MAYBE_TIME)
    digest: str | None = field(metadata=MAYBE_TEXT)  # of what it was to be made from
    step: str | None = field(metadata=MAYBE_TEXT)
    exit_code: int | None = field(metadata=MAYBE_CODE)
    requirement_line: FaultyLine | None = field(metadata=maybe(of(FaultyLine)))
    tail: tuple[str, ...] = field(metadata=many(TEXT, or_none=True))  # of what was printed
    error: str | None = field(metadata=MAYBE_TEXT)
    hint: str | None = field(metadata=MAYBE_TEXT)


@dataclass(frozen=True)
class EnvironmentOrder(Record):
    """What an environment is to be made from, `hosts/<host>.environment.json`."""

    kind: str = field(metadata=TEXT)  # venv or conda:NAME
    workdir: str = field(metadata=TEXT)
    digest: str = field(metadata=TEXT)  # of requirements and wheels
    requirements: str = field(metadata=TEXT)  # the text that pip reads
    wheels: str | None = field(metadata=MAYBE_TEXT)  # a folder on the host
    python: str | None = field(default=None, metadata=maybe(PYTHON))  # the version for conda
    imports: tuple[str, ...] | None = field(default=None, metadata=maybe(many(MODULE)))  # to be tried


@dataclass(frozen=True)
class Running(Record):
    """A process that runs for a host of a run, whatever became of its reports."""

    verb: str = field(metadata=one("supervise or encode", lambda value: value in ("supervise", "encode")))
    process: Identity = field(metadata={"read": identity})


@dataclass(frozen=True)
class RowGivenUp(Record):
    """A row that was given up, `quarantine/row_<row>.json`: of which slot, when, and why."""

    row: int = field(metadata=ROW)
    at: float = field(metadata=TIME)
    reason: str = field(metadata=TEXT)
    slot: str = field(metadata=TEXT)
    sure: bool | None = field(default=None, metadata=LAX_FLAG)  # whether a second device failed at it too
    format: int | None = field(default=None, metadata=LAX_COUNT)


# -------------------------------------------------------------------------------------------------------- a scheduler


@dataclass(frozen=True)
class SlurmOptions(Record):
    """How tasks are asked of Slurm, from a profile's entry. None and empty: the cluster's own default."""

    heartbeat_s: float = field(metadata=TIME)
    partition: str | None = field(default=None, metadata=MAYBE_TEXT)
    account: str | None = field(default=None, metadata=MAYBE_TEXT)
    time: str | None = field(default=None, metadata=MAYBE_TEXT)  # in Slurm's words, such as 4:00:00
    gres: str | None = field(default=None, metadata=MAYBE_TEXT)
    cpus: int | None = field(default=None, metadata=MAYBE_COUNT)  # of a task
    clusters: str | None = field(default=None, metadata=MAYBE_TEXT)
    array_limit: int | None = field(default=None, metadata=MAYBE_COUNT)  # indexes of one array are below it
    extra: tuple[str, ...] = field(default=(), metadata=many(TEXT, or_none=True))  # more words for sbatch


@dataclass(frozen=True)
class Job(Record):
    """An array that was submitted, or was about to be: index i of it is the task `offset` + i."""

    name: str = field(metadata=TEXT)
    offset: int = field(metadata=COUNT)
    tasks: tuple[int, ...] = field(metadata=many(COUNT))
    at: float = field(metadata=TIME)


@dataclass(frozen=True)
class Try(Record):
    """A task's last submission: the rows that were left, and how many in a row ended with no row more."""

    left: int = field(metadata=COUNT)
    fruitless: int = field(metadata=COUNT)


@dataclass(frozen=True)
class Jobs(Record):
    """What was submitted for a cluster and may still be there, `slurm/<cluster>.json`; tries by task. All may lack."""

    jobs: tuple[Job, ...] = field(metadata=many(of(Job), or_none=True))
    tries: Mapping[str, Try] = field(metadata=by_name(Try))


@dataclass(frozen=True)
class QueueEntry(Record):
    """A task in the queue, in the scheduler's words."""

    task: int = field(metadata=COUNT)
    state: str = field(metadata=TEXT)  # PENDING, RUNNING ...
    reason: str = field(metadata=TEXT)
    place: str = field(metadata=TEXT)  # the node
    job: str = field(metadata=TEXT)  # its id, for scontrol


@dataclass(frozen=True)
class QueueAnswer(Record):
    """What the scheduler answered for a cluster, `slurm/<cluster>.queue.json`: one question for all. All may lack."""

    at: float | None = field(metadata=LAX_TIME)  # when it was asked, by the folder's clock
    error: str | None = field(metadata=LAX_TEXT)  # why nothing is known
    entries: tuple[QueueEntry, ...] = field(metadata=many(of(QueueEntry), or_none=True))


@dataclass(frozen=True)
class Queued(Record):
    """The evidence for a host that a scheduler places: its entry in the queue, and its heartbeat's age."""

    known: bool = field(metadata=FLAG)  # whether the scheduler answered
    asked_s: float = field(metadata=TIME)  # ago
    fruitless: int = field(metadata=COUNT)  # submissions in a row that ended without a new row
    entry: QueueEntry | None = field(default=None, metadata=maybe(of(QueueEntry)))  # None: it is not in the queue
    silent_s: float | None = field(default=None, metadata=MAYBE_TIME)  # since its last heartbeat; None: there was none
    submitted_s: float | None = field(default=None, metadata=MAYBE_TIME)  # ago; None: it never was
    error: str | None = field(default=None, metadata=LAX_TEXT)  # why the queue is not known


class Submitted(TypedDict):
    """What became of tasks that were to be submitted."""

    submitted: list[int]
    there: dict[str, str]  # task -> why it was left alone: it is in the queue, or works
    given_up: list[int]  # so many submissions came to nothing


class Limits(TypedDict):
    """What a cluster allows."""

    version: str
    array_limit: int | None  # indexes of an array are below it
    partitions: list[str]


# ---------------------------------------------------------------------------------------------- one reading of a host


@dataclass(frozen=True)
class Greeting(Record):
    """What the far end of a wire says first."""

    home: str = field(metadata=TEXT)  # the login's home folder
    executable: str | None = field(metadata=MAYBE_TEXT)  # the Python that it runs on
    python: tuple[int, ...] = field(metadata=many(COUNT, or_none=True))  # its version
    pid: int | None = field(metadata=MAYBE_COUNT)
    user: int | None = field(metadata=MAYBE_COUNT)


@dataclass(frozen=True)
class SlotReading(Record):
    """A slot, as its host's files say."""

    ranges: tuple[Range, ...] = field(metadata=many(RANGE, RANGES))  # its rows
    gpu: str | None = field(metadata=MAYBE_TEXT)  # its UUID
    report: WorkerReport | None = field(metadata=maybe(of(WorkerReport)))
    exits: tuple[Exit, ...] = field(metadata=many(of(Exit)))  # the newest last
    alive: bool = field(metadata=FLAG)  # whether the process of the report lives

    @property
    def worker(self) -> WorkerReport:
        """Its report, or one that says nothing."""
        return self.report or WorkerReport.blank()


def _slots(value: Any, where: str, name: str) -> dict[str, SlotReading]:
    if not isinstance(value, dict) or len(value) > ENTRIES:
        raise refuse(where, name, value, f"an object of at most {ENTRIES}")
    return {SLOT["read"](slot, "", "slot's name"): SlotReading.from_json(each, slot) for slot, each in value.items()}


@dataclass(frozen=True)
class Reading(Record):
    """The answer of the verb `poll`: all that the monitor needs to know about a host (`worker.snapshot`)."""

    now: float = field(metadata=TIME)
    assigned: bool = field(metadata=FLAG)  # whether it was given something to do
    supervisor_alive: bool = field(metadata=FLAG)
    stop_requested: bool = field(metadata=FLAG)  # by a person
    slots: Mapping[str, SlotReading] = field(metadata={"read": _slots})
    supervisor: SupervisorReport | None = field(metadata=maybe(of(SupervisorReport)))
    committed: tuple[Range, ...] = field(metadata=many(RANGE, RANGES))
    quarantined: tuple[int, ...] = field(metadata=many(ROW, RANGES))  # all rows that were given up
    given_up: tuple[RowGivenUp, ...] = field(metadata=many(of(RowGivenUp), 100, or_none=True))  # the first of them
    epoch: int | None = field(metadata=MAYBE_SOME)  # the plan's revision that it was given
    host: str | None = field(default=None, metadata=LAX_TEXT)
    boot: str | None = field(default=None, metadata=LAX_TEXT)
    load: float | None = field(default=None, metadata=LAX_TIME)  # of the machine, over the last minute
    free_bytes: int | None = field(default=None, metadata=LAX_COUNT)
    format: int | None = field(default=None, metadata=LAX_COUNT)
    queued: Queued | None = field(default=None, metadata=maybe(of(Queued)))  # of a host that a scheduler places

    @property
    def supervised(self) -> SupervisorReport:
        """Its supervisor's report, or one that says nothing."""
        return self.supervisor or SupervisorReport.blank()


# ------------------------------------------------------------------------------------------- what else a host is asked


class Said(TypedDict):
    """What a command printed, the ends of it, and how it ended: None where it was ended because it took too long."""

    out: str
    err: str
    exit: int | None


class CardsSaid(Said, total=False):
    """The same of nvidia-smi, asked card by card."""

    lost: dict[str, str]  # the index of a card that does not answer -> why


class Piece(TypedDict):
    """A piece of a log, and where the next one begins (bytes)."""

    text: str
    offset: int


class Listing(TypedDict):
    """The files below a folder: path from there, and bytes."""

    files: list[tuple[str, int]]


class Facts(TypedDict, total=False):
    """What a machine is (`worker.machine.facts`): put together of parts, each of which may be unknown."""

    workdir: str
    writable: bool
    why_not: str  # it cannot be written
    free_bytes: int | None
    seen: list[str] | None  # the markers of others there
    kills_user_processes: bool | None  # whether a log-out ends what we started
    linger: bool | None
    systemd_run: bool
    nvidia: dict[str, CardsSaid]
    chip: str  # of a Mac, with its system; empty elsewhere
    cores: int
    memory_bytes: int | None
    limits: str  # what of the machine this account may use, where it is less than all
    now: float
    python: list[int]  # its version
    system: str


class TriedGpu(TypedDict, total=False):
    """One GPU, as torch sees it."""

    uuid: str
    error: str  # what came of a matrix product, where it was not right


class Libraries(TypedDict, total=False):
    """What `python -m worker devices` prints."""

    versions: dict[str, str]
    cuda_build: str | None  # the CUDA that torch was built for
    gpus: list[TriedGpu]
    product: str  # what came of a matrix product on mps or xpu, where it was not right; empty where it was
    error: str  # instead of the others, or beside them


class LongProbe(TypedDict, total=False):
    """A batch of texts as long as the model claims to read."""

    claimed: int | None  # the model's limit in tokens; None where it names none
    tokens: int  # of the longest that was tried
    error: str  # what encoding raised
    works: int | None  # the most tokens that do work then, where that can be found out
    cosine: float | None  # the lowest of a row to what the library gives
    rows: int
    out_of_memory: int  # times


class AgainProbe(TypedDict, total=False):
    """Texts on the device and on the processor (`worker.probe_again`)."""

    rows: int
    tokens: int  # of the longest
    cosine: dict[str, float]  # way of computing them on the device -> the lowest of a row
    error: str  # why that is not known


class LengthsFound(TypedDict):
    """Tokens of texts of the corpus, special ones included. `bins`: how many texts have each length; see `bins`."""

    texts: int
    tokens: int
    read: int  # of them by the model: at most its limit of each text
    cut: int  # texts
    longest: int
    bins: list[int]
    chunks: int  # of all texts; 0 where long texts are cut
    in_chunks: int  # texts that are read in more than one


class RateFound(TypedDict):
    """What was encoded in how many seconds; `tokens` as they are read; `slots`: by how many processes side by side."""

    rows: int
    tokens: int
    seconds: float
    slots: int


class Rehearsed(TypedDict, total=False):
    """A few seconds of the corpus on a device; only `error` where its texts could not be tried."""

    lengths: LengthsFound
    rate: RateFound
    watts: float  # of its GPU meanwhile, in the mean; 0 where it is not told
    device_bytes: int  # of its own memory, the most that one slot held; 0 of a processor, or where it is not told
    process_bytes: int  # of the machine's memory, the same
    error: str


class Probed(TypedDict, total=False):
    """What `python -m worker probe` prints: of a model that loads and encodes all but the last two, else only those."""

    dim: int
    norm: float  # of the first vector
    bad: str  # why a vector of a short text cannot be right
    normalises: bool
    why_padded: str  # why its batches cannot be packed on this host; empty where they were
    max_tokens: int | None
    loaded_s: float
    cosine: dict[str, float]  # kind of text -> the lowest of a short one to what the library gives
    vectors: dict[str, str]  # kind of text -> float32 (texts, dim) in base64
    long: dict[str, LongProbe]  # by kind of text
    again: AgainProbe  # where texts of all lengths work
    rehearsed: Rehearsed  # where texts of the corpus were sent
    versions: dict[str, str]
    packages: dict[str, str]  # all that is installed for that Python
    device: str | None
    torch: str | None
    python: str | None
    model_max_tokens: int | None
    error: str
    missing: bool  # whether a library is not there
