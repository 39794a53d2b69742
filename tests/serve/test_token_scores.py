"""Log-probabilities of many rows at once against float64, one by one."""

import pytest
import torch

from sharpen.serve import token_scores
from sharpen.serve.token_scores import score_rows


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("at_once", [1, 600, 1 << 24])
def test_scores_are_those_of_the_formula(at_once, dtype, monkeypatch):
    monkeypatch.setattr(token_scores, "_AT_ONCE", at_once)
    torch.manual_seed(0)
    logits = (5 * torch.randn(7, 300)).to(dtype)
    tokens, tops = [0, 299, 5, 5, 17, 100, 3], [0, 3, 1, 0, 300, 2, 0]
    found = score_rows(logits, tokens, tops)
    assert len(found) == 7
    exact = logits.double() - logits.double().logsumexp(-1, keepdim=True)
    for (logprob, likely), row, token, top in zip(found, exact, tokens, tops, strict=True):
        assert logprob == pytest.approx(float(row[token]), abs=2e-6)
        assert [value for _, value in likely] == pytest.approx(
            row.sort(descending=True).values[:top].tolist(), abs=2e-6
        )
        assert [value for _, value in likely] == pytest.approx(
            [float(row[i]) for i, _ in likely], abs=2e-6
        )


def test_a_row_is_scored_alike_alone_and_among_others():
    torch.manual_seed(1)
    logits = torch.randn(64, 1000)
    tokens = list(range(64))
    alone = [score_rows(row[None], [t], [2])[0] for row, t in zip(logits, tokens, strict=True)]
    assert score_rows(logits, tokens, [2] * 64) == alone


def test_a_token_that_cannot_come_has_no_finite_score():
    logits = torch.zeros(1, 4)
    logits[0, 2] = -torch.inf
    ((logprob, likely),) = score_rows(logits, [2], [3])
    assert logprob == -torch.inf
    assert {i for i, _ in likely} == {0, 1, 3}


def test_no_rows():
    assert score_rows(torch.empty(0, 9), [], []) == []
