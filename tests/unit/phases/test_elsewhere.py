"""Who does whose rows again: another machine before another GPU, one of the same kind before both; else nobody."""

from __future__ import annotations

from types import SimpleNamespace

from runbook_lib.phases import elsewhere
from runbook_lib.phases.elsewhere import Kind
from runbook_lib.run.fences import Fence

H200, A100, CPU = (Kind(f"cuda ({name})", "2.0", None) for name in ("H200", "A100", "x"))


def fleet(*hosts, fences=()):
    """(run, plan, kinds) of hosts, each (name, machine, kinds of its slots); the machine `here` is this one."""
    specs, slots, kinds = [], [], {}
    for number, (name, machine, of_slots) in enumerate(hosts):
        specs.append(SimpleNamespace(name=name, reached=machine, is_task=False, computes_here=machine == "here"))
        for index, kind in enumerate(of_slots):
            gpu = f"GPU-{number}-{index}" if kind.exact else None
            slot = SimpleNamespace(slot=f"cluster{number}_gpu{index}", host=name, index=index, gpu=gpu)
            slots.append(slot)
            kinds[slot.slot] = kind
    profile = SimpleNamespace(hosts=specs)
    return SimpleNamespace(profile=profile), SimpleNamespace(slots=slots, fences=fences), kinds


def test_two_machines_of_one_kind_do_each_others_rows_by_one_slot_each():
    chosen = elsewhere.partners(*fleet(("a", "a", [H200] * 3), ("b", "b", [H200] * 3)))
    assert set(chosen) == {f"cluster{host}_gpu{index}" for host in (0, 1) for index in range(3)}
    assert {chosen[f"cluster0_gpu{index}"] for index in range(3)} == {"cluster1_gpu0"}
    assert {chosen[f"cluster1_gpu{index}"] for index in range(3)} == {"cluster0_gpu0"}


def test_one_of_the_same_kind_comes_before_another_machine():
    chosen = elsewhere.partners(*fleet(("a", "a", [H200, H200]), ("b", "b", [A100])))
    assert chosen == {
        "cluster0_gpu0": "cluster0_gpu1",
        "cluster0_gpu1": "cluster0_gpu0",
        "cluster1_gpu0": "cluster0_gpu0",
    }


def test_a_machine_alone_with_its_processor_has_nobody_and_two_folders_of_it_are_one():
    cpu = Kind("cpu (AVX2)", "2.0", 1)
    assert not cpu.exact
    assert elsewhere.partners(*fleet(("a", "here", [cpu, cpu]), ("b", "here", [cpu]))) == {}
    assert elsewhere.partners(*fleet(("a", "here", [cpu]), ("b", "far", [cpu]))) == {
        "cluster0_gpu0": "cluster1_gpu0", "cluster1_gpu0": "cluster0_gpu0",
    }  # fmt: skip


def test_a_fenced_slot_does_nothing_again():
    fences = (Fence(2, "cluster1_gpu0", "why"),)
    assert elsewhere.partners(*fleet(("a", "a", [H200]), ("b", "b", [H200]), fences=fences)) == {}
