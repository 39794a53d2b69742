"""The operators of Data-Juicer in our terms: names, arguments, defaults, and what differs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["ADVICE", "RULES", "NoCounterpart", "Rule"]


class NoCounterpart(Exception):
    """An argument, or an operator, that cannot be translated; says why."""


@dataclass(frozen=True, slots=True)
class Rule:
    """How an operator of Data-Juicer is said in our terms."""

    ours: str
    """Our operator."""

    arguments: Mapping[str, str] = field(default_factory=dict)
    """Our argument by theirs; empty for one that changes nothing."""

    only: Mapping[str, Any] = field(default_factory=dict)
    """Arguments that must have their default, which is ours, too."""

    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Theirs where they differ from ours, in our terms."""

    note: str = ""
    """What differs."""

    nulls: frozenset[str] = frozenset()
    """Our arguments that null does not leave at their default."""

    change: Callable[[dict[str, Any]], list[dict[str, Any]]] | None = None
    """Of the arguments, in our terms, to those of one step or several."""


_LENGTH = {"min_len": "min", "max_len": "max"}
_RATIO = {"min_ratio": "min", "max_ratio": "max"}
_NUMBER = {"min_num": "min", "max_num": "max"}
_PATTERN = {"pattern": "pattern", "repl": "repl"}
_PLAIN = {"tokenization": False}
_LISTS = {
    "lang": "lang",
    "use_words_aug": "augmented",
    "words_aug_group_sizes": "",
    "words_aug_join_char": "",
}
_MEDIA = {"any_or_all": "strategy"}
_SIZE = {"min_size": "min", "max_size": "max"}
_FOLDER = "Relative paths begin at folder, which is the working folder."
_SPECIAL = "Special characters are told by Unicode categories, not by a list."
_OWN_PATTERN = "Its own pattern differs; give pattern for yours, on RE2."
_MINHASH_TOKENS = {"space": "space", "character": "characters"}


def _words(kind: str) -> Callable[[dict[str, Any]], list[dict[str, Any]]]:
    """Read the lists that Data-Juicer reads from a folder, if one is named."""

    def read(arguments: dict[str, Any]) -> list[dict[str, Any]]:
        language, folder = arguments.pop("lang", "en"), arguments.pop("folder", None)
        if arguments.pop("augmented", False):
            raise NoCounterpart("use_words_aug, which joins words, has no counterpart.")
        if folder is not None:
            found: set[str] = set()
            for path in sorted(Path(folder).glob(f"*{kind}*.json")):
                lists = json.loads(path.read_text(encoding="utf-8"))
                every = lists.values() if language == "all" else [lists.get(language, [])]
                found.update(word for words in every for word in words)
            if not found:
                raise NoCounterpart(f"{folder} has no list of {kind} for '{language}'.")
            return [{**arguments, "words": sorted(found)}]
        if kind == "flagged_words" or language != "en":
            raise NoCounterpart(
                f"Data-Juicer downloads its list of {kind} for '{language}'. Write the words: "
                f"{kind}: {{words: [...]}}."
            )
        return [arguments]

    return read


def _tokens(arguments: dict[str, Any]) -> list[dict[str, Any]]:
    given = arguments.get("tokens", "space")
    if given not in _MINHASH_TOKENS:
        raise NoCounterpart(
            f"tokenization '{given}' has no counterpart; there are words, space, characters."
        )
    return [{**arguments, "tokens": _MINHASH_TOKENS[given]}]


def _patterns(arguments: dict[str, Any]) -> list[dict[str, Any]]:
    """One step for each of several patterns."""
    patterns, places = arguments.get("pattern"), arguments.get("repl", "")
    if patterns is None:
        raise NoCounterpart("it has no pattern, and so does nothing.")
    several = [patterns] if isinstance(patterns, str) else list(patterns)
    each = [places] * len(several) if isinstance(places, str) else list(places)
    if len(each) != len(several):
        raise NoCounterpart(f"{len(several)} patterns and {len(each)} replacements.")
    return [{"pattern": p, "repl": r} for p, r in zip(several, each, strict=True)]


def _condition(arguments: dict[str, Any]) -> list[dict[str, Any]]:
    condition = arguments.get("condition", "").strip()
    if not condition:
        raise NoCounterpart("it has no condition, and so keeps all rows.")
    if "__dj__stats__" in condition:
        raise NoCounterpart(
            "statistics have other names here; write stats.NAME for __dj__stats__.NAME, and "
            "output: {keep_statistics: true}."
        )
    return [{"condition": condition}]


def _listed(name: str) -> Callable[[dict[str, Any]], list[dict[str, Any]]]:
    """A list where Data-Juicer also takes one value; nothing to do if it is empty."""

    def made(arguments: dict[str, Any]) -> list[dict[str, Any]]:
        values = arguments.get(name) or []
        values = [values] if isinstance(values, str) else list(values)
        if not values:
            raise NoCounterpart("it names nothing, and so keeps all rows.")
        return [{**arguments, name: values}]

    return made


def _joined(arguments: dict[str, Any]) -> list[dict[str, Any]]:
    characters = arguments.get("characters")
    if characters is None:
        return [arguments]
    return [{"characters": "".join(characters)}]


def _form(arguments: dict[str, Any]) -> list[dict[str, Any]]:
    form = arguments.get("normalization")
    return [{"normalization": form.upper()}] if form else [{}]


def _bytes(arguments: dict[str, Any]) -> list[dict[str, Any]]:
    """Sizes such as ``10 MB`` as numbers of bytes."""
    made = dict(arguments)
    for bound in ("min", "max"):
        found = re.fullmatch(r"\s*(\d+)\s*(?:([KMGTP])i?B)?\s*", str(made.get(bound, "0")), re.I)
        if found is None:
            raise NoCounterpart(f"{made[bound]!r} is no size.")
        if bound in made:
            unit = (found.group(2) or " ").upper()
            made[bound] = int(found.group(1)) << (10 * " KMGTP".index(unit))
    return [made]


_IMAGE_METHODS = {"phash": "dct", "dhash": "difference", "ahash": "average"}


def _image_method(arguments: dict[str, Any]) -> list[dict[str, Any]]:
    method = arguments["method"]
    if method not in _IMAGE_METHODS:
        raise NoCounterpart(f"the method '{method}' has no counterpart.")
    return [{**arguments, "method": _IMAGE_METHODS[method]}]


RULES: dict[str, Rule] = {
    # Filters.
    "alphanumeric_filter": Rule("alphanumeric", _RATIO, _PLAIN),
    "average_line_length_filter": Rule("average_line_length", _LENGTH),
    "character_repetition_filter": Rule("character_repetition", {"rep_len": "size", **_RATIO}),
    "flagged_words_filter": Rule(
        "flagged_words",
        {**_RATIO, **_LISTS, "flagged_words_dir": "folder"},
        _PLAIN,
        note=_SPECIAL,
        change=_words("flagged_words"),
    ),
    "general_field_filter": Rule(
        "general_field", {"filter_condition": "condition"}, change=_condition
    ),
    "maximum_line_length_filter": Rule("maximum_line_length", _LENGTH),
    "special_characters_filter": Rule("special_characters", _RATIO, note=_SPECIAL),
    "specified_field_filter": Rule(
        "specified_field",
        {"field_key": "field", "target_value": "values"},
        change=_listed("values"),
    ),
    "specified_numeric_field_filter": Rule(
        "specified_numeric_field",
        {"field_key": "field", "min_value": "min", "max_value": "max"},
        note="A value of 0 is a number here; Data-Juicer drops it.",
    ),
    "stopwords_filter": Rule(
        "stopwords",
        {**_RATIO, **_LISTS, "stopwords_dir": "folder"},
        _PLAIN,
        note=f"The list of English is ours, unless stopwords_dir names one. {_SPECIAL}",
        change=_words("stopwords"),
    ),
    "suffix_filter": Rule(
        "suffix",
        {"suffixes": "suffixes"},
        note="The suffix is read from the field 'path'; name another with field.",
        change=_listed("suffixes"),
    ),
    "text_length_filter": Rule("text_length", _LENGTH),
    "token_num_filter": Rule(
        "token_num",
        {"hf_tokenizer": "tokenizer", **_NUMBER},
        defaults={"tokenizer": "EleutherAI/pythia-6.9b-deduped"},
        note="tokenizer must be a folder or file; nothing is downloaded.",
    ),
    "word_repetition_filter": Rule(
        "word_repetition", {"rep_len": "size", **_RATIO, "lang": ""}, _PLAIN, note=_SPECIAL
    ),
    "words_num_filter": Rule("words_num", {**_NUMBER, "lang": ""}, _PLAIN, note=_SPECIAL),
    # Mappers.
    "chinese_convert_mapper": Rule("chinese_convert", {"mode": "mode"}),
    "clean_copyright_mapper": Rule("clean_copyright"),
    "clean_email_mapper": Rule("clean_email", _PATTERN, note=_OWN_PATTERN),
    "clean_html_mapper": Rule(
        "clean_html", note="Blocks end lines, scripts and styles go; found by patterns."
    ),
    "clean_ip_mapper": Rule("clean_ip", _PATTERN, note=_OWN_PATTERN),
    "clean_links_mapper": Rule("clean_links", _PATTERN, note=_OWN_PATTERN),
    "expand_macro_mapper": Rule("expand_macro", note="Macros inside macros are put in, too."),
    "fix_unicode_mapper": Rule(
        "fix_unicode",
        {"normalization": "normalization"},
        note="Characters that were decoded wrongly are not repaired.",
        change=_form,
    ),
    "nlpaug_en_mapper": Rule(
        "nlpaug_en",
        {
            "sequential": "sequential",
            "aug_num": "copies",
            "keep_original_sample": "keep_original",
            **{
                name: name
                for name in (
                    *("delete_random_word", "swap_random_word", "spelling_error_word"),
                    *("split_random_word", "keyboard_error_char", "ocr_error_char"),
                    *("delete_random_char", "swap_random_char", "insert_random_char"),
                )
            },
        },
        note="The switches are the same; which words they change, and how, is ours.",
    ),
    "punctuation_normalization_mapper": Rule(
        "punctuation_normalization", note="１ stays a digit; ‘ and ‚ become ', too."
    ),
    "remove_bibliography_mapper": Rule("remove_bibliography"),
    "remove_comments_mapper": Rule(
        "remove_comments",
        {"inline": "inline", "multiline": "multiline"},
        {"doc_type": "tex"},
        note="The character before a comment stays.",
    ),
    "remove_header_mapper": Rule("remove_header", {"drop_no_head": "drop_no_head"}),
    "remove_long_words_mapper": Rule(
        "remove_long_words", _LENGTH, note="White space between the words that stay is kept."
    ),
    "remove_non_chinese_character_mapper": Rule(
        "remove_non_chinese_character",
        {
            "keep_alphabet": "keep_alphabet",
            "keep_number": "keep_number",
            "keep_punc": "keep_punctuation",
        },
    ),
    "remove_repeat_sentences_mapper": Rule(
        "remove_repeat_sentences",
        {
            "lowercase": "lowercase",
            "ignore_special_character": "ignore_special_character",
            "min_repeat_sentence_length": "min_length",
        },
        {"tokenizer": None},
        note="Abbreviations end no sentence, and letters of all scripts are compared.",
    ),
    "remove_specific_chars_mapper": Rule(
        "remove_specific_chars", {"chars_to_remove": "characters"}, change=_joined
    ),
    "remove_table_text_mapper": Rule(
        "remove_table_text", {"min_col": "min_columns", "max_col": "max_columns"}
    ),
    "remove_words_with_incorrect_substrings_mapper": Rule(
        "remove_words_with_incorrect_substrings",
        {"substrings": "substrings", "lang": ""},
        _PLAIN,
        note="White space between the words that stay is kept.",
    ),
    "replace_content_mapper": Rule("replace_content", _PATTERN, change=_patterns),
    "sentence_split_mapper": Rule(
        "sentence_split", {"lang": ""}, note="Sentences are found by rules, not by NLTK's model."
    ),
    "text_chunk_mapper": Rule(
        "text_chunk",
        {
            "max_len": "size",
            "split_pattern": "pattern",
            "overlap_len": "overlap",
            "tokenizer": "tokenizer",
            "trust_remote_code": "",
        },
        nulls=frozenset({"pattern"}),
        note="Without a pattern the last chunk ends with the text, and none lies inside another.",
    ),
    "whitespace_normalization_mapper": Rule(
        "whitespace_normalization", note="Tabs stay, and so do characters of no width."
    ),
    # Deduplicators.
    "document_deduplicator": Rule(
        "exact_dedup",
        {"lowercase": "lowercase", "ignore_non_character": "ignore_non_character"},
    ),
    "document_minhash_deduplicator": Rule(
        "minhash_dedup",
        {
            "tokenization": "tokens",
            "window_size": "window",
            "lowercase": "lowercase",
            "num_permutations": "lanes",
            "jaccard_threshold": "threshold",
            "num_bands": "bands",
            "num_rows_per_band": "rows",
        },
        {"ignore_pattern": None, "tokenizer_model": None},
        defaults={"tokens": "space"},
        note="Candidates are verified, and texts shorter than a shingle are compared whole.",
        change=_tokens,
    ),
    "document_simhash_deduplicator": Rule(
        "simhash_dedup",
        {
            "tokenization": "tokens",
            "window_size": "window",
            "lowercase": "lowercase",
            "num_blocks": "blocks",
            "hamming_distance": "distance",
        },
        {"ignore_pattern": None},
        defaults={"tokens": "space"},
        note="Hashes are ours.",
        change=_tokens,
    ),
    # Images and sounds.
    "image_aspect_ratio_filter": Rule("image_aspect_ratio", {**_RATIO, **_MEDIA}, note=_FOLDER),
    "image_shape_filter": Rule(
        "image_shape",
        {
            **{name: name for name in ("min_width", "max_width", "min_height", "max_height")},
            **_MEDIA,
        },
        note=_FOLDER,
    ),
    "image_size_filter": Rule("image_size", {**_SIZE, **_MEDIA}, note=_FOLDER, change=_bytes),
    "audio_duration_filter": Rule(
        "audio_duration",
        {"min_duration": "min", "max_duration": "max", **_MEDIA},
        note=_FOLDER,
    ),
    "audio_size_filter": Rule("audio_size", {**_SIZE, **_MEDIA}, note=_FOLDER, change=_bytes),
    "image_deduplicator": Rule(
        "image_dedup",
        {"method": "method"},
        {"consider_text": False},
        defaults={"method": "phash", "distance": 0},
        note=f"Hashes are ours. {_FOLDER}",
        change=_image_method,
    ),
    # Selectors.
    "topk_specified_field_selector": Rule(
        "topk_specified_field",
        {
            "field_key": "field",
            "top_ratio": "ratio",
            "topk": "count",
            "reverse": "descending",
        },
    ),
    "frequency_specified_field_selector": Rule(
        "frequency_specified_field",
        {
            "field_key": "field",
            "top_ratio": "ratio",
            "topk": "count",
            "reverse": "descending",
        },
    ),
    "range_specified_field_selector": Rule(
        "range_specified_field",
        {
            "field_key": "field",
            **{
                name: name
                for name in ("lower_percentile", "upper_percentile", "lower_rank", "upper_rank")
            },
        },
    ),
    "random_selector": Rule(
        "random_rows",
        {"select_ratio": "ratio", "select_num": "count"},
        note="The rows are drawn by a seed, and so are always the same.",
    ),
    "tags_specified_field_selector": Rule(
        "specified_field",
        {"field_key": "field", "target_tags": "values"},
        change=_listed("values"),
    ),
}

ADVICE: dict[str, str] = {
    "language_id_score_filter": "Data-Juicer downloads fastText's lid.176. With that file: "
    "language: {languages: [en], backend: fasttext, model: lid.176.bin}.",
    "perplexity_filter": "Data-Juicer downloads a model of Wikipedia. Train one of your own "
    "(sharpen data lm train): perplexity: {model: FILE}.",
    "python_lambda_mapper": "its lambda takes a sample; ours takes a text: python_lambda: {code: "
    "'lambda text: ...', allow_code: true}.",
    "python_file_mapper": "its function takes a sample; ours takes a text: python_file: {path: "
    "FILE, function: NAME, allow_code: true}.",
    "pii_redaction_mapper": "it masks paths and numbers of its own choice. Ours: mask_pii, "
    "mask_secrets.",
    "audio_nmf_snr_filter": "its ratio comes from a factorization that begins at random; see "
    "audio_snr, whose values differ.",
    "image_nsfw_filter": "Data-Juicer downloads a model. With one of yours as an ONNX file: "
    "image_onnx_classifier: {model: FILE, labels: [normal, nsfw], classes: [nsfw]}.",
    "image_watermark_filter": "Data-Juicer downloads a model. With one of yours as an ONNX file: "
    "image_onnx_classifier: {model: FILE}.",
    "document_line_deduplicator": "it counts lines over the corpus; see line_dedup.",
    "text_action_filter": "it needs a parser of the language, which is a download.",
    "text_entity_dependency_filter": "it needs a parser of the language, which is a download.",
}
"""Why others have none, and what to write instead."""
