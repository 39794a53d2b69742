import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import sharpen as sh
from sharpen.core.errors import ConfigError
from small_models import save_small_model

EXAMPLE = Path(__file__).parents[2] / "examples" / "llama3_8b.yaml"


@pytest.fixture
def recipe(tmp_path: Path) -> dict[str, Any]:
    base = save_small_model(tmp_path / "base")
    (tmp_path / "rows.jsonl").write_text(json.dumps({"text": "a"}) + "\n")
    return {
        "sharpen": 1,
        "name": "p",
        "model": str(base),
        "data": {"source": {"path": str(tmp_path / "rows.jsonl")}, "max_tokens": 256},
        "train": {"steps": 10, "global_batch": 8, "micro_batch": 2, "dtype": "bfloat16"},
    }


def test_the_example_of_eight_billion_parameters() -> None:
    plan = sh.plan.on_devices(EXAMPLE, devices="8xH100")
    document = json.loads(json.dumps(plan.to_dict()))
    assert document["fits"]
    assert document["model"]["parameters"] == 8_030_261_248
    layout = document["layout"]
    assert (layout["zero_stage"], layout["dp_shard"]) == (3, 8)
    # Total bytes of states a device, as built and by the paper, and what a pass needs beside.
    assert [
        (row["built"]["total"], row["paper"]["total"], row["built"]["beside"])
        for row in document["accounting"]
    ] == [
        (128_484_179_968, 128_484_179_968, 15_009_316_864),
        (44_166_436_864, 44_166_436_864, 0),
        (32_121_044_992, 30_113_479_680, 0),
        (16_060_522_496, 16_060_522_496, 2_101_346_304),
    ]
    assert document["flops"]["a_token"] == 57_912_852_480
    assert document["traffic"] == [
        {
            "purpose": "states",
            "bytes": 8 * 8_030_261_248 * 7 // 8,
            "ranks": 8,
            "over": "link",
        }
    ]
    causal = sh.plan.on_devices(EXAMPLE, devices="8xH100", causal=True)
    assert causal.to_dict()["flops"]["a_token"] == 51_471_187_968
    assert "causal" in causal.table()


def test_the_document_has_a_stable_schema() -> None:
    plan = sh.plan.on_devices(EXAMPLE, devices="16xH100", search=True)
    document = plan.to_dict(top=3)
    assert document["format"] == 1
    assert set(document) == {
        "accounting",
        "alternatives",
        "devices",
        "fits",
        "flops",
        "format",
        "hfu",
        "job",
        "layout",
        "memory",
        "memory_bytes",
        "mfu",
        "micro_batches",
        "model",
        "name",
        "over_bytes",
        "overrides",
        "peak_bytes",
        "searched",
        "step_s",
        "step_s_by",
        "tokens_per_s",
        "traffic",
    }
    assert set(document["layout"]) == {
        "attention_chunk",
        "attention_stored",
        "chunks",
        "dp_replicate",
        "dp_shard",
        "micro_batch",
        "offload",
        "pp",
        "recompute",
        "recompute_every",
        "ring",
        "runs",
        "sp",
        "tiled_mlp",
        "tp",
        "zero_stage",
    }
    assert len(document["alternatives"]) == 3
    assert document["alternatives"][0]["layout"] == document["layout"]


def test_a_layout_found_is_one_the_recipe_takes() -> None:
    found = sh.plan.on_devices(EXAMPLE, devices="8xH100", search=True)
    assert found.given is not None and found.given.fits
    assert found.best.step_s <= found.given.step_s
    for cost in (found.search.ranked if found.search else ())[:5]:
        again = sh.plan.on_devices(EXAMPLE, found.overrides(cost), devices="8xH100")
        assert again.best.layout == cost.layout
        assert again.best.step_s == cost.step_s
    table = found.table(top=2)
    assert "the recipe's own, fits" in table and "train.nproc=8" in table


def test_the_recipes_own_layout_may_be_illegal_when_searching() -> None:
    found = sh.plan.on_devices(EXAMPLE, devices="16xH100", search=True)
    assert found.given is None and found.fits
    assert "own layout is not legal" in found.table()
    with pytest.raises(ConfigError, match="dp_shard 8 is 8, which does not fit 16"):
        sh.plan.on_devices(EXAMPLE, devices="16xH100")
    with pytest.raises(ConfigError, match="is above the model's"):
        sh.plan.on_devices(
            EXAMPLE, {"train.parallel": {"sp": 64}, "train.global_batch": 8}, devices="64xH100"
        )


def test_planned_axes_are_marked(recipe: dict[str, Any]) -> None:
    found = sh.plan.on_devices(recipe, devices="4xL40S", search=True, all_axes=True)
    assert found.search is not None
    planned = [c for c in found.search.ranked if not c.layout.runs]
    assert planned and found.overrides(planned[0]) == []
    assert "(planned only)" in found.table(top=1000)


def test_too_large_a_model_says_the_closest_and_by_how_much() -> None:
    plan = sh.plan.on_devices(EXAMPLE, {"train.parallel.zero_stage": 0}, devices="8xH100")
    assert not plan.fits
    assert "It does not fit" in plan.table() and "--search" in plan.table()
    with pytest.raises(ConfigError, match=r"no layout fits: 8,030,261,248 .* over by .* GB"):
        sh.plan.on_devices(EXAMPLE, devices="2xRTX4090", search=True)


def test_no_legal_layout_is_said(recipe: dict[str, Any]) -> None:
    recipe["data"]["max_tokens"] = 16
    with pytest.raises(ConfigError, match=r"no layout is legal: .* on 37 x"):
        sh.plan.on_devices(recipe, devices="37xL40S", search=True)


def test_adapters_take_their_part_of_the_states(recipe: dict[str, Any]) -> None:
    recipe["train"] |= {"method": "lora", "rank": 4}
    found = sh.plan.on_devices(recipe, devices="2xL40S")
    full = sh.plan.on_devices({**recipe, "train": {"global_batch": 8}}, devices="2xL40S")
    assert found.best.memory["optimizer"] < full.best.memory["optimizer"] / 4
    assert found.to_dict()["job"]["method"] == "lora"
    nf4 = sh.plan.on_devices(recipe, {"train.method": "qlora"}, devices="2xL40S")
    assert nf4.to_dict()["job"]["method"] == "qlora"
    assert nf4.best.memory["parameters"] < found.best.memory["parameters"]


def test_methods_and_savings_of_the_recipe_are_planned(recipe: dict[str, Any]) -> None:
    full = sh.plan.on_devices(recipe, devices="1xL40S")
    half = sh.plan.on_devices(recipe, {"train.method": "half"}, devices="1xL40S")
    assert half.best.memory["optimizer"] == full.best.memory["optimizer"] // 2
    assert half.to_dict()["job"]["method"] == "half"
    lora, dora = (
        sh.plan.on_devices(recipe, {"train.method": m}, devices="1xL40S") for m in ("lora", "dora")
    )
    outputs = 2 * (2 * 64 + 2 * 32 + 2 * 128 + 64)  # of the layers in two blocks
    assert dora.job.trained_parameters - lora.job.trained_parameters == outputs
    assert dora.best.memory["activations"] > lora.best.memory["activations"]
    act = {"mode": "full", "every": 2, "offload": "cpu"}
    saving = sh.plan.on_devices(recipe, {"train.act": act}, devices="1xL40S")
    words = [f"train.act.{key}={value}" for key, value in act.items()]
    assert set(words) <= set(saving.overrides(saving.best))
    again = sh.plan.on_devices(recipe, saving.overrides(saving.best), devices="1xL40S")
    assert again.best == saving.best


def test_the_states_of_the_recipes_optimizer_are_planned(recipe: dict[str, Any]) -> None:
    def plan(name: str, method: str = "full") -> Any:
        changes = {"train.optimizer": name, "train.method": method}
        return sh.plan.on_devices(recipe, changes, devices="1xL40S").best

    adamw, lion = plan("adamw"), plan("lion")
    assert 2 * lion.memory["optimizer"] == adamw.memory["optimizer"]
    assert lion.step_s_by["update"] == pytest.approx(adamw.step_s_by["update"] * 20 / 28)
    for method in ("half", "lora"):
        parts = [plan(name, method).memory["optimizer"] for name in ("adamw", "lion")]
        assert parts[0] == pytest.approx(2 * parts[1], abs=1)


def test_chunks_of_attention_are_planned(recipe: dict[str, Any]) -> None:
    def plan(**act: Any) -> Any:
        changes = {"train.act": act, "train.parallel.sp": 2}
        return sh.plan.on_devices(recipe, changes, devices="2xL40S")

    for mode in ("none", "full"):
        whole = plan(mode=mode).best
        here = plan(mode=mode, attention_chunk=32)  # of the 128 tokens of a rank's sequence
        assert whole.memory["exchange"] == 4 * here.best.memory["exchange"]
        assert here.best.step_s_by["products"] > whole.step_s_by["products"]
        assert here.best.step_s_by["offload"] == 0
        away = plan(mode=mode, attention_chunk=32, attention_store="cpu")
        assert away.best.memory["activations"] < here.best.memory["activations"]
        assert away.best.step_s_by["offload"] > 0
        assert away.best.hfu <= here.best.hfu
        words = ["train.act.attention_chunk=32", "train.act.attention_store=cpu"]
        assert set(words) <= set(away.overrides(away.best))
        again = sh.plan.on_devices(recipe, away.overrides(away.best), devices="2xL40S")
        assert again.best == away.best
        assert "attention chunks of 32, stored chunks" in away.table()


def test_a_layout_without_chunks_takes_those_of_the_recipe_away(recipe: dict[str, Any]) -> None:
    """Rings and chunks of attention exclude each other."""
    recipe["train"]["act"] = {"attention_chunk": 32}
    found = sh.plan.on_devices(recipe, devices="4xL40S", search=True)
    assert found.search is not None
    ring = next(c for c in found.search.ranked if c.layout.ring > 1)
    again = sh.plan.on_devices(recipe, found.overrides(ring), devices="4xL40S")
    assert again.best.layout == ring.layout


def test_parallel_blocks_are_planned_from_the_models_config(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    folder = tmp_path / "parallel"
    folder.mkdir()
    config = json.loads((Path(recipe["model"]) / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "block": "parallel"}))
    serial = sh.plan.on_devices(recipe, devices="1xL40S")
    parallel = sh.plan.on_devices({**recipe, "model": str(folder)}, devices="1xL40S")
    assert serial.job.spec.num_parameters - parallel.job.spec.num_parameters == 2 * 64
    tokens, norm = 2 * 256, 2 * 2 * 64 + 4  # input and output in bfloat16, and the scale
    kept = serial.best.memory["activations"] - parallel.best.memory["activations"]
    assert kept == 2 * tokens * norm


def test_one_device_sends_nothing(recipe: dict[str, Any]) -> None:
    plan = sh.plan.on_devices(recipe, devices="1xL40S")
    assert plan.best.traffic == () and "  nothing" in plan.table()


def test_a_stage_of_another_name_trains_too(recipe: dict[str, Any]) -> None:
    recipe["tune"] = {"uses": "train", **recipe.pop("train"), "parallel": {"dp_shard": 2}}
    assert sh.plan.on_devices(recipe, devices="2xL40S").best.layout.dp_shard == 2
    found = sh.plan.on_devices(recipe, devices="2xL40S", search=True)
    assert found.overrides(found.best)[0] == "tune.nproc=2"


def test_recipes_without_training_have_nothing_to_lay_out(recipe: dict[str, Any]) -> None:
    del recipe["train"]
    with pytest.raises(ConfigError, match="no train stage"):
        sh.plan.on_devices(recipe, devices="2xL40S")


def test_the_cost_models_load_no_torch() -> None:
    code = (
        "import sys, sharpen.plan.cluster_plan, sharpen.plan.layout_search, sharpen.plan.schedule\n"
        "from sharpen.plan import parse_devices\n"
        "parse_devices('8xH100')\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
