"""One slot as its host's supervisor sees it: a worker, or the wait for the next one.

A worker that ends is started again with growing pauses, and given up after five deaths without progress. Only processes
that this supervisor, its predecessor or the slot's own worker recorded are signalled.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

from . import locks, owned, process, states
from .deaths import MemoryWatch, reason_for
from .device import last_words
from .encode import EXIT_BUSY, EXIT_DEVICE, EXIT_DISK, EXIT_DONE, EXIT_REFUSED, EXIT_STOPPED
from .fields import Identity, read_record
from .layout import HostFolder, committed
from .progress import write_report
from .room import DISK_FULL, has_room
from .rows import count
from .say import say
from .share import left_to_do, settled, surely_given_up
from .starting import NOT_TOLD, Warm, Worker, start_worker
from .wire import Assignment, Exit, Exits, SlotSpec, SupervisedSlot, SupervisorReport, WorkerReport

BACK_OFF_S = (0.2, 10.0, 20.0, 40.0, 60.0)  # what kills one worker at once may be gone; what kills two may not
DEATHS_TO_FENCE = 5
STALL_S = 900.0  # a worker that shows no sign of work for so long hangs (loading from a slow disk may take minutes)
PARTS_TO_STALL = 5.0  # once it has committed some: the time of so many parts, but never less than the profile's
LOADS_TO_STALL = 4.0  # before that: so many times the longest load of this host, but never less than the profile's
MORE_PATIENCE = 4.0  # a load that was cut short may have been slow: the next one gets twice the time, up to this
IDLE_S = 10.0  # a worker that still loads when nothing is left to do here is ended after so long without a sign
NOT_BY_US = "ended by SIGTERM, not by us"


class Slot:
    """One slot as its supervisor sees it: a worker, or the wait for the next one."""

    def __init__(
        self,
        folder: HostFolder,
        assignment: Assignment,
        spec: SlotSpec,
        memory: MemoryWatch | None = None,
        warm: Warm | None = None,
    ):
        self.folder, self.assignment, self.spec = folder, assignment, spec
        self.name = spec.slot
        self.warm = warm
        self.child: Worker | None = None
        self._imports = False  # whether its next worker waits for the libraries to be imported
        self.identity: Identity | None = None
        self.state = states.WAITING
        self.deaths = 0
        self.full = 0  # ends in a row for a disk that was full
        self.memory = memory or MemoryWatch()
        self.unwritten = False  # whether its last end could not be put on file
        self.faults = 0  # ends for a device that does known texts wrong, whatever it did before
        self.not_before = 0.0
        self.left, self.undone = self._left(), self._undone()
        self.exits = list(read_record(Exits, folder.exits(self.name)).exits)
        self._sign: tuple[WorkerReport, int | None] | None = None
        self._moved = time.monotonic()
        self._why = ""
        self._asked = False  # whether its worker was asked to end by us
        self._leaves = False  # whether the scheduler takes its place away, and it ends after its part
        self.hung = False  # whether its last worker was ended because it showed no sign while it loaded
        self.alone = False  # whether all its neighbours have nothing to do
        self._helped = 0  # the neighbours' rows that were left when it last began to help
        mine = read_record(SupervisorReport, folder.supervisor(assignment.host)).slots.get(self.name)
        # The worker may not have come to its first report yet: then only the supervisor that started it knows it.
        self._adopt(mine.process if mine else None)
        self._adopt_any()
        if self.state == states.WAITING:
            self._note_missed()

    def _note_missed(self) -> None:
        """Put on file how the last worker ended, where no supervisor lived to see it."""
        report = self._report()
        began, noted = report.started_at, self.exits[-1].at if self.exits else None
        on_file = report.state in (states.DONE, states.STOPPED)
        if began is None or began < (noted or 0) or on_file:
            return
        self._note_end(report.exit_code, report.reason or "ended while no supervisor lived: how is not known")

    def _report(self) -> WorkerReport:
        return read_record(WorkerReport, self.folder.progress(self.name))

    def _adopt(self, identity: Identity | None) -> bool:
        """Take over a worker of this slot that lives, by whichever process it was started."""
        if self.state != states.WAITING or identity is None or not process.alive(identity):
            return False
        self.identity, self.state, self._moved = identity, states.RUNNING, time.monotonic()
        self._why, self._asked = "", False
        say(f"{self.name}: worker {identity['pid']} lives on, taken over")
        return True

    def _adopt_any(self) -> bool:
        """Take over the worker that reports, or holds the slot's lock: one may hang between the two, unknown to all."""
        return self._adopt(self._report().process) or self._adopt(locks.note(self.folder.lock(self.name)).process)

    def _left(self) -> int:
        return count(left_to_do(self.spec, settled(self.folder)))

    def _undone(self) -> int:
        """The rows that are no progress yet: a row that one device alone gave up is none."""
        return count(left_to_do(self.spec, [*committed(self.folder.parts), *surely_given_up(self.folder)]))

    def loading(self) -> bool:
        """Whether its worker has not come to load its model yet."""
        return self._loads(self._report())

    def rows_left(self) -> int:
        """How many of its own rows are not done."""
        return self._left()

    def rows_for_others(self) -> int:
        """The rows that its neighbours are to do, as it was given up, or hangs when it loads."""
        if self.state == states.FENCED:
            return self.still_left()
        self.hung = self.hung and (self.state != states.RUNNING or self.loading())
        return self._left() if self.hung else 0

    def still_left(self) -> int:
        """The rows left of a slot that was given up; done when its neighbours did them all."""
        self.left = self._left()
        if not self.left:
            self.state = states.DONE
        return self.left

    def take_over(self, assignment: Assignment, spec: SlotSpec) -> None:
        """A new assignment: rows came or went. The worker that runs sees it by itself."""
        self.assignment, self.spec = assignment, spec
        self.left, self.undone = self._left(), self._undone()
        if self.state == states.DONE and self.left:
            self.state, self.deaths, self.not_before = states.WAITING, 0, 0.0
        elif self.state == states.FENCED and not self.left:
            self.state = states.DONE

    def help(self, rows: int) -> None:
        """With its own rows done, start once more for `rows` of neighbours that were given up."""
        if self.state == states.DONE and rows != self._helped and self.deaths < DEATHS_TO_FENCE:
            self._helped = rows
            self.state, self.not_before = states.WAITING, time.monotonic() + self._pause(max(1, self.deaths))

    def step(self) -> None:
        """Look once: start, notice an end, or wait."""
        self._anew_if_asked()
        if self.state == states.RUNNING:
            code = self.child.poll() if self.child else None
            works = code is None if self.child else process.alive(self.identity)
            if not works:
                self._ended(None if code == NOT_TOLD else code)
            elif self._stalled():
                self._why = f"no sign of work for {time.monotonic() - self._moved:.0f} s: ended by the supervisor"
                self.hung = self.hung or self.loading()
                process.send(self.identity, signal.SIGKILL)  # no grace: it hangs, and no committed row is lost
        if self.state == states.WAITING and time.monotonic() >= self.not_before:
            self._start()

    def _anew_if_asked(self) -> None:
        """A person may ask for a new worker, whatever became of the one before; its deaths are forgotten."""
        request = self.folder.restart_request(self.name)
        if not request.exists():
            return
        self.stop()
        if process.alive(self.identity):  # it does not end: asked again at the next look
            return
        request.unlink(missing_ok=True)
        if self.state == states.STOPPED:
            self.state, self.deaths, self.faults, self.not_before = states.WAITING, 0, 0, 0.0
            self._note_end(None, states.BY_A_PERSON)

    def _stalled(self) -> bool:
        """Whether the worker's report stood still for too long by our own clock; a heartbeat alone is no work."""
        report = self._report()
        read = process.bytes_read(self.identity) if self._loads(report) else None  # from a slow disk, a large model
        sign = replace(report, heartbeat=None, heartbeat_at=None), read
        if sign != self._sign:
            self._sign, self._moved = sign, time.monotonic()
        return time.monotonic() - self._moved > self._patience_s(report)

    def _loads(self, report: WorkerReport) -> bool:
        """Whether the worker has not come to load its model yet."""
        return report.process != self.identity or report.state in states.LOADS

    def _patience_s(self, report: WorkerReport) -> float:
        """How long a worker may show no sign: as long as loading takes, until its own rate is known."""
        first_s = self.assignment.stall_s or self.assignment.first_progress_s or STALL_S
        reports = [read_record(WorkerReport, self.folder.progress(spec.slot)) for spec in self.assignment.slots]
        loads = [report.loaded_s for report in reports if report.loaded_s is not None]
        longest = max(loads, default=0.0)
        limit = max(first_s, LOADS_TO_STALL * longest)
        if self._loads(report):
            if self.alone and loads:  # idle neighbours have shown how long it takes, and wait for its rows
                limit = max(IDLE_S, LOADS_TO_STALL * longest)
            return limit * float(min(MORE_PATIENCE, 2**self.deaths))
        stuck_s, rate = self.assignment.stuck_s, report.rate
        if not (stuck_s and rate):
            return limit
        return min(limit, max(stuck_s, PARTS_TO_STALL * self.spec.part_rows / rate))

    def end_idle(self) -> None:
        """End a worker that loads without a sign though nothing is left to do: others must not wait for it."""
        still_s = time.monotonic() - self._moved
        if still_s > IDLE_S and self._loads(self._report()):
            self._why = f"no sign of work for {still_s:.0f} s while it loaded, and others did its rows: ended"
            process.send(self.identity, signal.SIGKILL)

    def _start(self) -> None:
        if self._left() == 0 and not self._helped:
            self.state = states.DONE
            return
        if self._adopt_any():
            return
        if self.full and not has_room(self.folder.parts):
            self.not_before = time.monotonic() + self._pause(self.full)
            return
        try:
            if why := owned.code(self.folder.root) or owned.used(self.folder.root, Path(self.assignment.python)):
                raise OSError(why)
            self.child = start_worker(self.folder, self.assignment, self.spec, self.warm)
        except OSError as error:
            code = EXIT_DISK if error.errno in DISK_FULL else None
            self._ended(code, f"cannot start {self.assignment.python}: {error}")
            return
        self._imports = self.child is None
        if self.child is None:
            return
        self.identity = process.identify(self.child.pid)
        self.state, self._moved = states.RUNNING, time.monotonic()
        self._why, self._asked = "", False
        say(f"{self.name}: worker {self.child.pid} started, {self.left} rows left")

    def _ended(self, code: int | None, reason: str = "") -> None:
        reason = reason or self._why
        left, undone = self._left(), self._undone()
        report = self._report()
        if self.identity and report.process == self.identity:  # its own last words, and not an earlier worker's
            code = report.exit_code if code is None else code
            reason = reason or report.reason or ""
        if code == -signal.SIGABRT and not reason and (line := last_words(self.folder.log(self.name))):
            reason = f"{reason_for(code)}: {line}"
        if code == -signal.SIGKILL and not reason and self.identity:
            reason = reason_for(code, by_memory=self.memory.killed(self.identity["pid"]))
        asked = self._asked or self.folder.stop_request(self.assignment.host).exists()
        stopped = code in (EXIT_STOPPED, -signal.SIGTERM) and asked
        taken = self._taken(code, asked)
        if taken:
            reason = states.TAKEN
        elif code in (EXIT_STOPPED, -signal.SIGTERM) and not asked:
            reason = NOT_BY_US  # an end like another: its rows are still to be done
        reason = reason or reason_for(code, full=code == EXIT_DISK)
        if code == EXIT_DONE and left:
            reason = "ended as if done, but rows are left"
        self.child = self.identity = None
        if code == EXIT_BUSY:
            self.state = states.WAITING
            if self._adopt_any():  # the worker in its place may hang, and nothing else ends it
                return
        failed = code not in (EXIT_DONE, EXIT_BUSY) and not stopped and not taken
        self.full = self.full + 1 if code == EXIT_DISK else 0
        if left == 0:
            self.state = states.DONE
            if failed:  # while it helped a neighbour, or was helped
                self.deaths, self._helped = self.deaths + 1, 0
        elif stopped:
            self.state = states.STOPPED
        elif taken:  # no death; should it be this worker alone that was ended, the next one begins soon
            self.state, self.not_before = states.WAITING, time.monotonic() + self._pause(2)
            self.state = states.TAKEN if self._leaves else self.state
        elif code == EXIT_BUSY:
            self.state, self.not_before = states.WAITING, time.monotonic() + self._pause(1)
        elif self.full:  # waiting for room is no death
            self.state, self.not_before = states.WAITING, time.monotonic() + self._pause(self.full)
        else:
            self.deaths = 1 if undone < self.undone else self.deaths + 1
            self.faults += code == EXIT_DEVICE
            given_up = code == EXIT_REFUSED or max(self.deaths, self.faults) >= DEATHS_TO_FENCE
            self.state = states.FENCED if given_up else states.WAITING
            self.not_before = time.monotonic() + self._pause(self.deaths)
        if code != EXIT_BUSY and (failed or self.state != states.DONE):
            self._note_end(code, reason)
        self.left, self.undone = left, undone
        say(f"{self.name}: worker ended ({reason}), {left} rows left: {self.state}")

    def _taken(self, code: int | None, asked: bool) -> bool:
        """Whether the scheduler ended a worker that it had placed, and no person did."""
        ends = (EXIT_STOPPED, -signal.SIGTERM, -signal.SIGUSR1)
        return bool(self.assignment.scheduler) and code in ends and not asked

    def _note_end(self, code: int | None, reason: str) -> None:
        self.exits.append(Exit(time.time(), code, reason, self._left(), self.deaths, self.state))
        self.keep()

    def keep(self) -> None:
        """Put on file how its workers ended; what cannot be written, as on a full disk, is tried again."""
        try:
            write_report(self.folder.exits(self.name), Exits(self.name, tuple(self.exits[-50:])))
            self.unwritten = False
        except OSError:
            self.unwritten = True

    def _pause(self, deaths: int) -> float:
        pauses = self.assignment.back_off_s or BACK_OFF_S
        return pauses[min(max(deaths, 1), len(pauses)) - 1]

    def ask_to_stop(self) -> None:
        """Ask this slot's worker to end, without waiting: so all of a host end at the same time."""
        self._asked = True
        for identity in (self.identity, self._report().process):
            if process.alive(identity):
                process.send(identity, signal.SIGTERM)

    def stop(self, why: str = "") -> None:
        """End this slot's worker; nothing committed is lost. `why` goes on file, where no person asked for it."""
        self._asked = True
        for identity in (self.identity, self._report().process):  # they differ where a script starts the worker
            if process.alive(identity) and not process.stop(identity):
                say(f"{self.name}: process {identity} does not end; trying again")
                return
        if isinstance(self.child, subprocess.Popen):
            self.child.kill()
            self.child.wait()
        self.child = self.identity = None
        with contextlib.suppress(OSError):  # a worker ended by us is no reason to suspect its rows
            self.folder.suspects(self.name).unlink(missing_ok=True)
        ended = states.TAKEN if why == states.TAKEN else states.STOPPED
        before, self.state = self.state, self.state if self.state == states.DONE else ended
        if why and before in states.AT_WORK:
            self._note_end(None, why)

    def leave(self) -> None:
        """The scheduler takes this place away soon: end after the part that is computed, and begin no more."""
        if self.state == states.WAITING:
            self.state = states.TAKEN
        elif self.state == states.RUNNING and not self._leaves:
            self._leaves = process.send(self.identity, signal.SIGUSR1)

    def report(self) -> SupervisedSlot:
        """This slot in the supervisor's report."""
        wait = max(0.0, self.not_before - time.monotonic()) if self.state == states.WAITING else 0.0
        state = states.RUNNING if self.state == states.WAITING and self._imports else self.state  # it is starting
        return SupervisedSlot(state, self.identity, self.deaths, round(wait, 1), self.hung)
