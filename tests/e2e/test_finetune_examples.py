"""The recipes of ``examples/finetune`` run and show what they say."""

import shutil
from pathlib import Path

import pytest

from e2e.command import document, sharpen
from sharpen.models import load_model


@pytest.fixture
def work(tmp_path: Path, repository: Path) -> Path:
    shutil.copytree(repository / "examples" / "finetune", tmp_path / "finetune")
    return tmp_path


@pytest.mark.slow
def test_every_method_learns_what_was_held_out(work: Path) -> None:
    steps = [f"{name}.steps=6" for name in ("dora", "qlora", "half")]
    done = sharpen("run", "finetune/methods.yaml", *steps, "--json", "-o", "out", cwd=work)
    assert done.returncode == 0, done.stderr
    summary = document(done)["summary"]
    for name in ("dora", "qlora", "half"):
        found = summary[f"{name}_eval"]
        assert found["loss_after"] < found["loss_before"] - 0.5
    assert summary["dora"]["trained_parameters"] > summary["qlora"]["trained_parameters"]
    assert (work / "out" / "qlora" / "adapter_config.json").exists()
    assert load_model(work / "out" / "half").spec.num_layers == 6


@pytest.mark.slow
def test_pruned_models_have_their_zeros_and_wanda_costs_less(work: Path) -> None:
    done = sharpen("run", "finetune/prune.yaml", "--json", "-o", "out", cwd=work)
    assert done.returncode == 0, done.stderr
    found = document(done)["summary"]["compress"]
    assert [found[name]["zeros"] for name in ("magnitude50", "wanda50", "wanda2of4-int8")] == [
        0.5,
        0.5,
        0.5,
    ]
    whole = found["baseline"]["perplexity"]
    assert whole < found["wanda50"]["perplexity"] < found["magnitude50"]["perplexity"]
    assert (work / "out" / "report.html").exists()
