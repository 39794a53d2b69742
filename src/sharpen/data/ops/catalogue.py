"""The page of all operators, ``docs/data/operators.md``, from their own words.

``python -m sharpen.data.ops.catalogue`` prints it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sharpen.core.config import dump_yaml
from sharpen.data.compat_rules import RULES
from sharpen.data.explain import describe_operators

__all__ = ["EXAMPLES", "example", "markdown"]

EXAMPLES: Mapping[str, Mapping[str, Any]] = {
    "c4_lines": {"min_words": 3},
    "decontaminate": {"against": ["tests.jsonl"], "text_keys": ["question"]},
    "fields_equal": {"first": "question", "second": "answer"},
    "flagged_words": {"words": ["casino", "jackpot"], "max": 0.01},
    "frequency_specified_field": {"field": "meta.domain", "count": 10},
    "general_field": {"condition": "10 < stars <= 3000 and meta.language == 'en'"},
    "gopher_quality": {"min_words": 50, "max_bullet_lines": 0.9},
    "group_by": {"by": ["meta.domain"], "separator": "\n\n", "aggregate": {"total": "sum:stars"}},
    "image_classifier": {"path": "score.py", "max": 0.5, "allow_code": True},
    "image_dedup": {"distance": 4},
    "image_onnx_classifier": {"model": "nsfw.onnx", "labels": ["ok", "nsfw"], "classes": ["nsfw"]},
    "image_shape": {"min_width": 200, "min_height": 200, "strategy": "all"},
    "language": {"languages": ["en"], "backend": "script"},
    "listed_phrases": {"phrases": ["click here", "sign up"], "max": 2},
    "llm_classify": {"lm": "scripted:replies.yaml", "labels": ["news", "fiction", "other"]},
    "llm_quality_score": {"lm": "scripted:replies.yaml", "min": 3},
    "llm_question": {"lm": "scripted:replies.yaml"},
    "llm_question_rows": {"lm": "scripted:replies.yaml"},
    "llm_rewrite": {"lm": "scripted:replies.yaml", "instruction": "Make it shorter."},
    "matches_num": {"pattern": "(?i)advertisement", "max": 2},
    "minhash_dedup": {"threshold": 0.7},
    "nlpaug_en": {"keyboard_error_char": True, "copies": 2},
    "perplexity": {"model": "english.lm", "max": 1500},
    "python_file": {"path": "edit.py", "function": "process", "allow_code": True},
    "python_filter": {"code": "lambda row: row['stars'] > 3", "allow_code": True},
    "python_lambda": {"code": "lambda text: text.strip()", "allow_code": True},
    "quality_score": {"model": "quality.model", "min": 0.5},
    "random_rows": {"ratio": 0.1},
    "range_specified_field": {"field": "stars", "lower_percentile": 0.1, "upper_percentile": 0.9},
    "remove_long_words": {"max": 40},
    "replace_content": {"pattern": "(?i)read more", "repl": ""},
    "required_fields": {"fields": ["url", "meta.domain"], "types": {"stars": "number"}},
    "short_lines": {"max": 0.67, "length": 30},
    "specified_field": {"field": "meta.language", "values": ["en", "de"]},
    "specified_numeric_field": {"field": "stars", "min": 3},
    "suffix": {"suffixes": [".md", ".txt"], "field": "path"},
    "text_chunk": {"size": 2000, "overlap": 200},
    "text_length": {"min": 50, "max": 100000},
    "token_num": {"tokenizer": "tokenizer", "min": 10, "max": 2048},
    "topk_specified_field": {"field": "stars", "ratio": 0.5},
    "truncate": {"size": 10000},
    "url_blocklist": {"domains": ["example.org"], "words": ["casino"]},
}
"""Arguments worth showing; others are shown without any."""

_HEADINGS = {
    "filter": "Filters",
    "mapper": "Mappers",
    "annotator": "Annotators",
    "splitter": "Splitters",
    "deduplicator": "Deduplicators",
}
_SAYS = {
    "filter": "Keep the rows whose statistics lie within bounds, ends included.",
    "mapper": "Edit each text.",
    "annotator": "Add fields to rows.",
    "splitter": "Make several rows of one; fields are copied, and ids become `parent.number`.",
    "deduplicator": "Drop rows that are copies of others, over the whole data set.",
}
_LONGEST = 60  # characters of a default


def example(name: str) -> str:
    """A step of a recipe, on one line of YAML."""
    arguments = EXAMPLES.get(name)
    if not arguments:
        return f"- {name}"
    return f"- {name}: {_flow(arguments)}"


def _flow(value: Any) -> str:
    """YAML's flow style."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_flow(one)}" for key, one in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if isinstance(value, str) and (re.search(r"[^\w./]", value) or not value):
        if "'" in value or not value.isprintable():
            return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
        return f"'{value}'"
    return dump_yaml(value).removesuffix("...\n").strip()


def _default(argument: Mapping[str, Any]) -> str:
    if argument["required"]:
        return "required"
    value = argument["default"]
    if value in ("inf", "-inf"):
        return "no bound"
    if isinstance(value, (list, tuple)) and len(_flow(value)) > _LONGEST:
        return f"{len(value)} {'words' if isinstance(value[0], str) else 'values'}"
    text = _flow(value)
    return f"`{text if len(text) <= _LONGEST else text[:_LONGEST] + '…'}`".replace("|", "\\|")


def _plain(text: str) -> str:
    """Docstrings' marks as Markdown's."""
    text = re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"`\1`", text)
    return text.replace("``", "`")


def _cell(text: str) -> str:
    return _plain(text).replace("|", "\\|")


def _section(row: Mapping[str, Any]) -> list[str]:
    lines = [f"### {row['name']}", "", _plain(row["description"]), ""]
    if row["arguments"]:
        lines += ["| argument | type | default | |", "| --- | --- | --- | --- |"]
        for one in row["arguments"]:
            kind = one["type"].replace("|", "\\|")
            lines.append(
                f"| `{one['name']}` | `{kind}` | {_default(one)} | {_cell(one['meaning'])} |"
            )
        lines.append("")
    lines += [f"Example: `{example(row['name'])}`", ""]
    theirs = [f"`{name}`" for name, rule in RULES.items() if rule.ours == row["name"]]
    return [*lines, f"In Data-Juicer: {', '.join(theirs)}.", ""] if theirs else lines


def markdown() -> str:
    """The page."""
    rows = describe_operators()
    kinds = [*_HEADINGS, *sorted({row["kind"] for row in rows} - set(_HEADINGS))]
    lines = [
        "# Operators of data recipes",
        "",
        f"{len(rows)} operators, each with what it does, its arguments, and a step of a recipe as",
        "an example. [Clean a corpus](clean.md) says how recipes run. `sharpen data ops NAME`",
        "prints the same. Patterns are those of RE2.",
        "",
    ]
    for kind in kinds:
        ours = [row for row in rows if row["kind"] == kind]
        names = ", ".join(f"[{row['name']}](#{row['name']})" for row in ours)
        heading = _HEADINGS.get(kind, kind.capitalize() + "s")
        lines += [f"## {heading}", ""]
        lines += [_SAYS[kind], ""] if kind in _SAYS else []
        lines += [names, ""]
        for row in ours:
            lines += _section(row)
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    print(markdown(), end="")
