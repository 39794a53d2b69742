import json

import pytest
import torch

from kv_reading import full_projections, random_ids, read
from sharpen.compress.kv import (
    AnsweredText,
    EvictionConfig,
    LocretConfig,
    LocretPolicy,
    RetainingHeads,
    load_heads,
    save_heads,
    train_heads,
)
from sharpen.compress.kv.locret import norms_fingerprint
from sharpen.compress.kv.locret_training import answer_labels, overlap, read_lesson
from sharpen.core.errors import ConfigError, DataError, FileFormatError, MissingFileError
from sharpen.models.decode import prepare_for_inference
from sharpen.models.paged import PagedPart
from small_models import small_model, small_spec

SMALL = LocretConfig(hidden=16, steps=6, learning_rate=1e-2, seed=1)
TEXTS = [AnsweredText(random_ids(20 + i, i), random_ids(4, 90 + i)) for i in range(4)]


def new_heads(hidden=16):
    heads = RetainingHeads(small_spec(), hidden)
    heads.init_weights(0)
    return heads


def test_scores_come_from_projections_before_rotary_positions():
    ids = random_ids(16)
    heads = new_heads()
    expected = []
    for layer, (flat, *_) in enumerate(full_projections(small_model(), ids)):
        head = heads.layers[layer]
        hidden = torch.nn.functional.silu(flat @ head.fc1.weight.T)
        expected.append((hidden @ head.fc2.weight.T + head.fc2.bias).T)
    policy = LocretPolicy(heads, EvictionConfig(budget=12, chunk=16, stabilizers=0, local=1))
    found = []
    policy.ranks = lambda scores, border, last: found.append(scores.clone()) or scores
    read(policy, [*ids, 5, 6], wanted=1)
    for one, other in zip(found, expected, strict=False):
        torch.testing.assert_close(one, other, rtol=0, atol=0.6 / 1024)


def test_equal_tokens_score_equally_in_the_first_layer_and_the_newest_stays():
    ids = [7, 8, 9, 7, 8, 9, 7, 8, 9, *random_ids(12)]
    config = EvictionConfig(budget=4, chunk=9, stabilizers=0, local=12)
    for part_tokens in (512, 1, 4):
        policy = LocretPolicy(new_heads(), config)
        _, text = read(policy, ids, wanted=1, part_tokens=part_tokens)
        for head in range(2):
            kept = text.retention.positions(0)[head].tolist()
            for position in kept:
                assert position + 3 > 8 or position + 3 in kept


@pytest.mark.parametrize("part_tokens", [512, 2])
def test_sinks_stay_whatever_their_scores(part_tokens):
    config = EvictionConfig(budget=12, chunk=8, stabilizers=4, local=5)
    policy = LocretPolicy(new_heads(), config, sinks=3)
    _, text = read(policy, random_ids(60), wanted=1, part_tokens=part_tokens)
    _, plain = read(LocretPolicy(new_heads(), config), random_ids(60), wanted=1)
    for layer in range(2):
        assert (text.retention.positions(layer)[:, :3] == torch.arange(3)).all()
    assert any(
        not torch.equal(plain.retention.positions(i)[:, :3], torch.arange(3).expand(2, -1))
        for i in range(2)
    )
    with pytest.raises(ConfigError, match="from 0 to 8"):
        LocretPolicy(new_heads(), config, sinks=9)


def test_labels_are_the_highest_logits_of_the_answer_in_the_group():
    text = TEXTS[0]
    ids, prompt = [*text.prompt, *text.answer], len(text.prompt)
    found = []
    model = prepare_for_inference(small_model())
    part = PagedPart(ids, 0, [0], 0, 0, lambda seen: found.append(answer_labels(seen, prompt)))
    model.paged([part], model.new_paged_cache(1, len(ids)))
    for labels, (_, q, k, _) in zip(found, full_projections(small_model(), ids), strict=True):
        logits = torch.einsum("inghd,jnd->nijg", q.view(len(ids), 2, 2, 1, 16), k) / 4
        expected = logits[:, prompt:, :prompt].amax((1, 3))
        torch.testing.assert_close(labels, expected, rtol=1e-5, atol=1e-5)


def test_loss_is_smooth_l1_and_the_difference_of_neighbours():
    model, heads, text = prepare_for_inference(small_model()), new_heads(), TEXTS[0]
    ids, prompt = [*text.prompt, *text.answer], len(text.prompt)
    errors, differences = [], 0.0
    for layer, (flat, q, k, _) in enumerate(full_projections(small_model(), ids)):
        logits = torch.einsum("inghd,jnd->nijg", q.view(len(ids), 2, 2, 1, 16), k) / 4
        labels = logits[:, prompt:, :prompt].amax((1, 3))
        scores = heads.layers[layer](flat[:prompt])
        distance = (scores - labels).abs()
        errors.append(torch.where(distance < 1, distance**2 / 2, distance - 0.5))
        differences += (scores[:, 1:] - scores[:, :-1]).square().mean()
    expected = torch.stack(errors).mean() + 0.0025 * differences
    lesson = read_lesson(model, heads, text, 0.0025, learns=True)
    assert lesson.loss == pytest.approx(expected.item(), rel=1e-5)
    expected_gradients = torch.autograd.grad(expected, list(heads.parameters()))
    for parameter, gradient in zip(heads.parameters(), expected_gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-6)


def test_training_lowers_the_loss_and_leaves_the_model():
    model = prepare_for_inference(small_model())
    before = model.paged([PagedPart([5, 6], 0, [0])], model.new_paged_cache(1, 4))
    steps = []
    config = LocretConfig(hidden=16, steps=25, learning_rate=3e-2, warmup=0.2)
    train_heads(model, TEXTS, config, on_step=steps.append)
    assert [step.step for step in steps] == list(range(1, 26))
    assert steps[-1].loss < 0.5 * steps[0].loss
    assert steps[-1].overlap > steps[0].overlap
    after = model.paged([PagedPart([5, 6], 0, [0])], model.new_paged_cache(1, 4))
    assert torch.equal(before, after)


def test_a_resumed_training_ends_in_the_same_bits(tmp_path):
    model = prepare_for_inference(small_model())
    whole = train_heads(model, TEXTS, SMALL)

    class Cut(Exception):
        pass

    def cut(step):
        if step.step == 5:
            raise Cut

    with pytest.raises(Cut):
        train_heads(model, TEXTS, SMALL, work=tmp_path / "w", save_every=2, on_step=cut)
    steps = []
    resumed = train_heads(
        model, TEXTS, SMALL, work=tmp_path / "w", save_every=2, on_step=steps.append
    )
    assert [step.step for step in steps] == [5, 6]
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)
    with pytest.raises(ConfigError, match="other settings"):
        train_heads(model, TEXTS[:2], SMALL, work=tmp_path / "w")


def test_the_rate_rises_for_two_thirds_and_then_falls():
    config = LocretConfig()
    assert [config.rate(step) for step in (0, 1000, 2000, 2500)] == pytest.approx(
        [0, 2.5e-4, 5e-4, 2.5e-4]
    )


def test_a_long_prompt_loses_its_middle():
    text = AnsweredText(list(range(10)), [10, 11]).fitted(7)
    assert (text.prompt, text.answer) == ([0, 1, 7, 8, 9], [10, 11])
    assert AnsweredText([1], [2, 3, 4]).fitted(4) == AnsweredText([1], [2, 3])


def test_overlap_counts_shared_tops():
    labels = torch.tensor([[9.0, 8.0, 1.0, 0.0]])
    assert overlap(torch.tensor([[0.0, 5.0, 4.0, 1.0]]), labels, share=0.5) == 0.5


def test_files_hold_the_heads_and_whose_they_are(tmp_path):
    model = small_model()
    heads = new_heads()
    heads.fingerprint = norms_fingerprint(model)
    save_heads(heads, tmp_path / "heads", steps=3)
    loaded = load_heads(tmp_path / "heads", small_spec())
    for one, other in zip(heads.parameters(), loaded.parameters(), strict=True):
        assert torch.equal(one, other)
    loaded.check_model(model)
    loaded.check_model(small_model().to(torch.bfloat16))
    assert json.loads((tmp_path / "heads" / "locret_heads.json").read_text())["steps"] == 3
    with torch.no_grad():
        model.model.norm.weight[0] = 2.0
    with pytest.raises(ConfigError, match="another model"):
        loaded.check_model(model)
    with pytest.raises(ConfigError, match="2 layers"):
        load_heads(tmp_path / "heads", small_spec(num_layers=3))


def test_damaged_or_missing_files_are_told(tmp_path):
    with pytest.raises(MissingFileError, match="locret train"):
        load_heads(tmp_path, small_spec())
    save_heads(new_heads(), tmp_path / "heads")
    (tmp_path / "heads" / "locret_heads.safetensors").write_bytes(b"no")
    with pytest.raises(FileFormatError, match="no retaining heads"):
        load_heads(tmp_path / "heads", small_spec())
    (tmp_path / "heads" / "locret_heads.json").write_text('{"format_version": 9}')
    with pytest.raises(FileFormatError, match="format 1"):
        load_heads(tmp_path / "heads", small_spec())


@pytest.mark.parametrize("fields", [{"steps": 0}, {"warmup": 1.0}, {"clip": 0.0}, {"hidden": 0}])
def test_settings_out_of_range_are_refused(fields):
    with pytest.raises(ConfigError, match=f"{next(iter(fields))}="):
        LocretConfig(**fields)


def test_texts_without_an_answer_are_refused():
    model = prepare_for_inference(small_model())
    with pytest.raises(DataError, match="text 1 has 2 prompt and 0 answer"):
        train_heads(model, [AnsweredText([1, 2], [])], SMALL)
    with pytest.raises(DataError, match="no texts"):
        train_heads(model, [], SMALL)
