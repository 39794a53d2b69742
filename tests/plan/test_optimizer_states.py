"""States by formula and as the optimizers themselves declare them."""

from typing import Any

import pytest

from sharpen.models.lora import LoraConfig, add_lora
from sharpen.optim import available, create
from sharpen.plan.job import Adapters, Job, job_states, trained_shapes
from sharpen.plan.optimizer_states import state_bytes
from small_models import small_model

SHAPE = {
    "hidden_size": 192,
    "intermediate_size": 264,
    "num_heads": 6,
    "num_kv_heads": 3,
    "head_dim": 32,
    "num_layers": 2,
    "vocab_size": 320,
    "tie_word_embeddings": False,
}
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "apollo": [{"rank": 32}, {"rank": 32, "cache_projection": True}, {"rank": "auto"}],
    "galore": [{"rank": 32}],
    "galore_8bit": [{"rank": 32}],
    "fira": [{"rank": 32}],
    "q_apollo": [{"rank": 16}],
    "adamw": [{}, {"state_dtype": "q8"}, {"state_dtype": "bf16"}],
    "sgd": [{}, {"momentum": 0.9}],
    "frugal": [{"density": 0.25}, {"density": 1.0}],
}


@pytest.mark.parametrize("name", available())
def test_bytes_are_those_the_optimizer_declares(name: str) -> None:
    model = small_model(**SHAPE)
    for options in OPTIONS.get(name, [{}]):
        made = create(name, model, layout="row", **options)
        declared = made.state_bytes(predicted=True)
        planned = state_bytes(name, trained_shapes(model.spec, None), options)
        slack = 0.08 if name == "frugal" else 0.0  # blocks are whole tensors
        assert planned == pytest.approx(declared, rel=slack), options


@pytest.mark.parametrize("name", ["adamw", "adamw_8bit", "lion", "muon", "soap", "apollo_mini"])
def test_adapters_are_matrices_too(name: str) -> None:
    model = small_model(**SHAPE)
    add_lora(model, LoraConfig(rank=16), seed=0)
    declared = create(name, model, layout="row").state_bytes(predicted=True)
    assert state_bytes(name, trained_shapes(model.spec, Adapters(rank=16)), {}) == declared


def test_a_job_s_states_are_the_optimizer_s() -> None:
    spec = small_model(**SHAPE).spec
    plain = Job(spec=spec, seq_len=8)
    count = plain.trained_parameters
    lion = Job(spec=spec, seq_len=8, state_ratio=0.5)
    assert job_states(plain).optimizer == 8 * count
    assert job_states(lion).optimizer == 4 * count
    bf16 = Job(spec=spec, seq_len=8, dtype="bfloat16", state_ratio=0.5)
    # float32 masters, 4 bytes, stay
    assert job_states(bf16, stage=1, ranks=2).optimizer == pytest.approx(8 * count / 2, rel=0.01)
