"""What is known of the methods without torch, and that the methods have it."""

import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from sharpen.align.config import AlignConfig
from sharpen.align.methods import METHODS
from sharpen.align.options.methods import DESCRIPTIONS, describe
from sharpen.core.config import from_dict
from sharpen.core.errors import ConfigError
from small_models import save_small_model

PLAN = """
import sys
from sharpen.align.aligned import alignment_recipe
from sharpen.core.run import predict

for method, data, reward in (("dpo", "pairs.jsonl", None), ("ppo", "prompts.jsonl", "number")):
    given = {"data": data, "reward": reward and {"uses": reward}}
    found = predict(alignment_recipe(method, "tiny", given, ["sampling.max_tokens=8"]))
    assert found["align"].peak_bytes > 0
assert "torch" not in sys.modules
"""


def test_recipes_are_checked_and_planned_without_torch(tmp_path: Path) -> None:
    save_small_model(tmp_path / "tiny")
    row = {"prompt": "ab", "chosen": "a", "rejected": "b"}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "ab"}\n')
    subprocess.run([sys.executable, "-c", PLAN], check=True, cwd=tmp_path)


def test_every_method_is_described() -> None:
    assert list(METHODS.keys()) == list(DESCRIPTIONS)
    for name, method in METHODS.items():
        assert method.online == (method.estimate is not None)
        assert (method.build is None) == (method.online or name == "bcoder")
        for field in fields(describe(name)):
            assert getattr(method, field.name) == getattr(describe(name), field.name)
    with pytest.raises(ConfigError, match=r"no method 'gpro'\. Did you mean 'grpo'"):
        describe("gpro")


@pytest.mark.parametrize(
    ("method", "options", "reference"),
    [("grpo", {}, False), ("grpo", {"beta": 0.1}, True), ("remax", {"beta": 0}, False)],
)
def test_a_reference_is_needed_where_it_has_weight(
    method: str, options: dict[str, float], reference: bool
) -> None:
    own = {"method": method, "data": "x", "reward": {"uses": "number"}, "options": options}
    config = from_dict(AlignConfig, own)
    assert describe(method).reference(config.method_options()) == reference
