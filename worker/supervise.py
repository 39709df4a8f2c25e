"""One supervisor per host: it starts a worker per slot, restarts it, and lets others do the rows of one it gave up.

It runs detached from whoever started it, so recovery goes on with the laptop shut. Started again it takes over workers
that still live. What it writes is a record: a full disk, or a report damaged by a power cut, must not end it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

from . import awake, owned, process, states
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
from .wire import SupervisorReport, read_assignment

POLL_S = 0.5


def _stamp(folder: HostFolder, host: str) -> tuple[int, int] | None:
    try:
        found = folder.assignment(host).stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _take_over(folder: HostFolder, host: str, slots: list[Slot], memory: MemoryWatch, warm: Warm) -> bool:
    """Give the slots what a new assignment says; False where it cannot be read (then it is tried again)."""
    try:
        assignment = read_assignment(folder.assignment(host))
    except (OSError, ValueError):
        return False
    if assignment is None:
        return False
    known = {slot.name: slot for slot in slots}
    for spec in assignment.slots:
        if spec.slot in known:
            known[spec.slot].take_over(assignment, spec)
        else:
            slots.append(Slot(folder, assignment, spec, memory, warm))
    say(f"supervisor of {host}: epoch {assignment.epoch}, {sum(slot.left for slot in slots)} rows left")
    return True


def _end_idle(slots: list[Slot]) -> None:
    """Where all that is left is workers that load, and nothing is left to do, they are not waited for."""
    working = [slot for slot in slots if slot.state in states.AT_WORK]
    if working and all(slot.state == states.RUNNING and slot.loading() for slot in working):
        with contextlib.suppress(OSError):
            if not sum(slot.still_left() for slot in slots if slot not in working) and not any(
                slot.rows_left() for slot in working
            ):
                for slot in working:
                    slot.end_idle()


def _put_on_file(path: Path, report: SupervisorReport, slots: list[Slot], reserve: Reserve) -> None:
    """Write the report, and the ends that could not be written before; on a full disk both go to the reserved file."""
    try:
        write_report(path, report)
        for slot in slots:
            if slot.unwritten:
                slot.keep()
    except OSError:
        for slot in slots:
            slot.unwritten = slot.unwritten or bool(slot.exits)
    if any(slot.unwritten for slot in slots):
        last = {slot.name: slot.exits[-1].to_json() for slot in slots if slot.exits}
        if not reserve.write({"report": report.to_json(), "exits": last}):
            reserve.write({"report": replace(report, gpus="").to_json(), "exits": last})


def run(root: Path, host: str) -> int:
    """Supervise the slots of `host` until each is done, given up or stopped; give the exit code."""
    never_make(root)
    folder = HostFolder(root)
    lock = take_lock(folder.supervisor_lock(host), "supervise", host)
    if lock is None:
        say(f"supervisor of {host}: another one lives; this one leaves")
        return EXIT_BUSY
    stamp = _stamp(folder, host)
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
    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda signum, frame: stopping.append(signum))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    memory = MemoryWatch()
    warm = Warm(folder, host)
    slots = [Slot(folder, assignment, spec, memory, warm) for spec in assignment.slots]
    me = process.identify(os.getpid())
    before = read_record(SupervisorReport, folder.supervisor(host))
    killed = before.working and not process.alive(before.process)
    predecessor = before.process if killed else None  # it ended while it had work: nobody else tells
    reserve = Reserve(folder.reserve(host))
    watch = GpuWatch()
    if any(spec.device == "cuda" for spec in assignment.slots):
        watch.start()
    if assignment.keep_awake:
        awake.hold(lambda text: say(f"supervisor of {host}: {text}"))
    say(f"supervisor of {host}: pid {os.getpid()}, {len(slots)} slots")
    while True:
        if (now := _stamp(folder, host)) not in (None, stamp):
            stamp = now if _take_over(folder, host, slots, memory, warm) else stamp
        try:
            gone, asked = not folder.assignment(host).exists(), folder.stop_request(host).exists()
        except OSError:  # a file system that fails for a while
            gone = asked = False
        if stopping or gone or asked:
            for slot in slots:
                slot.ask_to_stop()
            for slot in slots:
                slot.stop("" if asked or gone else f"with its supervisor, {NOT_BY_US}")
        if gone:  # unmounted or removed: nothing may be written to what takes its place
            say(f"supervisor of {host}: {folder.root} is gone; workers stopped")
            return EXIT_FAILED
        memory.look()
        at_work = [slot for slot in slots if slot.state in states.AT_WORK]
        for slot in slots:
            slot.alone = len(slots) > 1 and at_work == [slot]
            try:
                slot.step()
            except OSError as error:  # a file system that fails for a while; what was seen is seen again
                say(f"{slot.name}: {error}")
        if not (stopping or asked):
            for_others = sum(slot.rows_for_others() for slot in slots)
            for slot in slots if for_others else []:
                slot.help(for_others)
        working = any(slot.state in states.AT_WORK for slot in slots)
        _end_idle(slots)
        report = SupervisorReport(
            host=host,
            process=me,
            predecessor=predecessor,
            heartbeat_at=time.time(),
            working=working,
            slots={slot.name: slot.report() for slot in slots},
            gpus=watch.text,
            gpus_at=watch.at,
        )
        _put_on_file(folder.supervisor(host), report, slots, reserve)
        if not working:
            break
        waits = [slot.not_before - time.monotonic() for slot in slots if slot.state == states.WAITING]
        poll_s = assignment.poll_s or POLL_S
        warm.listen(min([poll_s, *(wait for wait in waits if wait > 0)]))
    warm.close()
    say(f"supervisor of {host}: ends; " + ", ".join(f"{slot.name} {slot.state}" for slot in slots))
    os.close(lock)
    return EXIT_DONE if all(slot.state == states.DONE for slot in slots) else 1
