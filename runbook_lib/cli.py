"""The command line `runbook`. Every verb calls one function of this library, the same one that the notebooks call."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from . import cli_before_after, cli_run
from .afterwards import corpus_map, export
from .chain.endings import EXIT_INTERRUPTED
from .errors import RunbookError
from .hosts.ssh import known_hosts
from .profile import tokens
from .result import exports
from .run import disk, first_profile
from .show import completion, encodable

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


def _rows(text: str) -> int:
    rows = int(text)
    if not 1 <= rows <= 10_000_000:
        raise argparse.ArgumentTypeError("expected a number of rows, 1 or more")
    return rows


def _completion(args: argparse.Namespace) -> int:
    verbs = {}
    parsers: Any = next(action.choices for action in _parser()._actions if action.dest == "verb")
    for name, parser in parsers.items():
        actions = [action for action in parser._actions if action.dest != "help"]
        first = next((action.dest for action in actions if not action.option_strings), "")
        verbs[name] = (parser.description or "", first, [option for a in actions for option in a.option_strings])
    print(completion.script(args.shell, verbs), end="")
    return 0


def _trust(args: argparse.Namespace) -> int:
    file = known_hosts.trust(args.name, args.fingerprint)
    print(f"{args.name} is trusted by this key from now on; kept in {file}")
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
    ("run", cli_run.execute, "execute the four notebooks in order, continuing what is unfinished", (
        *ON_PROFILE,
        HOSTS,
        _flag("--take-over", "end another command that drives this run, and go on here"),
        _flag("--quick", "of a finished run's large files look at the sizes only, not at every byte"),
        _flag("--amend", "take mended texts into the run: the same documents, only these done again"),
    )),
    ("lab", cli_run.lab, "JupyterLab on copies of the four notebooks, set to this profile", (
        _arg("profile", metavar="PROFILE", help="the YAML file with what you chose"),
        _arg("option", nargs="*", metavar="OPTION", help="for JupyterLab, after --, e.g. -- --no-browser --port=9000"),
    )),
    ("check", cli_run.check, "preflight only: is everything there? no worker is started", ON_PROFILE),
    ("notify", cli_before_after.notify, "send a trial message to everybody whom the profile's `notify` names", (
        _arg("profile", metavar="PROFILE", help="the YAML file with what you chose"),
        _arg("--test", action="store_true", help="the same: it says what you mean"),
    )),
    ("status", cli_run.show_status, "who did how much, how fast, what is wrong", (
        ON_RUN,
        HOSTS,
        _one_of(
            _flag("--json", "for programs: the founding progress.json's fields"),
            _flag("--prometheus", "for Grafana and the like: Prometheus's text format"),
        ),
    )),
    ("watch", cli_run.watch, "the same, drawn anew until the run is done; it only looks, Ctrl-C ends nothing else", (
        ON_RUN,
        HOSTS,
        _arg("--every", type=_seconds, default=2.0, metavar="S", help="seconds between two looks (default 2)"),
    )),
    ("logs", cli_run.logs, "the last lines of a slot's log, or of a host's supervisor", (
        OF_RUN,
        _arg("slot", metavar="SLOT", help="a slot such as cluster0_gpu3, or a host's name"),
        _arg("-n", "--lines", type=int, default=40, help="how many lines (default 40)"),
        _arg("-f", "--follow", action="store_true", help="go on with what is written to it, until Ctrl-C"),
    )),
    ("stop", cli_run.stop, "stop this run's workers and supervisors, nobody else's; committed rows stay", (
        ON_RUN,
        HOSTS,
    )),
    ("restart", cli_run.restart, "stop this run's workers and start them again, from what they committed", (
        ON_RUN,
        _arg("what", nargs="?", default="all", metavar="SLOT|HOST|all",
             help="one worker, or a machine's; all if left out"),
        _arg("--from-scratch", nargs="?", const="", default=None, metavar="NAME",
             help="all workers, from row zero: old parts are set aside; asks for the run's name, or takes it here"),
        HOSTS,
    )),
    ("fetch", cli_run.fetch, "bring home what is committed so far, verified", (ON_RUN, HOSTS)),
    ("move", cli_run.move, "move the rows that a machine has not done to the others, under a new epoch", (
        OF_RUN,
        _arg("host", metavar="HOST", help="the machine that is not to do them"),
    )),
    ("note", cli_run.note, "write a remark of yours into the run's journal, and so into its report", (
        OF_RUN,
        _arg("text", metavar="TEXT", help="one line"),
    )),
    ("verify", cli_run.verify, "check every byte of the archive, and compute again what its records claim", (
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
    ("report", cli_run.make_report, "make report.html and the checksums anew from the run's files", (
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
    ("clean", cli_run.clean_up, "remove this run's files from its hosts; refused before a verified backup", (
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
