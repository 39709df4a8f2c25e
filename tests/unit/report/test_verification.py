"""What is claimed is computed again: an edit that every sum agrees to is found where arrays and texts say otherwise."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import made_up
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from runbook_lib import cli
from runbook_lib.errors import DataError
from runbook_lib.phases import validate
from runbook_lib.report import archive, gate, printed, report, svr, verification
from runbook_lib.result import figures
from runbook_lib.run.checks import Checks
from runbook_lib.run.run import PHASES, Run
from worker.files import read_json, sha256_file, write_json

ROOT = Path(__file__).parents[3]
COUNT = 12
SUM = "sha256-merged-articles.jsonl"


@pytest.fixture(scope="module")
def sealed_once(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("sealed")
    made = made_up.run_folder(folder, count=COUNT)
    made.commit_all()
    this = made.run
    for phase in PHASES[:3]:
        checks = Checks("a fact")
        checks.add("a fact", True, "seen")
        shown = gate.gate(this, phase, checks)
        outputs = [new_output("execute_result", data={"text/plain": repr(shown), "text/html": shown._repr_html_()})]
        nbformat.write(new_notebook(cells=[new_code_cell("gate", outputs=outputs)]), this.report / f"{phase}.ipynb")
    this.save_json("hosts.json", {"hosts": {}})
    done = made_up.published(this)
    gate.gate(this, PHASES[3], done.checks, founding=done.founding, backup=done.backup)
    report.seal(this)
    return this


@pytest.fixture
def this(sealed_once: Run, tmp_path: Path) -> Run:
    """A copy of the sealed run, under another name: a reviewer gets it so."""
    shutil.copytree(sealed_once.folder, tmp_path / "copy")
    return Run(tmp_path / "copy", sealed_once.profile)


def told(run: Run, **how: object) -> str:
    return "\n".join(f"{check.name}: {check.seen}" for check in verification.verify(run, **how).failed)


def test_an_archive_under_another_name_verifies_without_a_warning_of_its_own(this: Run) -> None:
    checks = verification.verify(this)
    assert checks.ok, checks
    assert {check.name for check in checks if check.warn} <= {"founding file", "backup"}
    assert {verification.STORED, verification.PAGE, verification.NOTEBOOKS, verification.VERDICTS} <= {
        check.name for check in checks
    }


def test_a_notebook_without_any_output_is_told_and_no_fault(this: Run) -> None:
    nbformat.write(new_notebook(cells=[new_code_cell("gate")]), this.report / f"{PHASES[1]}.ipynb")
    archive.write_sums(this)
    checks = verification.verify(this)
    (told_of,) = [check for check in checks if check.name == verification.NOTEBOOKS]
    assert checks.ok and told_of.warn and f"{PHASES[1]}.ipynb: no result in it" in told_of.seen
    report.seal(this)


def test_what_a_look_left_is_told_and_harms_nothing(this: Run) -> None:
    (this.report / ".DS_Store").write_bytes(b"x")
    checks = verification.verify(this)
    assert checks.ok
    assert [check.seen for check in checks if check.name == archive.LITTER and check.warn] == ["report/.DS_Store"]


def test_verifying_writes_nothing(this: Run) -> None:
    def state() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in this.folder.rglob("*") if path.is_file()}

    before = state()
    assert verification.verify(this).ok
    assert state() == before


# ---------------------------------------------------------------------------------- edits that all sums agree to


def edit_record(run: Run, **changes: Callable[[list[object]], list[object]]) -> None:
    """Change a part's record as if its host had written it so; the manifest's sum of it is of no concern here."""
    path = sorted(run.local.parts.glob("*.json"))[0]
    record = read_json(path) or {}
    write_json(path, {**record, **{key: change(record[key]) for key, change in changes.items()}})


def in_json(path: Path, *keys: str, value: object) -> None:
    whole = json.loads(path.read_text())
    place = whole
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    write_json(path, whole)


def in_page(run: Run, key: str, was: str, now: str) -> None:
    page = run.report / "report.html"
    text = page.read_text()
    element = re.search(rf'<data id="{key}"[^>]*>[^<]*</data>', text).group()  # type: ignore[union-attr]
    assert was in element
    page.write_text(text.replace(element, element.replace(was, now)))


EDITS: dict[str, tuple[Callable[[Run], None], str]] = {
    "a figure of the page": (lambda run: in_page(run, "figure-documents", ">12<", ">21<"), "figure-documents"),
    "a figure's value": (lambda run: in_page(run, "figure-documents", '"12"', '"21"'), "figure-documents"),
    "a remark under a figure": (lambda run: in_page(run, "figure-parts-note", "no row", "1 row"), "figure-parts-note"),
    "the verdict": (lambda run: in_page(run, "verdict", "12 documents", "99 documents"), "verdict"),
    "a sum on the page": (
        lambda run: in_page(run, SUM, sha256_file(run.merged / "articles.jsonl")[:9], "0" * 9),
        SUM,
    ),
    "a stored norm": (
        lambda run: in_json(run.report / validate.FILE, "figures", "norms", "max", value=1.25),
        "norms.max: 1.25 is stored",
    ),
    "a stored count": (
        lambda run: in_json(run.report / validate.FILE, "figures", "lengths", "tokens", value=7),
        "lengths.tokens: 7 is stored",
    ),
    "figures that are gone": (lambda run: in_json(run.report / validate.FILE, "figures", value=None), "no figures"),
    "norms in a record": (lambda run: edit_record(run, norms=lambda norms: [1.5, *norms[1:]]), "norms that its"),
    "tokens in a record": (lambda run: edit_record(run, tokens=lambda tokens: [99, *tokens[1:]]), "cut flags"),
    "a cut flag": (lambda run: edit_record(run, truncated=lambda cut: [0]), "cut flags"),
    "a fingerprint": (lambda run: edit_record(run, fingerprints=lambda old: ["0" * 32, *old[1:]]), "of other texts"),
    "another dtype": (lambda run: edit_record(run, dtype=lambda dtype: "bfloat16"), "dtype"),
    "a notebook's result that is gone": (
        lambda run: (run.report / f"{PHASES[1]}.ipynb").write_text(
            re.sub("result sha256 [0-9a-f]{64}", "", (run.report / f"{PHASES[1]}.ipynb").read_text())
        ),
        "its gate shows no result",
    ),
    "a notebook's result": (
        lambda run: (run.report / f"{PHASES[1]}.ipynb").write_text(
            re.sub("[0-9a-f]{64}", "a" * 64, (run.report / f"{PHASES[1]}.ipynb").read_text())
        ),
        "which no gate wrote",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_is_found_though_every_sum_and_the_sealing_agree_to_it(this: Run, name: str) -> None:
    edit, words = EDITS[name]
    edit(this)
    archive.write_sums(this)
    assert words in told(this)


def change_text(run: Run, row: int) -> None:
    path = run.corpus / "texts.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    at = lines[row].rindex(b"a")
    lines[row] = lines[row][:at] + b"o" + lines[row][at + 1 :]
    path.write_bytes(b"".join(lines))


def test_a_text_that_is_not_the_fingerprinted_one_is_named(this: Run) -> None:
    change_text(this, 3)
    in_json(
        this.corpus / "corpus.json", "files", "texts.jsonl", "sha256", value=sha256_file(this.corpus / "texts.jsonl")
    )
    archive.write_sums(this)
    assert "every text has its fingerprint: 1 rows with another one: 3" in told(this)


def test_a_list_made_anew_alone_is_not_the_sealed_one(this: Run) -> None:
    (this.notes / "failures.log").write_text("all was well\n")
    names = sorted(archive.files(this))
    this.sums.write_text(
        "".join(f"{sha256_file(this.folder / name)}  {name}\n" for name in names if name != this.sums.name)
    )
    assert "the list is the sealed one" in told(this)


def test_quick_looks_at_the_bytes_only(this: Run) -> None:
    in_page(this, "figure-documents", ">12<", ">21<")
    archive.write_sums(this, wrote=[this.report / "report.html"])
    assert verification.verify(this, quick=True).ok and not verification.verify(this).ok


def test_quick_gives_no_property_of_all_bytes(this: Run) -> None:
    assert "EMBEDDING_RUNBOOK_BYTES_AS_SEALED" in svr.properties(archive.verify(this), None)
    assert svr.properties(archive.verify(this, quick=True), None) == []


@pytest.mark.parametrize("more", [("--recompute", "5"), ("--corpus", "c.json")])
def test_what_quick_would_not_look_at_is_not_asked_of_it(
    sealed_once: Run, capsys: pytest.CaptureFixture[str], more: tuple[str, str]
) -> None:
    assert cli.main(["verify", str(sealed_once.folder), "--quick", *more]) == 1
    assert "leave --quick out" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a stored norm", "norms in a record"])
def test_an_edit_is_never_sealed(this: Run, name: str) -> None:
    EDITS[name][0](this)
    archive.write_sums(this)  # whoever edits may do this too; the command may not help
    before = this.sums.read_bytes()
    with pytest.raises(DataError, match="not sealed"):
        report.seal(this)
    assert this.sums.read_bytes() == before


# ------------------------------------------------------------------------------------------------- against the source


def test_the_source_that_the_run_was_made_from_is_read_again(sealed_once: Run) -> None:
    assert told(sealed_once, source=sealed_once.profile.corpus.path) == ""


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda items: [*items[:5], {**items[5], "text": "another text"}, *items[6:]], "1 rows differ"),
        (lambda items: [*items[:5], {**items[5], "url": "https://elsewhere.example"}, *items[6:]], "1 rows differ"),
        (lambda items: [items[1], items[0], *items[2:]], "2 rows differ"),
        (lambda items: items[:-1], "11 documents"),
        (lambda items: [*items, {**items[0], "id": "new"}], "13 documents"),
    ],
)
def test_another_source_is_told_by_its_rows(
    sealed_once: Run, tmp_path: Path, change: Callable[[list[object]], list[object]], words: str
) -> None:
    source = tmp_path / "other.json"
    source.write_text(json.dumps(change(json.loads(sealed_once.profile.corpus.path.read_text()))))
    assert words in told(sealed_once, source=source)


def test_a_source_that_is_not_there_is_a_failed_check(sealed_once: Run, tmp_path: Path) -> None:
    assert "nowhere.json" in told(sealed_once, source=tmp_path / "nowhere.json")


def test_the_command_takes_the_source(sealed_once: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["verify", str(sealed_once.folder), "--corpus", str(sealed_once.profile.corpus.path)]) == 0
    assert "12 documents of" in capsys.readouterr().out


# -------------------------------------------------------------------------------------------------------- its pieces


def test_figures_that_differ_by_rounding_are_equal_and_points_of_the_map_may_turn() -> None:
    shown = figures.Figures(documents=3, norms=figures.Norms(1.0, 1.0, 1.0, 0.0, figures.Histogram((), ())))
    stored = shown.as_json()
    stored["norms"] = {**stored["norms"], "mean": 1.0 + 1e-6}  # type: ignore[dict-item]
    assert figures.differences(stored, shown) == ([], [])
    stored["norms"] = {**stored["norms"], "mean": 1.001}  # type: ignore[dict-item]
    assert figures.differences(stored, shown) == (["norms.mean: 1.001 is stored, 1.0 is found"], [])
    one = figures.Figures(projection=figures.Projection((0.5, 0.2), ((1.0, 2.0, 0, "a", 3),), ()))
    other = figures.Figures(projection=figures.Projection((0.5, 0.2), ((-1.0, 2.0, 0, "a", 3),), ()))
    wrong, turned = figures.differences(one.as_json(), other)
    assert wrong == [] and len(turned) == 1
    assert figures.differences({"documents": True}, shown)[0] != []


def test_a_figure_twice_or_a_strange_one_is_told(this: Run, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text('<data id="a" value="1">1</data><data id="a" value="1">1</data><data id="b" value="">2</data>')
    wanted = {"a": printed.Printed("a", "1", "1"), "c": printed.Printed("c", "3", "3")}
    assert [line.split(":")[0] for line in printed.differences(printed.read(page), wanted)] == ["a", "b", "c"]


@pytest.mark.process
def test_verifying_needs_no_notebook_library(sealed_once: Run) -> None:
    code = (
        "import sys\n"
        "gone = 'papermill nbformat nbconvert nbclient ipykernel ipywidgets IPython jupyter_client traitlets bleach '"
        "'matplotlib torch huggingface_hub'.split()\n"
        "class No:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in gone:\n"
        "            raise ImportError(name + ' is not here')\n"
        "sys.meta_path.insert(0, No())\n"
        "from runbook_lib.cli import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    argv = [sys.executable, "-c", code, "verify", str(sealed_once.folder)]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
