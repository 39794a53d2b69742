"""Losses and gradients against TRL's trainers: the same small Llama, the same batches.

TRL computes log-probabilities in float32, whatever the model's type, and ours run in float64: the
tolerances are those of float32 sums of some tens of numbers. Old log-probabilities differ from the
current ones, so that ratios and clips are at work.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sharpen.align.batch import LabelBatch, PairBatch, RolloutBatch, RowBatch, Sequences
from sharpen.align.logprobs import token_logprobs
from sharpen.align.losses.base import Counts
from sharpen.align.losses.dpo import DPOConfig, dpo_loss
from sharpen.align.losses.grpo import GRPOLossConfig, grpo_loss
from sharpen.align.losses.kto import KTOConfig, kto_loss
from sharpen.align.losses.orpo import ORPOConfig, orpo_loss
from sharpen.align.losses.reward_model import RewardModelConfig, reward_model_loss
from sharpen.align.losses.rloo import RLOOConfig, rloo_loss
from sharpen.align.losses.sft import sft_loss
from small_models import save_small_model

pytestmark = [
    pytest.mark.peer,
    # Deprecations between the peer, its framework and torch; none is of ours.
    pytest.mark.filterwarnings("ignore"),
]
trl = pytest.importorskip("trl", reason="needs the extra 'peers'")

PROMPT, WIDTH, ROWS = 3, 12, 6


class _Peer:
    """Models of one seed each, and trainers around them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.paths = [save_small_model(folder / str(seed), seed) for seed in range(2)]

    def model(self, seed: int = 0) -> Any:
        from transformers import AutoModelForCausalLM

        return AutoModelForCausalLM.from_pretrained(self.paths[seed], dtype=torch.float64)

    def trainer(self, kind: Any, config: Any, rows: dict[str, list[Any]], **more: Any) -> Any:
        from datasets import Dataset
        from transformers import AutoTokenizer

        return kind(
            more.pop("model", None) or self.model(),
            args=config,
            train_dataset=Dataset.from_dict(rows),
            processing_class=AutoTokenizer.from_pretrained(self.paths[0]),
            **more,
        )

    def settings(self, **more: Any) -> dict[str, Any]:
        return {
            "output_dir": str(self.folder / "out"),
            "report_to": [],
            "bf16": False,
            "use_cpu": True,
            "disable_tqdm": True,
            "per_device_train_batch_size": ROWS,
            **more,
        }


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Peer]:
    before = os.environ.get("HF_DATASETS_CACHE")
    os.environ["HF_DATASETS_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield _Peer(tmp_path_factory.mktemp("peer"))
    if before is None:
        del os.environ["HF_DATASETS_CACHE"]
    else:
        os.environ["HF_DATASETS_CACHE"] = before


def _sequences(rows: int, seed: int) -> dict[str, Tensor]:
    """Prompts of one length and completions of several, padded on the right."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, WIDTH - PROMPT + 1, (rows, 1), generator=generator)
    lengths[0] = WIDTH - PROMPT
    columns = torch.arange(WIDTH)
    text = columns < PROMPT + lengths
    ids = torch.randint(5, 250, (rows, WIDTH), generator=generator) * text
    return {
        "input_ids": ids,
        "attention_mask": text,
        "action_mask": text & (columns >= PROMPT),
    }


def _logp(model: Any, batch: Sequences, temperature: float = 1.0) -> Tensor:
    """[N, T] by a Hugging Face model, through our chunked log-probabilities."""
    hidden = model.model(
        input_ids=batch.input_ids, attention_mask=batch.attention_mask.long()
    ).last_hidden_state
    found = token_logprobs(
        hidden[:, :-1],
        model.lm_head.weight,
        batch.input_ids[:, 1:],
        temperature=temperature,
        tile=16,
    )
    return torch.cat([torch.zeros_like(found.logp[:, :1]), found.logp], dim=1)


def _gradient(loss: Tensor, model: nn.Module) -> Tensor:
    for parameter in model.parameters():
        parameter.grad = None
    loss.backward()  # type: ignore[no-untyped-call]
    return torch.cat(
        [
            (torch.zeros_like(p) if p.grad is None else p.grad).flatten().double()
            for _, p in sorted(model.named_parameters())
        ]
    )


def _same(
    ours: tuple[Tensor, nn.Module], theirs: tuple[Tensor, nn.Module], size: float = 0
) -> None:
    """Relative difference of the loss, direction and norm of the gradient.

    ``size``: of the terms of a loss that nearly cancel, in place of the loss itself.
    """
    expected = float(theirs[0].detach())
    assert abs(float(ours[0].detach()) - expected) < 1e-5 * max(abs(expected), size)
    a, b = _gradient(*ours), _gradient(*theirs)
    assert float(b.norm()) > 0
    assert float(torch.dot(a, b) / (a.norm() * b.norm())) > 0.99999
    assert float(a.norm() / b.norm()) == pytest.approx(1, abs=1e-5)


def _pairs(peer: _Peer) -> PairBatch:
    batch = PairBatch(**_sequences(ROWS, 1))
    with torch.no_grad():
        logp = _logp(peer.model(1), batch)
    return replace(batch, ref_logp=(logp * batch.action_mask).sum(1))


@pytest.mark.parametrize(
    ("kind", "smoothing", "beta"),
    [
        ("sigmoid", 0.0, 0.3),
        ("ipo", 0.0, 0.3),
        ("hinge", 0.0, 0.02),
        ("robust", 0.0, 0.3),
        ("robust", 0.2, 0.3),
    ],
)
def test_dpo(peer: _Peer, kind: Any, smoothing: float, beta: float) -> None:
    trainer = peer.trainer(
        trl.DPOTrainer,
        trl.DPOConfig(**peer.settings(loss_type=[kind], label_smoothing=smoothing, beta=beta)),
        {"prompt": ["ab"], "chosen": ["x"], "rejected": ["uvw"]},
        ref_model=peer.model(1),
    )
    batch = _pairs(peer)
    inputs = {
        "input_ids": batch.input_ids,
        "attention_mask": batch.attention_mask.long(),
        "completion_mask": batch.action_mask.long(),
    }
    theirs = trainer._compute_loss(trainer.model, inputs, False)
    model = peer.model()
    config = DPOConfig(kind=kind, label_smoothing=smoothing, beta=beta)
    _same((dpo_loss(_logp(model, batch), batch, config).loss, model), (theirs, trainer.model))


def test_kto(peer: _Peer) -> None:
    trainer = peer.trainer(
        trl.KTOTrainer,
        trl.KTOConfig(**peer.settings(beta=0.3, desirable_weight=1.2, undesirable_weight=0.9)),
        {"prompt": ["ab", "cd"], "completion": ["x", "yz"], "label": [True, False]},
        ref_model=peer.model(1),
    )
    batch = LabelBatch(
        **_sequences(2 * ROWS, 2), desirable=torch.tensor([True, False, True, True, False, True])
    )
    with torch.no_grad():
        logp = _logp(peer.model(1), batch)
    batch = replace(batch, ref_logp=(logp * batch.action_mask).sum(1))
    inputs = {"label": batch.desirable}
    for prefix, rows in (("", slice(0, ROWS)), ("KL_", slice(ROWS, None))):
        inputs[f"{prefix}input_ids"] = batch.input_ids[rows]
        inputs[f"{prefix}attention_mask"] = batch.attention_mask[rows].long()
        inputs[f"{prefix}completion_mask"] = batch.action_mask[rows].long()
    theirs = trainer._compute_loss(trainer.model, inputs, False)
    model = peer.model()
    config = KTOConfig(beta=0.3, desirable_weight=1.2, undesirable_weight=0.9)
    _same((kto_loss(_logp(model, batch), batch, config).loss, model), (theirs, trainer.model))


def test_orpo(peer: _Peer) -> None:
    from trl.experimental.orpo import ORPOConfig as TheirConfig
    from trl.experimental.orpo import ORPOTrainer

    trainer = peer.trainer(
        ORPOTrainer,
        TheirConfig(**peer.settings(beta=0.25)),
        {"prompt": ["ab"], "chosen": ["x"], "rejected": ["uvw"]},
    )
    batch = PairBatch(**_sequences(ROWS, 3))
    labels = batch.input_ids.masked_fill(~batch.action_mask, -100)
    inputs = {}
    for name, rows in (("chosen", slice(0, ROWS // 2)), ("rejected", slice(ROWS // 2, None))):
        inputs[f"{name}_input_ids"] = batch.input_ids[rows]
        inputs[f"{name}_attention_mask"] = batch.attention_mask[rows].long()
        inputs[f"{name}_labels"] = labels[rows]
    theirs, _ = trainer.get_batch_loss_metrics(trainer.model, inputs)
    model = peer.model()
    logp = _logp(model, batch)
    ours = orpo_loss(logp, batch, ORPOConfig(weight=0.25))
    other = orpo_loss(logp, batch, ORPOConfig(weight=0.25, nll_on="completion"))
    assert float(other.loss) != pytest.approx(float(ours.loss), rel=1e-3)
    _same((ours.loss, model), (theirs, trainer.model))


def test_sft_with_accumulation(peer: _Peer) -> None:
    """Two micro-batches of unequal numbers of tokens make one step."""
    trainer = peer.trainer(
        trl.SFTTrainer,
        trl.SFTConfig(**peer.settings(gradient_accumulation_steps=2)),
        {"prompt": ["ab"], "completion": ["x"]},
    )
    batch = RowBatch(**_sequences(ROWS, 4))
    counts = Counts.of(batch)
    parts = [batch.select([0, 1, 2, 3]), batch.select([4, 5])]
    model = peer.model()
    theirs, ours = torch.zeros(()), torch.zeros((), dtype=torch.float64)
    for part in parts:
        inputs = {
            "input_ids": part.input_ids,
            "attention_mask": part.attention_mask.long(),
            "labels": part.input_ids.masked_fill(~part.action_mask, -100),
        }
        theirs = theirs + trainer.compute_loss(
            trainer.model, inputs, num_items_in_batch=torch.tensor(counts.tokens)
        )
        ours = ours + sft_loss(_logp(model, part), part, counts=counts).loss
    _same((ours, model), (theirs, trainer.model))


@pytest.mark.parametrize(("margin", "centering"), [(False, 0.0), (True, 0.0), (True, 0.01)])
def test_reward_model(peer: _Peer, margin: bool, centering: float) -> None:
    from transformers import AutoModelForSequenceClassification

    def scorer() -> Any:
        torch.manual_seed(0)  # the head is not in the folder
        return AutoModelForSequenceClassification.from_pretrained(
            peer.paths[0], num_labels=1, dtype=torch.float64, pad_token_id=0
        )

    trainer = peer.trainer(
        trl.RewardTrainer,
        trl.RewardConfig(**peer.settings(center_rewards_coefficient=centering or None)),
        {"prompt": ["ab"], "chosen": ["x"], "rejected": ["uvw"]},
        model=scorer(),
    )
    batch = _pairs(peer)
    inputs: dict[str, Any] = {
        "input_ids": batch.input_ids,
        "attention_mask": batch.attention_mask.long(),
    }
    if margin:
        batch = replace(batch, margin=torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64))
        inputs["margin"] = batch.margin
    model = scorer()
    with torch.no_grad():
        for mine, other in zip(model.parameters(), trainer.model.parameters(), strict=True):
            mine.copy_(other)
    scores = model(
        input_ids=batch.input_ids, attention_mask=batch.attention_mask.long()
    ).logits.squeeze(-1)
    theirs = trainer.compute_loss(trainer.model, inputs)
    ours = reward_model_loss(scores, batch, RewardModelConfig(centering=centering)).loss
    _same((ours, model), (theirs, trainer.model))


def _rollouts(peer: _Peer, seed: int = 5) -> RolloutBatch:
    """Old log-probabilities 0.3 or so from those of the policy; the reference is another model."""
    generator = torch.Generator().manual_seed(seed)
    shared = _sequences(ROWS, seed)
    with torch.no_grad():
        now = _logp(peer.model(0), RowBatch(**shared))
        reference = _logp(peer.model(1), RowBatch(**shared))
    noise = torch.randn(ROWS, WIDTH, generator=generator, dtype=torch.float64)
    advantage = torch.randn(ROWS, generator=generator, dtype=torch.float64)
    mask = shared["action_mask"]
    return RolloutBatch(
        **shared,
        logp_old=(now + 0.3 * noise) * mask,
        # The two models are 1 nat or so a token apart; half of it keeps exp within bounds.
        ref_logp=(now + 0.5 * (reference - now).clamp(-2, 2)) * mask,
        reward=advantage,
        group_id=torch.arange(ROWS) // 2,
        finish_reason=["stop"] * ROWS,
        meta=[{}] * ROWS,
        version=torch.zeros(ROWS, dtype=torch.int64),
        advantage=advantage[:, None] * mask,
    )


GRPO_CASES: dict[str, dict[str, Any]] = {
    "grpo": {"aggregation": "grpo"},
    "bnpo": {"aggregation": "bnpo"},
    "dr_grpo": {"aggregation": "dr_grpo"},
    "dapo": {"aggregation": "dapo"},
    "cispo": {"aggregation": "cispo", "eps_high": 1.3},
    "gspo": {"aggregation": "grpo", "ratio": "sequence", "eps_low": 0.03, "eps_high": 0.04},
    "cispo of sequences": {"aggregation": "cispo", "eps_high": 1.1, "ratio": "sequence"},
    "kl": {"aggregation": "dapo", "beta": 0.2},
    "plain kl": {"aggregation": "grpo", "beta": 0.2, "kl_weight": "none"},
    "kl of sequences": {
        "aggregation": "grpo",
        "ratio": "sequence",
        "beta": 0.2,
        "eps_low": 0.03,
        "eps_high": 0.04,
    },
    "delta": {"aggregation": "dapo", "delta": 1.4},
    "clip higher": {"aggregation": "dapo", "eps_low": 0.1, "eps_high": 0.28},
}


def _grpo_trainer(peer: _Peer, config: GRPOLossConfig, **more: Any) -> Any:
    return peer.trainer(
        trl.GRPOTrainer,
        trl.GRPOConfig(
            **peer.settings(
                loss_type=config.aggregation,
                importance_sampling_level=config.ratio,
                epsilon=config.eps_low,
                epsilon_high=config.eps_high,
                delta=config.delta,
                beta=config.beta,
                use_bias_correction_kl=config.kl_weight == "ratio",
                num_generations=2,
                max_completion_length=20,
                **more,
            )
        ),
        {"prompt": ["ab", "cd"]},
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
    )


def _grpo_inputs(batch: RolloutBatch) -> dict[str, Tensor]:
    assert batch.advantage is not None and batch.ref_logp is not None
    return {
        "prompt_ids": batch.input_ids[:, :PROMPT],
        "prompt_mask": batch.attention_mask[:, :PROMPT].long(),
        "completion_ids": batch.input_ids[:, PROMPT:],
        "completion_mask": batch.attention_mask[:, PROMPT:].long(),
        "advantages": batch.advantage[:, PROMPT],
        "old_per_token_logps": batch.logp_old[:, PROMPT:],
        "ref_per_token_logps": batch.ref_logp[:, PROMPT:],
        "num_items_in_batch": batch.action_mask.sum(),
    }


def _size(per_row: Callable[[RolloutBatch], Tensor], batch: RolloutBatch) -> float:
    """Mean size of the losses of single rows, where positive and negative ones cancel."""
    with torch.no_grad():
        return float(torch.stack([per_row(one).abs() for one in batch.split(ROWS)]).mean())


@pytest.mark.parametrize("name", GRPO_CASES)
def test_grpo(peer: _Peer, name: str) -> None:
    config = GRPOLossConfig(**GRPO_CASES[name])
    trainer = _grpo_trainer(peer, config)
    batch = _rollouts(peer)
    theirs = trainer._compute_loss(trainer.model, _grpo_inputs(batch))
    model = peer.model()
    counts = Counts.of(batch, max_completion_length=20)
    out = grpo_loss(_logp(model, batch), batch, config, counts)
    if config.aggregation != "cispo":
        assert out.metrics["clip_low"][0] + out.metrics["clip_high"][0] > 0
    size = _size(
        lambda one: (
            grpo_loss(_logp(model, one), one, config, Counts.of(one, max_completion_length=20)).loss
        ),
        batch,
    )
    _same((out.loss, model), (theirs, trainer.model), size)


def test_dapo_of_a_generation_batch_that_serves_two_steps(peer: _Peer) -> None:
    config = GRPOLossConfig(aggregation="dapo")
    trainer = _grpo_trainer(peer, config, steps_per_generation=2)
    whole = _rollouts(peer)
    batch = whole.select([0, 1, 2])
    inputs = _grpo_inputs(batch) | {"num_items_in_batch": whole.action_mask.sum()}
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    theirs = trainer._compute_loss(trainer.model, inputs)
    model = peer.model()
    tokens = float(whole.action_mask.sum()) / 2
    counts = replace(Counts.of(batch), generation_tokens=tokens)
    ours = grpo_loss(_logp(model, batch), batch, config, counts).loss
    _same((ours, model), (theirs, trainer.model), 0.1)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_rloo(peer: _Peer, temperature: float) -> None:
    trainer = peer.trainer(
        trl.RLOOTrainer,
        trl.RLOOConfig(
            **peer.settings(num_generations=2, beta=0.0, epsilon=0.2, temperature=temperature)
        ),
        {"prompt": ["ab", "cd"]},
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
    )
    batch = _rollouts(peer, 6)
    model = peer.model()
    with torch.no_grad():
        now = _logp(model, batch, temperature)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(ROWS, WIDTH, generator=generator, dtype=torch.float64) * 0.1
    batch = replace(batch, logp_old=(now + noise) * batch.action_mask)
    inputs = _grpo_inputs(batch) | {"old_logps": batch.logp_old.sum(1)}
    theirs = trainer._compute_loss(trainer.model, inputs)
    out = rloo_loss(_logp(model, batch, temperature), batch, RLOOConfig(clip=0.2))
    assert out.metrics["clip_low"][0] + out.metrics["clip_high"][0] > 0
    size = _size(lambda one: rloo_loss(_logp(model, one, temperature), one).loss, batch)
    _same((out.loss, model), (theirs, trainer.model), size)
