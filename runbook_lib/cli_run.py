"""The verbs that work on a run, or drive one: check, status, watch, logs, stop, fetch, verify, report and others."""

from __future__ import annotations

import argparse
import functools
import json
import os
import secrets
import shlex
import sys
import time
from pathlib import Path

from worker.escape import safe_text
from worker.layout import SLOT_NAME, run_name_problem

from .chain import chain, copies
from .errors import DataError, LinkLost, ProfileError
from .hosts import hosts as machines
from .phases import amend as amending
from .phases import download, preflight, recover, workers
from .profile import profile, tokens
from .report import by_hand, clean, outcome, pdf, report, sealing, status, svr, verification
from .result import earlier
from .run import driver, opening, run, run_mark
from .run.checks import Checks, to_mend
from .show import pictures, terminal
from .slots.watcher import Watcher


def _open(args: argparse.Namespace) -> run.Run:
    """Return the run that a PROFILE verb works on."""
    amend, take_over = bool(getattr(args, "amend", False)), bool(getattr(args, "take_over", False))
    overrides = {}
    for pair in args.set:
        key, sign, value = pair.partition("=")
        if not sign:
            raise ProfileError(f"--set {tokens.hide(safe_text(pair))}: expected KEY=VALUE")
        overrides[key] = value
    choices = profile.load(Path(args.profile), overrides)
    since = _earlier(args.since, choices, args.run) if args.since else ""
    if args.run:
        if wrong := run_name_problem(args.run):
            raise ProfileError(wrong)
        return opening.open_or_create(choices, args.run, print, amend=amend, take_over=take_over, since=since)
    if args.new:
        return opening.create(choices, since=since)
    return opening.current(choices, new=True, say=print, amend=amend, take_over=take_over, since=since)


def _earlier(name: str, choices: profile.Profile, own: str) -> str:
    """Return the folder of the run that --since names, if its vectors can be taken. Raises RunbookError."""
    folder = opening.find_earlier(name, choices.runs)
    earlier.open_earlier(Path(folder), choices.runs / own if own else None)
    return folder


def _find(args: argparse.Namespace) -> run.Run:
    """Return the run that a RUN verb works on: the named or the latest one; --hosts limits it to some hosts."""
    there = run_mark.oldest_first(Path("runs"))
    this = opening.find(args.run) if args.run or not there else opening.open_folder(there[-1])
    return opening.limited(this, getattr(args, "hosts", ""))


def execute(args: argparse.Namespace) -> int:
    """Execute the four notebooks, after an amendment if it was asked for."""
    this = opening.limited(_open(args), args.hosts)
    print(f"run {this.name} in {this.folder}")
    began = time.monotonic()
    if args.amend:
        with driver.hold(this, args.take_over):
            if _show(amending.amend(this)):
                return 1
    drive = functools.partial(chain.drive, quick=True) if args.quick else chain.drive
    if not drive(this, take_over=args.take_over):
        return 1
    if not this.finished:
        print(f"\nAll checks hold for {', '.join(sorted(this.only))}, after {time.monotonic() - began:.0f} s.")
        return 0
    print(f"\nAll checks hold, after {time.monotonic() - began:.0f} s.")
    print(f"  merged embeddings: {this.merged / 'embeddings.npy'}")
    print(f"  founding shape:    {this.founding_file}")
    print(f"  report:            {this.report / 'report.html'}")
    print(f"  prove it:          runbook verify {this.name}")
    return 0


def _show(checks: Checks) -> int:
    print(checks)
    return 0 if checks.ok else 1


def check(args: argparse.Namespace) -> int:
    """Make all checks of the preflight, and list what is to be mended."""
    this, failed = _open(args), []
    with chain.resealing(this):
        for checks in preflight.everything(this):
            _show(checks)
            failed += checks.failed
    if not failed:
        print(f"\nready: runbook run {shlex.quote(args.profile)} --run {this.name}")
        return 0
    causes = to_mend(failed)
    print(f"\n{len(causes)} thing{'' if len(causes) == 1 else 's'} to mend:")
    print(*(f"  {number}. {cause}" for number, cause in enumerate(causes, 1)), sep="\n")
    return 1


def show_status(args: argparse.Namespace) -> int:
    """Print who did how much, for a person or for programs."""
    this = _find(args)
    result = outcome.outcome(this)
    if not this.plan_file.exists():
        print(json.dumps({"_summary": result.as_dict()}, indent=2) if args.json else result)
        return 0 if result.ok else 1
    plan = this.plan()
    state = Watcher(this, plan).poll()
    if args.json:
        print(json.dumps(status.founding_form(plan, state, result), indent=2, ensure_ascii=False))
    elif args.prometheus:
        print(status.prometheus(state), end="")
    else:
        print(pictures.progress_text(state))
        print(result)
    return 0 if result.ok else 1


def watch(args: argparse.Namespace) -> int:
    """Draw the run anew until it is done."""
    return 0 if terminal.watch(_find(args), args.every).done else 1


def logs(args: argparse.Namespace) -> int:
    """Print the last lines of a slot's or a host's log."""
    this = opening.find(args.run)
    for spec in this.profile.hosts:
        slots = [slot.slot for slot in this.plan().slots if slot.host == spec.name]
        name = f"host_{args.slot}" if args.slot == spec.name else args.slot
        if args.slot == spec.name or (SLOT_NAME.fullmatch(args.slot) and args.slot in slots):
            host = machines.connect(spec, this.name)
            if args.follow:
                return _follow(host, host.folder.log(name), args.lines)
            print(host.tail(host.folder.log(name), args.lines) or f"no log yet: {host.folder.log(name)}")
            return 0
    known = ", ".join([spec.name for spec in this.profile.hosts] + [slot.slot for slot in this.plan().slots])
    raise ProfileError(f"no slot or host {safe_text(args.slot)!r} in this run; there are: {known}")


def _follow(host: machines.Host, log: Path, lines: int) -> int:
    """Print the end of a log and every new line until interrupted; keep trying while the connection is broken."""
    text, offset = host.follow(log, -120 * lines)
    print("\n".join(text.splitlines()[-lines:]), flush=True)
    while True:
        time.sleep(1.0)
        try:
            text, offset = host.follow(log, offset)
        except LinkLost as error:
            print(f"({error})", file=sys.stderr)
            continue
        print(text, end="", flush=True)


def restart(args: argparse.Namespace) -> int:
    """Stop workers and start them again; from row zero only after the run's name was typed."""
    this = _find(args)
    if args.from_scratch is None:
        with chain.resealing(this):
            return _show(workers.restart(this, args.what))
    if args.what != "all" or this.only:
        raise ProfileError("--from-scratch is for all workers of the run; nothing was done")
    asked = f"All vectors of {this.name} will be computed again; the old ones are set aside. Type the run's name: "
    if (args.from_scratch or _ask(asked)) != this.name:
        raise ProfileError(f"that is not the run's name; nothing was done. Expected {this.name}")
    with driver.hold(this):
        return _show(workers.from_scratch(this))


def _ask(question: str) -> str:
    """Return what a person types; empty without standard input."""
    try:
        return input(question).strip()
    except EOFError:
        return ""


def move(args: argparse.Namespace) -> int:
    """Move the rows that a host has not done to the others."""
    this = opening.find(args.run)
    with chain.resealing(this):
        return _show(recover.move(this, Watcher(this, this.plan()).poll(), args.host))


def note(args: argparse.Namespace) -> int:
    """Write a person's remark into the journal."""
    this = opening.find(args.run)
    with chain.resealing(this):
        this.note(args.text)
    return 0


def stop(args: argparse.Namespace) -> int:
    """Stop this run's workers and supervisors."""
    this = _find(args)
    with chain.resealing(this):
        return _show(workers.stop(this))


def fetch(args: argparse.Namespace) -> int:
    """Download what is committed so far."""
    this = _find(args)
    with chain.resealing(this):
        got = download.collect(this)
        for what, lines in (("put aside", got.aside), ("refused", got.refused), ("refused", got.failures)):
            for line in lines:
                print(f"  {what}: {line}", file=sys.stderr)
        print(f"{got.new} parts fetched; {got.rows:,} of {this.plan().rows:,} rows are in {this.local.parts}")
        print("looked at: each part's size against its record; every byte: runbook verify, or runbook run")
    gone = [line for line in got.aside if not (this.local.parts / line.partition(":")[0]).exists()]
    return 1 if got.refused or got.failures or gone else 0


def verify(args: argparse.Namespace) -> int:
    """Verify the archive, and write the result for programs if it was asked for."""
    if args.quick and (args.recompute or args.corpus):
        raise DataError("verify --quick looks at bytes and sizes only: leave --quick out, or --recompute and --corpus")
    source = Path(args.corpus) if args.corpus else None
    seed = args.seed or secrets.token_hex(16)
    again = verification.Again(args.recompute, seed, Path(args.model) if args.model else None)
    signers = Path(args.allowed_signers) if args.allowed_signers else None
    checks = verification.verify(_find(args), args.quick, source, again, signers, args.ask_hosts)
    if args.result:
        key = Path(args.sign) if args.sign else None
        svr.write(Path(args.result), _find(args), checks, signers, key)
    stamp, checks.stamp = checks.stamp, ""
    code = _show(checks)
    if args.recompute:
        print(f"\nthe same rows again: --recompute {args.recompute} --seed {seed}")
    print("", stamp, sep="\n")
    return code


def lab(args: argparse.Namespace) -> int:
    """Become JupyterLab on copies of the notebooks."""
    choices = profile.load(Path(args.profile))
    folder = copies.of(choices)
    print(f"notebooks of {choices.path.name}: {folder} (copies; yours to change)", flush=True)
    argv, environment = copies.command(choices, folder, args.option)
    os.execve(argv[0], argv, environment)


def make_report(args: argparse.Namespace) -> int:
    """Make the report anew, with notebooks that a person executed."""
    this = _find(args)
    with driver.hold(this):
        kept = [by_hand.add_notebook(this, Path(each)) for each in args.notebook]
        kept += by_hand.add_beside(this, [Path.cwd(), Path.cwd() / "notebooks"])
        if kept:
            print(f"executed notebooks now in the report: {', '.join(kept)}")
        if this.finished:
            for line in sealing.seal(this, args.pdf):
                print(f"the seal is not kept by {line}", file=sys.stderr)
        else:
            report.write_notes(this)
            page = report.build(this)
            if args.pdf:
                pdf.write(page)
    print(this.report / ("report.pdf" if args.pdf else "report.html"))
    return 0


def clean_up(args: argparse.Namespace) -> int:
    """List this run's files on its hosts, or remove them."""
    this = _find(args)
    items = clean.clean(this) if args.yes else clean.leftovers(this)
    for item in items:
        print(f"{item.host}: {item.folder}: {len(item.files)} files, {item.bytes / 1e6:.1f} MB")
        for path in item.files:
            print(f"  {path}")
        for path in item.strangers:
            print(f"  stays, since no run placed it there: {path}")
    print("removed" if args.yes else "nothing was removed; add --yes to remove these", "" if items else "(no files)")
    return 0
