"""What alignment writes, loaded by the libraries that people use."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from align_stage import PAIRS, align
from sharpen.align.score_model import load_score_model
from sharpen.align.scoring import states_of
from sharpen.align.sequences import Sequences
from sharpen.models import load_adapter, load_model
from sharpen.models.decoder import DecoderLM
from small_models import save_small_model

pytestmark = [pytest.mark.peer, pytest.mark.filterwarnings("ignore")]

IDS = torch.tensor([[5, 71, 12, 200, 33, 8, 90, 41], [9, 3, 77, 150, 6, 210, 55, 14]])
CONFIG = {"method": "dpo", "steps": 3, "batch": 4, "lr": 1e-2}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_model(tmp_path_factory.mktemp("models") / "tiny")


def their_model(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@torch.no_grad()
def check_equal(ours: DecoderLM, theirs: Any, start: Path) -> None:
    """Logits of both are the same and not those of the start."""
    found, expected = ours.eval()(IDS), theirs(IDS).logits
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=2e-5)
    assert float((found - load_model(start).eval()(IDS)).abs().max()) > 1e-3


@pytest.mark.parametrize("tune", ["lora", "dora"])
def test_adapters_load_in_peft_with_our_logits(tune: str, model: Path, tmp_path: Path) -> None:
    from peft import PeftModel

    made = align(model, tmp_path / "run", PAIRS, **CONFIG, tune=tune, rank=4)
    ours = load_model(model)
    load_adapter(ours, made)
    check_equal(ours, PeftModel.from_pretrained(their_model(model), made).eval(), model)


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("dpo", {}),
        ("dpo", {"tune": "lora", "rank": 4, "merge": True}),
        ("bcoder", {}),
        ("ppo", {"reward": {"uses": "length", "options": {"target": 4}, "workers": 0}}),
    ],
)
def test_whole_models_load_in_transformers_with_our_logits(
    method: str, changes: dict[str, Any], model: Path, tmp_path: Path
) -> None:
    """Whatever heads a method gave it."""
    own = {**CONFIG, "method": method, "sampling": {"max_tokens": 8}, **changes}
    made = align(model, tmp_path / "run", PAIRS, **own)
    check_equal(load_model(made), their_model(made), model)


def test_a_merged_model_is_its_adapters_on_the_start(model: Path, tmp_path: Path) -> None:
    own = {**CONFIG, "tune": "lora", "rank": 4}
    adapter = align(model, tmp_path / "adapter", PAIRS, **own)
    merged = align(model, tmp_path / "merged", PAIRS, **own, merge=True)
    ours = load_model(model)
    load_adapter(ours, adapter)
    with torch.no_grad():
        torch.testing.assert_close(load_model(merged)(IDS), ours(IDS), rtol=1e-5, atol=2e-5)


@torch.no_grad()
def scores(model: DecoderLM, ids: Tensor) -> Tensor:
    whole = torch.ones_like(ids, dtype=torch.bool)
    batch = Sequences(input_ids=ids, attention_mask=whole, action_mask=whole)
    states = states_of(model, batch)
    found: Tensor = model.score(states.last(batch)).squeeze(-1)  # type: ignore[operator]
    return found


@pytest.mark.parametrize(
    "changes", [{}, {"tune": "lora", "rank": 4}, {"tune": "lora", "rank": 4, "merge": True}]
)
@pytest.mark.parametrize("tied", [True, False])
def test_reward_models_load_in_transformers_with_our_scores(
    tied: bool, changes: dict[str, Any], tmp_path: Path
) -> None:
    from transformers import AutoModelForSequenceClassification

    start = save_small_model(tmp_path / "start", tie_word_embeddings=tied)
    made = align(start, tmp_path / "run", PAIRS, **{**CONFIG, "method": "rm", **changes})
    ours = scores(load_score_model(made), IDS)
    theirs = AutoModelForSequenceClassification.from_pretrained(made, dtype=torch.float32).eval()
    assert theirs.config.num_labels == 1
    with torch.no_grad():
        expected = [theirs(row[None]).logits[0, 0] for row in IDS]
    torch.testing.assert_close(ours, torch.stack(expected), rtol=1e-5, atol=1e-5)
    assert float((ours[0] - ours[1]).abs()) > 1e-4
