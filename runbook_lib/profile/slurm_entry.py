"""An entry of kind slurm: its keys, what does not fit between them, and the hosts that it stands for, a task each."""

from __future__ import annotations

import re

from worker import layout
from worker.batch_script import seconds
from worker.slurm import host_name

from . import rules
from .rules import Given, InvalidValue, Rule
from .yaml_lines import Node, Problems, shown

MOST_TASKS = 4096
HEARTBEAT_S = 30.0  # between two signs of a task: its folder is shared by all
KEYS = ("tasks", "partition", "account", "time", "gres", "clusters", "array_limit", "extra", "heartbeat_s")
FLAG = re.compile(r"-{1,2}[A-Za-z][\w-]*(?:[= ]?[\w.,:/@%+*=~()|&\[\]-]+)?", re.ASCII)
# What a batch script of ours says itself: option -> its short form, and the key that says it, if one does.
OURS = {
    "--array": "-a", "--chdir": "-D", "--error": "-e", "--export": "", "--job-name": "-J", "--nodes": "-N",
    "--ntasks": "-n", "--open-mode": "", "--output": "-o", "--parsable": "", "--signal": "", "--wait": "-W",
    "--wrap": "", "--test-only": "", "--requeue": "", "--no-requeue": "", "--ntasks-per-node": "",
}  # fmt: skip
BY_KEY = {
    "--partition": "-p", "--account": "-A", "--time": "-t", "--gres": "", "--clusters": "-M", "--cpus-per-task": "-c",
}  # fmt: skip
KEY_OF = {"--cpus-per-task": "threads"}


def word(what: str) -> Rule:
    """A word of Slurm's: no blanks, quotes or line ends, as it stands in a batch script."""
    return rules.text(what, r"[A-Za-z0-9][\w.,:/+=-]{0,199}")


def time() -> Rule:
    """A time limit in Slurm's words."""

    def take(node: Node) -> str:
        text = str(node.value) if type(node.value) is int else rules.take_text(node)
        if not seconds(text):
            raise InvalidValue(rules.seen_text(node))
        return text

    return rules.rule("a time limit: minutes, hours:minutes:seconds, days-hours or days-hours:minutes:seconds", take)


def flags() -> Rule:
    """More options for sbatch, one a line of the batch script; none that the script or a key says already."""

    def take(node: Node) -> tuple[str, ...]:
        if not isinstance(node.value, list):
            raise InvalidValue(f"{rules.seen_text(node)}; a list is written [--exclusive]")
        return tuple(_flag(item) for item in node.value)

    return rules.rule("a list of options of sbatch, such as [--exclusive, --qos=low]", take)


def _flag(item: Node) -> str:
    text = rules.take_text(item)
    if not FLAG.fullmatch(text):
        raise InvalidValue(rules.seen_text(item))
    name = re.split("[= ]", text, maxsplit=1)[0]
    for table in (OURS, BY_KEY):
        for option, short in table.items():
            if name == option or (short and not text.startswith("--") and text.startswith(short)):
                by = f"say it by the key `{KEY_OF.get(option, option[2:])}`" if table is BY_KEY else "runbook sets it"
                raise InvalidValue(f"{rules.seen_text(item)}: {by}")
    return text


def refuse_keys(given: Given, node: Node, at: str, problems: Problems) -> None:
    """Note keys of a cluster in the entry of another host."""
    for key in KEYS:
        if given.get(key):
            why = "only a host of kind slurm takes it; leave it out, or say kind: slurm"
            problems.add(rules.line_of(node, key), f"{at}.{key}", why)


def check(given: Given, node: Node, at: str, problems: Problems) -> None:
    """Note what a cluster's entry lacks, and what does not fit between its keys."""
    there = node.value if isinstance(node.value, dict) else {}
    given.setdefault("heartbeat_s", HEARTBEAT_S)
    if "tasks" not in there:
        problems.add(
            node.line, f"{at}.tasks", f"is missing; expected a whole number from 1 to {MOST_TASKS}: a task is a host"
        )
    if given.get("device") in ("mps", "xpu"):
        why = f'expected cuda or cpu on a cluster; seen the text "{given["device"]}"'
        problems.add(rules.line_of(node, "device"), f"{at}.device", why)
    name, tasks = str(given.get("name", "")), given.get("tasks") or 1
    longest = host_name(name, tasks - 1)
    if name and not layout.HOST_NAME.fullmatch(longest):
        why = f"expected a name that leaves room for .{tasks - 1}: {shown(longest)} has more than 64 characters"
        problems.add(rules.line_of(node, "name"), f"{at}.name", why)
    gpus = re.fullmatch(r"gpu(?::[\w.-]+)?:(\d+)", given.get("gres") or "")
    slots = given.get("slots")
    if given.get("device", "cuda") == "cuda" and gpus and slots and slots > int(gpus.group(1)):
        why = f"expected at most {gpus.group(1)}, the GPUs of a task by `gres`; seen the number {slots}"
        problems.add(rules.line_of(node, "slots"), f"{at}.slots", why)


def host_names(name: str, tasks: int) -> list[str]:
    """The names of the hosts of a cluster."""
    return [host_name(name, task) for task in range(tasks)]


def names(item: Node, name: str) -> list[str]:
    """The names that the tasks of an entry take."""
    tasks = item.value["tasks"].value if isinstance(item.value, dict) and "tasks" in item.value else None
    return host_names(name, tasks) if type(tasks) is int and 0 < tasks <= MOST_TASKS else []
