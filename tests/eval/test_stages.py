"""The eval stage: before and after training, on held-out examples, texts and tasks."""

import json
import math

import pytest
import torch

from sharpen.core.config import from_dict
from sharpen.core.errors import ConfigError, MissingFileError
from sharpen.core.stage import Artifact, RecipeContext, StageContext
from sharpen.data.shards import TokenDataset
from sharpen.eval import dataset_loss, perplexity
from sharpen.eval.config import EvalConfig
from sharpen.eval.run import model_folder
from sharpen.eval.stages import EVAL
from sharpen.models import LoraConfig, add_lora, generate, load_model, save_adapter
from small_models import byte_tokenizer, save_small_dataset, save_small_model, small_model


@pytest.fixture
def recipe(tmp_path):
    """A context on a saved model and data set; ``inputs`` may be added to."""
    model = save_small_model(tmp_path / "model")
    save_small_dataset(tmp_path / "data")
    output = tmp_path / "out"
    output.mkdir()
    data = Artifact(kind="dataset", path=tmp_path / "data", stage="data", key="d")
    return StageContext(
        stage="eval",
        seed=0,
        model=str(model),
        inputs={"dataset": data},
        output=output,
        work=tmp_path,
        folder=tmp_path,
    )


def trained_adapter(folder):
    model = small_model()
    add_lora(model, LoraConfig(rank=4))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("lora_B"):
                parameter.normal_(0, 0.1, generator=torch.Generator().manual_seed(0))
    save_adapter(model, folder, LoraConfig(rank=4))
    return Artifact(kind="adapter", path=folder, stage="train", key="a")


def with_input(context, artifact):
    context.inputs = {**context.inputs, artifact.kind: artifact}
    return context


def test_without_training_there_is_one_column(recipe, tmp_path):
    config = from_dict(EvalConfig, {"limit": 5, "samples": 2, "max_new_tokens": 4})
    result = EVAL.run(config, recipe)
    wanted, labels = dataset_loss(
        load_model(tmp_path / "model"), TokenDataset(tmp_path / "data", "valid"), limit=5
    )
    assert result.results["loss"] == pytest.approx(wanted, rel=1e-6)
    assert result.results["perplexity"] == pytest.approx(math.exp(wanted), rel=1e-6)
    assert result.results["labels"] == labels
    assert [sorted(s) for s in result.results["samples"]] == [["output", "prompt", "reference"]] * 2
    stored = json.loads((recipe.output / "results.json").read_text())
    assert stored["loss"] == result.results["loss"]


def test_an_adapter_is_measured_before_and_after(recipe, tmp_path):
    with_input(recipe, trained_adapter(tmp_path / "adapter"))
    config = EvalConfig(samples=3, max_new_tokens=5)
    found = EVAL.run(config, recipe).results
    data = TokenDataset(tmp_path / "data", "valid")
    before = load_model(tmp_path / "model")
    after = load_model(tmp_path / "model", adapter=tmp_path / "adapter")
    assert found["loss_before"] == pytest.approx(dataset_loss(before, data)[0], rel=1e-6)
    assert found["loss_after"] == pytest.approx(dataset_loss(after, data)[0], rel=1e-6)
    assert found["perplexity_after"] == pytest.approx(math.exp(found["loss_after"]))
    assert found["loss_before"] != found["loss_after"]
    lines = (recipe.output / "samples.jsonl").read_text().splitlines()
    samples = [json.loads(line) for line in lines]
    assert samples == found["samples"]
    assert samples[1]["prompt"] == "1 + 1 ="
    assert samples[1]["reference"] == "2"
    tokenizer = byte_tokenizer()
    text = "<|im_start|>user\n1 + 1 =<|im_end|>\n<|im_start|>assistant\n"
    (wanted,) = generate(after, [tokenizer.encode(text)], max_new_tokens=5, stop_ids={2})
    assert samples[1]["after"] == tokenizer.decode(wanted.ids)


def test_a_trained_model_or_a_variant_of_it_is_measured_after(recipe, tmp_path):
    save_small_model(tmp_path / "trained" / "int4", seed=9)
    trained = Artifact(kind="model", path=tmp_path / "trained", stage="compress", key="m")
    with_input(recipe, trained)
    with pytest.raises(ConfigError, match=r"'compress' made several models.*int4"):
        EVAL.run(EvalConfig(), recipe)
    found = EVAL.run(EvalConfig(variant="int4", metrics=("loss",)), recipe).results
    data = TokenDataset(tmp_path / "data", "valid")
    assert found["loss_after"] == pytest.approx(dataset_loss(small_model(9), data)[0], rel=1e-6)
    assert "perplexity_after" not in found
    with pytest.raises(ConfigError, match=r"variant='int3' is none of .*: int4"):
        model_folder(trained, "int3")
    plain = Artifact(kind="model", path=tmp_path / "model", stage="train", key="p")
    assert model_folder(plain) == tmp_path / "model"
    with pytest.raises(ConfigError, match="without variants"):
        model_folder(plain, "int4")


def test_texts_and_tasks_need_no_data_set(recipe, tmp_path):
    recipe.inputs = {}
    (tmp_path / "text.txt").write_text("The sea is deep. " * 5)
    choice = {"prompt": "x", "choices": ["a", "b"], "answer": 0}
    (tmp_path / "pick.jsonl").write_text((json.dumps(choice) + "\n") * 3)
    (tmp_path / "say.jsonl").write_text(json.dumps({"prompt": "x", "answer": "y"}))
    config = from_dict(
        EvalConfig,
        {
            "text": "text.txt",
            "window": 32,
            "stride": 16,
            "max_text_tokens": 60,
            "tasks": ["pick.jsonl", "say.jsonl"],
            "exact_match": {"max_new_tokens": 3},
            "dtype": "bfloat16",
        },
    )
    found = EVAL.run(config, recipe).results
    model = load_model(tmp_path / "model", dtype=torch.bfloat16)
    ids = byte_tokenizer().encode("The sea is deep. " * 5)[:60]
    assert found["text_perplexity"] == pytest.approx(perplexity(model, ids, window=32, stride=16))
    assert found["pick"]["acc"] in (0.0, 1.0)
    assert found["say"] == {"exact_match": 0.0}


def test_prompts_of_chat_and_text_rows_end_where_the_answer_begins(recipe, tmp_path):
    rows = [
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}]},
        {"text": "abcdefgh"},
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "data" / "valid.jsonl").write_text(lines)
    config = EvalConfig(samples=5, max_new_tokens=2, metrics=("loss",))
    samples = EVAL.run(config, recipe).results["samples"]
    assert (samples[0]["prompt"], samples[0]["reference"]) == ("user: Hi", "Yes")
    assert (samples[1]["prompt"], samples[1]["reference"]) == ("abcd", "efgh")
    (tmp_path / "data" / "valid.jsonl").write_text(json.dumps({"prompt": "p", "completion": "c"}))
    plain = EvalConfig(samples=1, max_new_tokens=2, template="none", metrics=("loss",))
    assert EVAL.run(plain, recipe).results["samples"][0]["reference"] == "c"


def test_what_cannot_be_measured_is_refused(recipe, tmp_path):
    recipe.inputs = {}
    with pytest.raises(ConfigError, match="Put a 'data' stage before it"):
        EVAL.run(EvalConfig(), recipe)
    (tmp_path / "bytes.bin").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ConfigError, match="is not UTF-8"):
        EVAL.run(EvalConfig(text="bytes.bin"), recipe)
    with pytest.raises(MissingFileError, match="is a folder"):
        EVAL.run(EvalConfig(text="data"), recipe)
    with pytest.raises(MissingFileError, match="no such file"):
        EVAL.run(EvalConfig(text="nothing"), recipe)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limit": 0}, "limit=0"),
        ({"samples": -1}, "samples=-1"),
        ({"max_new_tokens": 0}, "max_new_tokens=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"max_text_tokens": 0}, "max_text_tokens=0"),
        ({"metrics": []}, "nothing is measured"),
        ({"metrics": ["bleu"]}, "metrics"),
        ({"metric": ["loss"]}, "Did you mean 'metrics'"),
    ],
)
def test_configs_out_of_range_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        from_dict(EvalConfig, options)


def test_bytes_of_texts_and_tasks_are_part_of_the_address(tmp_path):
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "t.jsonl").write_text("two")
    context = RecipeContext(model=None, seed=0, folder=tmp_path)
    config = EvalConfig(text="a.txt", tasks=("t.jsonl",))
    assert EVAL.fingerprint is not None
    first = EVAL.fingerprint(config, context)
    (tmp_path / "t.jsonl").write_text("three")
    second = EVAL.fingerprint(config, context)
    assert first[0] == second[0]
    assert first[1] != second[1]


def test_the_report_has_a_row_a_metric_and_the_samples():
    assert EVAL.report is not None
    summary = {
        "loss_before": 2.0,
        "loss_after": 1.0,
        "labels": 9,
        "peak_bytes": 5,
        "pick": {"acc_before": 0.5, "acc_after": 1.0},
        "samples": [{"prompt": "p", "before": "b", "after": "a"}],
    }
    (section,) = EVAL.report(summary)
    table, sample = section.blocks
    assert table.rows == [["loss", 2.0, 1.0], ["pick: acc", 0.5, 1.0]]
    assert sample.preformatted
    assert "BEFORE\nb\n\nAFTER\na" in sample.text
    (section,) = EVAL.report({"loss": 2.0})
    assert section.blocks[0].rows == [["loss", 2.0]]
