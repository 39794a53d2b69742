"""Recipes: one YAML file of typed stages.

``sharpen``, ``name``, ``seed`` and ``model`` are the only top-level keys that are no stage. Every
other key names a stage; its type is the key, or ``uses:``. ``after:`` names the stages whose
artifacts it takes (default: for each kind it needs, the latest earlier stage that makes one) and
``seed:`` replaces the recipe's seed. All other keys are fields of the stage type's config.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sharpen.core.assets import ASSETS, asset_path
from sharpen.core.config import (
    Document,
    Marks,
    apply_overrides,
    dump_yaml,
    from_dict,
    load_yaml,
    to_dict,
)
from sharpen.core.errors import ConfigError, MissingFileError, did_you_mean
from sharpen.core.stage import (
    RecipeContext,
    StageType,
    find_stage_type,
    resolve_path,
    stage_type_names,
)

__all__ = ["FORMAT", "Recipe", "StageSpec", "load_recipe"]

FORMAT = 1
_TOP_KEYS = ("sharpen", "name", "seed", "model")
_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")


@dataclass(frozen=True, slots=True, kw_only=True)
class StageSpec:
    """One stage of a recipe, checked."""

    name: str
    """The recipe's key."""

    type: StageType
    """What it is."""

    config: Any
    """An instance of ``type.config``."""

    seed: int
    """Its seed."""

    inputs: Mapping[str, str]
    """For each artifact kind it takes, the name of the stage that makes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A checked recipe; every stage, key and type in it is known to be right."""

    name: str
    seed: int
    model: str | None
    stages: tuple[StageSpec, ...]
    folder: Path | None = None
    """Folder of its file, against which relative paths are tried second."""
    source: str = ""
    """The file's text as the user wrote it."""
    document: Document = field(default_factory=lambda: Document({}, Marks()))

    def stage(self, name: str) -> StageSpec:
        """The stage called ``name``.

        Raises:
            ConfigError: there is none.
        """
        for spec in self.stages:
            if spec.name == name:
                return spec
        names = [spec.name for spec in self.stages]
        raise ConfigError(
            f"the recipe '{self.name}' has no stage '{name}'.{did_you_mean(name, names)} "
            f"It has: {', '.join(names)}."
        )

    def context(self, spec: StageSpec, device: Any = None) -> RecipeContext:
        """What the hooks of ``spec`` may know of the recipe."""
        earlier: dict[str, Any] = {}
        for other in self.stages:
            if other.name == spec.name:
                break
            earlier[other.name] = other.config
        return RecipeContext(
            model=self.model, seed=spec.seed, stages=earlier, folder=self.folder, device=device
        )

    def resolved(self) -> str:
        """The whole recipe as YAML, every default written out."""
        data: dict[str, Any] = {"sharpen": FORMAT, "name": self.name, "seed": self.seed}
        if self.model is not None:
            data["model"] = self.model
        for spec in self.stages:
            stage: dict[str, Any] = {}
            if spec.type.name != spec.name:
                stage["uses"] = spec.type.name
            if spec.inputs:
                stage["after"] = list(dict.fromkeys(spec.inputs.values()))
            data[spec.name] = {**stage, **to_dict(spec.config), "seed": spec.seed}
        return dump_yaml(data)


def load_recipe(
    source: str | Path | Mapping[str, Any],
    overrides: Iterable[str] | Mapping[str, Any] = (),
) -> Recipe:
    """Read and check a recipe.

    Args:
        source: a YAML file, or the same as plain data.
        overrides: ``["train.lr=3e-4"]`` or ``{"train.lr": 3e-4}``.

    Raises:
        ConfigError: anything wrong in it, with file and line.
        MissingFileError: the file, or a file it names, does not exist.
        AssetNotInstalled: its model is an asset that is not installed.
    """
    folder: Path | None = None
    text = ""
    if isinstance(source, Mapping):
        document = Document(dict(source), Marks())
    else:
        document = load_yaml(source)
        folder = Path(source).absolute().parent
        text = Path(source).read_text(encoding="utf-8-sig")
    if not isinstance(document.data, dict) or not document.data:
        raise ConfigError(f"{source}: a recipe is a mapping; it starts with 'sharpen: {FORMAT}'.")
    document = apply_overrides(document, overrides)
    return _check(document, folder, text)


def _check(document: Document, folder: Path | None, text: str) -> Recipe:
    data, marks = document.data, document.marks

    def fail(key: str, message: str) -> ConfigError:
        where = marks.at((key,))
        return ConfigError(f"{where + ': ' if where else ''}{message}")

    if "sharpen" not in data:
        raise fail("sharpen", f"the key 'sharpen' is missing. Begin with 'sharpen: {FORMAT}'.")
    if data["sharpen"] != FORMAT:
        raise fail("sharpen", f"recipe format {data['sharpen']!r} is unknown; use {FORMAT}.")
    name = data.get("name")
    if name is None:
        name = Path(marks.file).stem if marks.file else "recipe"
    if not isinstance(name, str) or not _NAME.match(name):
        raise fail(
            "name", f"name must be 1-64 letters, digits, '-' or '_', got {data.get('name')!r}."
        )
    seed = _seed(data.get("seed", 0), "seed", fail)
    model = _model(data.get("model"), folder, fail)
    stages: list[StageSpec] = []
    for key, value in data.items():
        if key not in _TOP_KEYS:
            stages.append(_stage(key, value, document, stages, seed, model))
    if not stages:
        raise fail("name", "the recipe has no stage. Add one, for example 'data:' or 'train:'.")
    return Recipe(
        name=name,
        seed=seed,
        model=model,
        stages=tuple(stages),
        folder=folder,
        source=text,
        document=document,
    )


def _seed(value: Any, key: str, fail: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise fail(key, f"{key} must be an integer from 0 to 2**63-1, got {value!r}.")
    return value


def _model(value: Any, folder: Path | None, fail: Any) -> str | None:
    """An asset's name stays; anything else must be a path that exists."""
    if value is None:
        return None
    if not isinstance(value, str) or not value:
        raise fail("model", f"model must be an asset's name or a path, got {value!r}.")
    if value in ASSETS:
        if ASSETS[value].kind != "model":
            raise fail("model", f"the asset {value!r} is a {ASSETS[value].kind}, not a model.")
        asset_path(value)
        return value
    try:
        return str(resolve_path(value, folder))
    except MissingFileError:
        models = [a.name for a in ASSETS.values() if a.kind == "model"]
        raise fail(
            "model",
            f"model {value!r} is neither an asset nor an existing path."
            f"{did_you_mean(value, models)} Assets: {', '.join(models)}.",
        ) from None


def _stage(
    key: str,
    value: Any,
    document: Document,
    earlier: list[StageSpec],
    recipe_seed: int,
    model: str | None,
) -> StageSpec:
    marks = document.marks
    where = marks.at((key,))

    def fail(part: str, message: str) -> ConfigError:
        place = marks.at((key, part)) if part else where
        return ConfigError(f"{place + ': ' if place else ''}{message}")

    if value is None:
        value = {}
    if not _NAME.match(key):
        raise fail("", f"a stage's name has letters, digits, '-' and '_' only, got {key!r}.")
    if not isinstance(value, dict):
        raise fail("", f"'{key}' must be a mapping of keys, got {value!r}.")
    fields = dict(value)
    uses = fields.pop("uses", key)
    if not isinstance(uses, str):
        raise fail("uses", f"{key}.uses must be the name of a stage type, got {uses!r}.")
    if uses == key and "uses" not in value and key not in stage_type_names():
        names = [*_TOP_KEYS, *stage_type_names()]
        raise fail(
            "",
            f"unknown key '{key}'.{did_you_mean(key, names)} A top-level key is one of "
            f"{', '.join(_TOP_KEYS)} or a stage ({', '.join(stage_type_names())}), or names its "
            "type with 'uses:'.",
        )
    stage_type = find_stage_type(uses, where=marks.at((key, "uses")))
    after = fields.pop("after", None)
    seed = recipe_seed
    if "seed" in fields:
        seed = _seed(fields.pop("seed"), f"{key}.seed", lambda _, message: fail("seed", message))
    config: Any = from_dict(stage_type.config, fields, path=(key,), marks=marks)
    if stage_type.needs_model and model is None:
        raise fail("", f"the stage '{key}' needs the top-level key 'model'.")
    inputs = _inputs(key, stage_type, after, earlier, fail)
    return StageSpec(name=key, type=stage_type, config=config, seed=seed, inputs=inputs)


def _inputs(
    key: str, stage_type: StageType, after: Any, earlier: list[StageSpec], fail: Any
) -> dict[str, str]:
    names = [spec.name for spec in earlier]
    candidates = earlier
    if after is not None:
        wanted = [after] if isinstance(after, str) else after
        if not isinstance(wanted, list) or not all(isinstance(w, str) for w in wanted):
            raise fail("after", f"{key}.after must be a stage's name or a list of them.")
        for name in wanted:
            if name not in names:
                raise fail(
                    "after",
                    f"{key}.after names '{name}', which is no earlier stage."
                    f"{did_you_mean(name, names)} Earlier: {', '.join(names) or 'none'}.",
                )
        candidates = [spec for spec in earlier if spec.name in wanted]
    made: dict[str, str] = {}
    for spec in candidates:
        kind = spec.type.kind(spec.config)
        if kind == "model":
            made.pop("adapter", None)  # a model made after an adapter already holds it
        made[kind] = spec.name
    inputs: dict[str, str] = {}
    for kind in (*stage_type.needs, *stage_type.optional):
        if kind in made:
            inputs[kind] = made[kind]
        elif kind in stage_type.needs:
            raise fail(
                "after" if after is not None else "",
                f"the stage '{key}' needs a {kind}, and no earlier stage makes one. "
                f"Put a stage that makes a {kind} before it.",
            )
    return inputs
