"""Recipes of Data-Juicer, read unchanged."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest

from sharpen.core.config import dump_yaml
from sharpen.core.errors import ConfigError, MissingFileError
from sharpen.data import ops
from sharpen.data.compat import import_recipe
from sharpen.data.compat_rules import ADVICE, RULES
from sharpen.data.process import load_data_recipe

RECIPE = """
project_name: 'web-text'
dataset_path: 'corpus.jsonl'
export_path: 'out/result.jsonl'
np: 4
text_keys: 'content'
open_tracer: true
trace_num: 5
op_fusion: true
keep_stats_in_res_ds: true
process:
  - clean_links_mapper:
  - fix_unicode_mapper:
      normalization: nfkc
  - text_length_filter:
      min_len: 20
      max_len: 9223372036854775807
      num_proc: 2
  - character_repetition_filter:
      rep_len: 5
      max_ratio: 0.2
      text_key: content
  - words_num_filter:
      lang: en
      tokenization: false
      min_num: 3
  - replace_content_mapper:
      pattern: ['a+', 'b+']
      repl: 'x'
  - language_id_score_filter:
      lang: en
  - document_minhash_deduplicator:
      jaccard_threshold: 0.8
      num_permutations: 128
  - random_selector:
      select_num: 10
"""


def imported(tmp_path, text):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return import_recipe(path)


def test_a_recipe_is_said_in_our_terms(tmp_path):
    found = imported(tmp_path, RECIPE)
    assert found.recipe == {
        "sharpen": 1,
        "name": "web-text",
        "data": {
            "source": {"path": "corpus.jsonl", "text_key": "content"},
            "process": [
                "clean_links",
                {"fix_unicode": {"normalization": "NFKC"}},
                {"text_length": {"min": 20}},
                {"character_repetition": {"size": 5, "max": 0.2}},
                {"words_num": {"min": 3}},
                {"replace_content": {"pattern": "a+", "repl": "x"}},
                {"replace_content": {"pattern": "b+", "repl": "x"}},
                {"minhash_dedup": {"tokens": "space", "threshold": 0.8, "lanes": 128}},
                {"random_rows": {"count": 10}},
            ],
            "on_error": "skip",
            "output": {"path": "out/result", "keep_statistics": True, "excerpts": 5},
        },
    }
    assert [one.where for one in found.left_out] == ["process[6].language_id_score_filter"]
    assert "backend: fasttext" in found.left_out[0].why
    assert any(note.startswith("process[7].document_minhash") for note in found.notes)


def test_what_is_imported_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [{"content": f"A sentence of the row {i}, long enough to stay."} for i in range(5)]
    text = "".join(json.dumps(row) + "\n" for row in [*rows, {"content": "short"}])
    (tmp_path / "corpus.jsonl").write_text(text)
    (tmp_path / "ours.yaml").write_text(dump_yaml(imported(tmp_path, RECIPE).recipe))
    result = load_data_recipe("ours.yaml").run()
    assert (result.rows_in, result.rows_out) == (6, 5)


def steps(tmp_path, *process):
    return imported(tmp_path, dump_yaml({"dataset_path": "a.jsonl", "process": list(process)}))


NEEDED = {
    "flagged_words_filter": {"flagged_words_dir": "words", "max_ratio": 0.1},
    "general_field_filter": {"filter_condition": "num > 3 and meta.a == 'b'"},
    "nlpaug_en_mapper": {"delete_random_word": True},
    "range_specified_field_selector": {"lower_percentile": 0.1, "upper_percentile": 0.9},
    "replace_content_mapper": {"pattern": "a"},
    "specified_field_filter": {"target_value": ["en"]},
    "suffix_filter": {"suffixes": "txt"},
    "tags_specified_field_selector": {"target_tags": ["a"]},
    "text_chunk_mapper": {"max_len": 100, "split_pattern": None},
    "token_num_filter": {"hf_tokenizer": "folder"},
    "topk_specified_field_selector": {"topk": 3},
    "frequency_specified_field_selector": {"top_ratio": 0.5},
    "random_selector": {"select_ratio": 0.5},
}


@pytest.mark.parametrize("name", sorted(RULES))
def test_every_rule_makes_an_operator(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "words").mkdir()
    (tmp_path / "words/flagged_words.json").write_text(json.dumps({"en": ["foo"], "de": ["bar"]}))
    given = dict(NEEDED.get(name, {}))
    if "field_key" in RULES[name].arguments:
        given["field_key"] = "meta.x"
    found = steps(tmp_path, {name: given or None})
    assert found.left_out == ()
    (step,) = found.recipe["data"]["process"]
    ours, arguments = (step, {}) if isinstance(step, str) else next(iter(step.items()))
    assert ours == RULES[name].ours
    ops.make_operator(ours, arguments)
    known = {f.name for f in dataclasses.fields(ops.operator_type(ours))}
    meant = {"", "lang", "folder", "augmented"}
    assert set(RULES[name].arguments.values()) - meant <= known


def test_lists_of_words_are_read_from_their_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "l").mkdir()
    (tmp_path / "l/stopwords_a.json").write_text(json.dumps({"de": ["und", "der"], "en": ["the"]}))
    one = {"stopwords_filter": {"lang": "de", "stopwords_dir": "l"}}
    every = {"stopwords_filter": {"lang": "all", "stopwords_dir": "l", "min_ratio": 0.1}}
    assert steps(tmp_path, one, every).recipe["data"]["process"] == [
        {"stopwords": {"words": ["der", "und"]}},
        {"stopwords": {"min": 0.1, "words": ["der", "the", "und"]}},
    ]


@pytest.mark.parametrize(
    ("step", "why"),
    [
        ({"text_length_filter": {"reversed_range": True}}, "reversed_range"),
        ({"text_length_filter": {"text_key": "other"}}, "text_key differs"),
        ({"text_length_filter": {"min_length": 1}}, "'min_length' is not known"),
        ({"alphanumeric_filter": {"tokenization": True}}, "tokenization: True has no counterpart"),
        ({"flagged_words_filter": None}, "downloads its list of flagged_words"),
        ({"stopwords_filter": {"lang": "zh"}}, "downloads its list of stopwords for 'zh'"),
        ({"stopwords_filter": {"use_words_aug": True}}, "use_words_aug"),
        ({"stopwords_filter": {"stopwords_dir": "gone"}}, "gone has no list"),
        ({"document_minhash_deduplicator": {"tokenization": "sentencepiece"}}, "'sentencepiece'"),
        ({"general_field_filter": {"filter_condition": "__dj__stats__.a > 1"}}, "stats.NAME"),
        ({"general_field_filter": {"filter_condition": "f(x)"}}, "is not taken"),
        ({"general_field_filter": None}, "keeps all rows"),
        ({"specified_field_filter": {"field_key": "a"}}, "names nothing"),
        ({"specified_numeric_field_filter": None}, "field"),
        ({"replace_content_mapper": None}, "no pattern"),
        ({"replace_content_mapper": {"pattern": ["a"], "repl": ["b", "c"]}}, "1 patterns and 2"),
        ({"replace_content_mapper": {"pattern": "(?=a)"}}, "not one of RE2"),
        ({"text_length_filter": {"max_closed_interval": False}}, "needs the bound itself"),
        ("video_nsfw_filter", "it has no counterpart"),
        *((name, why) for name, why in ADVICE.items()),
    ],
)
def test_what_cannot_be_said_is_left_out_with_the_reason(tmp_path, step, why):
    found = steps(tmp_path, step)
    assert found.recipe["data"]["process"] == []
    name = step if isinstance(step, str) else next(iter(step))
    assert [one.where for one in found.left_out] == [f"process[0].{name}"]
    assert why in found.left_out[0].why


def test_sizes_are_bytes(tmp_path):
    one = {"image_size_filter": {"min_size": "10 KB", "max_size": "2MiB", "any_or_all": "all"}}
    other = {"image_deduplicator": {"method": "dhash"}}
    assert steps(tmp_path, one, other, "image_deduplicator").recipe["data"]["process"] == [
        {"image_size": {"min": 10 << 10, "max": 2 << 20, "strategy": "all"}},
        {"image_dedup": {"method": "difference", "distance": 0}},
        {"image_dedup": {"method": "dct", "distance": 0}},
    ]
    for step, why in (
        ({"audio_size_filter": {"min_size": "many"}}, "'many' is no size"),
        ({"image_deduplicator": {"method": "whash"}}, "'whash' has no counterpart"),
    ):
        assert why in steps(tmp_path, step).left_out[0].why


def test_open_ends_become_the_next_number(tmp_path):
    one = {"special_characters_filter": {"max_ratio": 0.25, "max_closed_interval": False}}
    (step,) = steps(tmp_path, one).recipe["data"]["process"]
    bound = step["special_characters"]["max"]
    assert bound < 0.25 == math.nextafter(bound, 1)


def test_sources_validators_and_unknown_keys(tmp_path):
    text = """
dataset:
  max_sample_num: 50
  configs:
    - {type: local, path: a.jsonl, weight: 0.5}
    - {type: local, path: b.jsonl}
    - {type: huggingface, path: x/y}
validators:
  - type: required_fields
    required_fields: [text, url]
    field_types: {text: str, url: str, n: int}
  - type: swift_messages
export_path: out.parquet
export_shard_size: 1000
text_keys: [text, other]
skip_op_error: false
suffixes: ['.txt']
hpo_config: a.yaml
colour: red
process: []
"""
    found = imported(tmp_path, text)
    assert found.recipe["data"] == {
        "source": {
            "mix": [{"path": "a.jsonl", "weight": 0.5}, {"path": "b.jsonl", "weight": 1.0}],
            "column": None,
        },
        "limit": 50,
        "process": [
            {"required_fields": {"fields": ["url"], "types": {"url": "string", "n": "number"}}}
        ],
        "on_error": "fail",
        "output": {"path": "out", "format": "parquet", "shard_bytes": 1000},
    }
    assert [one.where for one in found.left_out] == [
        *("dataset.configs", "text_keys", "validators[1]"),
        *("hpo_config", "suffixes", "colour"),
    ]


def test_weights_of_paths_are_told_apart(tmp_path):
    found = imported(tmp_path, "dataset_path: '0.5 a.jsonl 0.5 b.jsonl'\nprocess: []")
    mix = [{"path": "a.jsonl"}, {"path": "b.jsonl"}]
    assert found.recipe["data"]["source"] == {"mix": mix, "column": None}
    assert "max_samples and a seed" in found.left_out[0].why
    keys = imported(tmp_path, "dataset_path: 'a.jsonl b.jsonl'\ntext_keys: body\nprocess: []")
    assert [one["text_key"] for one in keys.recipe["data"]["source"]["mix"]] == ["body", "body"]
    assert not keys.left_out
    nothing = imported(tmp_path, "process: []")
    assert "no file is named" in nothing.left_out[0].why


def test_what_is_no_recipe_is_refused(tmp_path):
    for text in ("- a", "process: 3", ""):
        with pytest.raises(ConfigError, match="is no recipe of Data-Juicer"):
            imported(tmp_path, text)
    with pytest.raises(MissingFileError, match="no such file"):
        import_recipe(tmp_path / "gone.yaml")
