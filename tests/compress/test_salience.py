"""Scores of rows: equal to what materialized gradients give."""

import pytest
import torch
import torch.nn.functional as F

from sharpen.compress.calibration import Sample, calibration_dataset, samples
from sharpen.compress.rows import quantize_rows
from sharpen.compress.salience import block_linears, row_salience
from sharpen.core.errors import DataError
from small_models import byte_tokenizer, save_small_dataset, small_model


def written_out(model, rows):
    """The definition, with each sample's gradient of every weight."""
    found = {}
    for row in rows:
        model.zero_grad()
        logits = model(
            row.input_ids, position_ids=row.position_ids, document_ids=row.document_ids
        ).flatten(0, 1)
        F.cross_entropy(logits, row.labels.flatten()).backward()
        for name, layer in block_linears(model).items():
            weight = layer.weight.detach()
            four = torch.zeros(len(weight), dtype=torch.bool)
            delta = quantize_rows(weight, four).dequantized() - weight
            p = (layer.weight.grad.double() * delta.double()).sum(1)
            found[name] = found.get(name, 0) + (p + 0.5 * p**2).abs()
    return found


@pytest.mark.parametrize("changes", [{"family": "qwen2"}, {"block": "parallel"}], ids=str)
def test_scores_equal_those_of_materialized_gradients(tmp_path, changes):
    dataset = save_small_dataset(tmp_path / "data", rows=30, max_tokens=48)
    model = small_model(**changes)
    rows = list(samples(dataset, 7, model))
    assert len({row.input_ids.shape for row in rows}) > 1
    assert any((row.labels == -100).any() for row in rows)
    told = []
    found = row_salience(model, rows, on_progress=told.append)
    wanted = written_out(model, rows)
    assert set(found) == set(wanted) == set(block_linears(model))
    for name, score in wanted.items():
        assert torch.allclose(found[name], score, rtol=2e-4, atol=1e-9), name
    assert sum(told) == len(rows)


def test_signs_do_not_cancel_over_samples(tmp_path):
    model = small_model()
    rows = list(samples(save_small_dataset(tmp_path / "data"), 4, model))
    together = row_salience(model, rows)
    alone = [row_salience(model, [row]) for row in rows]
    for name, score in together.items():
        assert torch.allclose(score, sum(part[name] for part in alone))


def test_the_model_is_left_as_it_was(tmp_path):
    model = small_model().train()
    before = {name: p.clone() for name, p in model.named_parameters()}
    row_salience(model, samples(save_small_dataset(tmp_path / "data"), 2, model))
    assert model.training
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name])
        assert parameter.requires_grad
        assert parameter.grad is None
    assert not any(module._forward_hooks for module in model.modules())


def test_rows_without_labels_are_refused():
    ids = torch.ones(1, 4, dtype=torch.int64)
    row = Sample(ids, torch.full_like(ids, -100), ids * 0, ids * 0)
    with pytest.raises(DataError, match="no calibration sample"):
        row_salience(small_model(), [row])


def test_the_standard_library_gives_rows_spread_over_its_modules(tmp_path):
    dataset = calibration_dataset("python-stdlib", byte_tokenizer(), tmp_path, rows=5)
    assert len(dataset) == 5
    rows = list(samples(dataset, 5, small_model()))
    assert len({tuple(row.input_ids[0, :64].tolist()) for row in rows}) == 5
    assert all(row.input_ids.shape == (1, 256) for row in rows)
