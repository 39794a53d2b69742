"""Perplexity and held-out loss, against brute force in float64."""

import hashlib
import math
import sysconfig
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sharpen.core.errors import ConfigError, DataError
from sharpen.data.formats import Document
from sharpen.data.shards import TokenDataset, write_dataset
from sharpen.eval import dataset_loss, perplexity, windowed_loss
from sharpen.eval import scoring as scoring_module
from sharpen.models import load_model, load_tokenizer
from small_models import byte_tokenizer, save_small_dataset, small_model


def brute_force(model, ids, window, stride):
    """Every token scored by itself, from the context of the first window that holds it."""
    double = small_model().double()
    double.load_state_dict({k: v.double() for k, v in model.state_dict().items()})
    nats = []
    scored = 0
    begin = 0
    while scored < len(ids):
        end = min(begin + window, len(ids))
        for target in range(max(scored, begin + 1), end):
            with torch.no_grad():
                logits = double(torch.tensor([ids[begin:target]]))[0, -1]
            nats.append(-float(torch.log_softmax(logits, -1)[ids[target]]))
        scored = end
        begin += stride
    return sum(nats) / len(nats), len(nats)


@settings(max_examples=15)
@given(
    length=st.integers(2, 40), window=st.integers(2, 20), share=st.floats(0, 1), seed=st.integers(0)
)
def test_windowed_loss_is_brute_force_over_windows(length, window, share, seed):
    stride = max(1, round(share * window))
    ids = np.random.default_rng(seed).integers(0, 304, length).tolist()
    model = small_model()
    loss, count = windowed_loss(model, ids, window=window, stride=stride)
    wanted, wanted_count = brute_force(model, ids, window, stride)
    assert count == wanted_count
    # float32 logits of size ~1 have errors of 1e-6
    assert loss == pytest.approx(wanted, abs=2e-5)


def test_without_overlap_each_windows_first_token_is_unscored():
    ids = list(range(40))
    assert windowed_loss(small_model(), ids, window=10)[1] == 36
    assert windowed_loss(small_model(), ids, window=10, stride=5)[1] == 39
    assert windowed_loss(small_model(), ids[:31], window=10)[1] == 27  # the last window is 1 token


def test_uniform_model_has_the_vocabulary_as_perplexity():
    assert perplexity(small_model(std=0.0), list(range(50)), window=16) == pytest.approx(304)


def test_tiles_of_logits_do_not_change_the_loss(monkeypatch):
    ids = list(range(100))
    whole = perplexity(small_model(), ids, window=64)
    monkeypatch.setattr(scoring_module, "logits_tile", lambda *_: 16)
    assert perplexity(small_model(), ids, window=64) == pytest.approx(whole, rel=1e-6)


def test_more_context_is_reported_as_progress_and_mode_is_restored():
    model = small_model().train()
    seen = []
    windowed_loss(model, list(range(30)), window=10, stride=4, on_progress=seen.append)
    assert sum(seen) == 29
    assert model.training


@pytest.mark.parametrize(
    ("ids", "options", "message"),
    [
        ([1], {}, "at least 2"),
        ([1, 999], {}, "wrong tokenizer"),
        ([1, -1], {}, "outside 0..303"),
        ([1, 2, 3], {"window": 1}, "window=1"),
        ([1, 2, 3], {"window": 1000}, "context of 256"),
        ([1, 2, 3], {"window": 8, "stride": 9}, "stride=9"),
        ([1, 2, 3], {"window": 8, "stride": 0}, "stride=0"),
    ],
)
def test_bad_texts_and_windows_are_refused(ids, options, message):
    with pytest.raises((ConfigError, DataError), match=message):
        perplexity(small_model(), ids, **{"window": 16, **options})


def test_a_data_set_of_another_tokenizer_is_refused(tmp_path):
    dataset = save_small_dataset(tmp_path / "data")
    with pytest.raises(DataError, match=r"outside 0\.\.63: wrong tokenizer"):
        dataset_loss(small_model(vocab_size=64), dataset)


def nats_of_documents(model, documents):
    """Labels' losses with every document run alone in float64."""
    double = small_model().double()
    double.load_state_dict({k: v.double() for k, v in model.state_dict().items()})
    nats = []
    for document in documents:
        with torch.no_grad():
            logits = double(torch.tensor([document.ids[:-1]]))[0]
        logs = torch.log_softmax(logits, -1)
        nats += [
            -float(logs[t - 1, document.ids[t]])
            for t in range(1, len(document.ids))
            if document.learned[t]
        ]
    return nats


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("limit", [None, 1, 5, 9, 100])
def test_dataset_loss_is_the_mean_over_labels_of_each_document_alone(tmp_path, packing, limit):
    rng = np.random.default_rng(0)
    documents = [
        Document(rng.integers(0, 300, n).tolist(), [False, *(rng.random(n - 1) < 0.6).tolist()])
        for n in rng.integers(4, 30, 11)
    ]
    write_dataset(
        tmp_path,
        {"valid": documents},
        max_tokens=48,
        packing=packing,
        tokenizer_fingerprint="x",
        vocab_size=304,
    )
    dataset = TokenDataset(tmp_path, "valid")
    model = small_model()
    seen = []
    loss, labels = dataset_loss(model, dataset, limit=limit, batch_size=3, on_progress=seen.append)
    # Packing sorts documents into rows, so the first `limit` are those of the first rows.
    order = []
    for index in range(len(dataset)):
        row = dataset[index]
        for number in range(int(row.document_ids.max()) + 1):
            ids = row.input_ids[row.document_ids == number].tolist()
            order.append(next(d for d in documents if d.ids[:-1] == ids))
    nats = nats_of_documents(model, order[:limit])
    assert labels == len(nats)
    assert loss == pytest.approx(sum(nats) / len(nats), abs=2e-5)
    assert sum(seen) == min(limit or 11, 11)


def test_dataset_loss_refuses_what_does_not_fit(tmp_path):
    dataset = save_small_dataset(tmp_path)
    with pytest.raises(ConfigError, match="limit=0"):
        dataset_loss(small_model(), dataset, limit=0)
    with pytest.raises(ConfigError, match="batch_size=0"):
        dataset_loss(small_model(), dataset, batch_size=0)
    with pytest.raises(ConfigError, match="context is 64"):
        dataset_loss(small_model(max_positions=64), dataset)


def test_a_split_without_labels_is_refused(tmp_path):
    write_dataset(
        tmp_path,
        {"valid": [Document([1, 2, 3], [True, False, False])]},
        max_tokens=8,
        packing=True,
        tokenizer_fingerprint="x",
        vocab_size=304,
    )
    with pytest.raises(DataError, match="no label"):
        dataset_loss(small_model(), TokenDataset(tmp_path, "valid"))


def test_byte_tokenizer_round_trips():
    tokenizer = byte_tokenizer()
    assert tokenizer.decode(tokenizer.encode("Grüße, 12\n")) == "Grüße, 12\n"


REFERENCES = [
    # text, first 16 digits of its sha256, perplexity of the first 1,536 tokens
    (Path("/usr/share/common-licenses/GPL-3"), "3972dc9744f6499f", 21.55),
    (Path(sysconfig.get_path("stdlib")) / "argparse.py", "dc1eba8adfdf6159", 10.51),
]


@pytest.mark.slow
@pytest.mark.asset
@pytest.mark.parametrize(("path", "sha256", "wanted"), REFERENCES, ids=["gpl3", "argparse"])
def test_smollm2_has_its_reference_perplexity(path, sha256, wanted):
    data = path.read_bytes() if path.exists() else b""
    if not hashlib.sha256(data).hexdigest().startswith(sha256):
        pytest.skip(f"{path} is not the text the reference was measured on")
    ids = load_tokenizer("smollm2-135m-instruct").encode(data.decode())[:1536]
    found = perplexity(load_model("smollm2-135m-instruct"), ids, window=512)
    assert found == pytest.approx(wanted, rel=0.005)
    assert math.isfinite(found)
