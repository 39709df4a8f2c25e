"""A small model in EmbeddingGemma's own architecture, with random weights: its layers, prompts, modules and files.

Bidirectional Gemma 3 with sliding windows and one full layer, mean pooling over the prompt too, two dense layers
without bias, normalised 768-d vectors; a byte-level tokenizer of its own with Gemma's special tokens.
"""

from __future__ import annotations

from pathlib import Path

PROMPTS = {"query": "task: search result | query: ", "document": "title: none | text: "}
DIM = 768
MAX_TOKENS = 128
SENTENCES = [
    "title: none | text: The river runs past the old stone bridge and down to the sea.",
    "task: search result | query: where does the river run?",
    "Embeddings place texts of like meaning near to each other; 東京 and Ωmega are words too.",
]


def tokenizer(folder: Path) -> None:
    """Train a byte-level BPE on a few sentences: any text becomes tokens, none is unknown. Adds <bos> and <eos>."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"}
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=list(special.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(SENTENCES, trainer)
    ends = [(token, made.token_to_id(token)) for token in ("<bos>", "<eos>")]
    made.post_processor = processors.TemplateProcessing(single="<bos> $A <eos>", special_tokens=ends)
    PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=MAX_TOKENS, **special).save_pretrained(folder)


def build(folder: Path) -> Path:
    """Make the model's folder as sentence-transformers saves it, and give it."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer
    from transformers import Gemma3TextConfig, Gemma3TextModel

    torch.manual_seed(7)
    tokenizer(folder / "gemma")
    config = Gemma3TextConfig(
        vocab_size=320,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=4,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        query_pre_attn_scalar=32,
        max_position_embeddings=MAX_TOKENS,
        sliding_window=16,
        layer_types=["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"],
        use_bidirectional_attention=True,
        initializer_range=0.2,  # random weights of the usual size would hardly tell texts apart
    )
    Gemma3TextModel(config).save_pretrained(folder / "gemma")
    modules = [
        Transformer(str(folder / "gemma"), max_seq_length=MAX_TOKENS),
        Pooling(64, "mean", include_prompt=True),
        Dense(64, 256, bias=False, activation_function=torch.nn.Identity()),
        Dense(256, DIM, bias=False, activation_function=torch.nn.Identity()),
        Normalize(),
    ]
    model = SentenceTransformer(modules=modules, device="cpu", prompts=PROMPTS, similarity_fn_name="cosine")
    model.save_pretrained(str(folder / "model"))
    return folder / "model"
