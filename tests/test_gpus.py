"""What nvidia-smi says, told apart from what it cannot say; the shapes are from public reports."""

import pytest

from runbook_lib import gpus

A100 = "NVIDIA A100-SXM4-80GB"


def row(index="0", uuid="GPU-1", name=A100, total="81920", used="17", driver="535.104.05"):
    return ", ".join((index, uuid, name, total, used, driver))


def test_a_row_a_gpu():
    found = gpus.parse(f"{row()}\n{row(index='1', uuid='GPU-2')}\n")
    assert found[0] == gpus.Gpu(0, "GPU-1", A100, 81920, 17, "535.104.05")
    assert [gpu.index for gpu in found] == [0, 1]
    assert gpus.complaint(row()) == ""


@pytest.mark.parametrize("name", ["NVIDIA Tesla, special edition", '"NVIDIA Tesla, special edition"'])
def test_a_name_may_hold_commas(name):
    (found,) = gpus.parse(row(name=name))
    assert (found.uuid, found.name, found.total_mib) == ("GPU-1", "NVIDIA Tesla, special edition", 81920)
    assert gpus.complaint(row(name=name)) == ""


@pytest.mark.parametrize(
    "word", ["[N/A]", "N/A", "[Not Supported]", "[Insufficient Permissions]", "[Not Found]", "", "inf", "nan"]
)
def test_memory_that_the_driver_does_not_tell_is_none_and_no_trouble(word):
    (found,) = gpus.parse(row(total=word, used=word))
    assert (found.total_mib, found.used_mib, found.trouble) == (None, None, "")
    assert gpus.complaint(row(total=word, used=word)) == ""


@pytest.mark.parametrize("word", ["[GPU requires reset]", "ERR!", "[Unknown Error]", "[GPU is lost]"])
def test_a_gpu_that_does_not_answer_is_in_trouble(word):
    good, bad = gpus.parse(f"{row()}\n{row(index='1', total=word, used=word)}")
    assert (good.trouble, bad.trouble, bad.total_mib) == ("", word, None)


MESSAGES = [
    "Unable to determine the device handle for GPU 0000:0B:00.0: Unknown Error",
    "Unable to determine the device handle for GPU0000:07:00.0: GPU is lost.  Reboot the system to recover this GPU",
    "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 535.161",
    "Failed to initialize NVML: Unknown Error",
    "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.",
    "No devices were found",
    ", ".join(["[GPU requires reset]"] * 6),
]


@pytest.mark.parametrize("said", MESSAGES)
def test_a_message_in_place_of_the_table_is_the_complaint(said):
    assert gpus.parse(said) == []
    assert gpus.complaint(f"\n{said}\n") == said.splitlines()[0]


def test_a_message_beside_rows_is_a_complaint_and_hides_no_row():
    text = f"{row()}\n{MESSAGES[0]}\n{row(index='2')}\n"
    assert [gpu.index for gpu in gpus.parse(text)] == [0, 2]
    assert gpus.complaint(text) == MESSAGES[0]


def test_windows_line_ends_and_blanks_are_no_matter():
    (found,) = gpus.parse(f"  {row()}  \r\n\r\n")
    assert found.driver == "535.104.05"


@pytest.mark.parametrize("text", ["", "\n \n"])
def test_an_empty_answer_has_no_gpus_and_no_complaint(text):
    assert (gpus.parse(text), gpus.complaint(text)) == ([], "")


@pytest.mark.parametrize("text", ["²" + row()[1:], "-1" + row()[1:], row().rpartition(",")[0]])
def test_what_is_no_row_is_never_taken_for_a_gpu(text):
    assert gpus.parse(text) == []
    assert gpus.complaint(text) == text


def test_the_command_asks_for_what_is_read():
    assert gpus.COMMAND[1] == "--query-gpu=index,uuid,name,memory.total,memory.used,driver_version"
