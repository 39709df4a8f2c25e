"""Models of unusual shapes: a row's vector is that of the library's own entry point, and a text is always a text."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import forking
import numpy as np
import pytest

torch = pytest.importorskip("torch")

import odd_models  # noqa: E402
from sentence_transformers import SentenceTransformer  # noqa: E402

from runbook_lib.corpus.prompt import as_encoded  # noqa: E402
from runbook_lib.hosts.hosts import Completed  # noqa: E402
from runbook_lib.phases import probe_answer, probe_checks  # noqa: E402
from runbook_lib.profile.profile import ModelSpec  # noqa: E402
from runbook_lib.run import model as models  # noqa: E402
from runbook_lib.run.checks import Checks  # noqa: E402
from worker.encoder import Encoder  # noqa: E402
from worker.texts import DOCUMENT, QUERY, Question  # noqa: E402

ADDRESSES = [
    "http://127.0.0.1:9/lake.jpg",
    "https://example.invalid/film.mp4",
    "https://youtu.be/x",
    "data:image/png;base64,AAAA",
    "/etc/hostname.png",
]
TEXTS = ["", " ", "lake", "river stone", "Iron VIOLIN river", "query: what", "zzz unknown ß 東京", "x " * 200]
TEXTS += [" ".join(random.Random(k).choices(odd_models.WORDS, k=k)) for k in (3, 5, 9, 17, 33, 60, 61, 62, 63, 64, 90)]
TEXTS += ADDRESSES

Built = Callable[[str], Path]


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The folder of a kind of model, made once."""
    made: dict[str, Path] = {}

    def of(kind: str) -> Path:
        if kind not in made:
            folder = tmp_path_factory.mktemp("odd") / "model"
            made[kind] = odd_models.build(kind, folder)
        return made[kind]

    return of


def templates(folder: Path) -> dict[str, str]:
    found = models.resolve(ModelSpec(name=str(folder)))
    return {DOCUMENT: found.template, QUERY: found.question_template}


def load(folder: Path, dtype: str = "float32", max_tokens: int | None = None) -> Encoder:
    return Encoder(folder, "cpu", dtype, max_tokens, 1, templates(folder))


def as_staged(folder: Path, texts: list[str]) -> list[str]:
    """The texts as a worker is given them: all as documents, then all as questions."""
    filled = templates(folder)
    documents = [as_encoded(filled[DOCUMENT], text) for text in texts]
    return documents + [Question(as_encoded(filled[QUERY], text)) for text in texts]


def the_librarys(folder: Path, texts: list[str]) -> np.ndarray:
    """By a model of its own, whose entry points get the texts without prompts."""
    own = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    return np.concatenate([own.encode_document(texts), own.encode_query(texts)])


def assert_the_same(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.shape == expected.shape
    sizes = np.linalg.norm(expected, axis=1)
    assert np.allclose(np.linalg.norm(found, axis=1), sizes, rtol=1e-5, atol=1e-7)
    some = sizes > 0
    cosines = (found[some] * expected[some]).sum(axis=1, dtype=np.float64) / sizes[some] ** 2
    assert cosines.min() >= 1 - 1e-6


@pytest.mark.parametrize("kind", odd_models.KINDS)
def test_each_row_is_what_the_librarys_own_entry_point_gives(built: Built, kind: str) -> None:
    """Documents and questions of one part, in any order."""
    folder = built(kind)
    texts = as_staged(folder, TEXTS)
    order = np.random.default_rng(3).permutation(len(texts))
    mixed = [texts[i] for i in order]
    encoder = load(folder)
    found = np.empty_like(expected := the_librarys(folder, TEXTS))
    found[order] = encoder.encode(mixed, encoder.lengths(mixed), range(len(mixed)))
    assert_the_same(found, expected)


@pytest.mark.parametrize("kind", odd_models.KINDS)
def test_what_a_model_says_of_itself_is_what_it_gives(built: Built, kind: str) -> None:
    """Or it says nothing, and the probe measures."""
    found, encoder = models.resolve(ModelSpec(name=str(built(kind)))), load(built(kind))
    text = [as_encoded(found.template, "river")]
    vectors = encoder.encode(text, encoder.lengths(text), [0])
    assert found.dim in (None, vectors.shape[1])
    assert found.normalises == encoder.normalises
    assert not encoder.bad_rows(vectors)


READS_WHOLE_TEXTS = {"static", "a bag of words", "other encoders for questions"}


@pytest.mark.parametrize("kind", sorted(set(odd_models.KINDS) - READS_WHOLE_TEXTS))
def test_fewer_tokens_may_be_asked_for_of_each_kind(built: Built, kind: str) -> None:
    """A limit that is lower already stays; what the lengths say is cut is cut."""
    encoder = load(built(kind), max_tokens=10)
    assert [encoder.texts.limits[kind] for kind in (DOCUMENT, QUERY)] in ([10, 10], [10, 8])
    texts = as_staged(built(kind), ["river " * 9, "river " * 40])
    cut = encoder.cut(encoder.lengths(texts), texts)
    read = [encoder.texts.features(encoder.model, [text])["input_ids"].shape[1] for text in texts]
    assert [max(1, tokens) for tokens in cut] == read


def test_a_limit_that_a_model_cannot_keep_is_refused(built: Built) -> None:
    with pytest.raises(ValueError, match=r"model\.max_tokens: this model reads whole texts"):
        load(built("static"), max_tokens=10)


def test_documents_and_questions_never_share_a_batch(built: Built) -> None:
    encoder = load(built("other heads for questions"))
    texts: list[str] = ["river", Question("river")] * 6
    told: list[list[int]] = []
    vectors = encoder.encode(texts, encoder.lengths(texts), range(12), told.append)
    assert [sorted(rows) for rows in told] == [[0, 2, 4, 6, 8, 10], [1, 3, 5, 7, 9, 11]]
    assert float(vectors[0] @ vectors[1]) < 0.9
    assert encoder.padding(encoder.lengths(texts), texts) == {"real_tokens": 36, "padded_tokens": 36}


def test_a_question_that_is_redone_in_float32_stays_a_question(built: Built) -> None:
    encoder = load(built("other heads for questions"), "bfloat16")
    texts: list[str] = ["river", Question("river")]
    vectors = np.full((2, 32), np.nan, np.float32)
    assert encoder.redo(texts, [0, 1], vectors) == {}
    own = SentenceTransformer(str(built("other heads for questions")), device="cpu")
    expected = np.stack([own.encode_document("river"), own.encode_query("river")])
    assert (vectors * expected).sum(axis=1).min() > 0.999  # the weights stay rounded


def test_a_title_in_the_prompt_is_refused_where_the_model_treats_prompts_apart(built: Built) -> None:
    for kind in ("prompts left out of the mean", "a chat template"):
        with pytest.raises(ValueError, match="treats the prompt of a document apart"):
            Encoder(built(kind), "cpu", "float32", None, 1, {DOCUMENT: "title: {title} | text: {text}"})


def test_a_model_without_a_pooling_is_refused_in_words(tmp_path: Path) -> None:
    folder = odd_models.save([odd_models.raw(tmp_path / "model")], tmp_path / "model")
    encoder = load(folder)
    with pytest.raises(ValueError, match="it has no pooling module"):
        encoder.encode(["river"], [3], [0])


# ------------------------------------------------------------------------------------------------- a text is a text

WATCH = """
import os, socket, sys
sys.path.insert(0, {root!r})
from pathlib import Path
from worker.encoder import Encoder
from worker.texts import Question
traps = [str(path) for path in Path({traps!r}).iterdir()]
texts = [*traps, *{addresses!r}, *("file://" + trap for trap in traps), "lake"]
for kind, model in {models!r}.items():
    if child := os.fork():  # the libraries are imported once, and each model is watched in a process of its own
        print(kind, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), sep=": ", flush=True)
    else:
        break
else:
    os._exit(0)
encoder = Encoder(Path(model), "cpu", "float32", None, 1)
encoder.encode(["river"], [3], [0])
def touched(path):
    return isinstance(path, (str, bytes)) and {traps!r} in os.fsdecode(path)
def watch(event, arguments):
    if event.startswith("socket.") or (event in ("open", "os.listdir", "os.scandir") and touched(arguments[0])):
        print("OPENED", event, arguments, flush=True)
        os._exit(3)
sys.addaudithook(watch)
real = os.stat
def stat(path, *rest, **more):
    if touched(path):
        print("LOOKED AT", path, flush=True)
        os._exit(4)
    return real(path, *rest, **more)
os.stat = os.lstat = stat
for each in (texts, [Question(text) for text in texts]):
    encoder.encode(each, encoder.lengths(each), range(len(each)))
print(kind, "done", flush=True)
os._exit(0)
"""
WATCHED = ["CLIP", "CLIP and Dense", "plain", "other encoders for questions", "a chat template"]


@pytest.fixture(scope="module")
def watched(built: Built, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What a program prints that watches an encoder of each kind."""
    from PIL import Image

    traps = tmp_path_factory.mktemp("watched") / "traps"
    traps.mkdir()
    Image.new("RGB", (40, 40), (200, 10, 10)).save(traps / "lake.png")
    for name in ("film.mp4", "sound.wav", "lake.jpg"):
        (traps / name).write_bytes((traps / "lake.png").read_bytes())
    root = str(Path(__file__).parents[2])
    kinds = {kind: str(built(kind)) for kind in WATCHED}
    script = WATCH.format(root=root, traps=str(traps), addresses=ADDRESSES, models=kinds)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize("kind", WATCHED)
def test_no_text_is_ever_opened_fetched_or_looked_for(watched: str, kind: str) -> None:
    lines = watched.splitlines()
    assert f"{kind} done" in lines and f"{kind}: 0" in lines, watched


def test_an_address_in_a_text_is_read_like_any_other_word(built: Built) -> None:
    """As the library reads the same text when a word before it keeps it from being an address."""
    encoder = load(built("CLIP and Dense"))
    features = encoder.texts.features(encoder.model, ADDRESSES)
    expected = encoder.texts.model.tokenizer(ADDRESSES, padding=True, truncation=True, return_tensors="pt")
    assert features["input_ids"].tolist() == expected["input_ids"].tolist()


def test_a_library_that_still_takes_a_text_for_a_picture_is_refused(
    built: Built, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sentence_transformers.base import modality

    monkeypatch.setattr(modality, "infer_modality", lambda sample: "image")
    with pytest.raises(RuntimeError, match="takes a text for: image; use another version"):
        load(built("CLIP"))


# ----------------------------------------------------------------------------------------------- found by the probe


def judged(folder: Path, dtype: str = "float32") -> tuple[probe_answer.Probe, Checks]:
    """What a probe of this folder finds, as a host would tell it, and the checks that come of it."""
    argv = [forking.python(), "-m", "worker", "probe", "--model", str(folder), "--dtype", dtype]
    found = models.resolve(ModelSpec(name=str(folder), dtype=dtype))
    argv += [f"--prompt={found.template}", f"--question-prompt={found.question_template}"]
    probe = probe_answer.parse_probe(probe_answer.parse_answer(Completed(**run_here(argv))))
    checks = Checks("a host")
    probe_checks.judge(checks, "host", probe, found, ModelSpec(name=str(folder), dtype=dtype))
    return probe, checks


def run_here(argv: list[str]) -> dict[str, Any]:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=300, cwd=Path(__file__).parents[2])
    return {"exit_code": done.returncode, "out": done.stdout, "err": done.stderr}


@pytest.mark.parametrize(
    ("make", "name", "seen", "remedy"),
    [
        (odd_models.too_long, "longest text", "Error: ", "claims 512, and keeps 64: set model.max_tokens: 64"),
        (odd_models.too_long_by_one, "longest text", "Error: ", "claims 64, and keeps 63: set model.max_tokens: 63"),
        (odd_models.by_company, "as the library", "lowest cosine", "depend on what else is in a batch"),
        (odd_models.convolution, "as the library", "lowest cosine", "depend on what else is in a batch"),
        (odd_models.no_padding, "model loads", "padding token", "cannot be used as it is"),
        (odd_models.no_pooling, "model loads", "it has no pooling module", "cannot be used as it is"),
        (odd_models.no_route, "model loads", "No route found for task type 'document'", "cannot be used as it is"),
        (odd_models.not_a_number, "first vector", "NaN or infinity in the vector", ""),
        (odd_models.cut_short, "model loads", "", "cannot be used as it is"),
        (odd_models.own_code, "model loads", "trust_remote_code", "code of its own, which is not run here"),
        (odd_models.of_the_future, "model loads", "not_made_yet", "cannot be used as it is"),
    ],
    ids=lambda value: value.__name__ if callable(value) else None,
)
def test_a_model_that_would_fail_later_is_found_before_the_launch(
    tmp_path: Path, make: Callable[[Path], Path], name: str, seen: str, remedy: str
) -> None:
    torch.manual_seed(1)
    _, checks = judged(make(tmp_path / "model"))
    failed = checks.failed[0]
    assert failed.name == name, checks
    assert seen in failed.seen
    assert remedy in failed.remedy


@pytest.mark.parametrize(
    "kind", ["other heads and prompts", "other encoders for questions", "CLIP and Dense", "static"]
)
def test_a_model_that_works_passes_the_probe(built: Built, kind: str) -> None:
    probe, checks = judged(built(kind))
    assert checks.ok, checks
    assert probe.cosine >= 1 - 1e-6


@pytest.mark.parametrize("kind", odd_models.KINDS)
def test_in_bfloat16_each_kind_gives_what_the_library_gives_in_bfloat16(built: Built, kind: str) -> None:
    """Or the library cannot do it either, which the probe tells."""
    encoder = load(built(kind), "bfloat16")
    for texts in (as_staged(built(kind), TEXTS[3:10])[:7], as_staged(built(kind), TEXTS[3:10])[7:]):
        try:
            expected = encoder.as_the_library(texts)
        except RuntimeError as error:
            with pytest.raises(RuntimeError, match="type"):
                encoder.encode(texts, encoder.lengths(texts), range(len(texts)))
            assert "type" in str(error)
            continue
        found = encoder.encode(texts, encoder.lengths(texts), range(len(texts)))
        sizes = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
        assert ((found * expected).sum(axis=1)[sizes > 0] / sizes[sizes > 0]).min() > 0.98


# ------------------------------------------------------------------------------------------------- a whole worker


def test_a_part_may_hold_documents_and_questions(make_box: Any, built: Built) -> None:
    folder = built("other heads and prompts")
    filled = templates(folder)
    texts = as_staged(folder, TEXTS[:9])
    prompts = {"prompt": filled[DOCUMENT], "question_prompt": filled[QUERY]}
    box = make_box(texts, model=folder, part_rows=6, documents=9, **prompts)
    assert box.end(box.worker(python=forking.python(workers=True))) == 0, box.logs()
    assert box.parts() == [(0, 6), (6, 12), (12, 18)]
    found = np.concatenate([np.load(box.folder.part(*part)) for part in box.parts()])
    assert_the_same(found, the_librarys(folder, TEXTS[:9]))
