"""Trials of parts: what a host says of one is held against the plan, and against its very bytes."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .scene import Scene
from .table import trial

KIND = "parts"


def _computed(scene: Scene) -> list[Path]:
    """Have everything computed on the hosts while nobody watches; the records of host one that are not home."""
    scene.save_profile()
    command = scene.start("run", "profile.yaml")
    scene.wait(lambda: command.over() or [p for p in scene.processes() if p.kind == "encode"], "workers")
    command.kill()
    scene.wait(lambda: len(list(scene.root("one").glob("parts/*.json"))) >= 6, "parts on the host")
    scene.wait(lambda: not scene.processes(), "the end of the work")
    home = {path.name for path in (scene.here / "parts").glob("*.json")}
    return [path for path in sorted(scene.root("one").glob("parts/*.json")) if path.name not in home]


def _array(name: str, make: Callable[[np.ndarray, bytes], bytes]) -> None:
    """Another array under a part's name, its record made to agree."""

    @trial(KIND, 0.05, name=f"array_{name}")
    def planted(scene: Scene) -> None:
        records = _computed(scene)
        scene.hold(records, "no part is left on the host")
        record = json.loads(records[0].read_text())
        path = records[0].with_suffix(".npy")
        raw = make(np.load(path), path.read_bytes())
        path.write_bytes(raw)
        record |= {"sha256": hashlib.sha256(raw).hexdigest(), "bytes": len(raw)}
        records[0].write_text(json.dumps(record, sort_keys=True) + "\n")
        scene.repaired(scene.run())
        scene.told(r"refused|part")


def _saved(array: np.ndarray, version: tuple[int, int] | None = None) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version=version)
    return file.getvalue()


_array("is_an_empty_zip", lambda array, raw: b"PK\x05\x06" + bytes(18))
_array("is_a_zip_of_arrays", lambda array, raw: _npz(array))
_array("with_bytes_behind_it", lambda array, raw: raw + b"\0" * 128)
_array("with_a_row_behind_it", lambda array, raw: raw + array[0].tobytes())
_array("with_a_row_before_it", lambda array, raw: raw[:128] + array[0].tobytes() + raw[128:])
_array("of_another_version", lambda array, raw: _saved(array, (2, 0)))
_array("of_the_other_byte_order", lambda array, raw: _saved(array.astype(">f4")))
_array("of_columns", lambda array, raw: _saved(np.asfortranarray(array)))
_array("of_doubles", lambda array, raw: _saved(array.astype(np.float64)))
_array("lying_on_its_side", lambda array, raw: _saved(np.ascontiguousarray(array.T)))
_array("one_row_short", lambda array, raw: _saved(array[:-1]))
_array("of_objects", lambda array, raw: _saved_objects())
_array("that_is_empty", lambda array, raw: b"")
_array("with_a_header_only", lambda array, raw: raw[:128])
_array("with_a_header_of_a_megabyte", lambda array, raw: b"\x93NUMPY\x02\x00\x00\x00\x10\x00" + b" " * 2**20)
_array("with_code_in_its_header", lambda array, raw: raw.replace(b"'<f4'", b"(1,2)"))
_array("with_nan", lambda array, raw: _saved(array * np.float32("nan")))


def _npz(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez(file, array)
    return file.getvalue()


def _saved_objects() -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    return file.getvalue()


def _record(name: str, change: Callable[[dict[str, Any]], Any]) -> None:
    """A record that says something else."""

    @trial(KIND, 0.05, name=f"record_{name}")
    def planted(scene: Scene) -> None:
        records = _computed(scene)
        scene.hold(records, "no part is left on the host")
        value = change(json.loads(records[0].read_text()))
        records[0].write_text(value if isinstance(value, str) else json.dumps(value))
        scene.repaired(scene.run())


_record("of_another_run_of_this_name", lambda record: {**record, "run_id": "0" * 32})
_record("cut_at_another_length", lambda record: {**record, "max_tokens": 5})
_record("of_another_dtype", lambda record: {**record, "dtype": "float16"})
_record("with_nan", lambda record: json.dumps({**record, "norms": [float("nan")] * len(record["norms"])}))
_record("with_truth_for_numbers", lambda record: {**record, "start": False, "dim": True})
_record("with_huge_numbers", lambda record: {**record, "bytes": 10**400, "tokens": [10**400] * len(record["tokens"])})
_record("with_words_for_lists", lambda record: {**record, "tokens": "many", "fingerprints": {}})
_record("that_is_a_list", lambda record: [record])
_record("nested_without_end", lambda record: "[" * 100_000)
_record("of_a_slot_of_nobody", lambda record: {**record, "slot": "cluster7_gpu9", "host": "nobody"})


def _file(name: str, put: Callable[[Path, Path], None]) -> None:
    @trial(KIND, 0.05, name=f"file_{name}")
    def planted(scene: Scene) -> None:
        records = _computed(scene)
        scene.hold(records, "no part is left on the host")
        path = records[0].with_suffix(".npy")
        put(path, scene.project / "thesis.txt")
        scene.repaired(scene.run())


def _pipe(path: Path, thesis: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _link(path: Path, thesis: Path) -> None:
    path.unlink()
    path.symlink_to(thesis)


def _folder(path: Path, thesis: Path) -> None:
    path.unlink()
    path.mkdir()


def _folder_for_a_record(path: Path, thesis: Path) -> None:
    path.with_suffix(".json").unlink()
    path.with_suffix(".json").mkdir()


_file("is_a_pipe", _pipe)
_file("is_a_link_to_a_thesis", _link)
_file("is_a_folder", _folder)
_file("of_a_record_is_a_folder", _folder_for_a_record)
