"""`python -m worker VERB`: encode, supervise, warm, second, recompute, double, probe, rehearse, devices, and others."""

from __future__ import annotations

import argparse
import json
import os
import sys
import traceback
from pathlib import Path

from .texts import DOCUMENT, QUERY


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m worker", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    encode = verbs.add_parser("encode", help="encode what is left of one slot's shard, then end")
    supervise = verbs.add_parser("supervise", help="keep one worker per slot of a host running until all is done")
    warm = verbs.add_parser("warm", help="import the libraries once and fork the workers of a host, for its supervisor")
    for verb in (encode, supervise, warm):
        verb.add_argument("--root", type=Path, required=True, help="the run's folder on this host")
        verb.add_argument("--host", required=True, help="the host's name in the profile")
    encode.add_argument("--slot", required=True, help="the slot, such as cluster0_gpu3")
    warm.add_argument("--room", help="so many characters are there for a worker to write its own command line")
    second = verbs.add_parser("second", help="be a worker's second opinion: the model on the processor, asked by lines")
    second.add_argument("--root", type=Path, required=True, help="the run's folder on this host")
    second.add_argument("--host", required=True, help="the host's name in the profile")
    second.add_argument("--threads", type=int, default=1, help="how many threads it may use")
    second.add_argument("--learn", action="store_true", help="compute the known texts for all workers, then end")
    recompute = verbs.add_parser("recompute", help="compute texts again on the processor, asked by lines")
    recompute.add_argument("--threads", type=int, default=1, help="how many threads it may use")
    probe = verbs.add_parser("probe", help="load a model, encode short and long texts, print what was found as JSON")
    rehearse = verbs.add_parser("rehearse", help="be one of the processes that show how fast all slots are together")
    for verb in (recompute, probe, rehearse):
        verb.add_argument("--model", type=Path, required=True, help="the model's folder")
        verb.add_argument("--dtype", default="float32", help="float32, bfloat16 or float16")
        verb.add_argument("--max-tokens", type=int, help="where texts are cut, if before the model's own limit")
        verb.add_argument("--chunk-tokens", type=int, help="read long documents whole, in chunks of so many tokens")
        verb.add_argument("--prompt", default="{text}", help="what documents are filled into")
        verb.add_argument("--question-prompt", default="{text}", help="what questions are filled into")
    for verb in (probe, rehearse):
        verb.add_argument("--device", default="cpu", help="cpu, cuda, mps or xpu")
        verb.add_argument("--gpu", help="the GPU to use, by its UUID")
        verb.add_argument("--rehearse", action="store_true", help="also encode the texts that come on standard input")
        verb.add_argument("--inside", action="store_true", help="be the child of a try that rehearses")
        verb.add_argument("--longest", type=int, help="no text of the corpus is longer, in tokens")
    double = verbs.add_parser("double", help="compute batches of others' parts again, as the order file says")
    double.add_argument("--root", type=Path, required=True, help="the run's folder on this host")
    double.add_argument("--host", required=True, help="the host's name in the profile")
    double.add_argument("--slot", required=True, help="the slot whose device does it")
    devices = verbs.add_parser("devices", help="import the libraries, multiply on each GPU, print what was found")
    devices.add_argument("--device", default="cpu", help="cpu, or whose GPUs to look at: cuda, mps or xpu")
    allotted = verbs.add_parser("allotted", help="on a node of a cluster: the same, and what a task is given there")
    allotted.add_argument("--root", type=Path, required=True, help="the run's folder")
    allotted.add_argument("--device", default="cpu", help="cpu or cuda")
    maker = verbs.add_parser("environment", help="make the Python environment that an order file describes")
    maker.add_argument("--spec", type=Path, required=True, help="the order, a JSON file")
    verbs.add_parser("fetch", help="bring a model's weights from the hub; the order, with the token, on standard input")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and do it; give the exit code."""
    args = _parser().parse_args(argv)
    if args.verb in ("encode", "supervise", "warm"):
        args.root = args.root.absolute()  # the supervisor's workers start in that folder
    if args.verb == "encode":
        from . import encode as encoding

        return encoding.run(args.root, args.host, args.slot)
    if args.verb == "supervise":
        from . import supervise as supervising

        return supervising.run(args.root, args.host)
    if args.verb == "warm":
        from . import warm as warming

        return warming.serve(args.root, args.host)
    if args.verb == "second":
        from . import processor, second

        return (second.learn if args.learn else processor.serve)(args.root, args.host, args.threads)
    if args.verb == "recompute":
        from . import processor

        templates = {DOCUMENT: args.prompt, QUERY: args.question_prompt}
        limits = args.max_tokens, args.chunk_tokens
        return processor.recompute(args.model, args.dtype, *limits, templates, args.threads)
    if args.verb == "double":
        from . import double

        return double.run(args.root.absolute(), args.host, args.slot)
    if args.verb == "environment":
        from . import making

        return making.create(args.spec)
    if args.verb == "fetch":
        from . import fetch as fetching

        return fetching.run(sys.stdin.buffer)
    from . import probe as probing

    if args.verb == "allotted":
        from . import allotted

        print(json.dumps({**probing.devices(args.device), "allotted": allotted.look(args.root.absolute())}))
        return 0
    if args.verb == "devices":
        print(json.dumps(probing.devices(args.device)))
        return 0
    return _probe(args)


def _probe(args: argparse.Namespace) -> int:
    if args.verb == "probe" and args.rehearse and not args.inside:
        from . import rehearsal

        return rehearsal.guarded(rehearsal.command("probe"), sys.stdin.read())
    from .device import settle

    environment = settle(args.device, os.environ)
    for key in {*os.environ} - {*environment}:
        del os.environ[key]
    os.environ.update(environment)
    if args.gpu:  # before torch is imported
        os.environ["CUDA_VISIBLE_DEVICES"] = args.gpu
    from . import probe as probing
    from .loading import make

    templates = {DOCUMENT: args.prompt, QUERY: args.question_prompt}
    limits = args.max_tokens, args.chunk_tokens
    if args.verb == "rehearse":
        from . import rehearsal

        return rehearsal.one_of_several(
            lambda threads: make(args.model, args.device, args.dtype, *limits, threads, templates)
        )
    try:
        told = json.load(sys.stdin) if args.rehearse else None
        answer = probing.probe(args.model, args.device, args.dtype, *limits, templates, args.longest, told)
    except Exception as error:  # whatever the libraries say is what a person has to know
        traceback.print_exc()
        answer = {"error": f"{type(error).__name__}: {error}", "missing": isinstance(error, ImportError)}
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
