import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sharpen.core.errors import ConfigError, DataError, TrainingError
from sharpen.data.formats import Document
from sharpen.data.shards import TokenDataset, write_dataset
from sharpen.models.decoder import DecoderLM
from sharpen.models.lora import LoraConfig, add_lora
from sharpen.train import CheckpointConfig, StepReport, TrainConfig, Trainer
from sharpen.train.config import ActConfig
from small_models import small_model

OFTEN = CheckpointConfig(every=1, every_s=1e9)


def make_data(folder: Path, *, masked: bool = False, lengths: tuple[int, ...] = (9, 17)) -> Path:
    """Twelve rows of 32 tokens, labels at every second token, documents of unequal lengths."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(0)
    documents = []
    for i in range(24):
        n = lengths[i % len(lengths)]
        ids = torch.randint(3, 300, (n,), generator=generator).tolist()
        documents.append(Document(ids, [not masked and j % (2 + i % 3) == 0 for j in range(n)]))
    write_dataset(
        folder,
        {"train": documents},
        max_tokens=32,
        packing=True,
        tokenizer_fingerprint="none",
        vocab_size=304,
    )
    return folder


def make_model(method: str = "full") -> DecoderLM:
    model = small_model(std=0.05)
    if method == "lora":
        add_lora(model, LoraConfig(rank=4), seed=1)
    return model


def parameters(model: DecoderLM) -> dict[str, Tensor]:
    return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)


class Stop(Exception):
    """Stands for a kill."""


class At:
    def __init__(self, step: int, action: Callable[[Trainer], None]) -> None:
        self.step, self.action = step, action
        self.reports: list[StepReport] = []

    def on_start(self, trainer: Trainer) -> None:
        return None

    def on_step(self, trainer: Trainer, report: StepReport) -> None:
        self.reports.append(report)
        if report.step == self.step:
            self.action(trainer)


def stop(trainer: Trainer) -> None:
    raise Stop


def config(**changes: Any) -> TrainConfig:
    return TrainConfig(
        **{"steps": 6, "global_batch": 2, "lr": 1e-2, "checkpoint": OFTEN, **changes}
    )


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_resumed_training_ends_in_the_same_bits(tmp_path: Path, method: str, dtype: str) -> None:
    data = make_data(tmp_path / "data")
    options = config(dtype=dtype, method=method)
    whole = make_model(method)
    Trainer(whole, data, options, output=tmp_path / "whole", seed=3).fit()
    for step in (1, 4):
        broken = make_model(method)
        trainer = Trainer(
            broken, data, options, output=tmp_path / "b", seed=3, callbacks=[At(step, stop)]
        )
        with pytest.raises(Stop):
            trainer.fit()
    resumed = make_model(method)
    done = Trainer(resumed, data, options, output=tmp_path / "b", seed=3).fit()
    assert done.steps == 6
    assert equal(parameters(whole), parameters(resumed))


def test_measurements_of_an_ended_training_are_those_of_its_process(tmp_path: Path) -> None:
    data, options = make_data(tmp_path / "data"), config()
    first = Trainer(make_model("full"), data, options, output=tmp_path / "out", seed=3).fit()
    again = Trainer(make_model("full"), data, options, output=tmp_path / "out", seed=3).fit()
    assert first.step_s is not None and first.step_s > 0
    assert (again.step_s, again.tokens_per_s) == (first.step_s, first.tokens_per_s)
    assert again.peak_bytes >= first.peak_bytes


def test_dropout_resumes_bit_exactly_too(tmp_path: Path) -> None:
    def model() -> DecoderLM:
        made = small_model(std=0.05)
        add_lora(made, LoraConfig(rank=4, dropout=0.5), seed=1)
        return made

    data, options = make_data(tmp_path / "data"), config(method="lora", dropout=0.5)
    whole, resumed = model(), model()
    Trainer(whole, data, options, seed=3).fit()
    with pytest.raises(Stop):
        Trainer(
            model(), data, options, output=tmp_path / "b", seed=3, callbacks=[At(3, stop)]
        ).fit()
    Trainer(resumed, data, options, output=tmp_path / "b", seed=3).fit()
    assert equal(parameters(whole), parameters(resumed))


def test_accumulation_gives_the_gradient_of_the_big_batch(tmp_path: Path) -> None:
    """Rows hold unequal numbers of labels: means of means would differ, the token mean does not."""
    data = make_data(tmp_path)
    results = []
    for micro in (1, 2, 4):
        model = make_model().double()
        at = At(3, lambda trainer: None)
        options = config(micro_batch=micro, global_batch=4, steps=3)
        Trainer(model, data, options, callbacks=[at]).fit()
        results.append((parameters(model), [r.loss for r in at.reports]))
    for other, losses in results[1:]:
        assert losses == pytest.approx(results[0][1], rel=1e-6)
        for name, value in results[0][0].items():
            # Losses are float32; where |gradient| is near AdamW's eps, its rounding is magnified.
            torch.testing.assert_close(other[name], value, rtol=1e-5, atol=2e-5)


def test_checkpointing_changes_no_gradient(tmp_path: Path) -> None:
    data = make_data(tmp_path)
    plain, recomputed = make_model(), make_model()
    Trainer(plain, data, config()).fit()
    Trainer(recomputed, data, config(act=ActConfig(mode="full"))).fit()
    for name, value in parameters(plain).items():
        torch.testing.assert_close(parameters(recomputed)[name], value, rtol=1e-5, atol=1e-6)


def test_training_lowers_the_loss_and_reports_it(tmp_path: Path) -> None:
    done = Trainer(make_model(), make_data(tmp_path), config(steps=40)).fit()
    assert done.loss_first is not None and done.loss_last is not None
    assert done.loss_first == pytest.approx(math.log(304), abs=0.5)
    assert done.loss_last < done.loss_first - 0.5
    assert done.tokens > done.labels > 0
    assert done.peak_bytes > 0 and done.tokens_per_s is not None


def test_a_step_without_labels_is_skipped_and_counted(tmp_path: Path) -> None:
    model = make_model()
    before = parameters(model)
    done = Trainer(model, make_data(tmp_path, masked=True), config(steps=3)).fit()
    assert done.skipped_steps == 3 and done.labels == 0
    assert equal(before, parameters(model))


def test_one_bad_step_is_skipped_and_many_end_the_training(tmp_path: Path) -> None:
    data = make_data(tmp_path)
    model = make_model()

    def spoil(trainer: Trainer) -> None:
        with torch.no_grad():
            model.model.norm.weight.fill_(math.nan)

    with pytest.raises(TrainingError, match=r"3 steps in a row .*Lower lr=0\.01"):
        Trainer(model, data, config(max_bad_steps=3), callbacks=[At(2, spoil)]).fit()

    other = make_model()
    saved = other.model.norm.weight.detach().clone()

    def heal(trainer: Trainer) -> None:
        with torch.no_grad():
            other.model.norm.weight.copy_(saved)

    def harm(trainer: Trainer) -> None:
        with torch.no_grad():
            other.model.norm.weight.fill_(math.nan)

    done = Trainer(other, data, config(), callbacks=[At(2, harm), At(3, heal)]).fit()
    assert done.skipped_steps == 1
    assert all(bool(torch.isfinite(p).all()) for p in other.parameters())


def test_gradients_are_clipped_to_the_global_norm(tmp_path: Path) -> None:
    """With plain numbers: a clipped step is the unclipped one scaled by max_norm / norm."""
    data = make_data(tmp_path)
    seen: list[float] = []
    model = make_model()
    trainer = Trainer(model, data, config(max_norm=1e-3))
    original = trainer.optimizer.step

    def step(*args: Any, **kwargs: Any) -> Any:
        norms = [p.grad.norm() for p in model.parameters() if p.grad is not None]
        seen.append(float(torch.stack(norms).norm()))
        return original(*args, **kwargs)

    trainer.optimizer.step = step  # type: ignore[method-assign]
    trainer.fit()
    assert seen == pytest.approx([1e-3] * 6, rel=1e-3)


def test_another_config_or_data_set_does_not_resume(tmp_path: Path) -> None:
    data = make_data(tmp_path / "data")
    Trainer(make_model(), data, config(), output=tmp_path / "c").fit()
    with pytest.raises(ConfigError, match="another configuration"):
        Trainer(make_model(), data, config(lr=2e-2), output=tmp_path / "c").fit()
    other = make_data(tmp_path / "other", lengths=(8, 9))
    with pytest.raises(ConfigError, match="another configuration or data set"):
        Trainer(make_model(), other, config(), output=tmp_path / "c").fit()
    adapted = make_model("lora")
    with pytest.raises(ConfigError, match="another model"):
        Trainer(adapted, data, config(), output=tmp_path / "c").fit()
    # Where and how often to save does not decide the trajectory.
    later = config(checkpoint=CheckpointConfig(every=3))
    assert Trainer(make_model(), data, later, output=tmp_path / "c").fit().steps == 6


def test_an_empty_split_is_refused(tmp_path: Path) -> None:
    write_dataset(
        tmp_path,
        {"train": []},
        max_tokens=32,
        packing=True,
        tokenizer_fingerprint="none",
        vocab_size=304,
    )
    with pytest.raises(DataError, match="no sequences"):
        Trainer(make_model(), TokenDataset(tmp_path), config())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 1, "epochs": 1.0}, "steps or epochs"),
        ({"steps": 0}, "steps=0"),
        ({"epochs": 0.0, "steps": None}, r"epochs=0\.0"),
        ({"micro_batch": 3, "global_batch": 8}, r"micro_batch=3 .* Choose one of 1, 2, 4, 8"),
        ({"rank": 0}, "rank=0"),
        ({"lr": -1.0}, r"lr=-1\.0"),
        ({"lr": math.inf}, "lr=inf"),
        ({"betas": (0.9, 1.0)}, "betas"),
        ({"eps": 0.0}, r"eps=0\.0"),
        ({"dropout": 1.0}, r"dropout=1\.0"),
        ({"alpha": 0.0}, r"alpha=0\.0"),
        ({"merge": True}, "merge=true needs method 'lora'"),
        ({"warmup": 10**6}, "warmup=1000000"),
    ],
)
def test_impossible_configs_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(**changes)


def test_epochs_count_sequences() -> None:
    assert TrainConfig(epochs=2.0, global_batch=4).num_steps(10) == 5
    assert TrainConfig().num_steps(10) == 1000
