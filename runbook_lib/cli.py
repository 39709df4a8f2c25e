"""The command line `runbook`. Every verb calls one function of this library, the same one that the notebooks call."""

from __future__ import annotations

import argparse
import functools
import json
import os
import secrets
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from worker.escape import safe_text
from worker.layout import SLOT_NAME, run_name_problem

from . import cli_before_after
from .afterwards import corpus_map, export
from .chain import chain, copies
from .chain.endings import EXIT_INTERRUPTED
from .errors import DataError, LinkLost, ProfileError, RunbookError
from .hosts import hosts as machines
from .hosts.ssh import known_hosts
from .phases import amend as amending
from .phases import download, preflight, recover, workers
from .profile import profile, tokens
from .report import by_hand, clean, outcome, pdf, report, sealing, status, svr, verification
from .result import earlier, exports
from .run import disk, driver, first_profile, run, run_mark
from .run.checks import Checks, to_mend
from .show import completion, encodable, pictures, terminal
from .slots.watcher import Watcher

EPILOG = """\
your own corpus:
  runbook init my_documents.jsonl       looks at it and writes a profile; then check and run that
a first run:
  runbook check profiles/demo.yaml      is everything there? nothing is started
  runbook run profiles/demo.yaml        the four notebooks, in order, to a verified merged file
  runbook status                        the latest run under ./runs: who did how much

after a fault of any kind, the same `runbook run PROFILE` continues: what is committed stays.
RUN is a run's folder or its name under ./runs; left out, it is the latest run there.
exit code: 0 only when what was asked holds; 1 it does not; 2 bad usage; 130 interrupted.
"""


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    encodable.spell()
    args = _parser().parse_args(argv)
    try:
        return int(args.do(args))
    except RunbookError as error:
        print(tokens.hide(f"runbook {args.verb}: {error}"), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "\nInterrupted. Workers that were started go on computing. The same command takes up where it was;\n"
            "`runbook status` shows them, `runbook stop` stops them.",
            file=sys.stderr,
        )
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        return 1
    except OSError as error:
        print(tokens.hide(f"runbook {args.verb}: {disk.explain('reading or writing', error)}"), file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="runbook",
        description="Embed a corpus on the machines of a profile, unattended, and prove the result row by row.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"runbook {_version()}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, do, text, arguments in VERBS:
        verb = verbs.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        verb.set_defaults(do=do)
        for argument in arguments:
            argument(verb)
    return parser


def _version() -> str:
    try:
        return metadata.version("embedding-runbook")
    except metadata.PackageNotFoundError:
        return f"of {Path(__file__).parents[1]}, which is not installed"


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
        return run.open_or_create(choices, args.run, print, amend=amend, take_over=take_over, since=since)
    if args.new:
        return run.create(choices, since=since)
    return run.current(choices, new=True, say=print, amend=amend, take_over=take_over, since=since)


def _earlier(name: str, choices: profile.Profile, own: str) -> str:
    """Return the folder of the run that --since names, if its vectors can be taken. Raises RunbookError."""
    folder = run.find_earlier(name, choices.runs)
    earlier.open_earlier(Path(folder), choices.runs / own if own else None)
    return folder


def _find(args: argparse.Namespace) -> run.Run:
    """Return the run that a RUN verb works on: the named or the latest one; --hosts limits it to some hosts."""
    there = run_mark.oldest_first(Path("runs"))
    this = run.find(args.run) if args.run or not there else run.open_folder(there[-1])
    return run.limited(this, getattr(args, "hosts", ""))


def _run(args: argparse.Namespace) -> int:
    this = run.limited(_open(args), args.hosts)
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


def _check(args: argparse.Namespace) -> int:
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


def _status(args: argparse.Namespace) -> int:
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


def _watch(args: argparse.Namespace) -> int:
    return 0 if terminal.watch(_find(args), args.every).done else 1


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0.2 <= seconds <= 3600:
        raise argparse.ArgumentTypeError("expected 0.2 to 3600 seconds")
    return seconds


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("expected 1 or more")
    return number


def _logs(args: argparse.Namespace) -> int:
    this = run.find(args.run)
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


def _rows(text: str) -> int:
    rows = int(text)
    if not 1 <= rows <= 10_000_000:
        raise argparse.ArgumentTypeError("expected a number of rows, 1 or more")
    return rows


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


def _restart(args: argparse.Namespace) -> int:
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


def _move(args: argparse.Namespace) -> int:
    this = run.find(args.run)
    with chain.resealing(this):
        return _show(recover.move(this, Watcher(this, this.plan()).poll(), args.host))


def _note(args: argparse.Namespace) -> int:
    this = run.find(args.run)
    with chain.resealing(this):
        this.note(args.text)
    return 0


def _completion(args: argparse.Namespace) -> int:
    verbs = {}
    for name, parser in _verbs(_parser()).choices.items():
        actions = [action for action in parser._actions if action.dest != "help"]
        first = next((action.dest for action in actions if not action.option_strings), "")
        verbs[name] = (parser.description or "", first, [option for a in actions for option in a.option_strings])
    print(completion.script(args.shell, verbs), end="")
    return 0


def _verbs(parser: argparse.ArgumentParser) -> Any:
    return next(action for action in parser._actions if action.dest == "verb")


def _trust(args: argparse.Namespace) -> int:
    file = known_hosts.trust(args.name, args.fingerprint)
    print(f"{args.name} is trusted by this key from now on; kept in {file}")
    return 0


def _stop(args: argparse.Namespace) -> int:
    this = _find(args)
    with chain.resealing(this):
        return _show(workers.stop(this))


def _fetch(args: argparse.Namespace) -> int:
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


def _verify(args: argparse.Namespace) -> int:
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
    said, checks.stamp = checks.stamp, ""
    code = _show(checks)
    if args.recompute:
        print(f"\nthe same rows again: --recompute {args.recompute} --seed {seed}")
    print("", said, sep="\n")
    return code


def _lab(args: argparse.Namespace) -> int:
    choices = profile.load(Path(args.profile))
    folder = copies.of(choices)
    print(f"notebooks of {choices.path.name}: {folder} (copies; yours to change)", flush=True)
    argv, environment = copies.command(choices, folder, args.option)
    os.execve(argv[0], argv, environment)


def _report(args: argparse.Namespace) -> int:
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


def _clean(args: argparse.Namespace) -> int:
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


Argument = Callable[[Any], object]  # adds itself to a parser or to a group of one


def _arg(*names: str, **options: Any) -> Argument:
    return lambda to: to.add_argument(*names, **options)


def _one_of(*arguments: Argument) -> Argument:
    def add(to: Any) -> None:
        group = to.add_mutually_exclusive_group()
        for argument in arguments:
            argument(group)

    return add


def _flag(name: str, text: str) -> Argument:
    return _arg(name, action="store_true", help=text)


ON_PROFILE = (
    _arg("profile", metavar="PROFILE", help="the YAML file with what you chose"),
    _arg("--run", default="", metavar="NAME", help="work on the run of this name, made if need be"),
    _flag("--new", "start a new run even if the latest is unfinished"),
    _arg("--since", default="", metavar="RUN", help="take the vectors of unchanged texts from this finished run"),
    _arg("--set", action="append", default=[], metavar="KEY=VALUE", help="override, e.g. corpus.path=mine.jsonl"),
)
ON_RUN = _arg("run", nargs="?", default="", metavar="RUN", help="default: the latest run under ./runs")
OF_RUN = _arg("run", metavar="RUN", help="a run's folder or name")
HOSTS = _arg(
    "--hosts", default="", metavar="NAMES", help="only these hosts, e.g. tensor01,tensor02; rows stay where they are"
)

# Each verb: its name, its function, one line of help, its arguments.
VERBS: tuple[tuple[str, Callable[[argparse.Namespace], int], str, Sequence[Argument]], ...] = (
    ("init", cli_before_after.init, "look at a corpus and write a profile for it, with what was guessed in comments", (
        _arg("corpus", metavar="FILE", help="a file, a folder of them, a pattern such as 'data/*.parquet'"),
        _arg("--model", default=first_profile.DEMO_MODEL, metavar="NAME",
             help="a folder, or a name on the model hub (default: the demo's small model)"),
        _arg("--to", default="", metavar="PROFILE", help="the file to write (default: called after the corpus)"),
    )),
    ("run", _run, "execute the four notebooks in order, continuing what is unfinished", (
        *ON_PROFILE,
        HOSTS,
        _flag("--take-over", "end another command that drives this run, and go on here"),
        _flag("--quick", "of a finished run's large files look at the sizes only, not at every byte"),
        _flag("--amend", "take mended texts into the run: the same documents, only these done again"),
    )),
    ("lab", _lab, "JupyterLab on copies of the four notebooks, set to this profile", (
        _arg("profile", metavar="PROFILE", help="the YAML file with what you chose"),
        _arg("option", nargs="*", metavar="OPTION", help="for JupyterLab, after --, e.g. -- --no-browser --port=9000"),
    )),
    ("check", _check, "preflight only: is everything there? no worker is started", ON_PROFILE),
    ("notify", cli_before_after.notify, "send a trial message to everybody whom the profile's `notify` names", (
        _arg("profile", metavar="PROFILE", help="the YAML file with what you chose"),
        _arg("--test", action="store_true", help="the same: it says what you mean"),
    )),
    ("status", _status, "who did how much, how fast, what is wrong", (
        ON_RUN,
        HOSTS,
        _one_of(
            _flag("--json", "for programs: the founding progress.json's fields"),
            _flag("--prometheus", "for Grafana and the like: Prometheus's text format"),
        ),
    )),
    ("watch", _watch, "the same, drawn anew until the run is done; it only looks, Ctrl-C ends nothing else", (
        ON_RUN,
        HOSTS,
        _arg("--every", type=_seconds, default=2.0, metavar="S", help="seconds between two looks (default 2)"),
    )),
    ("logs", _logs, "the last lines of a slot's log, or of a host's supervisor", (
        OF_RUN,
        _arg("slot", metavar="SLOT", help="a slot such as cluster0_gpu3, or a host's name"),
        _arg("-n", "--lines", type=int, default=40, help="how many lines (default 40)"),
        _arg("-f", "--follow", action="store_true", help="go on with what is written to it, until Ctrl-C"),
    )),
    ("stop", _stop, "stop this run's workers and supervisors, nobody else's; committed rows stay", (ON_RUN, HOSTS)),
    ("restart", _restart, "stop this run's workers and start them again, from what they committed", (
        ON_RUN,
        _arg("what", nargs="?", default="all", metavar="SLOT|HOST|all",
             help="one worker, or a machine's; all if left out"),
        _arg("--from-scratch", nargs="?", const="", default=None, metavar="NAME",
             help="all workers, from row zero: old parts are set aside; asks for the run's name, or takes it here"),
        HOSTS,
    )),
    ("fetch", _fetch, "bring home what is committed so far, verified", (ON_RUN, HOSTS)),
    ("move", _move, "move the rows that a machine has not done to the others, under a new epoch", (
        OF_RUN,
        _arg("host", metavar="HOST", help="the machine that is not to do them"),
    )),
    ("note", _note, "write a remark of yours into the run's journal, and so into its report", (
        OF_RUN,
        _arg("text", metavar="TEXT", help="one line"),
    )),
    ("verify", _verify, "check every byte of the archive, and compute again what its records claim", (
        ON_RUN,
        _flag("--quick", "the bytes only, of large files the sizes"),
        _arg("--corpus", default="", metavar="FILE", help="also read the documents again from the file they came from"),
        _arg("--recompute", type=_rows, default=0, metavar="N", help="also compute N rows again here"),
        _arg("--seed", default="", metavar="TEXT", help="draw these rows by this seed, not by a random one"),
        _arg("--hosts", dest="ask_hosts", action="store_true", help="ask the hosts too which seal they keep"),
        _arg("--result", default="", metavar="FILE", help="write the result for programs, as in-toto statement"),
        _arg("--sign", default="", metavar="KEY", help="sign that result with your SSH key"),
        _arg("--allowed-signers", default="", metavar="FILE", help="keys that you trust, to verify the signature with"),
        _arg("--model", default="", metavar="FOLDER", help="the model's files, if they are not where the profile says"),
    )),
    ("report", _report, "make report.html and the checksums anew from the run's files", (
        ON_RUN,
        _flag("--pdf", "also report.pdf, printed by an installed Chromium"),
        _arg("--notebook", nargs="+", default=[], metavar="FILE", help="notebooks that you executed by hand or with "
             "papermill: each becomes part of the report if it ended with this run's result"),
    )),
    ("list", cli_before_after.list_runs, "the runs of a folder: verdict, documents, when", (
        _arg("folder", nargs="?", default="runs", metavar="FOLDER", help="default: ./runs"),
    )),
    ("search", cli_before_after.search, "the documents nearest to a question, by the run's own model on this machine", (
        OF_RUN,
        _arg("question", nargs="+", metavar="QUESTION", help="words in quotes; several are answered in turn"),
        _arg("-n", "--count", type=_positive, default=10, metavar="N", help="how many documents (default 10)"),
        _flag("--texts", "also the start of each text"),
        _arg("--model", default="", metavar="FOLDER", help="where the run's model is, if not where its profile says"),
    )),
    ("export", cli_before_after.export, "write the result for other tools: a row a document, its vector beside it", (
        OF_RUN,
        _arg("--to", required=True, choices=(*export.FORMS, *exports.KINDS), help="parquet; hf: a folder that "
             "`datasets` loads, with a card; the vectors alone: safetensors, npy, or a folder in shards or smaller"),
        _flag("--float16", "half the size; what that costs a search is measured and told"),
        _flag("--texts", "also the texts as they were encoded, with the prompt (parquet, hf)"),
        _arg("--out", default="", metavar="PATH", help="default: in the profile's output folder, called after the "
             "run; also an address such as s3://bucket/name, by the packages of fsspec: sent there and read back"),
    )),
    ("map", cli_before_after.draw_map, "write one page that shows all documents in two dimensions, offline", (
        OF_RUN,
        _arg("--by", default="pca", choices=corpus_map.METHODS, help="principal components (default), or UMAP, which "
             "keeps neighbours together and takes minutes; it needs the extra [map]"),
        _arg("--out", default="", metavar="FILE", help="default: in the profile's output folder, called after the run"),
    )),
    ("clean", _clean, "remove this run's files from its hosts; refused before a verified backup", (
        ON_RUN,
        _flag("--yes", "do it; without this the files are only listed"),
    )),
    ("login", cli_before_after.log_in, "log in once to a machine that asks: a password, a second factor, a touch", (
        _arg("name", metavar="HOST", help="as you would say to ssh, and as `ssh` of the host in the profile says"),
        _flag("--end", "end the connection that an earlier login left"),
    )),
    ("completion", _completion, "print a script that completes verbs, options, profiles and runs as you type", (
        _arg("shell", choices=completion.SHELLS, help="the script says where it goes"),
    )),
    ("trust", _trust, "accept the host key with this fingerprint for a machine, after comparing it with its owner", (
        _arg("name", metavar="HOST", help="the machine as the refusal names it, e.g. 10.0.0.7 or [gpu.lab]:2222"),
        _arg("fingerprint", metavar="FINGERPRINT", help="SHA256:... as the refusal shows it"),
    )),
)  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
