"""What is known of the methods without torch, and that the methods have it."""

import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from sharpen.align import align
from sharpen.align.config import AlignConfig
from sharpen.align.methods import METHODS
from sharpen.align.options.methods import DESCRIPTIONS, describe
from sharpen.core.config import from_dict
from sharpen.core.errors import ConfigError, SharpenError
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
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "ab", "answer": 1}\n')
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


GRPO = {"method": "grpo", "data": "prompts.jsonl", "reward": "number"}
DPO = {"method": "dpo", "data": "pairs.jsonl"}


@pytest.mark.parametrize(
    ("own", "settings", "told"),
    [
        ({**DPO, "data": "empty.jsonl"}, {}, r"empty\.jsonl has no rows"),
        ({**DPO, "data": "wrong.jsonl"}, {}, r"wrong\.jsonl:1: the keys \(a\) fit no format"),
        ({**DPO, "data": "none.jsonl"}, {}, r"no such file .*none\.jsonl"),
        ({**DPO, "data": "prompts.jsonl"}, {}, r"prompts\.jsonl:1: .*'prompt' cannot become"),
        ({**DPO, "model": "nowhere"}, {}, "'nowhere' is neither an asset nor an existing path"),
        (DPO, {"reference": "nowhere"}, "no such file or folder: .*nowhere"),
        (DPO, {"reference": "pairs.jsonl"}, "the reference: "),
        ({**DPO, "method": "kto"}, {"batch": 1}, "kto .* batch must be at least 2"),
        (DPO, {"steps": 0}, "steps=0 must be at least 1"),
        (DPO, {"epochs": 0}, "epochs=0.* must be above 0"),
        (DPO, {"options.beta": "x"}, r"options of dpo: options\.beta must be a number, got 'x'"),
        (GRPO, {"generations": 1}, "generations=1 must be at least 2"),
        (GRPO, {"sampling.max_tokens": 9999}, r"context of \d+\)\. Lower sampling\.max_"),
        ({**GRPO, "reward": None}, {}, "need a reward"),
        ({**GRPO, "reward": "nubmer"}, {}, "Did you mean 'number'"),
        ({**GRPO, "reward": "none.py:f"}, {}, r"no such file .*none\.py"),
        ({**GRPO, "reward": "score_model"}, {}, r"reward\.options needs the key 'path'"),
        ({**GRPO, "reward": "score_model"}, {"reward.options.path": "x"}, "no such file .*x"),
        ({**GRPO, "reward": "score_model"}, {"reward.options.path": "tiny"}, "no reward model"),
        ({"method": "kto", "world": "rooms"}, {}, "sharpen align play --pairs"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(
    own: dict[str, Any],
    settings: dict[str, Any],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    save_small_model(tmp_path / "tiny")
    row = {"prompt": "ab", "chosen": "a", "rejected": "b"}
    for name, text in {
        "pairs": json.dumps(row),
        "prompts": '{"prompt": "ab", "answer": 1}',
        "empty": "",
        "wrong": '{"a": 1}',
    }.items():
        (tmp_path / f"{name}.jsonl").write_text(f"{text}\n")
    given = {"model": "tiny", **own}
    with pytest.raises(SharpenError, match=told) as caught:
        align(**given, settings={"sampling.max_tokens": 8, **settings}, output="runs/x")
    assert caught.value.exit_code == 2
    assert not (tmp_path / "runs").exists()


def test_a_prompt_that_is_too_long_names_its_row_and_the_remedy(tmp_path: Path) -> None:
    save_small_model(tmp_path / "tiny")
    (tmp_path / "long.jsonl").write_text(json.dumps({"prompt": "a" * 300, "answer": 1}) + "\n")
    with pytest.raises(
        SharpenError, match=r"long\.jsonl:1: prompt leaves no room: 300 .*on_long=drop"
    ):
        align(
            "grpo",
            tmp_path / "tiny",
            tmp_path / "long.jsonl",
            reward="number",
            settings={"sampling.max_tokens": 8},
            output=tmp_path / "run",
        )
    assert not (tmp_path / "run" / "align").exists()
    assert not list((tmp_path / "run" / ".store").iterdir())
