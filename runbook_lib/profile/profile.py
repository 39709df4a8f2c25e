"""What the operator chose: one YAML file, read once into frozen dataclasses.

Each field carries its rule, so the dataclasses are also the list of keys. A file is read whole, and everything that is
wrong with it comes in one ProfileError. Relative paths start at the profile's folder (with `--set`: where the person
types it) and come out absolute. Secrets are never read here: a profile holds only the paths of their files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from worker import device as devices
from worker import layout

from ..errors import ProfileError
from . import notify_spec, profile_file, rules, slips, slurm_entry
from .notify_spec import NotifySpec
from .overrides import name_of, override
from .rules import Given, InvalidValue, Key, Rule
from .yaml_lines import LONGEST_PATH, Node, Problems, read, shown, write

CHUNK = "chunk"  # of model.too_long
WORKDIR = "~/mapper_embeddings"
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?", re.ASCII)
PACKAGE = re.compile(r"package:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)

# ---------------------------------------------------------------------------------------------- rules of our own


def _model_name() -> Rule:
    def take(node: Node) -> str:
        name = rules.take_text(node)
        if PACKAGE.fullmatch(name) or (HUB_NAME.fullmatch(name) and not (node.folder / name).is_dir()):
            return name
        if name.startswith("package:"):
            raise InvalidValue(rules.seen_text(node))
        return str(rules.take_path(node))

    return rules.rule("a name on the model hub (owner/name), a folder, or package:NAME", take)


def _prompt() -> Rule:
    def take(node: Node) -> str:
        value = rules.take_text(node, lines=True)  # some models want "Instruct: ...\nQuery: {text}"
        holes = set(re.findall(r"\{(\w*)\}", value))
        if holes and ("text" not in holes or holes - {"text", "title"}):
            raise InvalidValue(f"{rules.seen_text(node)}; a template has {{text}} in it, and may have {{title}}")
        return value

    return rules.rule(
        'the name of one of the model\'s prompts, a template such as "query: {text}", or "" for none', take
    )


def _check_model(given: Given, node: Node, at: str, problems: Problems) -> None:
    if given.get("dtype") == "float16" and "embeddinggemma" in str(given.get("name")).lower():
        why = "float16 overflows in EmbeddingGemma's activations and gives NaN; use bfloat16 or float32"
        problems.add(rules.line_of(node, "dtype"), f"{at}.dtype", why)
    if given.get("sha256"):
        given["sha256"] = given["sha256"].lower()


def _check_host(given: Given, node: Node, at: str, problems: Problems) -> None:
    kind, workdir = given.get("kind", "ssh"), given.get("workdir", WORKDIR)
    there = node.value if isinstance(node.value, dict) else {}
    ways = [key for key in ("credentials", "ssh") if given.get(key) or (key in there and there[key].refused)]
    if kind != "local" and len(ways) == 2:
        problems.add(rules.line_of(node, "ssh"), f"{at}.ssh", "credentials are given too; keep one of the two")
    far = kind == "ssh" or (kind == "slurm" and bool(ways))
    if far and workdir and not workdir.startswith(("/", "~/")):
        why = f'expected a folder on that host, starting with / or ~/; seen the text "{shown(workdir)}"'
        problems.add(rules.line_of(node, "workdir"), f"{at}.workdir", why)
    if kind == "local" and "device" not in given:
        given["device"] = devices.there()
    if given.get("device") in devices.NEW and (given.get("slots") or 1) > 1:
        why = f"expected 1 or auto: {given['device']} is one GPU; seen the number {given['slots']}"
        problems.add(rules.line_of(node, "slots"), f"{at}.slots", why)
    (slurm_entry.check if kind == "slurm" else slurm_entry.refuse_keys)(given, node, at, problems)
    if kind == "local":
        for key in ways:
            problems.add(
                rules.line_of(node, key), f"{at}.{key}", "a local host takes none; leave it out, or say kind: ssh"
            )
    if not far:
        own = there.get("workdir")
        try:
            given["workdir"] = str(rules.absolute(workdir or WORKDIR, (own or node).folder))
        except InvalidValue as why:
            problems.add(rules.line_of(node, "workdir"), f"{at}.workdir", f"expected a folder; {why}")


def _check_together(given: Given, top: Node, problems: Problems) -> None:
    """What does not fit between the model and the hosts."""
    model, hosts = given.get("model"), given.get("hosts") or ()
    new = [host for host in hosts if host.device in devices.NEW]
    if model and new and model.dtype == "float16":
        why = f"float16 gives equal or no vectors on {new[0].device} ({new[0].name}); use float32"
        node = top.value["model"] if isinstance(top.value, dict) else top
        problems.add(rules.line_of(node, "dtype"), "model.dtype", why)


def _hosts() -> Rule:
    one = rules.section(HostSpec, _check_host)["key"]

    def read_hosts(node: Node, at: str, problems: Problems) -> Any:
        if not isinstance(node.value, list) or not node.value:
            why = f"expected a list with at least one host (`- name: ...`); {rules.seen_text(node)}"
            problems.add(node.line, at, why)
            return None
        _check_names(node.value, at, problems)
        read = [one.read(item, f"{at}.{i}", problems) for i, item in enumerate(node.value) if not item.refused]
        return tuple(host for spec in read if spec for host in spec.expanded())

    return {"key": Key("a list of hosts", read_hosts, section=HostSpec, many=True)}


def _check_names(items: list[Node], at: str, problems: Problems) -> None:
    lines: dict[str, int] = {}
    for index, item in enumerate(items):
        if name := name_of(item):
            names = [str(name.value).casefold()]  # some disks do not tell A from a
            if isinstance(item.value, dict) and "kind" in item.value and item.value["kind"].value == "slurm":
                names += slurm_entry.names(item, names[0])
            for folded in names:
                if folded in lines:
                    why = f"expected another name than the host of line {lines[folded]}; {rules.seen_text(name)}"
                    problems.add(name.line, f"{at}.{index}.name", why)
                    break
                lines[folded] = name.line


# ---------------------------------------------------------------------------------------------- the profile


@dataclass(frozen=True)
class CorpusSpec:
    """The documents: their file, how many there must be, what its fields are called, which oddities are accepted."""

    path: Path = field(metadata=rules.path())
    documents: int | None = field(default=None, metadata=rules.whole(999_999_999))
    id: str = field(default="id", metadata=rules.text())
    title: str = field(default="title", metadata=rules.text())
    text: str = field(default="text", metadata=rules.text())
    url: str = field(default="url", metadata=rules.text())
    accept: tuple[str, ...] = field(
        default=(), metadata=rules.some_of("empty_text", "missing_title", "title_not_text", "surrogates")
    )


@dataclass(frozen=True)
class ModelSpec:
    """The embedding model and how it is used; `sha256` is that of its model.safetensors.

    `too_long`: a text of more tokens than are read is cut (truncate), stops the run before anything is computed
    (refuse), or is read whole, in chunks whose mean is its vector (chunk).

    `download`: `here`, and sent to the hosts from here; or `hosts`, each of which fetches the weights from the hub.
    """

    name: str = field(metadata=_model_name())
    revision: str = field(default="main", metadata=rules.text())
    dim: int | None = field(default=None, metadata=rules.whole(100_000))
    dtype: str = field(default="float32", metadata=rules.one_of("float32", "bfloat16", "float16"))
    prompt: str = field(default="document", metadata=_prompt())
    question_prompt: str = field(default="query", metadata=_prompt())
    max_tokens: int | None = field(default=None, metadata=rules.whole(1_000_000))
    sha256: str | None = field(default=None, metadata=rules.text("64 hexadecimal digits", "[0-9a-fA-F]{64}"))
    download: str = field(default="here", metadata=rules.one_of("here", "hosts"))
    too_long: str = field(default="truncate", metadata=rules.one_of("truncate", "refuse", CHUNK))


@dataclass(frozen=True)
class HostSpec:
    """A machine, how to reach it and how much of it to use.

    `slots` and `threads` (CPU threads of a slot) are None for auto. An ssh host without credentials and ssh is the
    alias `name` of ~/.ssh/config. An `environment` of conda:NAME or venv is made where it is missing, from the pinned
    `requirements` (a file; default: the project's own) and, for a host without network, from the folder `wheels`.
    """

    name: str = field(metadata=rules.text("letters, digits, `_`, `.`, `-`, at most 64", layout.HOST_NAME.pattern))
    kind: str = field(default="ssh", metadata=rules.one_of("ssh", "local", "slurm"))
    slots: int | None = field(default=None, metadata=rules.whole(1024, auto=True))
    device: str = field(
        default="cuda", metadata=rules.one_of(*devices.KINDS, default="cuda; of a local host, what this machine has")
    )
    workdir: str = field(default=WORKDIR, metadata=rules.text("a folder on that host"))
    credentials: Path | None = field(default=None, metadata=rules.secret())
    ssh: str | None = field(
        default=None, metadata=rules.text("an alias of ~/.ssh/config, or user@address", r"[A-Za-z0-9][\w.@:%-]{0,254}")
    )
    environment: str | None = field(
        default=None, metadata=rules.text("conda:NAME, venv, or a Python environment on that host", r"[^-\s].{0,999}")
    )
    threads: int | None = field(default=None, metadata=rules.whole(1024, auto=True))
    requirements: Path | None = field(default=None, metadata=rules.path())
    wheels: Path | None = field(default=None, metadata=rules.path())
    tasks: int | None = field(default=None, metadata=rules.whole(slurm_entry.MOST_TASKS))
    partition: str | None = field(default=None, metadata=slurm_entry.word("the name of a partition"))
    account: str | None = field(default=None, metadata=slurm_entry.word("the name of an account"))
    time: str | None = field(default=None, metadata=slurm_entry.time())
    gres: str | None = field(default=None, metadata=slurm_entry.word("generic resources such as gpu:8"))
    clusters: str | None = field(default=None, metadata=slurm_entry.word("the name of a cluster"))
    array_limit: int | None = field(default=None, metadata=rules.whole(4_000_001))
    extra: tuple[str, ...] = field(default=(), metadata=slurm_entry.flags())
    heartbeat_s: float | None = field(default=None, metadata=rules.positive(3600))

    @property
    def is_here(self) -> bool:
        """Whether its folder is one of this machine, and not reached over a network."""
        return self.kind == "local" or (self.is_task and not (self.ssh or self.credentials))

    @property
    def computes_here(self) -> bool:
        """Whether its workers are processes of this machine."""
        return self.kind == "local"

    @property
    def is_task(self) -> bool:
        """Whether a scheduler places it: then it shares folder and login with the other tasks of its `cluster`."""
        return self.kind == "slurm"

    @property
    def cluster(self) -> str:
        """Of a task: the name of its entry."""
        return self.name.rpartition(".")[0]

    @property
    def task(self) -> int:
        """Of a task: its number in its cluster."""
        return int(self.name.rpartition(".")[2])

    @property
    def reached(self) -> str:
        """What the hosts have in common that are reached as one: the tasks of a cluster; any other one alone."""
        return self.cluster if self.is_task else self.name

    def expanded(self) -> tuple[HostSpec, ...]:
        """The hosts that an entry stands for: cluster.0, cluster.1 ... of a cluster, else itself."""
        if not self.is_task:
            return (self,)
        names = slurm_entry.host_names(self.name, self.tasks or 1)
        return tuple(replace(self, name=name) for name in names)

    def entry(self) -> HostSpec:
        """The entry of the profile that stands for this host."""
        return replace(self, name=self.cluster) if self.is_task else self


@dataclass(frozen=True)
class MonitorSpec:
    """How often to look at the workers, and from which limits on to act."""

    interval_s: float = field(default=30.0, metadata=rules.positive())
    stuck_s: float = field(default=120.0, metadata=rules.positive())
    first_progress_s: float = field(default=180.0, metadata=rules.positive())
    slow_rows_per_s: float = field(default=20.0, metadata=rules.positive())
    deadline_s: float = field(default=1200.0, metadata=rules.positive())
    unreachable_s: float = field(default=600.0, metadata=rules.positive())


@dataclass(frozen=True)
class PolicySpec:
    """Exceptions to `recovery` for single verdicts: auto, ask or off."""

    dead: str | None = field(default=None, metadata=rules.one_of("auto", "ask", "off"))
    unreachable: str | None = field(default=None, metadata=rules.one_of("auto", "ask", "off"))
    fenced: str | None = field(default=None, metadata=rules.one_of("auto", "ask", "off"))
    slow: str | None = field(default=None, metadata=rules.one_of("auto", "ask", "off"))


@dataclass(frozen=True)
class OutputSpec:
    """Where the merged result and its backups go; their defaults follow from the profile's folder and `run`."""

    folder: Path = field(metadata=rules.path(default="embeddings"))
    merged: str = field(metadata=rules.text("a plain file name", r"[^./\\][^/\\]{0,199}", default="<run>_merged.pkl"))
    backups: Path = field(metadata=rules.path(default="<output.folder>/backups"))


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Everything the operator chose, checked.

    `path` is the file it came from, `run` the prefix of run names, `runs` the folder of their folders. `part_rows` is
    None for auto. `signing_key` is an SSH key that signs sealed runs.
    """

    path: Path
    run: str = field(
        metadata=rules.text("letters, digits, `_`, `.`, `-`, at most 60", rf"(?=.{{1,60}}$){layout.RUN_NAME.pattern}")
    )
    corpus: CorpusSpec = field(metadata=rules.section(CorpusSpec))
    questions: Path | None = field(default=None, metadata=rules.path())
    model: ModelSpec = field(metadata=rules.section(ModelSpec, _check_model))
    hf_token: Path | None = field(default=None, metadata=rules.secret())
    hosts: tuple[HostSpec, ...] = field(metadata=_hosts())
    part_rows: int | None = field(default=None, metadata=rules.whole(1_000_000, auto=True))
    monitor: MonitorSpec = field(default_factory=MonitorSpec, metadata=rules.section(MonitorSpec))
    recovery: str = field(default="auto", metadata=rules.one_of("auto", "ask", "off"))
    policy: PolicySpec = field(default_factory=PolicySpec, metadata=rules.section(PolicySpec))
    notify: NotifySpec = field(default_factory=NotifySpec, metadata=rules.section(NotifySpec, notify_spec.check))
    output: OutputSpec = field(metadata=rules.section(OutputSpec))
    signing_key: Path | None = field(default=None, metadata=rules.path())
    runs: Path = field(metadata=rules.path(default="runs"))

    def policy_for(self, verdict: str) -> str:
        """Return auto, ask or off: whether the runbook may act on a verdict without a person."""
        return getattr(self.policy, verdict) or self.recovery


# ---------------------------------------------------------------------------------------------- reading and writing


def load(path: str | Path, overrides: Mapping[str, str] | None = None, *, as_used: bool = False) -> Profile:
    """Read the profile in a file; `overrides` (dotted key -> YAML value, as `--set` gives them) replace its values.

    `as_used`: a run's own copy, whose files of secrets may be gone or on another machine. Raises one ProfileError that
    names every problem with its line.
    """
    file = Path(path)
    problems = Problems(file, known_keys())
    try:
        place = rules.absolute(str(path), Path.cwd())
    except InvalidValue as why:
        raise ProfileError(f"reading the profile {shown(str(path), LONGEST_PATH)}: {why}") from None
    top = read(profile_file.contents(place), place.parent, problems)
    if top and not as_used:
        top = slips.without_secrets(top, problems)
        if top.refused:
            problems.stop_if_any()
    if top:
        top = _with_defaults(override(top, overrides or {}, problems))
    given = rules.read_keys(Profile, top, "", problems) if top else {}
    problems.stop_if_any()
    if top:
        _check_together(given, top, problems)
    problems.stop_if_any()
    return Profile(path=place, **given)


def as_yaml(profile: Profile) -> str:
    """Return the profile as YAML, every key given and every path absolute; `load` reads the same profile from it."""
    entries = dict.fromkeys(host.entry() for host in profile.hosts)
    value = {**rules.plain(profile), "hosts": list(map(rules.plain, entries))}
    return f"# The profile as used, written by runbook: every key, absolute paths.\n{write(value)}"


def plain_host(spec: HostSpec) -> dict[str, Any]:
    """A host's keys as plain values, without those that its kind cannot have."""
    away = () if spec.is_task else slurm_entry.KEYS
    return {key: value for key, value in rules.plain(spec).items() if key not in away}


def known_keys() -> dict[str, str]:
    """Return every dotted key of a profile, what it takes and its default; `hosts.NAME` stands for each host."""
    return dict(rules.described(Profile))


def _with_defaults(top: Node) -> Node:
    """`top` with the values that follow from others: the output's names and the folder of runs."""
    if not isinstance(top.value, dict):
        return top
    entries = dict(top.value)
    output = entries.get("output", Node(None, top.line, top.folder))
    if isinstance(output.value, dict | None) and not output.refused:
        run = entries["run"].value if "run" in entries else None
        prefix = run if isinstance(run, str) and layout.RUN_NAME.fullmatch(run) else "run"  # else noted at `run`
        own = dict(output.value or {})
        _fill(own, "folder", Node("embeddings", output.line, top.folder))
        _fill(own, "merged", Node(f"{prefix}_merged.pkl", output.line, top.folder))
        _fill(own, "backups", replace(own["folder"], value=f"{own['folder'].value}/backups"))
        entries["output"] = replace(output, value=own)
    _fill(entries, "runs", Node("runs", top.line, top.folder))
    return replace(top, value=entries)


def _fill(entries: dict[str, Node], key: str, node: Node) -> None:
    if key not in entries or (entries[key].value is None and not entries[key].refused):
        entries[key] = node
