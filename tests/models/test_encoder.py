"""Sentence encoders: states against transformers, vectors against their definition."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from sharpen.core.embedding import open_embedder
from sharpen.core.errors import FileFormatError
from sharpen.models.encoder import BertEmbedder

WORDS = [f"w{i}" for i in range(60)]
CONFIG = {
    "model_type": "bert",
    "vocab_size": 64,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "max_position_embeddings": 16,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model of random weights as transformers writes it, with a tokenizer of words."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    model = BertModel(BertConfig(**CONFIG, initializer_range=0.3), add_pooling_layer=False)
    model.save_pretrained(tmp_path)
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def test_vectors_are_means_of_what_transformers_computes(folder: Path) -> None:
    from transformers import BertModel

    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS, n)) for n in (3, 14, 1, 7, 14, 5)]
    embedder = open_embedder(str(folder))
    assert isinstance(embedder, BertEmbedder)
    found = embedder.encode([*texts, ""])
    peer = BertModel.from_pretrained(folder, add_pooling_layer=False, dtype=torch.float64).eval()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for text, vector in zip([*texts, ""], found, strict=True):
        states = peer(torch.tensor([tokenizer.encode(text).ids])).last_hidden_state[0]
        mean = states.mean(0).detach().numpy()
        assert np.abs(vector - mean / np.linalg.norm(mean)).max() < 2e-6


def test_pooling_of_the_first_token(folder: Path) -> None:
    from transformers import BertModel

    (folder / "1_Pooling").mkdir()
    pooling = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    (folder / "1_Pooling/config.json").write_text(json.dumps(pooling))
    found = open_embedder(str(folder)).encode(["w1 w2 w3"])[0]
    peer = BertModel.from_pretrained(folder, add_pooling_layer=False).eval()
    first = peer(torch.tensor([[2, 5, 6, 7, 3]])).last_hidden_state[0, 0].detach().numpy()
    assert np.abs(found - first / np.linalg.norm(first)).max() < 2e-6


def test_long_texts_are_read_in_windows_whose_tokens_are_averaged(folder: Path) -> None:
    embedder = open_embedder(str(folder))
    words = np.random.default_rng(1).choice(WORDS, 33).tolist()
    parts = [words[:14], words[14:28], words[28:]]
    found = embedder.encode([" ".join(words)])[0]
    # A window's mean has lost its length; with states of its own they are weighed by their tokens.
    assert isinstance(embedder, BertEmbedder)
    total = torch.zeros(24)
    for part in parts:
        ids = [2, *(4 + WORDS.index(word) for word in part), 3]
        total += embedder.model(torch.tensor([ids]), torch.tensor([len(ids)]))[0].sum(0).detach()
    wanted = (total / total.norm()).numpy()
    assert np.abs(found - wanted).max() < 2e-6


def test_a_batch_gives_what_each_text_gives_alone(folder: Path) -> None:
    rng = np.random.default_rng(2)
    texts = [" ".join(rng.choice(WORDS, rng.integers(0, 40))) for _ in range(300)]
    embedder = open_embedder(str(folder))
    together = embedder.encode(texts)
    alone = np.concatenate([embedder.encode([text]) for text in texts])
    assert np.abs(together - alone).max() < 2e-6
    assert embedder.encode([]).shape == (0, 24)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "t5"}, "'t5', which nothing reads"),
        ({"hidden_size": 25}, "no multiple"),
        ({"hidden_size": 48}, r"must have the shape \[64, 48\]"),
        ({"hidden_size": "24"}, "must be a positive integer"),
        ({"num_hidden_layers": 3}, "is missing"),
        ({"num_hidden_layers": 1}, "another model"),
        ({"hidden_act": "silu"}, "not supported"),
        ({"layer_norm_eps": 2.0}, "between 0 and 1"),
        ({"vocab_size": 63}, "must have the shape"),
    ],
)
def test_other_models_are_refused(folder: Path, change: dict[str, object], message: str) -> None:
    (folder / "config.json").write_text(json.dumps(CONFIG | change))
    with pytest.raises(FileFormatError, match=message):
        open_embedder(str(folder))


def test_damaged_weights_are_refused(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    name = "encoder.layer.1.output.dense.bias"
    state[name] = state[name] * float("nan")
    save_file(state, folder / "model.safetensors")
    with pytest.raises(FileFormatError, match="NaN or infinity"):
        open_embedder(str(folder))
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-10])
    with pytest.raises(FileFormatError, match=r"truncated|damaged"):
        open_embedder(str(folder))


@pytest.mark.asset("minilm-l6")
def test_minilm_gives_the_cosine_that_its_documentation_prints() -> None:
    embedder = open_embedder("minilm-l6")
    one, two, other = embedder.encode(
        [
            "A man is eating food.",
            "A man is eating a piece of bread.",
            "The girl is carrying a baby.",
        ]
    )
    assert float(one @ two) == pytest.approx(0.7553, abs=1e-4)
    assert float(one @ other) < 0.1
