"""Refusal of models that need files which are not sent, or whose loading would run code.

Only JSON and file names are read here. The probe finds the other cases: it loads what was sent.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..errors import ProfileError
from ..records import Json

WEIGHTS = ".safetensors"
# Modules of the library that need weights.
WEIGHTY = {"Transformer", "CLIPModel", "StaticEmbedding", "WordEmbeddings"}
# Weights that can run code when loaded, or that are another framework's.
OTHER_WEIGHTS = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".h5", ".msgpack", ".onnx", ".gguf", ".xml")
SAVE_ANEW = "Save it once with SentenceTransformer(folder).save_pretrained(new_folder) and name that folder."


@dataclass(frozen=True)
class Module:
    """A module of modules.json: its class, its folder in the model's, and its own configuration."""

    type: str
    path: str
    config: dict[str, Json]


def refuse_unloadable(
    name: str, folder: Path, modules: Sequence[Module], settings: dict[str, Json], sent: Collection[str]
) -> None:
    """Raise ProfileError for a model that cannot be loaded from the files that are `sent`.

    `settings`: of config_sentence_transformers.json.
    """
    kind = settings.get("model_type") or "SentenceTransformer"
    if kind != "SentenceTransformer":
        raise ProfileError(f"model.name {name!r}: it is a {kind}, expected a SentenceTransformer: one vector a text")
    for path, type_ in _parts(modules):
        _refuse_part(name, folder, path, type_, sent)


def _parts(modules: Sequence[Module]) -> Iterator[tuple[str, str]]:
    """Yield each module's folder and type, also those of a router's routes."""
    for module in modules:
        yield module.path, module.type
        if isinstance(routes := module.config.get("types"), dict):
            yield from ((f"{module.path}/{part}".lstrip("/"), str(own)) for part, own in routes.items())


def _refuse_part(name: str, folder: Path, path: str, type_: str, sent: Collection[str]) -> None:
    where = path or "its folder"
    if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        raise ProfileError(f"model.name {name!r}: modules.json names a module outside the model's folder: {path}")
    if not type_.startswith("sentence_transformers."):
        raise ProfileError(
            f"model.name {name!r}: {where} is a {type_}: code that comes with a model is not run here. Use a model "
            "that is made of the library's own modules."
        )
    here = {PurePosixPath(file).name for file in sent if str(PurePosixPath(file).parent) == (path or ".")}
    if "adapter_config.json" in here:
        raise ProfileError(
            f"model.name {name!r}: {where} holds an adapter (adapter_config.json), whose base model lies elsewhere. "
            "Load it once, merge it (model[0].auto_model.merge_and_unload()), save that and name its folder."
        )
    if any(file.endswith(WEIGHTS) for file in here):
        return
    others = sorted(file.name for file in (folder / path).glob("*") if file.suffix in OTHER_WEIGHTS)
    others += sorted(f"{sub}/{file.name}" for sub in ("onnx", "openvino") for file in (folder / path / sub).glob("*"))
    if not others and type_.rpartition(".")[2] not in WEIGHTY:
        return
    there = f"only {', '.join(others[:3])}" if others else "none"
    raise ProfileError(
        f"model.name {name!r}: no {WEIGHTS} weights in {where}, found {there}; other formats can run code when loaded "
        f"and are not sent. {SAVE_ANEW}"
    )
