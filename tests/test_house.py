"""The house: who may import whom, one door for each outside library, and files that must agree."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
LIBRARY = ROOT / "runbook_lib"
WORKER = ROOT / "worker"

NOUNS = {
    "tokens", "slips", "places", "verdicts", "incidents", "state", "moves",
    "rates", "readings", "watcher", "acts", "locks",
    "errors", "checks", "yaml_lines", "rules", "profile", "readers", "corpus", "journal", "plan", "run", "source",
    "json_stream", "plain_pickle", "tables", "text_lines", "whole_file", "characters", "findings", "inspection",
    "documents", "questions", "prompt", "loadable", "sent_model", "probing", "choices", "run_mark", "planning",
    "model", "gpus", "hosts", "large_files", "parts", "founding", "merged", "articles", "survey", "retrieval",
    "figures", "evidence", "inventory", "environments", "publication", "home",
    "disk", "bounds", "part_record", "part_identity", "array_file",
    "json_size", "thrift", "parquet_pages", "answer_json", "rate", "transport",
    "answers", "content", "dial", "known_hosts", "link", "local", "login", "secret", "session", "ssh",
}  # fmt: skip
PHASES = {"preflight", "staging", "launch", "monitor", "recover", "download", "merge", "validate", "backup", "publish"}
SIDEWAYS = {
    "launch": {"staging"},
    "recover": {"staging", "launch", "monitor", "download"},
    "publish": {"validate", "backup"},
}
DOORS = {  # outside library -> the only modules that may import it
    "paramiko": {"dial", "link", "transport"},
    "matplotlib": {"drawing"},
    "PIL": {"drawing"},
    "IPython": {"live"},
    "ipywidgets": {"console"},
    "papermill": {"execution"},
    "nbclient": {"execution"},
    "jupyter_client": {"execution"},
    "nbconvert": {"notebook_pages"},
    "traitlets": {"notebook_pages"},
    "bleach": {"notebook_pages"},
    "yaml": {"yaml_lines"},
    "pyarrow": {"tables"},
    "huggingface_hub": {"model", "fetch"},
    "torch": {"encoder", "text_model"},
    "sentence_transformers": {"text_model"},
}
# Of the worker, the library may use what needs neither numpy nor torch.
SHARED = {
    "awake", "layout", "texts", "locks", "owned", "placed", "process", "reserve", "snapshot", "machine", "environment",
    "verbs",
}  # fmt: skip


def imports(path, package):
    """(own modules by their last name, everything else by dotted name) that a file imports, wherever in it."""
    own, other = set(), set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level or module.split(".")[0] == package:
                last = module.split(".")[-1]
                own |= {alias.name for alias in node.names} if last in {"", package, *GROUPS} else {last}
            elif module == "worker":
                other |= {f"worker.{alias.name}" for alias in node.names}
            else:
                other.add(module)
        elif isinstance(node, ast.Import):
            other |= {alias.name for alias in node.names}
    return own, other


GROUPS = {path.name for path in LIBRARY.iterdir() if (path / "__init__.py").exists()}
MODULES = [path for path in LIBRARY.rglob("*.py") if path.name != "__init__.py"]
GRAPH = {path.stem: imports(path, "runbook_lib") for path in MODULES}
WORKERS = {path.stem: imports(path, "worker") for path in WORKER.glob("*.py")}


def test_no_two_modules_share_a_name():
    assert len(GRAPH) == len(MODULES)


def test_every_module_named_here_exists():
    assert (NOUNS | PHASES) - set(GRAPH) == set()


@pytest.mark.parametrize("module", sorted(NOUNS & set(GRAPH)))
def test_a_noun_imports_only_nouns(module):
    assert GRAPH[module][0] - NOUNS == set()


@pytest.mark.parametrize("module", sorted(PHASES))
def test_a_phase_imports_nouns_and_no_other_phase(module):
    assert GRAPH[module][0] - NOUNS - SIDEWAYS.get(module, set()) == set()


def test_there_is_no_import_cycle():
    left = {module: set(own) & set(GRAPH) for module, (own, _) in GRAPH.items()}
    while ready := [module for module, needs in left.items() if not needs]:
        for module in ready:
            del left[module]
        for needs in left.values():
            needs.difference_update(ready)
    assert left == {}


@pytest.mark.parametrize("module", sorted(GRAPH))
def test_the_library_uses_only_the_shared_modules_of_the_worker(module):
    used = {name for name in GRAPH[module][1] if name.startswith("worker.")}
    assert {name.split(".")[1] for name in used} - SHARED == set()


@pytest.mark.parametrize("module", sorted(WORKERS))
def test_the_worker_imports_nothing_but_itself_the_standard_library_numpy_and_the_encoder(module):
    outside = {name.split(".")[0] for name in WORKERS[module][1]} - set(sys.stdlib_module_names)
    doors = {
        "encoder": {"torch"},
        "text_model": {"torch", "sentence_transformers", "transformers"},
        "fetch": {"huggingface_hub"},
    }
    allowed = {"numpy"} | doors.get(module, set())
    assert outside - allowed == set()


@pytest.mark.parametrize("module", sorted(SHARED))
def test_the_shared_modules_need_the_standard_library_only(module):
    own, other = WORKERS[module]
    assert own <= SHARED
    assert {name.split(".")[0] for name in other} <= set(sys.stdlib_module_names)


@pytest.mark.parametrize("library", sorted(DOORS))
def test_an_outside_library_has_one_door(library):
    users = {
        m
        for graph in (GRAPH, WORKERS)
        for m, (_, other) in graph.items()
        if library in {n.split(".")[0] for n in other}
    }
    assert users <= DOORS[library]


def test_the_library_and_its_command_line_import_without_torch():
    code = (
        "import sys\n"
        "class No:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('torch', 'sentence_transformers', 'transformers'):\n"
        "            raise ImportError(name + ' is not here')\n"
        "sys.meta_path.insert(0, No())\n"
        "import importlib, pkgutil, runbook_lib\n"
        "for found in pkgutil.walk_packages(runbook_lib.__path__, 'runbook_lib.'):\n"
        "    importlib.import_module(found.name)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr


def test_environment_yml_lists_what_pyproject_lists():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(item for extra in project["optional-dependencies"].values() for item in extra),
    ]
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert set(environment) == {"name", "channels", "dependencies"}
    pip = next(item["pip"] for item in environment["dependencies"] if isinstance(item, dict))
    assert sorted(item for item in pip if not item.startswith("--")) == sorted(wanted)
    assert [item for item in pip if item.startswith("--")] == ["--constraint constraints.txt", "--editable ."]


def test_constraints_pin_every_dependency_once_a_platform_and_torch_exactly():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert [line for line in lines if line.startswith("torch==")] == ["torch==2.13.0"]
    assert all(re.match(r"[a-z0-9._-]+==\S+( ; .+)?$", line) for line in lines)
    pinned = {line.split("==")[0] for line in lines}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(item for extra in project["optional-dependencies"].values() for item in extra),
    ]
    assert {re.split(r"[<>=]", item)[0].lower() for item in wanted} <= pinned


NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def test_there_are_four_notebooks():
    from runbook_lib.run import PHASES as names

    assert tuple(path.stem for path in NOTEBOOKS) == names


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_thin_stripped_and_opens_with_commented_parameters(path):
    cells = json.loads(path.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in code)
    assert all(len("".join(cell["source"]).splitlines()) <= 6 for cell in code)
    assert all("def " not in "".join(cell["source"]) for cell in code)
    assert cells[0]["cell_type"] == "markdown"
    assert code[0]["metadata"]["tags"] == ["parameters"]
    assert all(re.match(r"\w+: \w+ = .+  # .+", line) for line in "".join(code[0]["source"]).splitlines())
    assert f'gate.gate(this, "{path.stem}"' in "".join("".join(cell["source"]) for cell in code[-2:])


def test_no_count_of_the_founding_plan_stands_in_code():
    for path in [*MODULES, *WORKER.glob("*.py")]:
        numbers = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
        assert not numbers & {250_000, 250_010, 125_005, 125_000, 15_625, 768}, path


def test_every_event_of_the_journal_says_whether_it_is_a_fault_or_a_recovery():
    """A name that is not in the table would be told as neither."""
    from runbook_lib.journal import KINDS

    written = {
        node.args[0].value
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).endswith("journal.write")
        and node.args
        and isinstance(node.args[0], ast.Constant)
    }
    assert written and written - set(KINDS) == set()
