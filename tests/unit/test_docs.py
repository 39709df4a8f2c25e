"""The docs stay true: commands, files, words and links that the README names are there."""

import ast
import json
import re
import subprocess
import sys

import pytest
from readme import README, ROOT

from runbook_lib import cli
from runbook_lib.profile import profile
from runbook_lib.slots import states

PAGES = (
    *("README.md", "DECISIONS.md", "CHANGELOG.md", "profiles/demo/README.md", "docs/afterwards.md"),
    *(
        "docs/chaos.md",
        "docs/changes.md",
        "docs/promise.md",
        "docs/proof.md",
        "docs/scale.md",
        "docs/slurm.md",
        "docs/tests.md",
        "docs/told.md",
    ),
)
DOCS = [ROOT / name for name in PAGES]


def verbs():
    parser = cli._parser()
    return set(next(action for action in parser._actions if action.dest == "verb").choices)


def test_the_readme_names_every_verb_and_no_other():
    assert set(re.findall(r"^\| `runbook (\w+)", README, re.M)) == verbs()
    assert set(re.findall(r"`(?:\.venv/bin/)?runbook (\w+)", README)) - {"VERB"} <= verbs()


@pytest.mark.parametrize("verb", sorted(verbs()))
def test_every_verb_has_help(verb, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([verb, "--help"])
    assert ended.value.code == 0
    assert len(capsys.readouterr().out.splitlines()) > 4


@pytest.mark.process
def test_the_main_help_teaches_a_first_run():
    done = subprocess.run(
        [sys.executable, "-m", "runbook_lib.cli", "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert "runbook run profiles/demo.yaml" in done.stdout
    assert "exit code" in done.stdout


def test_the_make_targets_of_the_readme_exist():
    targets = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"\bmake ([a-z-]+)", README)) <= targets
    assert {"demo", "test", "lab", "help", "setup"} <= targets


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_links_and_pictures_resolve(path):
    for target in re.findall(r"\]\(([^)]+)\)", path.read_text(encoding="utf-8")):
        if not target.startswith(("http", "#")):
            assert (path.parent / target).exists(), target


@pytest.mark.process
def test_the_folders_of_the_readme_are_the_folders_there_are():
    block = README.split("## For developers")[1].split("```")[1]
    named = set(re.findall(r"^(\w+)/", block, re.M))
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    there = {name.split("/")[0] for name in tracked if "/" in name and not name.startswith(".")}
    assert named == there or not tracked  # an unpacked archive has no git


def names_in_the_code():
    """Modules, classes, functions, parameters and fields of the library and the worker, without their case."""
    for folder in ("runbook_lib", "worker"):
        for path in (ROOT / folder).rglob("*.py"):
            yield path.stem
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                    yield node.name
                elif isinstance(node, ast.arg):
                    yield node.arg
                elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                    yield node.target.id


# The house's own words of before, each with the standard term that took its place.
NOT_SAID = {"way": "transport", "sshway": "sshtransport", "localway": "localtransport", "blank_s": "unassigned_s"}


def test_the_glossary_and_the_code_agree():
    glossary = README.split("## Words")[1].split("## ")[0]
    words = [word.strip() for row in re.findall(r"^\| ([^|]+) \|", glossary, re.M)[2:] for word in row.split(",")]
    assert "part" in words and "snapshot" in words
    names = {name.casefold().strip("_") for name in names_in_the_code()}
    assert [word for word in words if not {word, f"{word}s", f"{word}_s"} & names] == []
    assert names & set(NOT_SAID) == set()
    assert set(NOT_SAID.values()) <= names


def test_the_document_count_of_readme_and_demo_is_that_of_the_demo_corpus():
    lines = (ROOT / "profiles/demo/corpus.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) >= 400
    assert f"embeds {len(lines)} documents" in README
    assert f"{len(lines)} short" in (ROOT / "profiles/demo/README.md").read_text(encoding="utf-8")


def test_every_demo_question_names_a_document():
    lines = (ROOT / "profiles/demo/corpus.jsonl").read_text(encoding="utf-8").splitlines()
    titles = {json.loads(line)["title"] for line in lines}
    questions = json.loads((ROOT / "profiles/demo/questions.json").read_text(encoding="utf-8"))
    assert len(questions) == 10
    assert {question["title"] for question in questions} <= titles


@pytest.mark.parametrize("path", sorted((ROOT / "profiles").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_shipped_profile_loads(path):
    assert profile.load(path).hosts


def test_every_decision_is_at_most_ten_lines():
    for section in (ROOT / "DECISIONS.md").read_text(encoding="utf-8").split("\n## ")[1:]:
        assert len(section.strip().splitlines()) <= 11, section.splitlines()[0]


def public_names(tree):
    """Definitions that others may use: of the module and of its classes, not those inside functions."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from public_names(node)


@pytest.mark.parametrize("folder", ["runbook_lib", "worker"])
def test_every_module_and_public_name_has_a_docstring(folder):
    for path in (ROOT / folder).rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert ast.get_docstring(tree), path.name
        assert [node.name for node in public_names(tree) if not ast.get_docstring(node)] == [], path.name


FAILURES = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (ROOT / "docs" / "failures.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("| ") and not line.startswith(("| the plan", "|---"))
]


@pytest.mark.parametrize("row", FAILURES, ids=[row[0] for row in FAILURES])
def test_a_failure_has_a_verdict_of_the_table_and_a_test_that_is_there(row):
    scenario, verdict, by_itself, person, proof = row
    assert verdict in states.NAMED and by_itself and person, scenario
    named = re.findall(r"`(\w+)::(\w+)`", proof)
    assert named, scenario
    for file, test in named:
        (path,) = (ROOT / "tests").rglob(f"{file}.py")
        assert f"\ndef {test}(" in path.read_text(encoding="utf-8"), f"{file}::{test}"


def test_the_failures_are_those_of_the_plan():
    assert len(FAILURES) >= 30 and len({row[0] for row in FAILURES}) == len(FAILURES)


ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def test_every_file_of_the_architecture_exists():
    named = set(re.findall(r"`([\w/]+(?:\.\w+|/))`", ARCHITECTURE))
    assert len(named) > 60
    missing = {name for name in named if not any((root / name).exists() for root in (ROOT, ROOT / "runbook_lib"))}
    assert missing == set()


def test_the_architecture_says_of_a_folder_what_the_folder_says_of_itself():
    told = dict(re.findall(r"^\| `(\w+)/` \| (.+) \|$", ARCHITECTURE, re.M))
    folders = {path.parent.name: path for path in (ROOT / "runbook_lib").glob("*/__init__.py")}
    assert set(told) == set(folders)
    for name, path in folders.items():
        said = ast.get_docstring(ast.parse(path.read_text())) or ""
        assert told[name].split(" (`")[0].casefold().startswith(said.rstrip(".").casefold()[:40]), name


def test_the_architecture_tells_of_enough_changes():
    rows = ARCHITECTURE.split("## To change X, open Y")[1].splitlines()
    assert sum(line.startswith("| ") for line in rows) - 1 >= 15
