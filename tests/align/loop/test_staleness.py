"""Learning behind: its schedule to the bit, its checkpoints, and rewards that misbehave."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from align_stage import Stage
from distributed import process
from sharpen.align import advantages
from sharpen.align.batch import RolloutBatch
from sharpen.align.engines import PlainEngine
from sharpen.align.loop.rollouts import Rollouts, RolloutWork, Sample
from sharpen.align.losses.base import LossOut
from sharpen.align.losses.grpo import grpo_loss
from sharpen.align.losses.rloo import rloo_loss
from sharpen.align.methods import find_method
from sharpen.align.rewards import RewardPool
from sharpen.align.rows import tokenize_rows
from sharpen.align.rows.parse import parse_row
from sharpen.align.scoring import policy_logp, states_of
from sharpen.core.config import digest, from_dict
from sharpen.core.errors import ConfigError, ExecutionError
from sharpen.data.sample_order import SampleOrder
from sharpen.models.decoder import DecoderLM
from sharpen.serve.sampling import SamplingParams
from sharpen.train import Trainer
from sharpen.train.config import TrainConfig
from sharpen.train.optimizer import OptimizerMaker
from small_models import byte_tokenizer, save_small_model, small_model

WORDS = ("ab", "cd", "efg", "gh", "ijklm", "kl")
PROMPTS, DRAWS, ITERATIONS, NEW, SEED = 4, 4, 5, 6, 3
SAMPLING = SamplingParams(max_tokens=NEW)
TRAINING = TrainConfig(
    steps=ITERATIONS,
    micro_batch=PROMPTS * DRAWS,
    global_batch=PROMPTS * DRAWS,
    optimizer="sgd",
    lr=0.3,
    schedule="constant",
    warmup=0,
    weight_decay=0.0,
    max_norm=1e9,
)


def varied(prompts: Sequence[Any], completions: Sequence[str], meta: Sequence[Any]) -> list[float]:
    """A reward that differs from completion to completion."""
    return [len(text) % 7 / 7 + (sum(map(ord, text)) % 5) / 5 for text in completions]


class Recorded(PlainEngine):
    """Keeps the versions of the weights that generated."""

    def __init__(self) -> None:
        super().__init__(byte_tokenizer())
        self.versions: list[int] = []

    def generate(self, prompts: Any, params: Any) -> Any:
        self.versions.append(self.version)
        return super().generate(prompts, params)


def rows() -> list[Any]:
    parsed = [parse_row({"prompt": f"{word} "}, word) for word in WORDS]
    return tokenize_rows(parsed, byte_tokenizer()).rows


def trained(
    name: str, own: Mapping[str, Any], staleness: int, told: list[Sample] | None = None
) -> tuple[DecoderLM, RolloutWork, Recorded]:
    method = find_method(name)
    model = small_model(std=0.05).requires_grad_(True)
    engine = Recorded()
    with RewardPool(varied, workers=0) as pool:
        work = RolloutWork(
            rows(),
            method,
            from_dict(method.options, dict(own)),
            Rollouts(prompts=PROMPTS, generations=DRAWS, sampling=SAMPLING, staleness=staleness),
            engine=engine,
            pool=pool,
            eos_ids=frozenset({2}),
            on_sample=None if told is None else told.append,
        )
        Trainer(model, work, TRAINING, seed=SEED).fit()
    return model, work, engine


def remax_loss(logp: torch.Tensor, batch: RolloutBatch) -> LossOut:
    """The policy gradient with the weight of each completion written out."""
    weight = [
        float(torch.exp((logp - batch.logp_old)[i][batch.action_mask[i]].sum()).detach())
        for i in range(len(batch))
    ]
    assert batch.advantage is not None
    total = (torch.tensor(weight)[:, None] * batch.advantage * logp).sum()
    return LossOut(loss=-total / len(batch), metrics={})


def by_hand(name: str, staleness: int) -> DecoderLM:
    """The schedule as a plain program: some batches, then one more for each that is learnt."""
    model = small_model(std=0.05).requires_grad_(True)
    prompts, tokenizer = [row.prompt for row in rows()], byte_tokenizer()
    order = SampleOrder(len(prompts), SEED)
    optimizer = OptimizerMaker(model, TRAINING)(model.named_parameters())
    engine = PlainEngine(tokenizer)
    engine.update_weights(model, 0)

    def logp(batch: RolloutBatch) -> torch.Tensor:
        return policy_logp(model, states_of(model, batch), batch)[0]

    def generate() -> RolloutBatch:
        first = order.index
        chosen = [prompts[place] for place in order.take(PROMPTS) for _ in range(DRAWS)]
        seeds = [
            int(digest({"seed": SEED, "sample": first + i, "completion": k})[:15], 16)
            for i in range(PROMPTS)
            for k in range(DRAWS)
        ]
        found = engine.generate(chosen, [replace(SAMPLING, seed=seed) for seed in seeds])
        texts = [[*prompt, *one.token_ids] for prompt, one in zip(chosen, found, strict=True)]
        width = max(map(len, texts))
        column = torch.arange(width)
        starts = torch.tensor([len(prompt) for prompt in chosen])[:, None]
        ends = torch.tensor([len(text) for text in texts])[:, None]
        batch = RolloutBatch(
            input_ids=torch.tensor([text + [0] * (width - len(text)) for text in texts]),
            attention_mask=column < ends,
            action_mask=(column >= starts) & (column < ends),
            logp_old=torch.zeros(len(texts), width),
            reward=torch.tensor(varied(chosen, [one.text for one in found], [])),
            group_id=torch.arange(PROMPTS).repeat_interleave(DRAWS) + first,
            finish_reason=[one.finish_reason for one in found],
            meta=[{}] * len(texts),
            version=torch.zeros(len(texts), dtype=torch.int64),
        )
        with torch.no_grad():
            return replace(batch, logp_old=logp(batch))

    def learn(batch: RolloutBatch) -> None:
        reward, groups = batch.reward, batch.group_id
        if name == "grpo":
            advantage = advantages.grpo(reward, groups)
        else:
            advantage = reward - advantages.baseline_of("leave_one_out", reward, group_id=groups)
        batch = replace(batch, advantage=advantages.spread(advantage, batch.action_mask))
        loss = {"grpo": grpo_loss, "rloo": rloo_loss, "remax": remax_loss}[name](logp(batch), batch)
        optimizer.zero_grad()
        loss.loss.backward()
        optimizer.step()

    waiting = [generate() for _ in range(1 + staleness)]
    for k in range(ITERATIONS):
        if 0 < k < ITERATIONS - staleness:
            waiting.append(generate())
        learn(waiting.pop(0))
    assert not waiting
    return model


METHODS: list[tuple[str, dict[str, Any], int]] = [
    ("grpo", {}, 1),
    ("grpo", {}, 3),
    ("rloo", {"beta": 0}, 1),
    ("remax", {"beta": 0, "baseline": "leave_one_out"}, 1),
]


@pytest.mark.parametrize(("name", "own", "staleness"), METHODS)
def test_it_is_the_schedule_written_by_hand_to_the_bit(
    name: str, own: dict[str, Any], staleness: int
) -> None:
    model, _, _ = trained(name, own, staleness)
    expected = dict(by_hand(name, staleness).named_parameters())
    at_once = dict(trained(name, own, 0)[0].named_parameters())
    start = dict(small_model(std=0.05).named_parameters())
    for key, weight in model.named_parameters():
        assert torch.equal(weight, expected[key]), key
        assert not torch.equal(weight, start[key]), key
        assert not torch.equal(weight, at_once[key]), key


def test_what_is_generated_when_and_learnt_when() -> None:
    told: list[Sample] = []
    _, work, engine = trained("grpo", {}, 1, told)
    assert engine.versions == [0, 0, 1, 2, 3]
    assert [one.version for one in told[::2]] == [0, 0, 1, 2, 3]
    assert [one.step for one in told[::2]] == [0, 1, 2, 3, 4]
    assert work.state_dict()["index"] == ITERATIONS * PROMPTS  # no batch too many
    assert work.state_dict()["waiting"] == [[]]
    told.clear()
    _, work, engine = trained("grpo", {}, 9, told)  # more than there are
    assert engine.versions == [one.version for one in told[::2]] == [0] * ITERATIONS
    assert work.state_dict()["index"] == ITERATIONS * PROMPTS
    told.clear()
    _, work, engine = trained("grpo", {}, 0, told)
    assert engine.versions == [one.version for one in told[::2]] == [0, 1, 2, 3, 4]
    assert work.state_dict()["waiting"] == []


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_model(tmp_path_factory.mktemp("models") / "tiny")


REWARD = """
import os, time

def even(prompts, completions, meta):
    return [len(c) % 7 / 7 for c in completions]

def odd(prompts, completions, meta):
    kind = meta[0]["answer"]
    if kind == 0: return [None]
    if kind == 1: return [float("nan")]
    if kind == 2: return [float("inf")]
    if kind == 3: raise ValueError("bad")
    if kind == 4: time.sleep(60)
    if kind == 5: os._exit(1)
    if kind == 6: time.sleep(0.3)
    return [len(completions[0]) / 8]

def late(prompts, completions, meta):
    time.sleep(0.2)
    return even(prompts, completions, meta)

def none(prompts, completions, meta):
    return [None] * len(completions)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    lines = [json.dumps({"prompt": f"{i}{i} ", "answer": i}) + "\n" for i in range(8)]
    (tmp_path / "prompt.jsonl").write_text("".join(lines))
    (tmp_path / "reward.py").write_text(REWARD)
    return tmp_path


def config(method: str, reward: str, **changes: Any) -> dict[str, Any]:
    return {
        "method": method,
        "data": "prompt.jsonl",
        "steps": 4,
        "batch": 4,
        "lr": 1e-3,
        "staleness": 1,
        "reward": {"uses": f"reward.py:{reward}", "workers": 0},
        "sampling": {"max_tokens": 8},
        **changes,
    }


RESUMED: list[tuple[str, dict[str, Any]]] = [
    ("remax", {"options": {"baseline": "ema"}}),
    ("remax", {"options": {"beta": 0.0}}),
    ("grpo", {"options": {"beta": 0.1}, "tune": "lora", "rank": 2}),
    ("ppo", {"options": {"kl_target": 1.0}, "epochs_per_batch": 2, "minibatches": 2}),
    ("rft", {"generations": 4, "staleness": 2}),
]


@pytest.mark.parametrize(("method", "changes"), RESUMED)
def test_a_run_that_was_stopped_anywhere_ends_in_the_same_bits(
    method: str, changes: dict[str, Any], start: Path, folder: Path
) -> None:
    own = config(method, "even", checkpoint={"every": 1, "async_": False}, **changes)
    whole = Stage(start, folder / "whole", **own)
    steps = whole.result.results["steps"]
    assert steps == 4 * (4 if method == "ppo" else 1)
    for stop in range(1, steps + 1, 1 if steps < 9 else 3):
        with pytest.raises(KeyboardInterrupt):
            Stage(start, folder / "parts", stop_at=stop, **own)
    again = Stage(start, folder / "parts", **own)
    assert again.weights == whole.weights
    assert again.result.results["loss_last"] == whole.result.results["loss_last"]


def test_a_checkpoint_does_not_wait_for_rewards_and_they_are_asked_again(
    start: Path, folder: Path
) -> None:
    own = config("grpo", "late", checkpoint={"every": 1, "async_": False}, steps=3, generations=2)
    own["reward"] |= {"workers": 4}
    whole = Stage(start, folder / "whole", **own)
    with pytest.raises(KeyboardInterrupt):
        Stage(start, folder / "parts", stop_at=2, **own)
    again = Stage(start, folder / "parts", **own)
    assert again.weights == whole.weights
    assert whole.result.measured["rewards"]["samples"] == 3 * 8
    assert again.result.measured["rewards"]["samples"] == 2 * 8  # of the second and third batch


@pytest.mark.slow
def test_a_run_killed_while_rewards_are_computed_ends_in_the_same_bits(
    start: Path, folder: Path
) -> None:
    """SIGKILL as soon as each checkpoint is there; its batch's rewards take longer."""
    own = config("grpo", "late", checkpoint={"every": 1}, generations=4)
    own["reward"] |= {"workers": 2}
    expected = Stage(start, folder / "whole", **own).weights
    for step in (1, 2, 3):
        child = process(_stage, start, folder / "parts", own)
        child.start()
        checkpoint = folder / "parts" / "work" / f"step-{step:08d}"
        while not checkpoint.exists():
            assert child.is_alive()
            time.sleep(0.01)
        child.kill()
        child.join()
        trainer = json.loads((checkpoint / "trainer.json").read_text())
        assert len(trainer["loader"]["waiting"][0]) == 1 and trainer["state"]["step"] == step
    again = Stage(start, folder / "parts", **own)
    assert again.weights == expected
    assert again.result.measured["rewards"]["samples"] == 16  # those that were waited for


def _stage(start: Path, folder: Path, own: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    Stage(start, folder, **own)


def test_rewards_that_hang_die_are_late_or_no_numbers_drop_their_completions(
    start: Path, folder: Path
) -> None:
    own = config("grpo", "odd", steps=3, batch=8, generations=2, staleness=1)
    own["reward"] |= {"workers": 2, "deadline_s": 1.5}
    done = Stage(start, folder, **own)
    assert done.metrics["dropped"] == [pytest.approx(12 / 16)] * 3
    assert done.result.measured["rewards"]["missing"] == {
        "dropped": 6,
        "not finite": 12,
        "raised": 6,
        "deadline": 6,
        "crashed": 6,
    }
    assert done.result.results["steps"] == 3
    assert done.result.results["skipped_steps"] == 0


def test_no_reward_at_all_is_an_error(start: Path, folder: Path) -> None:
    with pytest.raises(ExecutionError, match=r"none of the 32 completions .*: dropped \(32\)"):
        Stage(start, folder, **config("grpo", "none"))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"staleness": -1}, "staleness=-1 must be at least 0"),
        ({"method": "dpo", "reward": None}, "dpo has none"),
        ({"world": "rooms", "data": "", "reward": None}, "a world rewards at once"),
    ],
)
def test_where_it_makes_no_sense_it_is_refused(
    changes: dict[str, Any], told: str, start: Path, folder: Path
) -> None:
    own = {**config("grpo", "even"), **changes}
    with pytest.raises(ConfigError, match=told):
        Stage(start, folder, **{key: value for key, value in own.items() if value is not None})
