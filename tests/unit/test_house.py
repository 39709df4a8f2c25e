"""The house: who may import whom, one door for each outside library, and files that must agree."""

import ast
import importlib
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import tiers
import yaml

from runbook_lib.hosts.ssh import far_end

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "runbook_lib"
WORKER = ROOT / "worker"

# The order of the house: a folder imports only itself and those before it.
FOLDERS = (
    "errors", "records", "profile", "corpus", "run", "hosts", "slots", "result", "phases", "afterwards",
    "show", "report", "chain",
)  # fmt: skip
ON_TOP = {"cli", "cli_before_after", "cli_run", "notebook"}  # what a person starts from
# A phase stands on its own, but for these.
PHASES = {
    "preflight",
    "staging",
    "launch",
    "monitor",
    "recover",
    "download",
    "merge",
    "validate",
    "backup",
    "publish",
    "tend",
}
SIDEWAYS = {
    "launch": {"staging"},
    "recover": {"staging", "launch"},
    "tend": {"recover", "download"},
    "publish": {"validate", "backup"},
}
DOORS = {  # outside library -> the only modules that may import it
    "apprise": {"sending"},
    "paramiko": {"dial", "dialled", "transport"},
    "markupsafe": {"markup"},
    "matplotlib": {"drawing"},
    "PIL": {"drawing"},
    "IPython": {"live"},
    "ipywidgets": {"console"},
    "papermill": {"execution"},
    "nbformat": {"notebook_file"},
    "nbclient": {"execution"},
    "jupyter_client": {"execution"},
    "nbconvert": {"notebook_pages"},
    "traitlets": {"notebook_pages"},
    "bleach": {"notebook_pages"},
    "yaml": {"yaml_lines"},
    "pyarrow": {"arrow_ipc", "export", "table_columns", "tables", "unpacking"},
    "fsspec": {"remote"},
    "huggingface_hub": {"model", "fetch"},
    "torch": {
        "accelerator",
        "encoder",
        "fetching",
        "linear",
        "packed_attention",
        "packing",
        "packing_check",
        "text_model",
        "tokenizing",
    },
    "sentence_transformers": {"text_model"},
    "umap": {"corpus_map"},
}
# Of the worker, the library may use what needs neither numpy nor torch.
SHARED = {
    "again", "allotted", "awake", "batch_script", "batches", "bins", "canary", "chip", "commands", "deaths", "device",
    "environment", "escape", "fields", "files", "launcher", "layout", "limits", "locks", "machine", "node_job", "owned",
    "placed", "process", "reserve", "rows", "slurm", "snapshot", "states", "texts", "verbs", "wire",
}  # fmt: skip


MODULES = [path for path in LIBRARY.rglob("*.py") if path.name != "__init__.py"]


def name_of(path):
    """A file's dotted name."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def imports(path):
    """(our own modules, everything else) that a file imports, wherever in it, by their dotted names."""
    own, other = set(), set()
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            named = {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*above, *([node.module] if node.module else [])])
            named = {f"{base}.{alias.name}" for alias in node.names}
            named = {name if is_module(name) or not base else base for name in named}
        else:
            continue
        own |= {name for name in named if is_module(name)}
        other |= {name for name in named if not is_module(name)}
    return own, other


def is_module(name):
    """Whether a dotted name is a file of ours."""
    return (ROOT / f"{name.replace('.', '/')}.py").is_file()


def folder_of(name):
    """The top folder of a module of the library, or its own name where it stands at the top."""
    return name.split(".")[1]


GRAPH = {name_of(path): imports(path) for path in MODULES}
WORKERS = {path.stem: imports(path) for path in WORKER.glob("*.py")}


def test_the_top_of_the_library_is_the_list_of_its_folders():
    seen = {path.stem for path in LIBRARY.iterdir() if path.suffix == ".py" or any(path.glob("*.py"))}
    assert seen == {*FOLDERS, *ON_TOP, "__init__"}


def test_no_two_modules_share_a_name():
    assert len({path.stem for path in MODULES}) == len(MODULES)


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_imports_only_itself_and_those_above_it(folder):
    above = {*FOLDERS[: FOLDERS.index(folder) + 1]}
    modules = [name for name in GRAPH if folder_of(name) == folder]
    assert modules
    wrong = {
        (name, used)
        for name in modules
        for used in GRAPH[name][0]
        if used.startswith("runbook_lib.") and folder_of(used) not in above
    }
    assert wrong == set()


@pytest.mark.parametrize("module", sorted(PHASES))
def test_a_phase_imports_no_other_phase(module):
    used = {name.split(".")[-1] for name in GRAPH[f"runbook_lib.phases.{module}"][0] if folder_of(name) == "phases"}
    assert used & PHASES <= SIDEWAYS.get(module, set())


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
    used = {name for name in GRAPH[module][0] if name.startswith("worker.")}
    assert {name.split(".")[1] for name in used} - SHARED == set()


@pytest.mark.parametrize("module", sorted(WORKERS))
def test_the_worker_imports_nothing_but_itself_the_standard_library_numpy_and_the_encoder(module):
    own, other = WORKERS[module]
    assert not any(name.startswith("runbook_lib") for name in own)
    outside = {name.split(".")[0] for name in other} - set(sys.stdlib_module_names)
    doors = {
        "accelerator": {"torch"},
        "encoder": {"torch"},
        "fetching": {"torch"},
        "linear": {"torch"},
        "packed_attention": {"torch"},
        "packing": {"torch", "transformers"},
        "packing_check": {"torch"},
        "tokenizing": {"torch"},
        "text_model": {"torch", "sentence_transformers", "transformers"},
        "fetch": {"huggingface_hub"},
    }
    allowed = {"numpy"} | doors.get(module, set())
    assert outside - allowed == set()


@pytest.mark.parametrize("module", sorted(SHARED))
def test_the_shared_modules_need_the_standard_library_only(module):
    own, other = WORKERS[module]
    assert {name.split(".")[1] for name in own} <= SHARED
    assert {name.split(".")[0] for name in other} <= set(sys.stdlib_module_names)


@pytest.mark.parametrize("library", sorted(DOORS))
def test_an_outside_library_has_one_door(library):
    users = {
        m.split(".")[-1]
        for graph in (GRAPH, WORKERS)
        for m, (_, other) in graph.items()
        if library in {n.split(".")[0] for n in other}
    }
    assert users <= DOORS[library]


def test_only_text_and_tag_make_markup_of_what_is_not_written_in_the_code():
    """Else `Markup(f"...")` would hide from mypy that something in it was never escaped."""
    makers = {"show/markup.py", "report/notebook_pages.py"}  # escaped there; cleaned there
    wrong = {
        f"{path.name}: {ast.unparse(node)}"
        for path in MODULES
        if path.relative_to(LIBRARY).as_posix() not in makers
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).endswith("Markup")
        and not all(isinstance(given, ast.Constant) for given in node.args)
    }
    assert wrong == set()


@pytest.mark.process
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
    from runbook_lib.run.run import PHASES as names

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


def test_only_the_profile_compares_kinds_of_hosts():
    """Everybody else asks `spec.is_here`, or a launcher: a new kind is then one more row, and no hunt."""
    compared = {
        path.stem
        for path in [*MODULES, *WORKER.glob("*.py")]
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Compare)
        and {"local", "slurm", "ssh"} & {c.value for c in ast.walk(node) if isinstance(c, ast.Constant)}
    }
    assert compared == {"profile"}


TESTS = ROOT / "tests"


def test_no_test_imports_a_test():
    """What two of them need is in tests/helpers; a program in quotes counts too."""
    imports_one = re.compile(r"^\s*(from|import) test_", re.M)
    assert [path.name for path in TESTS.rglob("*.py") if imports_one.search(path.read_text())] == []


def test_what_the_tests_of_a_folder_start_is_known_of_every_folder():
    folders = {path.relative_to(TESTS).parts[0] for path in TESTS.rglob("test_*.py")}
    assert folders - {"unit"} == set(tiers.FOLDERS) and set(tiers.FOLDERS.values()) <= set(tiers.MARKS)


def test_no_count_of_the_founding_plan_stands_in_code():
    for path in [*MODULES, *WORKER.glob("*.py")]:
        numbers = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
        assert not numbers & {250_000, 250_010, 125_005, 125_000, 15_625, 768}, path


def _values(node, module, tree):
    """What an expression of a module may be: a constant or a name of the module, one of two, or what callers pass."""
    if isinstance(node, ast.IfExp):
        return _values(node.body, module, tree) | _values(node.orelse, module, tree)
    try:
        return {eval(compile(ast.Expression(node), "", "eval"), vars(module))}
    except NameError:
        pass
    functions = [found for found in ast.walk(tree) if isinstance(found, ast.FunctionDef) and node in ast.walk(found)]
    function = next(found for found in functions if node.id in {argument.arg for argument in found.args.args})
    place = [argument.arg for argument in function.args.args].index(node.id)
    calls = [call for call in ast.walk(tree) if isinstance(call, ast.Call) and ast.unparse(call.func) == function.name]
    assert calls, f"{module.__name__}.{function.name}: nobody here calls it, so what it writes is not known"
    return set().union(*(_values(call.args[place], module, tree) for call in calls))


def _written():
    """Every event that the library writes into a journal, whichever way its name comes there."""
    for path in MODULES:
        tree = ast.parse(path.read_text())
        for call in ast.walk(tree):
            if isinstance(call, ast.Call) and ast.unparse(call.func).endswith("journal.write"):
                yield from _values(call.args[0], importlib.import_module(name_of(path)), tree)


def test_every_event_of_the_journal_has_a_kind():
    """A name that is not in the table would be told as nothing."""
    from runbook_lib.run.journal import EVERY_KIND, KINDS, UNDOING

    written = set(_written())
    assert {"slot in trouble", "sealed", "launched late", "restart failed", "phase ended"} <= written
    assert written - set(KINDS) == set()
    assert set(KINDS) - written == {"worker died", "link is back"}  # of journals of versions before
    assert {*KINDS.values()} == {*EVERY_KIND}
    assert {KINDS[name] for name in UNDOING} == {"act"}


def test_what_is_sent_through_a_login_has_all_that_it_imports_and_in_order():
    """The far end has nothing of ours before: a module that is not sent, or sent too late, is an ImportError there."""
    for number, module in enumerate(far_end.SENT):
        own, _ = WORKERS[module]
        needed = {name.split(".")[1] for name in own if name.startswith("worker.")}
        assert needed <= set(far_end.SENT[:number]), module
