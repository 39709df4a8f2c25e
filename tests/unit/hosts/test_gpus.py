"""What nvidia-smi said of a machine is judged: usable or not, why, what a person can do. Shapes of public reports."""

import dataclasses
import json
import random
import re

import pytest

from runbook_lib.hosts import gpus
from runbook_lib.hosts.gpus import Sample, User
from worker import machine

A100 = "NVIDIA A100-SXM4-80GB"
FULL = {
    "index": "0",
    "uuid": "",
    "name": A100,
    "memory.total": "81920",
    "memory.used": "17",
    "driver_version": "535.104.05",
    "utilization.gpu": "3",
    "temperature.gpu": "41",
    "power.draw": "95.20",
    "mig.mode.current": "Disabled",
    "ecc.errors.uncorrected.volatile.total": "0",
    "compute_mode": "Default",
}


def uuid(number, kind="GPU"):
    return f"{kind}-5d5ba0d6-d33d-2b2c-524d-{number:012x}"


def row(index=0, fields=machine.GPU_FIELDS, **changes):
    """A row of the table; a change's name has _ for a dot, or is the first word of a field."""
    values = {**FULL, "index": str(index), "uuid": uuid(index)}
    for name, value in changes.items():
        values[next(field for field in values if field.replace(".", "_").startswith(name))] = value
    return ", ".join(values[field] for field in fields)


def said(out="", code=0, err="", **more):
    return {"out": out, "err": err, "exit": code, **more}


def judged(*rows, listing="", apps="", code=0, err="", **more):
    """The inventory of a host whose nvidia-smi said this."""
    listed = listing if isinstance(listing, dict) else said(listing)
    used = apps if isinstance(apps, dict) else said(apps)
    return gpus.inventory({"gpus": said("\n".join(rows), code, err, **more), "list": listed, "apps": used})


def given(value, *rows, **options):
    """The inventory of a host where CUDA_VISIBLE_DEVICES has this value."""
    answers = {"gpus": said("\n".join(rows)), "list": said(options.get("listing", "")), "apps": said()}
    return gpus.inventory({**answers, "visible": {"out": value, "err": "", "exit": 0}})


def only(*rows, **options):
    (gpu,) = judged(*rows, **options).gpus
    return gpu


# Rows


def test_a_row_is_a_gpu_with_all_that_is_known_of_it():
    found = judged(row(), row(1), apps=f"{uuid(1)}, 4711, python, 1024")
    assert (found.complaint, found.remedy) == ("", "")
    assert found.gpus == (
        gpus.Gpu(0, uuid(0), A100, 81920, 17, "535.104.05", 3, 41, 95.2, users=()),
        gpus.Gpu(1, uuid(1), A100, 81920, 17, "535.104.05", 3, 41, 95.2, users=(User(4711, "python", 1024),)),
    )
    assert json.dumps([dataclasses.asdict(gpu) for gpu in found.gpus])


def test_an_old_driver_tells_less_and_that_is_no_trouble():
    gpu = only(row(fields=machine.BASIC_FIELDS))
    assert gpu == gpus.Gpu(0, uuid(0), A100, 81920, 17, "535.104.05", users=())


@pytest.mark.parametrize("fields", [machine.GPU_FIELDS, machine.BASIC_FIELDS])
@pytest.mark.parametrize("name", ["NVIDIA Tesla, special, edition", '"NVIDIA Tesla, special, edition"'])
def test_a_name_may_hold_commas(fields, name):
    gpu = only(row(fields=fields, name=name))
    assert (gpu.name, gpu.total_mib, gpu.driver) == ("NVIDIA Tesla, special, edition", 81920, "535.104.05")


UNTOLD = ["[N/A]", "N/A", "[Not Supported]", "[Insufficient Permissions]", "[Not Found]", "", "inf", "nan", "1e5", "-3"]


@pytest.mark.parametrize("word", UNTOLD)
def test_a_number_that_the_driver_does_not_tell_is_none_and_no_trouble(word):
    changes = {name: word for name in ("memory_total", "memory_used", "utilization", "temperature", "power", "ecc")}
    gpu = only(row(mig="[N/A]", compute="[N/A]", **changes))
    assert (gpu.total_mib, gpu.used_mib, gpu.utilization, gpu.temperature, gpu.watts) == (None,) * 5
    assert (gpu.trouble, gpu.warning) == ("", "")


def test_a_driver_that_adds_units_and_a_header_is_read_all_the_same():
    header = "index, uuid, name, memory.total [MiB], memory.used [MiB], driver_version, utilization.gpu [%]"
    units = row(memory_total="81920 MiB", memory_used="745 MiB", utilization="95 %", power="81.25 W")
    found = judged(header, units)
    assert found.complaint == ""
    (gpu,) = found.gpus
    assert (gpu.total_mib, gpu.used_mib, gpu.utilization, gpu.watts) == (81920, 745, 95, 81.25)


def test_windows_line_ends_and_blanks_are_no_matter():
    assert only(f"  {row()}  \r\n\r\n").trouble == ""


@pytest.mark.parametrize("word", ["[GPU requires reset]", "ERR!", "[Unknown Error]", "[GPU is lost]"])
def test_a_gpu_that_does_not_answer_is_in_trouble_and_no_other_is(word):
    found = judged(row(), row(1, memory_total=word, memory_used=word))
    assert [gpu.trouble for gpu in found.gpus] == ["", word]
    assert found.gpus[1].total_mib is None


@pytest.mark.parametrize("field", ["power", "temperature", "utilization"])
def test_a_sensor_that_fails_is_a_warning(field):
    gpu = only(row(**{field: "[Unknown Error]"}))
    assert gpu.trouble == "" and "[Unknown Error]" in gpu.warning


@pytest.mark.parametrize("field", ["power", "mig", "ecc", "compute"])
def test_a_gpu_that_wants_a_reset_says_so_in_any_field(field):
    found = judged(row(**{field: "[GPU requires reset]"}))
    assert found.gpus[0].trouble == "[GPU requires reset]" and "reset the card" in found.remedy


def test_a_prohibited_gpu_cannot_be_used_and_an_exclusive_one_warns():
    found = judged(row(compute="Prohibited"))
    assert "Prohibited" in found.gpus[0].trouble and "nvidia-smi -c 0" in found.remedy
    gpu = only(row(compute="Exclusive_Process"))
    assert gpu.trouble == "" and "one process at a time" in gpu.warning


def test_memory_errors_are_a_warning():
    gpu = only(row(ecc="7"))
    assert gpu.trouble == "" and gpu.warning.startswith("7 uncorrected memory errors")


BAD_UUIDS = [
    "[N/A]",
    "",
    "GPU-1",
    "gpu-" + uuid(0)[4:],
    uuid(0) + ";rm",
    uuid(0)[:-1] + "g",
    "0",
    uuid(0).replace("-", "_"),
]


@pytest.mark.parametrize("bad", BAD_UUIDS)
def test_a_gpu_without_a_proper_uuid_is_never_used_nor_named(bad):
    gpu = only(row(uuid=bad))
    assert gpu.uuid == "" and gpu.trouble.startswith("its UUID is ")


def test_a_uuid_or_an_index_named_twice_is_one_gpu():
    assert [gpu.index for gpu in judged(row(), row(1, uuid=uuid(0)), row(2)).gpus] == [0, 2]
    assert [gpu.uuid for gpu in judged(row(), row(0, uuid=uuid(5))).gpus] == [uuid(0)]


@pytest.mark.parametrize("text", ["²" + row()[1:], "-1" + row()[1:], "1234" + row()[1:], "0, GPU, A100, 1, 2"])
def test_what_is_no_row_is_never_taken_for_a_gpu(text):
    found = judged(text)
    assert (found.gpus, found.complaint) == ((), text)


# Messages in place of the table

MISMATCH = "Failed to initialize NVML: Driver/library version mismatch"
LOST = "Unable to determine the device handle for GPU 0000:0B:00.0: Unknown Error"
MESSAGES = [
    (MISMATCH + "\nNVML library version: 535.161", 18, "reboot that machine"),
    (LOST, 15, "off the bus"),
    (
        "Unable to determine the device handle for GPU0000:07:00.0: GPU is lost.  "
        "Reboot the system to recover this GPU",
        15,
        "off the bus",
    ),
    ("Failed to initialize NVML: Unknown Error", 255, "in a container"),
    (
        "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest "
        "NVIDIA driver is installed and running.",
        9,
        "the driver is not loaded",
    ),
    ("NVIDIA-SMI couldn't find libnvidia-ml.so library in your system.", 12, "install the NVIDIA driver"),
    ("No devices were found", 6, "device: cpu"),
    ("nvidia-smi: not found", 127, "install the NVIDIA driver"),
    ("something new", 99, "run nvidia-smi on that machine"),
]


@pytest.mark.parametrize("where", ["out", "err"])
@pytest.mark.parametrize(("words", "code", "remedy"), MESSAGES)
def test_a_message_in_place_of_the_table_is_the_complaint_with_a_remedy(words, code, remedy, where):
    answer = {"out": "", "err": "", "exit": code, where: f"\n{words}\n"}
    found = gpus.inventory({"gpus": answer, "list": answer, "apps": answer})
    assert (found.gpus, found.complaint) == ((), words.splitlines()[0])
    assert remedy in found.remedy


def test_a_word_in_every_field_is_said_once():
    found = judged(", ".join(["[GPU requires reset]"] * 12))
    assert (found.gpus, found.complaint) == ((), "[GPU requires reset]")
    assert "reset the card" in found.remedy


def test_a_message_beside_rows_hides_no_gpu():
    found = judged(row(), LOST, row(2), code=15)
    assert [(gpu.index, gpu.trouble) for gpu in found.gpus] == [(0, ""), (2, "")]
    assert found.complaint == LOST


def test_a_command_that_hangs_is_the_complaint_whatever_it_had_said():
    found = judged("half a li", code=None, err="did not answer within 10 s")
    assert found.complaint == "did not answer within 10 s" and "hangs" in found.remedy


@pytest.mark.parametrize(
    ("code", "complaint"),
    [
        (0, "nvidia-smi named no GPU"),
        (3, "nvidia-smi ended with exit code 3 and said nothing"),
        (None, "nvidia-smi gave no answer"),
    ],
)
def test_silence_is_a_complaint(code, complaint):
    assert judged(code=code).complaint == complaint


# Cards that the list knows and the table does not

LISTING = "\n".join(f"GPU {index}: {A100} (UUID: {uuid(index)})" for index in range(3))


def test_a_card_that_is_listed_and_does_not_answer_is_shown_as_lost():
    found = judged(row(), row(2), listing=LISTING, code=15, err=LOST, lost={"1": "GPU is lost."})
    assert [(gpu.index, gpu.uuid, gpu.trouble) for gpu in found.gpus] == [
        (0, uuid(0), ""),
        (1, uuid(1), "GPU is lost."),
        (2, uuid(2), ""),
    ]
    assert found.complaint == LOST


def test_a_lost_card_that_no_list_names_is_shown_too():
    found = judged(row(), code=15, err=LOST, lost={"1": LOST})
    assert [(gpu.index, gpu.uuid, gpu.trouble) for gpu in found.gpus] == [(0, uuid(0), ""), (1, "", LOST)]


def test_a_card_that_only_the_list_knows_is_not_used():
    found = judged(row(), row(1), listing=LISTING)
    assert found.gpus[2].trouble == "the driver lists it and says nothing of it"


# MIG

PARENT = f"GPU 0: {A100} (UUID: {uuid(0)})"
MIGS = f"""{PARENT}
  MIG 3g.40gb     Device  0: (UUID: {uuid(10, "MIG")})
  MIG 1g.10gb+me  Device  1: (UUID: MIG-{uuid(0)}/7/0)
GPU 1: {A100} (UUID: {uuid(1)})"""


@pytest.mark.parametrize("mode", ["Enabled", "[N/A]"])
def test_mig_devices_are_gpus_and_their_card_is_not(mode):
    found = judged(row(mig=mode, utilization="[N/A]", memory_used="9000"), row(1), listing=MIGS)
    assert [(gpu.index, gpu.uuid, gpu.name, bool(gpu.trouble)) for gpu in found.gpus] == [
        (0, uuid(0), A100, True),
        (0, uuid(10, "MIG"), f"{A100} MIG 3g.40gb", False),
        (0, f"MIG-{uuid(0)}/7/0", f"{A100} MIG 1g.10gb+me", False),
        (1, uuid(1), A100, False),
    ]
    assert (found.complaint, found.remedy) == ("", "")


def test_mig_without_a_device_is_for_the_admin():
    found = judged(row(mig="Enabled"), listing=PARENT)
    assert [gpu.trouble for gpu in found.gpus] == ["MIG is on, and there is no MIG device of it"]
    assert "mig -cgi" in found.remedy


def test_a_mig_device_of_a_broken_card_or_without_a_proper_uuid_is_not_used():
    found = judged(row(mig="Enabled", power="[GPU requires reset]"), listing=MIGS)
    assert [gpu.trouble for gpu in found.gpus[:3]] == ["[GPU requires reset]"] * 3
    found = judged(row(mig="Enabled"), listing=f"{PARENT}\n  MIG 1g.10gb Device 0: (UUID: [N/A])")
    assert (found.gpus[1].uuid, found.gpus[1].trouble[:20]) == ("", "its UUID is [N/A]: n")


def test_a_mig_devices_users_are_its_own_or_not_told_apart():
    own = judged(row(mig="Enabled"), listing=MIGS, apps=f"{uuid(10, 'MIG')}, 7, python, 9").gpus
    assert [gpu.users for gpu in own[:3]] == [(), (User(7, "python", 9),), ()]
    whole = judged(row(mig="Enabled"), listing=MIGS, apps=f"{uuid(0)}, 7, python, 9").gpus
    assert all("which MIG device" in gpu.warning for gpu in whole[1:3])


@pytest.mark.parametrize("profile", ["1g.24gb-me", "1g.5gb+me.all", "4g.40gb", "1c.3g.40gb"])
def test_every_name_of_a_mig_profile_is_a_device(profile):
    found = judged(row(mig="Enabled"), listing=f"{PARENT}\n  MIG {profile}  Device  0: (UUID: {uuid(10, 'MIG')})")
    assert [gpu.name for gpu in found.gpus if not gpu.trouble] == [f"{A100} MIG {profile}"]
    assert found.unknown == ()


def test_lines_that_are_not_understood_are_told():
    found = judged(row(), listing=f"{PARENT}\n  Slice 7 of another world\x1b[0m\n" + "  more\n" * 50)
    assert found.unknown[0] == "Slice 7 of another world\\x1b[0m" and len(found.unknown) == gpus.NAMED
    assert judged(row(), listing="Unable to determine the device handle\n" + PARENT).unknown == ()


# Which were given to this account


@pytest.mark.parametrize(
    ("value", "indices"),
    [
        ("3", [3]),
        ("1, 0", [0, 1]),
        ("2,2", [2]),
        (uuid(2), [2]),
        (uuid(1)[:-1], []),  # half of several UUIDs
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("1,7,2", [1]),  # up to the first mistake
        ("0,1,2,3", [0, 1, 2, 3]),
    ],
)
def test_only_the_gpus_that_an_account_was_given_are_there(value, indices):
    found = given(value, *map(row, range(4)))
    assert [gpu.index for gpu in found.gpus] == indices
    assert bool(found.withheld) == (len(indices) < 4)
    assert not found.withheld or f"of 4 GPUs {len(indices)} are this account's" in found.withheld


def test_a_slice_that_was_given_is_taken_and_a_card_stands_for_its_first_slice():
    enabled = row(mig="Enabled"), row(1)
    assert [gpu.uuid for gpu in given(uuid(10, "MIG"), *enabled, listing=MIGS).gpus] == [uuid(10, "MIG")]
    assert [gpu.uuid for gpu in given("0", *enabled, listing=MIGS).gpus] == [uuid(10, "MIG")]
    assert [gpu.uuid for gpu in given("1", *enabled, listing=MIGS).gpus] == [uuid(1)]


def test_a_uuid_without_its_first_word_is_one():
    bare = uuid(3).removeprefix("GPU-")
    gpu = only(row(uuid=bare), listing=f"GPU 0: Orin (nvgpu) (UUID: {bare})", apps=f"{bare}, 7, python, 9")
    assert (gpu.uuid, gpu.trouble, gpu.users) == (uuid(3), "", (User(7, "python", 9),))
    assert list(gpus.samples(f"{bare}, 3, [N/A], 40, 5.0")) == [uuid(3)]


# Who uses them


def test_a_process_name_may_hold_commas_and_its_memory_may_be_untold():
    apps = f"{uuid(0)}, 17, python, -c, import torch, 512\n{uuid(0)}, 18, [Not Found], [N/A]"
    assert only(row(), apps=apps).users == (User(17, "python, -c, import torch", 512), User(18, "[Not Found]", None))


@pytest.mark.parametrize(
    "text", ["", "gpu_uuid, pid, process_name, used_gpu_memory [MiB]", "No running processes found"]
)
def test_no_process_is_idle(text):
    gpu = only(row(), apps=text)
    assert (gpu.users, gpu.warning) == ((), "")


@pytest.mark.parametrize(
    "apps",
    [
        said("", 9),
        said(f"{uuid(0)}, 17, python, 5", None),
        said("[Insufficient Permissions]"),
        said(f"{uuid(0)}, [N/A], python, 5"),
        None,
        "x",
    ],
)
def test_a_failed_question_about_processes_is_not_an_idle_gpu(apps):
    nvidia = {"gpus": said(row()), "list": said(), "apps": apps}
    (gpu,) = gpus.inventory(nvidia).gpus
    assert (gpu.users, gpu.trouble, gpu.warning) == (None, "", "who uses it is not known")


def test_memory_in_use_by_nobody_who_is_shown_is_a_warning():
    gpu = only(row(memory_used="60000"))
    assert gpu.users == () and gpu.warning.startswith("60000 MiB are in use and no process is shown")


# A host that lies


def test_texts_of_the_host_are_made_safe_and_short():
    evil = "\x1b[31m\u202eevil\x07" + "x" * 5000
    found = judged(
        row(name=evil),
        evil,
        listing=f"GPU 1: {evil} (UUID: {uuid(1)})",
        apps=f"{uuid(0)}, 1, {evil}, 2",
        lost={"2": evil},
    )
    assert len(found.gpus) == 3 and found.gpus[0].users
    text = json.dumps([found.complaint, *map(dataclasses.asdict, found.gpus)], ensure_ascii=False)
    assert not re.search("[\x00-\x1f\u202e]", text) and len(text) < 5000


def test_no_host_has_more_gpus_than_fit():
    rows = [row(index) for index in range(500)]
    apps = "\n".join(f"{uuid(0)}, {pid}, python, 1" for pid in range(1000))
    found = judged(*rows, apps=apps)
    assert len(found.gpus) == gpus.GPU_LIMIT and len(found.gpus[0].users) == gpus.USER_LIMIT
    listing = PARENT + "".join(f"\n MIG 1g.5gb Device 0: (UUID: {uuid(n, 'MIG')})" for n in range(500))
    assert len(judged(row(), listing=listing).gpus) == gpus.GPU_LIMIT


@pytest.mark.parametrize(
    "nvidia",
    [None, [], "text", 7, {}, {"gpus": []}, {"gpus": {"out": 5, "err": None, "exit": "0"}}, {"gpus": {"exit": True}}],
)
def test_an_answer_of_the_wrong_shape_is_no_answer(nvidia):
    found = gpus.inventory(nvidia)
    assert (found.gpus, found.complaint) == ((), "nvidia-smi gave no answer")


def test_nothing_that_a_host_can_send_raises():
    rng = random.Random(17)
    pieces = [
        *FULL.values(), *UNTOLD, *BAD_UUIDS, uuid(0), uuid(1, "MIG"), row(), LISTING, MIGS, LOST, "\n", "\r", "\0", '"',
        "'", ",", ", ", "\u2028", "\ud800", "é", "9" * 400, "GPU 0:", "(UUID: ", "MIG ",
        "Enabled", "Prohibited", "ERR!",
    ]  # fmt: skip

    def text():
        return "".join(rng.choices(pieces, k=rng.randrange(20)))

    def value(depth):
        kind = rng.randrange(9 if depth else 6)
        if kind < 6:
            return [text(), rng.choice([0, 1, 15, None]), rng.random() * 1e300, True, text(), None][kind]
        if kind == 6:
            return [value(depth - 1) for _ in range(rng.randrange(4))]
        keys = rng.choices(["out", "err", "exit", "lost", "gpus", "list", "apps", "0", "1", "x"], k=4)
        return {key: value(depth - 1) for key in keys}

    def answer():
        lost = {rng.choice(["0", "7", "x", "99999"]): value(0) for _ in range(2)}
        return {
            "out": text(),
            "err": text(),
            "exit": rng.choice([0, 15, None, "0"]),
            "lost": rng.choice([lost, value(1)]),
        }

    seen = set()
    for turn in range(4000):
        nvidia = (
            value(3) if turn % 4 == 0 else {key: rng.choice([answer(), value(1)]) for key in ("gpus", "list", "apps")}
        )
        found = gpus.inventory(nvidia)
        assert len(found.gpus) <= gpus.GPU_LIMIT
        for gpu in found.gpus:
            assert gpu.trouble or gpus.UUID.fullmatch(gpu.uuid)
            seen.add(bool(gpu.trouble))
        assert found.gpus or found.complaint
        assert not found.complaint or found.remedy
        gpus.samples(text())
        gpus.driver_fits(text(), rng.choice([None, text(), "12.1"]))
    assert seen == {True, False}


# Drivers


@pytest.mark.parametrize(
    ("driver", "build"),
    [
        ("450.80.02", "11.8"),
        ("525.60.13", "12.8"),
        ("580.65.06", "13.0"),
        ("580.65", "12.4"),
        ("1000.1", "13.0"),
        ("390.1", None),
        ("390.1", "10.2"),
        ("390.1", "99.1"),
        ("390.1", ""),
        ("", "12.1"),
        ("[N/A]", "12.1"),
    ],
)
def test_a_driver_that_is_new_enough_or_unknown_is_no_matter(driver, build):
    assert gpus.driver_fits(driver, build) == ""


@pytest.mark.parametrize(
    ("driver", "build", "oldest"),
    [
        ("450.80.01", "11.0", "450.80.02"),
        ("525.60.12", "12.4", "525.60.13"),
        ("525.60", "12", "525.60.13"),
        ("99.1.1", "12.4", "525.60.13"),
        ("575.57.08", "13.0", "580.65.06"),
    ],
)
def test_a_driver_that_is_too_old_is_named_with_the_one_it_takes(driver, build, oldest):
    assert gpus.driver_fits(driver, build).startswith(
        f"driver {driver} is older than {oldest}, the oldest for CUDA {build}"
    )


# Samples


def test_samples_are_read_by_uuid():
    text = (
        f"{uuid(0)}, 98, 70211, 61, 301.55\n{LOST}\n{uuid(1)}, [N/A], [N/A], 30, [Unknown Error]\nGPU-1, 1, 1, 1, 1\n"
    )
    assert gpus.samples(text) == {uuid(0): Sample(98, 70211, 61, 301.55), uuid(1): Sample(None, None, 30, None)}
    assert gpus.samples("") == {}


def test_samples_have_an_end():
    assert len(gpus.samples("\n".join(f"{uuid(n)}, 1, 1, 1, 1" for n in range(500)))) == gpus.GPU_LIMIT
