"""The promise: lengths, time, end and room before anything is spent, from what the hosts found."""

import json
from dataclasses import replace
from datetime import datetime

import pytest
from made_up import run_folder

from runbook_lib.corpus import corpus as corpora
from runbook_lib.phases import probing, promise, rehearsal
from runbook_lib.profile.profile import HostSpec
from runbook_lib.run.checks import Checks
from runbook_lib.show import pictures
from worker.bins import BINS, bin_of

FACTS = {"cores": 4, "gpus": []}


class Model:
    max_tokens, dim = 10, 8


def answer(texts=20, tokens=400, cut=4, read=160, rate=(100, 1000, 2.0, 1), size=20):
    bins = [0] * BINS
    bins[bin_of(size)] = texts
    lengths = {"texts": texts, "tokens": tokens, "read": read, "cut": cut, "longest": 50, "bins": bins}
    return {
        "rehearsed": {"lengths": lengths, "rate": dict(zip(("rows", "tokens", "seconds", "slots"), rate, strict=True))}
    }


def folder(tmp_path, hosts=None, **model):
    made = run_folder(tmp_path)
    run = made.run
    profile = replace(run.profile, model=replace(run.profile.model, **model))
    return replace(run, profile=replace(profile, hosts=hosts) if hosts else profile)


def made(run, answers, facts=None):
    rehearsal.keep(run, answers)
    facts = facts or {host.name: FACTS for host in run.profile.hosts}
    model = type("Model", (), {"max_tokens": run.profile.model.max_tokens or Model.max_tokens, "dim": Model.dim})
    return promise.make(run, model, corpora.load(run.corpus), facts, 5.0)


def test_time_follows_from_tokens_and_rate_and_the_end_is_a_clock_time(tmp_path):
    run = folder(tmp_path)
    found = made(run, {"here": answer()})
    rows = found.rows
    assert found.encode_s == pytest.approx(
        rows * 8 / 1000
    )  # 8 tokens are read of a row, 500 a second by each of two slots
    assert found.rows_s == pytest.approx(1000 / 8)
    ends = datetime.fromisoformat(found.ends) - datetime.fromisoformat(found.at)
    assert ends.total_seconds() == pytest.approx(5 + found.encode_s, abs=1)
    assert promise.kept(run) == found


def test_a_processor_counts_once_for_all_local_hosts_and_a_gpu_for_each_slot(tmp_path):
    two = tuple(HostSpec(name, kind="local", device="cpu", slots=2) for name in ("one", "two"))
    found = made(folder(tmp_path / "a", two), {"one": answer(), "two": answer()})
    assert found.tokens_s == 4 * 500
    gpus = (HostSpec("far", kind="ssh", device="cuda", slots=8), HostSpec("cpu", kind="ssh", device="cpu", slots=4))
    found = made(folder(tmp_path / "b", gpus), {"far": answer(), "cpu": answer(rate=(4, 50, 1.0, 4))})
    assert found.tokens_s == 8 * 500 + 50


def test_a_host_that_was_not_tried_leaves_the_time_unknown_and_is_named(tmp_path):
    hosts = tuple(HostSpec(name, kind="ssh", device="cuda", slots=1) for name in ("one", "two"))
    run = folder(tmp_path, hosts)
    found = made(run, {"one": answer(), "two": {"error": "no torch"}})
    checks = Checks("")
    promise.add_checks(checks, run, found)
    assert found.encode_s is None and found.missing == ("two",)
    assert "time of encoding not known: two: not tried" in str(checks) and checks.ok


def test_a_count_of_all_documents_is_exact_and_wins_and_a_sample_has_a_margin(tmp_path):
    run = folder(tmp_path)
    found = made(run, {"here": answer(texts=5, tokens=50, read=45, cut=1), "far": answer()})
    assert found.lengths.exact and found.lengths.host == "far" and found.lengths.margin == 0
    sample = replace(found.lengths, texts=1000, cut=100, exact=False)
    assert 0.015 < sample.margin < 0.022


CUT = "4 of 20 (20.00 %) are longer than the 10 tokens that are read; 60.00 % of all tokens are not read"


@pytest.mark.parametrize(("too_long", "cut", "ok"), [("truncate", 4, True), ("refuse", 4, False), ("refuse", 0, True)])
def test_documents_that_would_be_cut_are_told_and_refused_where_the_profile_says_so(tmp_path, too_long, cut, ok):
    run = folder(tmp_path, too_long=too_long)
    found = made(run, {"here": answer(cut=cut)})
    checks = Checks("")
    promise.add_checks(checks, run, found)
    assert checks.ok == ok
    (told,) = [check for check in checks if check.name == "texts cut"]
    assert told.seen == (CUT if cut else "none of all 20 documents is longer than the 10 tokens that are read")


def test_energy_and_memory_follow_from_what_a_slot_took(tmp_path):
    gpus = (HostSpec("far", kind="ssh", device="cuda", slots=8), HostSpec("cpu", kind="ssh", device="cpu", slots=4))
    facts = {"far": {**FACTS, "gpus": [{"total_mib": 81920}], "memory_bytes": 10**12}}
    facts["cpu"] = {**FACTS, "memory_bytes": 8 * 10**9}
    run = folder(tmp_path, gpus)
    answers = {"far": answer(), "cpu": answer(rate=(4, 50, 1.0, 4))}
    answers["far"]["rehearsed"] |= {"watts": 500.0, "device_bytes": 3 * 10**9, "process_bytes": 5 * 10**9}
    answers["cpu"]["rehearsed"] |= {"watts": 0, "device_bytes": 0, "process_bytes": 19 * 10**8}
    found = made(run, answers, facts)
    assert found.energy_wh == pytest.approx(8 * 500 * found.encode_s / 3600)
    checks = Checks("")
    promise.add_checks(checks, run, found)
    memory = {check.where: (check.seen, check.verdict) for check in checks if check.name == "memory"}
    assert memory["far"] == ("3.0 GB of a GPU of 86 GB", "ok")
    assert memory["cpu"] == ("7.6 GB of 8 GB (4 slots of 1.9 GB)", "warning")
    assert "8 of far at 500 W" in next(check.seen for check in checks if check.name == "energy")
    assert promise.kept(run) == found


@pytest.mark.parametrize("wrong", [{"watts": -1}, {"watts": 1e9}, {"watts": "much"}, {"process_bytes": 0.5}])
def test_what_a_host_says_that_it_takes_is_checked_number_by_number(tmp_path, wrong):
    told = answer()
    told["rehearsed"] |= {"watts": 300.0, "device_bytes": 1, "process_bytes": 1, **wrong}
    found = made(folder(tmp_path), {"here": told})
    assert found.takes == () and found.energy_wh is None and found.encode_s


def test_documents_that_are_read_in_chunks_are_told_and_none_is_cut(tmp_path):
    run = folder(tmp_path, too_long="chunk", max_tokens=16)
    told = answer(tokens=600, read=600, cut=0)
    told["rehearsed"]["lengths"] |= {"chunks": 44, "in_chunks": 6}
    found = made(run, {"here": told})
    assert (found.limit, found.chunk_tokens) == (None, 16)
    assert found.encode_s == pytest.approx(found.rows * 30 / 1000)
    checks = Checks("")
    promise.add_checks(checks, run, found)
    seen = {check.name: check.seen for check in checks}
    assert seen["texts in chunks"] == (
        "6 of 20 documents are longer than 16 tokens; 44 chunks in all, and no text is cut"
    )
    assert "texts cut" not in seen
    assert "30.00 % of them are read in several" in pictures.token_lengths(found).alt


def test_a_sample_without_a_cut_text_proves_nothing_for_refuse_and_warns(tmp_path):
    run = folder(tmp_path, too_long="refuse")
    checks = Checks("")
    promise.add_checks(checks, run, made(run, {"here": answer(texts=5, cut=0)}))
    assert checks.ok and [check.verdict for check in checks if check.name == "texts cut"] == ["warning"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"texts": 21},
        {"texts": -1},
        {"cut": 30},
        {"read": 500},
        {"tokens": float("nan")},
        {"texts": True},
        {"bins": [1]},
        {"bins": None},
    ],
)
def test_a_host_that_says_what_cannot_be_is_not_believed(tmp_path, wrong):
    told = answer()
    told["rehearsed"]["lengths"] |= wrong
    told["rehearsed"]["rate"] |= {"seconds": 0}
    found = made(folder(tmp_path), {"here": json.loads(json.dumps(told))})
    assert found.lengths is None and found.encode_s is None


def test_a_host_whose_word_would_be_an_age_gets_no_clock_time(tmp_path):
    found = made(folder(tmp_path), {"here": answer(tokens=10**15, read=10**15, rate=(1, 1, 9e5, 1))})
    assert found.encode_s is None and "more than 100 years" in promise.in_words(found)


@pytest.mark.parametrize("told", [1e300, 10**400, float("nan"), -1, "5"])
def test_a_time_of_loading_that_no_host_can_have_taken_counts_for_nothing(tmp_path, told):
    run = folder(tmp_path)
    run.save_json("probe_here.json", {"host": "here", "answer": {"loaded_s": told}})
    assert probing.load_s(run) == 0.0
    run.save_json("probe_here.json", {"host": "here", "answer": {"loaded_s": 7}})
    assert probing.load_s(run) == 7.0


def test_a_host_that_tells_no_numbers_does_not_hide_what_the_others_told(tmp_path):
    run = folder(tmp_path)
    odd, huge = (answer(rate=(1, 1, seconds, 1)) for seconds in (float("nan"), 10**400))
    rehearsal.keep(run, {"here": answer(), "far": odd, "further": huge})
    assert set(rehearsal.rates(run)) == {"here"} and "far" in rehearsal.errors(run)


def test_the_sample_is_drawn_at_random_the_same_each_time_and_small(tmp_path, monkeypatch):
    run = folder(tmp_path)
    corpus = corpora.load(run.corpus)
    rows = rehearsal.drawn(corpus)
    assert rows == rehearsal.drawn(corpus) and sorted(rows) == list(range(20)) and rows != list(range(20))
    monkeypatch.setattr(rehearsal, "SAMPLE_TEXTS", 7)
    told = json.loads(rehearsal.sample(run, run.profile.hosts[0], {"here": FACTS}))
    assert len(told["texts"]) == 7 and told["all"]["documents"] == 20 and (told["slots"], told["threads"]) == (2, 2)
    far = replace(run.profile.hosts[0], kind="ssh")
    assert json.loads(rehearsal.sample(run, far, {"here": FACTS}))["all"] is None
    monkeypatch.setattr(rehearsal, "SAMPLE_BYTES", 300)
    assert 1 <= len(json.loads(rehearsal.sample(run))["texts"]) < 7


def test_the_picture_says_the_numbers(tmp_path):
    run = folder(tmp_path)
    found = made(run, {"here": answer()})
    alt = pictures.token_lengths(found).alt
    assert "20 in the mean, 50 at most" in alt and "the model reads 10" in alt and "20.00 % of them are cut" in alt
    assert "no host counted" in pictures.token_lengths(replace(found, lengths=None)).alt
