"""Small models of unusual shapes with random weights, saved as sentence-transformers saves them: `build(kind, folder)`.

`KINDS` are those that must give the library's own vectors.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Router
from sentence_transformers.sentence_transformer import modules as parts
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    DistilBertConfig,
    DistilBertModel,
    GPT2Config,
    GPT2Model,
    ModernBertConfig,
    ModernBertModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3Model,
    RobertaConfig,
    RobertaModel,
    T5Config,
    T5EncoderModel,
)

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,:/?-_|"
SPECIAL = ["<pad>", "<s>", "</s>", "<unk>", "<mask>"]
WORDS = ["river", "stone", "bridge", "lake", "violin", "iron", "query:", "passage:"]
CHAT = "{% for m in messages %}<s>{{ m['role'] }}: {{ m['content'] }} {% endfor %}"
WIDTH = 32

Module = Any


def vocabulary() -> dict[str, int]:
    tokens = [*SPECIAL, *LETTERS, *("##" + letter for letter in LETTERS), *WORDS]
    return {token: i for i, token in enumerate(tokens)}


def backend() -> Tokenizer:
    """Words, else letters, between a first and a last special token."""
    found = Tokenizer(models.WordPiece(vocabulary(), unk_token="<unk>", max_input_chars_per_word=1000))
    found.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    ends = [("<s>", 1), ("</s>", 2)]
    found.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    return found


def tokenizer(max_tokens: int | None = 64, pad: str | None = "<pad>", side: str = "right", **more: Any) -> Any:
    names = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>", "sep_token": "</s>"}
    limits = {"model_max_length": max_tokens} if max_tokens else {}
    pads = {"pad_token": pad} if pad else {}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend(), padding_side=side, mask_token="<mask>", **names, **limits, **pads, **more
    )


SIZES = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


def config(kind: type = BertConfig, **more: Any) -> Any:
    return kind(vocab_size=len(vocabulary()), initializer_range=0.2, pad_token_id=0, **{**SIZES, **more})


def raw(folder: Path, model: Any = None, words: Any = None, **options: Any) -> Module:
    """A transformer module of the library over a model and a tokenizer that are saved beside the final folder."""
    at = folder.with_name(folder.name + ".raw" + str(len(list(folder.parent.glob(folder.name + ".raw*")))))
    (model or BertModel(config(max_position_embeddings=64))).save_pretrained(at)
    (words or tokenizer()).save_pretrained(at)
    return parts.Transformer(str(at), **options)


def dense(out: int = WIDTH) -> Module:
    return parts.Dense(WIDTH, out, activation_function=torch.nn.Tanh())


def mean(mode: Any = "mean", **more: Any) -> Module:
    return parts.Pooling(WIDTH, mode, **more)


def static(width: int = WIDTH) -> Module:
    return parts.StaticEmbedding(backend(), embedding_dim=width)


def words_only() -> Module:
    from sentence_transformers.sentence_transformer.modules.tokenizer import WhitespaceTokenizer

    vocab = [*WORDS, *LETTERS]
    return parts.WordEmbeddings(WhitespaceTokenizer(vocab=vocab), torch.randn(len(vocab), WIDTH))


def weights_of_words() -> Module:
    tokens = sorted(vocabulary(), key=vocabulary().__getitem__)
    return parts.WordWeights(tokens, {word: 2.5 for word in WORDS})


def clip(folder: Path) -> Module:
    text = {**SIZES, "vocab_size": len(vocabulary()), "max_position_embeddings": 48}
    tokens = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    image = {**SIZES, "image_size": 32, "patch_size": 16}
    found = CLIPModel(CLIPConfig(text_config={**text, **tokens}, vision_config=image, projection_dim=40))
    at = folder.with_name(folder.name + ".raw")
    found.save_pretrained(at)
    tokenizer(48).save_pretrained(at)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(at)
    return parts.Transformer(str(at))


def hidden_layers(folder: Path) -> Module:
    return raw(folder, BertModel(config(output_hidden_states=True)))


def two_routes(folder: Path) -> Module:
    """Questions by words alone, documents by a transformer."""
    return Router.for_query_document([static()], [raw(folder), mean()])


def two_limits(folder: Path) -> Module:
    one = [raw(folder, words=tokenizer(limit)) for limit in (12, 40)]
    return Router.for_query_document([one[0], mean()], [one[1], mean("cls")])


def heads(folder: Path) -> list[Module]:
    return [raw(folder), mean(), Router({"query": [dense()], "document": [dense()]}), parts.Normalize()]


def decoder(folder: Path, side: str = "left", kind: Any = Qwen3Model) -> Module:
    cut = {"num_key_value_heads": 1, "head_dim": 16}
    made = kind(config(Qwen3Config, **cut)) if kind is Qwen3Model else GPT2Model(gpt())
    return raw(folder, made, tokenizer(64, side=side))


def gpt() -> Any:
    return GPT2Config(vocab_size=len(vocabulary()), n_embd=WIDTH, n_layer=2, n_head=2, n_positions=64)


def t5(folder: Path) -> Module:
    sizes = {"d_model": WIDTH, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2}
    return raw(folder, T5EncoderModel(T5Config(vocab_size=len(vocabulary()), **sizes)), tokenizer(None))


PROMPTS = {"query": "query: ", "document": "passage: ", "other": "stone: "}

KINDS: dict[str, Callable[[Path], tuple[list[Module], dict[str, Any]]]] = {
    "plain": lambda f: ([raw(f), mean(), parts.Normalize()], {}),
    "other heads for questions": lambda f: (heads(f), {}),
    "other encoders for questions": lambda f: ([two_routes(f), parts.Normalize()], {}),
    "other limits for questions": lambda f: ([two_limits(f)], {}),
    "other heads and prompts": lambda f: (heads(f), {"prompts": PROMPTS}),
    "two poolings joined": lambda f: ([raw(f), mean(["cls", "mean"])], {}),
    "four poolings joined": lambda f: ([raw(f), mean(["max", "mean_sqrt_len_tokens", "weightedmean", "cls"])], {}),
    "a narrower Dense": lambda f: ([raw(f), mean(), dense(16), parts.Normalize()], {}),
    "a wider Dense": lambda f: ([raw(f), mean(), dense(48)], {}),
    "LayerNorm": lambda f: ([raw(f), mean(), parts.LayerNorm(WIDTH)], {}),
    "Dropout": lambda f: ([raw(f), mean(), parts.Dropout(0.3)], {}),
    "weighted layers": lambda f: ([hidden_layers(f), parts.WeightedLayerPooling(WIDTH, 2, 1), mean()], {}),
    "weighted words": lambda f: ([raw(f), weights_of_words(), mean()], {}),
    "static": lambda f: ([static(24), parts.Normalize()], {}),
    "word vectors": lambda f: ([words_only(), mean()], {}),
    "a bag of words": lambda f: ([parts.BoW([*WORDS, *LETTERS]), parts.Normalize()], {}),
    "CLIP": lambda f: ([clip(f)], {}),
    "CLIP and Dense": lambda f: ([clip(f), parts.Dense(40, 24), parts.Normalize()], {}),
    "prompts": lambda f: ([raw(f), mean(), parts.Normalize()], {"prompts": PROMPTS}),
    "a default prompt": lambda f: ([raw(f), mean()], {"prompts": {"other": "stone: "}, "default_prompt_name": "other"}),
    "a default prompt beside": lambda f: ([raw(f), mean()], {"prompts": PROMPTS, "default_prompt_name": "other"}),
    "prompts left out of the mean": lambda f: ([raw(f), mean(include_prompt=False)], {"prompts": PROMPTS}),
    "prompts left out of the first": lambda f: ([raw(f), mean("cls", include_prompt=False)], {"prompts": PROMPTS}),
    "cut vectors": lambda f: ([raw(f), mean(), parts.Normalize()], {"truncate_dim": 8}),
    "left padding, last token": lambda f: ([decoder(f), mean("lasttoken"), parts.Normalize()], {}),
    "right padding, last token": lambda f: ([decoder(f, "right"), mean("lasttoken")], {"prompts": PROMPTS}),
    "GPT-2": lambda f: ([decoder(f, "right", GPT2Model), mean("weightedmean")], {}),
    "RoBERTa": lambda f: ([raw(f, RobertaModel(config(RobertaConfig, max_position_embeddings=68))), mean()], {}),
    "DistilBERT": lambda f: ([raw(f, DistilBertModel(config(DistilBertConfig, dim=WIDTH, n_heads=2, n_layers=2))),
                              mean("cls")], {}),
    "ModernBERT": lambda f: ([raw(f, ModernBertModel(config(ModernBertConfig))), mean()], {}),
    "T5, no limit": lambda f: ([t5(f), mean()], {}),
    "lower case": lambda f: ([raw(f, do_lower_case=True), mean()], {}),
    "a limit by kind": lambda f: ([raw(f, query_length=8, document_length=24), mean()], {}),
    "a chat template": lambda f: ([raw(f, words=tokenizer(chat_template=CHAT)), mean()], {}),
    "a chat template and prompts": lambda f: ([raw(f, words=tokenizer(chat_template=CHAT)), mean()],
                                              {"prompts": PROMPTS}),
}  # fmt: skip


def build(kind: str, folder: Path) -> Path:
    """The folder of a model of that kind, made with the same weights every time."""
    torch.manual_seed(len(kind))
    modules, options = KINDS[kind](folder)
    return save(modules, folder, **options)


def save(modules: list[Module], folder: Path, **options: Any) -> Path:
    SentenceTransformer(modules=modules, device="cpu", **options).save_pretrained(str(folder), create_model_card=False)
    return folder


def edit(path: Path, **keys: Any) -> None:
    """Change keys of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))


# ------------------------------------------------------------------------------------- what the probe has to find


def too_long(folder: Path) -> Path:
    """Claims 512 tokens and has 64 positions."""
    edit(save([raw(folder), mean()], folder) / "sentence_bert_config.json", max_seq_length=512)
    return folder


def too_long_by_one(folder: Path) -> Path:
    """RoBERTa counts positions from the one behind the padding's: of 64, one cannot be used."""
    made = RobertaModel(config(RobertaConfig, max_position_embeddings=64))
    edit(save([raw(folder, made), mean()], folder) / "sentence_bert_config.json", max_seq_length=64)
    return folder


def by_company(folder: Path) -> Path:
    """Padded on the left, and its positions count the padding."""
    return save([decoder(folder, "left", GPT2Model), mean()], folder)


def convolution(folder: Path) -> Path:
    """Its windows reach into the padding."""
    return save([raw(folder), parts.CNN(WIDTH, 16), parts.Pooling(48, "mean")], folder)


def no_padding(folder: Path) -> Path:
    return save([raw(folder, GPT2Model(gpt()), tokenizer(pad=None)), mean()], folder)


def no_pooling(folder: Path) -> Path:
    return save([raw(folder)], folder)


def no_route(folder: Path) -> Path:
    one = Router({"query": [dense()], "passage": [dense()]})
    return save([raw(folder), mean(), one], folder)


def not_a_number(folder: Path) -> Path:
    module = dense()
    module.linear.weight.data.fill_(float("nan"))
    return save([raw(folder), mean(), module], folder)


def cut_short(folder: Path) -> Path:
    weights = build("plain", folder) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    return folder


def own_code(folder: Path) -> Path:
    edit(build("plain", folder) / "config.json", model_type="mine", auto_map={"AutoConfig": "mine.Mine"})
    (folder / "mine.py").write_text("raise SystemExit('code of a model was run')")
    return folder


def of_the_future(folder: Path) -> Path:
    edit(build("plain", folder) / "config.json", model_type="not_made_yet")
    return folder
