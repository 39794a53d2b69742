"""Policy gradients against the gradient of the expected reward: all completions enumerated."""

from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sharpen.align.advantages import REMAX_PAPER, baseline_of, remax, rloo, spread
from sharpen.align.batch import RolloutBatch
from sharpen.align.losses.base import Reduce
from sharpen.align.losses.reinforce import ReinforceConfig, reinforce_loss, reweighted
from sharpen.align.losses.rloo import rloo_loss

VOCAB = 3


@dataclass(frozen=True)
class _Toy:
    """A policy given by a table, and a reward for each of its completions of two tokens at most."""

    table: Tensor
    """[1 + VOCAB, VOCAB] logits at the start and after each first token."""
    rows: list[list[int]]
    """All completions; token 0 ends the text where ``ends`` was set."""
    reward: Tensor

    @classmethod
    def drawn(cls, seed: int, mean: float = 0.0, ends: bool = True) -> "_Toy":
        generator = torch.Generator().manual_seed(seed)
        table = torch.randn(1 + VOCAB, VOCAB, generator=generator, dtype=torch.float64)
        firsts = [[0]] if ends else [[0, b] for b in range(VOCAB)]
        rows = firsts + [[a, b] for a in range(1, VOCAB) for b in range(VOCAB)]
        reward = torch.randn(len(rows), generator=generator, dtype=torch.float64) + mean
        return cls(table.requires_grad_(), rows, reward)

    def logp(self) -> Tensor:
        """[completions, 3] by the table; the first column is the prompt."""
        logs = torch.log_softmax(self.table, dim=1)
        found = []
        for row in self.rows:
            states = [0, 1 + row[0]][: len(row)]
            chosen = [logs[state, token] for state, token in zip(states, row, strict=True)]
            nothing = [logs.new_zeros(())] * (2 - len(row))
            found.append(torch.stack([logs.new_zeros(()), *chosen, *nothing]))
        return torch.stack(found)

    def batch(self, logp: Tensor) -> RolloutBatch:
        mask = torch.tensor([[False, True, len(row) == 2] for row in self.rows])
        ids = torch.tensor([[1, *row, *[0] * (2 - len(row))] for row in self.rows])
        count = len(self.rows)
        return RolloutBatch(
            input_ids=ids,
            attention_mask=mask | (torch.arange(3) == 0),
            action_mask=mask,
            logp_old=logp.detach(),
            reward=self.reward,
            group_id=torch.zeros(count, dtype=torch.int64),
            finish_reason=["stop"] * count,
            meta=[{}] * count,
            version=torch.zeros(count, dtype=torch.int64),
        )

    def greedy_reward(self) -> float:
        """Of the completion that takes the likeliest token at each step."""
        first = int(self.table[0].argmax())
        row = [first, int(self.table[1 + first].argmax())]
        return float(self.reward[self.rows.index(row if row in self.rows else [first])])

    def exact(self, logp: Tensor) -> Tensor:
        """Gradient of the expected reward."""
        expected = (logp.sum(1).exp() * self.reward).sum()
        return torch.autograd.grad(expected, self.table, retain_graph=True)[0]

    def estimates(self, logp: Tensor, advantage: Tensor, reduce: Reduce = "sum") -> Tensor:
        """[completions, parameters] the ascent direction that drawing each completion gives."""
        batch = self.batch(logp)
        found = []
        for row in range(len(self.rows)):
            one = batch.select([row])
            one = replace(one, advantage=advantage[row : row + 1, : one.width])
            loss = reinforce_loss(
                logp[row : row + 1, : one.width], one, ReinforceConfig(reduce=reduce)
            ).loss
            found.append(-torch.autograd.grad(loss, self.table, retain_graph=True)[0].flatten())
        return torch.stack(found)


def _bias(toy: _Toy, advantage: Tensor, reduce: Reduce = "sum") -> float:
    """Distance of the mean estimate from the exact gradient."""
    logp = toy.logp()
    mean = (logp.detach().sum(1).exp()[:, None] * toy.estimates(logp, advantage, reduce)).sum(0)
    return float((mean - toy.exact(logp).flatten()).norm())


@settings(max_examples=10)
@given(seed=st.integers(0, 10_000), ends=st.booleans(), mean=st.sampled_from([0.0, 3.0]))
def test_remax_by_default_has_no_bias(seed: int, ends: bool, mean: float) -> None:
    toy = _Toy.drawn(seed, mean, ends)
    batch = toy.batch(toy.logp())
    greedy = torch.full_like(toy.reward, toy.greedy_reward())
    assert _bias(toy, remax(toy.reward, greedy, batch.action_mask)) < 1e-10


@settings(max_examples=5)
@given(seed=st.integers(0, 10_000), baseline=st.sampled_from(["none", "ema"]))
def test_a_baseline_that_does_not_know_the_completion_has_no_bias(seed: int, baseline: str) -> None:
    toy = _Toy.drawn(seed)
    expected = baseline_of(baseline, toy.reward, ema=0.7)  # type: ignore[arg-type]
    advantage = spread(toy.reward - expected, toy.batch(toy.logp()).action_mask)
    assert _bias(toy, advantage) < 1e-10


@settings(max_examples=10)
@given(seed=st.integers(0, 10_000), ends=st.booleans())
def test_completions_of_an_earlier_policy_have_no_bias_by_their_weights(
    seed: int, ends: bool
) -> None:
    """Drawn by one table, learnt by another, against a baseline of the first; and without."""
    drawn, toy = _Toy.drawn(seed + 1, ends=ends), _Toy.drawn(seed, 3.0, ends)
    old, logp = drawn.logp().detach(), toy.logp()
    chance = old.sum(1).exp()[:, None]
    greedy = torch.full_like(toy.reward, replace(drawn, reward=toy.reward).greedy_reward())
    batch = toy.batch(old)
    advantage = remax(toy.reward, greedy, batch.action_mask)
    again, weight = reweighted(logp, replace(batch, advantage=advantage))
    torch.testing.assert_close((chance[:, 0] * weight).sum(), chance.new_ones(()))
    assert again.advantage is not None and not again.advantage.requires_grad
    mean = (chance * toy.estimates(logp, again.advantage)).sum(0)
    assert float((mean - toy.exact(logp).flatten()).norm()) < 1e-10
    without = (chance * toy.estimates(logp, advantage)).sum(0)
    assert float((without - toy.exact(logp).flatten()).norm()) > 1e-3


def test_the_papers_preset_has_a_bias_of_the_measured_size() -> None:
    """Each of its three deviations alone, over 20 tables of unit rewards."""
    sizes: dict[str, list[float]] = {"clip": [], "gamma": [], "token": [], "preset": []}
    for seed in range(20):
        toy = _Toy.drawn(seed)
        mask = toy.batch(toy.logp()).action_mask
        greedy = torch.full_like(toy.reward, toy.greedy_reward())
        sizes["clip"].append(_bias(toy, remax(toy.reward, greedy, mask, clip=0.5)))
        sizes["gamma"].append(_bias(toy, remax(toy.reward, greedy, mask, gamma=0.99)))
        sizes["token"].append(_bias(toy, remax(toy.reward, greedy, mask), "token"))
        sizes["preset"].append(_bias(toy, remax(toy.reward, greedy, mask, **REMAX_PAPER), "token"))
    means = {name: sum(found) / len(found) for name, found in sizes.items()}
    assert 0.05 < means["clip"] < 0.5
    assert 0.001 < means["gamma"] < 0.02
    assert means["token"] > 0.05 and means["preset"] > 0.05


def test_truncated_sampling_biases_the_gradient_and_scales_the_ratio() -> None:
    """Tokens drawn from the two likeliest, log-probabilities taken over all three."""
    sizes = []
    for seed in range(20):
        toy = _Toy.drawn(seed)
        logp = toy.logp()
        full = torch.log_softmax(toy.table.detach(), dim=1)
        least = full.argmin(1, keepdim=True)
        kept = full.scatter(1, least, -torch.inf)
        mass = kept.exp().sum(1)
        drawn = replace(toy, table=kept).logp()  # renormalized by its log-softmax
        greedy = torch.full_like(toy.reward, toy.greedy_reward())
        advantage = remax(toy.reward, greedy, toy.batch(logp).action_mask)
        mean = (drawn.sum(1).exp()[:, None] * toy.estimates(logp, advantage)).sum(0)
        sizes.append(float((mean - toy.exact(logp).flatten()).norm()))
        row = next(i for i, one in enumerate(toy.rows) if bool(torch.isfinite(drawn[i]).all()))
        ratio = (logp.detach() - drawn)[row].exp().tolist()[1 : 1 + len(toy.rows[row])]
        states = [0, 1 + toy.rows[row][0]][: len(ratio)]
        assert ratio == pytest.approx(mass[states].tolist())  # no step was taken, and it is not 1
    assert sum(sizes) / len(sizes) > 0.05


@settings(max_examples=3)
@given(seed=st.integers(0, 10_000))
def test_rloo_on_policy_has_no_bias(seed: int) -> None:
    """All pairs of completions of one prompt, weighted by their probability."""
    toy = _Toy.drawn(seed)
    logp = toy.logp()
    chance = logp.detach().sum(1).exp()
    batch = toy.batch(logp)
    total = torch.zeros_like(toy.table)
    for i in range(len(toy.rows)):
        for j in range(len(toy.rows)):
            both = torch.tensor([i, j])
            advantage = rloo(toy.reward[both], torch.zeros(2, dtype=torch.int64))
            pair = batch.select(both)
            pair = replace(pair, advantage=spread(advantage, pair.action_mask))
            loss = rloo_loss(logp[both][:, : pair.width], pair).loss
            (gradient,) = torch.autograd.grad(loss, toy.table, retain_graph=True)
            total -= chance[i] * chance[j] * gradient
    torch.testing.assert_close(total, toy.exact(logp), rtol=0, atol=1e-10)


def _variances(toy: _Toy, *advantages: Tensor) -> list[float]:
    """Trace of the covariance of the estimate with each of the advantages."""
    logp = toy.logp()
    chance = logp.detach().sum(1).exp()[:, None]
    sums = logp.sum(1)
    (scores,) = torch.autograd.grad(
        sums, toy.table, torch.eye(len(sums), dtype=torch.float64), is_grads_batched=True
    )
    found = []
    for advantage in advantages:
        estimates = scores.flatten(1) * advantage[:, 1:2]
        mean = (chance * estimates).sum(0)
        found.append(float((chance * (estimates - mean).square()).sum()))
    return found


@pytest.mark.parametrize(("mean", "least", "most"), [(3.0, 200, 200), (0.0, 40, 100)])
def test_the_greedy_baseline_lowers_the_variance_where_rewards_have_a_mean(
    mean: float, least: int, most: int
) -> None:
    """With rewards N(3, 1) in 200 tables of 200; with N(0, 1) in about a third of them only."""
    lower = 0
    for seed in range(200):
        toy = _Toy.drawn(seed, mean, ends=False)
        mask = toy.batch(toy.logp()).action_mask
        greedy = torch.full_like(toy.reward, toy.greedy_reward())
        ours, plain = _variances(toy, remax(toy.reward, greedy, mask), spread(toy.reward, mask))
        lower += ours < plain
    assert least <= lower <= most
