"""One supervisor per host: it starts a worker per slot, restarts it, and lets others do the rows of one it gave up.

It runs detached from the process that started it, so recovery goes on with the laptop shut. Started again it takes
over workers that still live. What it writes is a record: a full disk, or a damaged report, must not end it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

from . import awake, owned, process, states
from .allotted import assignment_of, placed
from .deaths import MemoryWatch
from .encode import EXIT_BUSY, EXIT_DONE, EXIT_FAILED, EXIT_REFUSED, take_lock
from .fields import read_record
from .files import never_make
from .gpu_watch import GpuWatch
from .layout import HostFolder
from .progress import write_report
from .reserve import Reserve
from .say import say
from .slot import NOT_BY_US, Slot
from .starting import Warm
from .wire import Assignment, SupervisorReport, read_assignment

POLL_S = 0.5


class FolderGone(Exception):
    """The run's folder was removed or unmounted: nothing may be written to what takes its place."""


class Supervisor:
    """The slots of one host, and what they share."""

    def __init__(self, folder: HostFolder, host: str, assignment: Assignment, stamp: tuple[int, int] | None):
        """`stamp`: of the file that `assignment` was read from; another one means that rows came or went."""
        self.folder, self.host, self.assignment = folder, host, assignment
        self._stamp = stamp
        self._signalled = self._told = False
        self._written, self._said = -assignment_beat(assignment), ""
        signal.signal(signal.SIGTERM, self.end)
        if assignment.scheduler:
            signal.signal(signal.SIGUSR1, self.leave)
        self._memory, self._warm = MemoryWatch(), Warm(folder, host)
        self.slots = [Slot(folder, assignment, spec, self._memory, self._warm) for spec in assignment.slots]
        self._me = process.identify(os.getpid())
        before = read_record(SupervisorReport, folder.supervisor(host))
        killed = before.working and not process.alive(before.process)
        self._predecessor = before.process if killed else None  # it had work: only its successor can tell
        self._reserve = Reserve(folder.reserve(host))
        self._watch = GpuWatch()
        if any(spec.device == "cuda" for spec in assignment.slots):
            self._watch.start()
        if assignment.keep_awake:
            awake.hold(self.say)

    def say(self, text: str) -> None:
        """A line of the log."""
        say(f"supervisor of {self.host}: {text}")

    def end(self, signum: int, frame: object) -> None:
        """Handle a signal: all workers are stopped at the next look."""
        self._signalled = True

    def leave(self, signum: int, frame: object) -> None:
        """Handle the word of a scheduler that the time is nearly over: workers end after their part, none begins."""
        self._told = True

    def look(self) -> bool:
        """Look once at everything and act; False when nothing is left to wait for. Raises FolderGone."""
        if (now := stamp_of(self.folder, self.host)) not in (None, self._stamp) and self._take_over():
            self._stamp = now
        stopping = self._stop_if_asked() or self._leave_if_told()
        self._memory.look()
        self._step()
        if not stopping:
            for_others = sum(slot.rows_for_others() for slot in self.slots)
            for slot in self.slots if for_others else []:
                slot.help(for_others)
        working = bool(self._at_work())
        self._end_idle()
        self._put_on_file(working)
        return working

    def wait(self) -> None:
        """Until the next look: at a worker's end, or when a pause is over, or after a while."""
        pauses = [slot.not_before - time.monotonic() for slot in self.slots if slot.state == states.WAITING]
        self._warm.listen(min([self.assignment.poll_s or POLL_S, *(pause for pause in pauses if pause > 0)]))

    def close(self) -> None:
        """End what was started besides the workers."""
        self._warm.close()

    def _at_work(self) -> list[Slot]:
        return [slot for slot in self.slots if slot.state in states.AT_WORK]

    def _take_over(self) -> bool:
        """Give the slots what a new assignment says; False where it cannot be read (then it is tried again)."""
        try:
            assignment = read_assignment(self.folder.assignment(self.host))
        except (OSError, ValueError):
            return False
        if assignment is None:
            return False
        known = {slot.name: slot for slot in self.slots}
        for spec in assignment.slots:
            if spec.slot in known:
                known[spec.slot].take_over(assignment, spec)
            else:
                self.slots.append(Slot(self.folder, assignment, spec, self._memory, self._warm))
        self.say(f"epoch {assignment.epoch}, {sum(slot.left for slot in self.slots)} rows left")
        return True

    def _stop_if_asked(self) -> bool:
        """Stop all workers where a person asked, or a signal came, or the folder went; whether that is so."""
        try:
            gone = not self.folder.assignment(self.host).exists()
            asked = self.folder.stop_request(self.host).exists()
        except OSError:  # a file system that fails for a while
            gone = asked = False
        if not (self._signalled or gone or asked):
            return False
        for slot in self.slots:
            slot.ask_to_stop()
        for slot in self.slots:
            slot.stop("" if asked or gone else self._why())
        if gone:
            raise FolderGone
        return True

    def _why(self) -> str:
        """Why workers end with this supervisor, where no person asked."""
        return states.TAKEN if self.assignment.scheduler else f"with its supervisor, {NOT_BY_US}"

    def _leave_if_told(self) -> bool:
        """Have the workers end after their part; whether the scheduler said so."""
        for slot in self.slots if self._told else []:
            slot.leave()
        return self._told

    def _step(self) -> None:
        at_work = self._at_work()
        for slot in self.slots:
            slot.alone = len(self.slots) > 1 and at_work == [slot]
            try:
                slot.step()
            except OSError as error:  # a file system that fails for a while; what was seen is seen again
                say(f"{slot.name}: {error}")

    def _end_idle(self) -> None:
        """Where all that is left is workers that load, and nothing is left to do, they are not waited for."""
        working = self._at_work()
        if working and all(slot.state == states.RUNNING and slot.loading() for slot in working):
            with contextlib.suppress(OSError):
                if not sum(slot.still_left() for slot in self.slots if slot not in working) and not any(
                    slot.rows_left() for slot in working
                ):
                    for slot in working:
                        slot.end_idle()

    def _put_on_file(self, working: bool) -> None:
        """Write the report, and ends that could not be written before; on a full disk both go to the reserved file."""
        report = SupervisorReport(
            host=self.host,
            process=self._me,
            predecessor=self._predecessor,
            heartbeat_at=time.time(),
            working=working,
            slots={slot.name: slot.report() for slot in self.slots},
            gpus=self._watch.text,
            gpus_at=self._watch.at,
        )
        try:
            self._write(report)
            for slot in self.slots:
                if slot.unwritten:
                    slot.keep()
        except OSError:
            for slot in self.slots:
                slot.unwritten = slot.unwritten or bool(slot.exits)
        if any(slot.unwritten for slot in self.slots):
            last = {slot.name: slot.exits[-1].to_json() for slot in self.slots if slot.exits}
            if not self._reserve.write({"report": report.to_json(), "exits": last}):
                self._reserve.write({"report": replace(report, gpus="").to_json(), "exits": last})

    def _write(self, report: SupervisorReport) -> None:
        """Write the report, on a shared disk only where it says something new or a heartbeat is due."""
        content, now = repr(replace(report, heartbeat_at=None, gpus=None, gpus_at=None)), time.monotonic()
        if content != self._said or now - self._written >= assignment_beat(self.assignment):
            write_report(self.folder.supervisor(self.host), report)
            self._said, self._written = content, now


def assignment_beat(assignment: Assignment) -> float:
    """Seconds between two reports that say the same; 0 for one at each look."""
    return assignment.heartbeat_s or 0.0


def stamp_of(folder: HostFolder, host: str) -> tuple[int, int] | None:
    """What changes with each new assignment of a host; None without one."""
    try:
        status = folder.assignment(host).stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def run(root: Path, host: str) -> int:
    """Supervise the slots of `host` until each is done, given up or stopped; give the exit code."""
    never_make(root)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # a scheduler's early word, which would end a process that starts
    before = assignment_of(HostFolder(root), host)
    folder = placed(HostFolder(root), before)
    lock = take_lock(folder.supervisor_lock(host), "supervise", host, or_without=bool(before and before.scheduler))
    if lock is None:
        say(f"supervisor of {host}: another one lives; this one leaves")
        return EXIT_BUSY
    stamp = stamp_of(folder, host)
    try:
        assignment = read_assignment(folder.assignment(host))
    except ValueError as error:
        say(f"supervisor of {host}: {error}; run the launch again")
        return EXIT_REFUSED
    if assignment is None:
        say(f"supervisor of {host}: no assignment at {folder.assignment(host)}")
        return EXIT_REFUSED
    if why := owned.code(root) or owned.mismatch(root, assignment.run_id):
        say(f"supervisor of {host}: {why}")
        return EXIT_REFUSED
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    supervisor = Supervisor(folder, host, assignment, stamp)
    supervisor.say(f"pid {os.getpid()}, {len(supervisor.slots)} slots")
    try:
        while supervisor.look():
            supervisor.wait()
    except FolderGone:
        supervisor.say(f"{root} is gone; workers stopped")
        return EXIT_FAILED
    finally:
        supervisor.close()
    if folder.notes:
        with contextlib.suppress(OSError):  # of a worker that was killed there are some left
            folder.notes.rmdir()
    supervisor.say("ends; " + ", ".join(f"{slot.name} {slot.state}" for slot in supervisor.slots))
    os.close(lock)
    return EXIT_DONE if all(slot.state in (states.DONE, states.TAKEN) for slot in supervisor.slots) else 1
