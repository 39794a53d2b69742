"""Recipes of Data-Juicer 1.6, read unchanged, as recipes of ours.

Each operator becomes one of ours with the arguments that were given; where Data-Juicer's default
differs from ours it is written out. What cannot be said in our terms is left out, with the reason;
what can be said but measures or edits otherwise is noted
(:mod:`~sharpen.data.compat_rules`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sharpen.core.config import load_yaml
from sharpen.core.errors import ConfigError, SharpenError
from sharpen.data.compat_rules import ADVICE, RULES, NoCounterpart, Rule
from sharpen.data.ops import make_operator

__all__ = ["ImportedRecipe", "LeftOut", "import_recipe"]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Something of a recipe that ours does not say."""

    where: str
    """``process[3].language_id_score_filter``, or a key of the recipe."""

    why: str
    """The reason, and what to write instead."""


@dataclass(frozen=True, slots=True)
class ImportedRecipe:
    """A recipe of ours, and how it differs."""

    recipe: dict[str, Any]
    """Plain data, ready for YAML."""

    left_out: tuple[LeftOut, ...]
    """What is not in it."""

    notes: tuple[str, ...]
    """What is in it, but measures or edits otherwise."""


_EXECUTION = frozenset(
    (
        *("num_proc", "np", "batch_size", "memory", "mem_required", "cpu_required", "num_cpus"),
        *("gpu_required", "num_gpus", "accelerator", "runtime_env", "ray_execution_mode", "turbo"),
        *("batch_mode", "auto_op_parallelism", "work_dir", "skip_op_error", "index_key"),
        *("image_key", "image_bytes_key", "audio_key", "video_key", "image_special_token"),
        *("query_key", "response_key", "history_key", "stats_export_path"),
    )
)
"""Arguments of every operator that say how it runs, or name fields that it does not read."""

_IGNORED = frozenset(
    (
        *("project_name", "np", "use_cache", "ds_cache_dir", "cache_compress", "temp_dir"),
        *("open_monitor", "use_checkpoint", "op_fusion", "fusion_strategy", "mapper_fusion"),
        *("mapper_fusion_vram_limit", "adaptive_batch_size", "executor_type", "ray_address"),
        *("percentiles", "save_stats_in_one_file", "export_original_dataset", "auto_num"),
        *("export_in_parallel", "keep_hashes_in_res_ds", "auto_op_parallelism", "turbo", "debug"),
        *("work_dir", "job_id", "resume", "event_logging", "event_log_dir", "checkpoint_dir"),
        *("op_list_to_trace", "trace_keys", "image_special_token", "audio_special_token"),
        *("video_special_token", "eoc_special_token", "image_key", "image_bytes_key"),
        *("audio_key", "video_key", "strict_preflight", "partition", "checkpoint", "use_dag"),
        *("load_dataset_kwargs", "load_jsonl_lenient", "read_options", "override_num_blocks"),
        *("export_extra_args", "min_common_dep_num_to_combine", "conflict_resolve_strategy"),
        *("open_insight_mining", "op_list_to_mine", "partition_dir", "generated_dataset_config"),
        *("elastic_juicer_adaptive_batching", "elastic_juicer_profile_seed"),
        *("data_probe_algo", "data_probe_ratio", "export_type"),
    )
)
"""Keys of a recipe that change how it runs, or what is reported, not its rows."""

_NAMES = {"str": "string", "int": "number", "float": "number", "bool": "boolean"}
_NAMES |= {"list": "list", "dict": "object"}
_HUGE = 2**63 - 1  # sys.maxsize, which stands for no bound


def import_recipe(path: str | Path) -> ImportedRecipe:
    """Read a recipe of Data-Juicer.

    Args:
        path: a YAML file.

    Raises:
        MissingFileError: there is no such file.
        ConfigError: it is no recipe.
    """
    given = load_yaml(path).data
    if not isinstance(given, dict) or not isinstance(given.get("process") or [], list):
        raise ConfigError(f"{path} is no recipe of Data-Juicer: it has no list 'process'.")
    left: list[LeftOut] = []
    notes: list[str] = []
    data: dict[str, Any] = {"source": _source(given, left, notes)}
    limit = (given.get("dataset") or {}).get("max_sample_num")
    if limit:
        data["limit"] = limit
    text_key = data["source"].get("text_key", "text")
    process = _validators(given, text_key, left)
    for i, one in enumerate(given.get("process") or []):
        process += _step(i, one, text_key, left, notes)
    data["process"] = process
    data["on_error"] = "skip" if given.get("skip_op_error", True) else "fail"
    output = _output(given, notes)
    if output:
        data["output"] = output
    for key in ("custom_operator_paths", "hpo_config", "suffixes", "export_aws_credentials"):
        if given.get(key):
            left.append(LeftOut(key, _KEYS[key]))
    known = _IGNORED | _READ
    left += [LeftOut(key, "this key is not known.") for key in given if key not in known]
    name = str(given.get("project_name") or Path(path).stem).strip().replace("/", "-").lstrip(".")
    recipe = {"sharpen": 1, "name": name or "recipe", "data": data}
    return ImportedRecipe(recipe, tuple(left), tuple(notes))


_KEYS = {
    "custom_operator_paths": "operators of your own need python_lambda, python_file or "
    "python_filter.",
    "hpo_config": "search parameters of a recipe with: sharpen tune.",
    "suffixes": "name the files by a pattern: source: {path: FOLDER/*.jsonl}.",
    "export_aws_credentials": "outputs are folders on disk.",
}
_READ = frozenset(
    (
        *("dataset_path", "dataset", "validators", "export_path", "export_shard_size"),
        *("keep_stats_in_res_ds", "text_keys", "skip_op_error", "open_tracer", "trace_num"),
        *("process", *_KEYS),
    )
)


def _paths(text: str) -> list[dict[str, Any]]:
    """``0.3 a.jsonl 0.7 b.jsonl`` as sources."""
    found: list[dict[str, Any]] = []
    weight: float | None = None
    for part in text.split():
        if part.replace(".", "", 1).isdigit():
            weight = float(part)
        else:
            found.append({"path": part} if weight is None else {"path": part, "weight": weight})
            weight = None
    return found


def _source(given: Mapping[str, Any], left: list[LeftOut], notes: list[str]) -> dict[str, Any]:
    dataset = given.get("dataset") or {}
    configs = list(dataset.get("configs") or [])
    where = "dataset.configs"
    if not configs:
        where = "dataset_path"
        configs = _paths(str(given.get("dataset_path") or ""))
    named: list[dict[str, Any]] = []
    for one in configs:
        if one.get("type", "local") != "local":
            kind = one.get("type")
            left.append(LeftOut(where, f"a source of type '{kind}': download it, and name files."))
        elif one.get("path"):
            named.append(one)
    if not named:
        left.append(LeftOut(where, "no file is named; fill in source: {path: ...}."))
    source: dict[str, Any] = {"path": str(named[0]["path"]) if named else "corpus.jsonl"}
    if len(named) > 1:
        source = {"mix": [{"path": str(one["path"])} for one in named], "column": None}
    weights = [float(one.get("weight", 1)) for one in named]
    if len(named) > 1 and dataset.get("max_sample_num"):
        for one, weight in zip(source["mix"], weights, strict=True):
            one["weight"] = weight
        notes.append(f"{where}: rows are mixed by their weights in order, not drawn.")
    elif any(weight != 1 for weight in weights):
        left.append(
            LeftOut(
                where,
                "a weight without max_sample_num draws that share of a source's rows: give "
                "max_samples and a seed.",
            )
        )
    keys = given.get("text_keys", "text")
    every = [keys] if isinstance(keys, str) else list(keys or ["text"])
    if every[0] != "text":
        for one in (source, *source.get("mix", ())):
            one["text_key"] = every[0]
    if len(every) > 1:
        left.append(LeftOut("text_keys", f"only the first is read: {every[0]}."))
    return source


def _validators(given: Mapping[str, Any], text_key: str, left: list[LeftOut]) -> list[Any]:
    found: list[Any] = []
    for i, one in enumerate(given.get("validators") or []):
        if one.get("type") != "required_fields":
            left.append(LeftOut(f"validators[{i}]", f"the type '{one.get('type')}' is not known."))
            continue
        types = {
            name: _NAMES.get(str(kind), str(kind))
            for name, kind in (one.get("field_types") or {}).items()
            if name != text_key
        }
        fields = [name for name in one.get("required_fields") or [] if name != text_key]
        if fields or types:  # the text itself must be there in any case
            step: dict[str, Any] = {"fields": fields}
            found.append({"required_fields": {**step, **({"types": types} if types else {})}})
    return found


def _output(given: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    output: dict[str, Any] = {}
    if path := given.get("export_path"):
        target = Path(str(path))
        output["path"] = str(target.with_suffix("")) if target.suffix else str(target)
        if target.suffix == ".parquet":
            output["format"] = "parquet"
        notes.append(f"The output is a folder: {output['path']}.")
    if given.get("export_shard_size"):
        output["shard_bytes"] = given["export_shard_size"]
    if given.get("keep_stats_in_res_ds"):
        output["keep_statistics"] = True
    if given.get("open_tracer") and given.get("trace_num", 10) != 10:
        output["excerpts"] = given["trace_num"]
    return output


def _step(
    i: int, one: Any, text_key: str, left: list[LeftOut], notes: list[str]
) -> list[str | dict[str, Any]]:
    name, given = next(iter(one.items())) if isinstance(one, Mapping) and one else (one, None)
    where = f"process[{i}].{name}"
    rule = RULES.get(name) if isinstance(name, str) else None
    if rule is None:
        left.append(LeftOut(where, ADVICE.get(str(name), "it has no counterpart.")))
        return []
    try:
        steps = _translated(rule, dict(given or {}), text_key)
        for step in steps:
            make_operator(rule.ours, step)
    except (NoCounterpart, SharpenError) as reason:
        left.append(LeftOut(where, str(reason)))
        return []
    if rule.note:
        notes.append(f"{where}: {rule.note}")
    return [{rule.ours: step} if step else rule.ours for step in steps]


def _translated(rule: Rule, given: dict[str, Any], text_key: str) -> Sequence[dict[str, Any]]:
    """Arguments of our steps.

    Raises:
        NoCounterpart: an argument has no counterpart.
    """
    if given.pop("reversed_range", False):
        raise NoCounterpart("reversed_range, which keeps what lies outside, has no counterpart.")
    if given.pop("text_key", text_key) != text_key:
        raise NoCounterpart("text_key differs from the recipe's; run it as a recipe of its own.")
    closed = given.pop("min_closed_interval", True), given.pop("max_closed_interval", True)
    made = dict(rule.defaults)
    for key, value in given.items():
        if key in rule.arguments:
            ours = rule.arguments[key]
            default = value is None and ours not in rule.nulls
            if ours and not default and not _boundless(ours, value):
                made[ours] = value
        elif key in rule.only:
            if value != rule.only[key]:
                raise NoCounterpart(f"{key}: {value!r} has no counterpart.")
        elif key not in _EXECUTION:
            raise NoCounterpart(f"the argument '{key}' is not known.")
    for is_closed, bound, away in zip(closed, ("min", "max"), (math.inf, -math.inf), strict=True):
        if not is_closed:
            if bound not in made:
                raise NoCounterpart(f"{bound}_closed_interval needs the bound itself to be given.")
            made[bound] = math.nextafter(float(made[bound]), away)
    return rule.change(made) if rule.change is not None else [made]


def _boundless(ours: str, value: Any) -> bool:
    """Whether a bound is none: ours is infinite then."""
    return ours.startswith(("min", "max")) and isinstance(value, int) and abs(value) >= _HUGE
