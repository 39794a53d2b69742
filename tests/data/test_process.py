"""Recipes of operators in YAML: what is read, and what is refused with its line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sharpen.core.errors import ConfigError, MissingFileError
from sharpen.data.process import load_data_recipe

HEAD = "sharpen: 1\nname: mine\ndata:\n  source: {path: in.jsonl}\n"


def write(folder: Path, text: str) -> Path:
    (folder / "in.jsonl").write_text('{"text": "some words of a text"}\n{"text": "short"}\n')
    path = folder / "recipe.yaml"
    path.write_text(text)
    return path


def test_a_recipe_is_read_and_carried_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(
        tmp_path,
        HEAD + "  process:\n    - fix_unicode\n    - text_length: {min: 8}\n"
        "  output: {path: out, format: parquet}\ntrain: {steps: 5}\n",
    )
    monkeypatch.chdir(tmp_path)
    recipe = load_data_recipe(path)
    assert [one.name for one in recipe.dataset.operators] == ["fix_unicode", "text_length"]
    result = recipe.run()
    assert (result.rows_in, result.rows_out, result.output) == (2, 1, Path("out"))
    assert (tmp_path / "out" / "data-00000.parquet").exists()
    assert result.why(1)[0]["threshold"] == "min=8"
    less = load_data_recipe(path, ["data.process.1.text_length.min=1", "data.output.path=less"])
    assert less.run().rows_out == 2
    plain = load_data_recipe(HEAD_DATA)
    assert plain.output == Path("clean/recipe")


HEAD_DATA = {"sharpen": 1, "data": {"source": {"path": __file__}, "process": ["text_length"]}}


@pytest.mark.parametrize(
    ("process", "told"),
    [
        ("text_lenght", r"recipe.yaml:6: process\[0\]: .*Did you mean 'text_length'"),
        ("text_length: {minimum: 3}", r"recipe.yaml:6: unknown key 'minimum'.*Allowed: max, min"),
        ("text_length: {min: many}", r"recipe.yaml:6: .*must be a number, got 'many'"),
        ("text_length: {min: 5, max: 1}", r"recipe.yaml:6: .*min=5 must not be above max=1"),
        ("replace_content: {pattern: '(?<=a)b'}", r"recipe.yaml:6: .*not one of RE2"),
        (
            "{text_length: {min: 3}, words_num: {}}",
            r"recipe.yaml:6: process\[0\]: it must be a name",
        ),
        ("5", r"recipe.yaml:6: process\[0\]: it must be a name"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, process: str, told: str) -> None:
    path = write(tmp_path, HEAD + f"  process:\n    - {process}\n")
    with pytest.raises(ConfigError, match=told):
        load_data_recipe(path)


def test_wrong_stages_names_and_sources_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, HEAD)
    with pytest.raises(ConfigError, match="has no stage 'clean'; it has: data"):
        load_data_recipe(path, stage="clean")
    with pytest.raises(ConfigError, match="name must be a word"):
        load_data_recipe(path, {"name": "../up"})
    with pytest.raises(ConfigError, match="must begin with 'sharpen: 1'"):
        load_data_recipe(path, {"sharpen": 2})
    with pytest.raises(MissingFileError, match="nowhere"):
        load_data_recipe(path, {"data.source.path": "nowhere.jsonl"})
    with pytest.raises(ConfigError, match=r"data.output: .*excerpts=-1"):
        load_data_recipe(path, {"data.output.excerpts": -1})
    with pytest.raises(ConfigError, match="process must be a list"):
        load_data_recipe(path, {"data.process": "text_length"})


def test_patterns_start_at_the_working_folder_or_the_recipes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "parts").mkdir()
    for i in range(3):
        (tmp_path / "parts" / f"{i}.jsonl").write_text(json.dumps({"text": f"part {i}"}) + "\n")
    (tmp_path / "parts" / "other.txt").write_text("not asked for")
    path = tmp_path / "recipe.yaml"
    path.write_text('sharpen: 1\ndata: {source: {path: "parts/*.jsonl"}, output: {path: out}}\n')
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert load_data_recipe(path).run().rows_in == 3
    monkeypatch.chdir(tmp_path)
    assert load_data_recipe(path).run().rows_in == 3
    with pytest.raises(MissingFileError, match=r"\*\.csv2"):
        load_data_recipe(path, {"data.source.path": "parts/*.csv2"})
