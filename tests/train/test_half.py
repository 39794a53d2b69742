"""Halves that balance, rounds that change, states that are not kept, resuming to the same bits."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sharpen.core.errors import ConfigError
from sharpen.train import CheckpointConfig, TrainConfig, Trainer
from sharpen.train.half import HalfFineTuning, choose_half
from small_models import save_small_dataset, small_model

NAMES = [name for name, _ in small_model(num_layers=4, family="qwen2").named_parameters()]


def kinds(chosen: frozenset[str], part: str) -> list[int]:
    """Modules trained in each layer whose name holds ``part``."""
    counts = []
    for layer in range(4):
        inside = {n.rpartition(".")[0] for n in chosen if f".layers.{layer}." in n and part in n}
        counts.append(len(inside))
    return counts


@given(seed=st.integers(0, 1000), round=st.integers(0, 5))
def test_each_category_of_each_layer_is_halved(seed: int, round: int) -> None:
    chosen = choose_half(NAMES, seed=seed, round=round)
    assert kinds(chosen, "self_attn") == [2] * 4
    assert sorted(kinds(chosen, ".mlp.")) == [1, 1, 2, 2]
    assert kinds(chosen, "layernorm") == [1] * 4
    for name in chosen:  # a bias goes with its weight
        twin = name.replace(".bias", ".weight")
        assert twin in chosen


def test_every_parameter_is_trained_in_half_of_the_rounds() -> None:
    counts = dict.fromkeys(NAMES, 0)
    for number in range(400):
        for name in choose_half(NAMES, seed=3, round=number):
            counts[name] += 1
    # Five standard deviations of 400 fair coins.
    assert all(150 <= count <= 250 for count in counts.values()), counts
    assert choose_half(NAMES, seed=3, round=1) == choose_half(NAMES[::-1], seed=3, round=1)


def trainer(tmp_path: Path, steps: int, *, every: int | None, output: str | None = None) -> Trainer:
    data = tmp_path / "data"
    if not data.exists():
        save_small_dataset(data)
    model = small_model().requires_grad_(True)
    config = TrainConfig(
        steps=steps,
        method="half",
        half_every=every,
        schedule="constant",
        warmup=0,
        global_batch=2,
        checkpoint=CheckpointConfig(every=1, async_=False),
    )
    rounds = HalfFineTuning(seed=0, every=every)
    where = tmp_path / output if output is not None else None
    return Trainer(model, data, config, output=where, callbacks=[rounds])


def weights(one: Trainer) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in one.model.named_parameters()}


def test_one_half_moves_and_only_it_has_states(tmp_path: Path) -> None:
    one = trainer(tmp_path, 3, every=None)
    before = weights(one)
    one.fit()
    chosen = choose_half(before, seed=0)
    moved = {n for n, value in weights(one).items() if not torch.equal(value, before[n])}
    assert moved == chosen
    named = dict(one.model.named_parameters())
    assert {n for n in named if named[n] in one.optimizer.state} == chosen
    assert {n for n in named if named[n].requires_grad} == chosen


def test_a_new_round_trains_another_half_and_drops_the_states(tmp_path: Path) -> None:
    one = trainer(tmp_path, 4, every=2)
    start = weights(one)
    seen: list[dict[str, torch.Tensor]] = []

    class Watch:
        def on_start(self, trainer: Trainer) -> None:
            pass

        def on_step(self, trainer: Trainer, report: Any) -> None:
            seen.append(weights(trainer))
            if report.step == 3:
                named = dict(trainer.model.named_parameters())
                states = {
                    n: trainer.optimizer.state[p] for n, p in named.items() if p.requires_grad
                }
                assert states.keys() == choose_half(start, seed=0, round=1)
                fresh = states.keys() - choose_half(start, seed=0, round=0)
                assert fresh
                assert all(int(states[n]["step"]) == 1 for n in fresh)

    one.callbacks.append(Watch())
    one.fit()
    for number, (old, new) in enumerate(((start, seen[1]), (seen[1], seen[3]))):
        moved = {n for n in old if not torch.equal(old[n], new[n])}
        assert moved == choose_half(start, seed=0, round=number)


def test_a_resumed_training_ends_in_the_same_bits(tmp_path: Path) -> None:
    whole = trainer(tmp_path, 5, every=2)
    whole.fit()
    cut = trainer(tmp_path, 5, every=2, output="work")

    class Stop(Exception):
        pass

    class Kill:
        def on_start(self, trainer: Trainer) -> None:
            pass

        def on_step(self, trainer: Trainer, report: Any) -> None:
            if report.step == 4:
                raise Stop

    cut.callbacks.append(Kill())
    with pytest.raises(Stop):
        cut.fit()
    resumed = trainer(tmp_path, 5, every=2, output="work")
    resumed.fit()
    expected = weights(whole)
    for name, value in weights(resumed).items():
        assert torch.equal(value, expected[name])


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="half_every=0"):
        HalfFineTuning(every=0)
    with pytest.raises(ConfigError, match="half_every=0 must be at least 1"):
        TrainConfig(method="half", half_every=0)
    with pytest.raises(ConfigError, match="needs method 'half', not 'full'"):
        TrainConfig(half_every=3)
    with pytest.raises(ConfigError, match="merge=true needs method 'lora'"):
        TrainConfig(method="half", merge=True)
