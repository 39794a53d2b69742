"""Whether our operators say what Data-Juicer's and datatrove's say, row by row, and why not.

Both sides get the same texts: manuals of Linux and Python, manual pages, e-mails, and odd ones (all
kinds of line ends, emoji, combining marks, tables, LaTeX, HTML). Of each operator the result holds
how many rows have the same statistic, text or fate, and how many of the others a stated reason
explains; where the reason can be computed it is: a row counts as explained only if the peer's value
is the formula's with the peer's own list, or both texts are equal but for white space. CPU seconds
are those of the operator alone, one thread on both sides.

    BENCH_CORPORA=DIR BENCH_PEERS_PYTHON=PYTHON python -m benchmarks.data.compare_datajuicer
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson
import pyarrow as pa
from benchmarks.common import arguments, save
from benchmarks.data.beside import ask_peer, has_peers
from benchmarks.data.corpora import documentation, mails, manpages, own_pages

from sharpen.data import ops
from sharpen.data.batch import FIELDS, ID, TEXT, Batch
from sharpen.data.ops.base import Filter, Mapper
from sharpen.data.ops.filters.words import STOPWORDS
from sharpen.data.statistics import characters

NAME = "data_datajuicer_equality"
_FLAGGED = ("kernel", "driver", "software", "foundation")
_PROGRAM = "datajuicer_peers.py"
_ROWS = 500

Explained = Callable[[str, Any, Any], bool]
"""Whether the reason explains a difference: of the text, our value and theirs."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """An operator on both sides."""

    peer: str
    ours: str
    peer_arguments: dict[str, Any] = field(default_factory=dict)
    arguments: dict[str, Any] = field(default_factory=dict)
    reason: str = ""
    explained: Explained | None = None
    """Without it every difference is put down to the reason."""

    texts: str = "all"
    """``odd`` for the odd texts alone."""


def odd_texts() -> list[str]:
    """What makes texts hard, drawn with a seed."""
    rng = random.Random(0)
    pieces = (
        *("The boats went out. ", "Nobody knew why! ", "“Is it so?” ", "Dr. Who said no. "),
        *("\n", "\n\n", "\r\n", "\x85", "\u2028", "\x0b", "\t", " ", "\u00a0", "\u3000"),
        *(
            "😀",
            "👍🏽",
            "e\u0301",
            "Ⅷ",
            "½",
            "日本語の文。",
            "这是一句话，",
            "Σς",
            "İi",
            "...",
            "…",
        ),
        *("- item\n", "• item\n", "a b c\n", "1 2 3\n", "x|y|z\n", "#", "***", "mail a@b.org "),
        *("http://x.org/a?b=c ", "www.example.com ", "8.8.8.8 ", "◆", "►", "１", "—", "%"),
        *("\\section{One}\n", "\\newcommand{\\ab}{long}\n", "\\ab ", "% note\n", "\\appendix\n"),
        *("<p>bold</p>", "<li>one</li>", "<b>", "&amp;", "/* Copyright */\n", "# note\n", "// x\n"),
        *("supercalifragilisticexpialidocious ", "the of and ", "kernel ", "and and "),
    )
    return ["".join(rng.choices(pieces, k=rng.randrange(60))) for _ in range(400)]


def real_texts() -> list[str]:
    """5,000 of manuals, manual pages and e-mails, drawn with a seed."""
    found = []
    for source, count in ((documentation(), 3000), (mails()[0], 1500), (manpages("en"), 500)):
        texts = [text for text in source if text.strip()]
        random.Random(0).shuffle(texts)
        found += texts[:count]
    return found


def _special_list(special: frozenset[str]) -> Callable[[str, bool], str]:
    def refined(word: str, lower: bool = True) -> str:
        word = word.lower() if lower else word
        first, last = 0, len(word)
        while first < last and word[first] in special:
            first += 1
        while last > first and word[last - 1] in special:
            last -= 1
        return word[first:last]

    return refined


def _words(text: str) -> list[str]:
    return [w for w in text.replace("\n", " ").replace("\t", " ").split(" ") if w]


def _by_list(special: frozenset[str]) -> dict[str, Explained]:
    """The peer's statistics by our formulas, with the peer's list of special characters."""
    refined = _special_list(special)

    def share(text: str, ours: Any, theirs: Any) -> bool:
        return abs(theirs - sum(c in special for c in text) / max(len(text), 1)) < 1e-12

    def number(text: str, ours: Any, theirs: Any) -> bool:
        return bool(theirs == sum(bool(refined(word, False)) for word in _words(text)))

    def repetition(text: str, ours: Any, theirs: Any) -> bool:
        words = [w for w in map(refined, _words(text)) if w]
        counts: dict[str, int] = {}
        for i in range(len(words) - 9):
            gram = " ".join(words[i : i + 10])
            counts[gram] = counts.get(gram, 0) + 1
        whole = sum(counts.values())
        wanted = sum(c for c in counts.values() if c > 1) / whole if whole else 0.0
        return abs(theirs - wanted) < 1e-12

    def listed(words: Sequence[str]) -> Explained:
        known = frozenset(words)

        def explained(text: str, ours: Any, theirs: Any) -> bool:
            found = [w for w in map(refined, _words(text)) if w]
            return abs(theirs - sum(w in known for w in found) / max(len(found), 1)) < 1e-12

        return explained

    def long_words(text: str, ours: Any, theirs: Any) -> bool:
        wanted = [w for w in _words(text) if len(w) <= 30 or 1 <= len(refined(w, False)) <= 30]
        return _words(theirs) == wanted

    return {
        "remove_long_words": long_words,
        "special_characters": share,
        "words_num": number,
        "word_repetition": repetition,
        "stopwords": listed(STOPWORDS),
        "flagged_words": listed(_FLAGGED),
    }


def _same_words(text: str, ours: Any, theirs: Any) -> bool:
    return _words(ours) == _words(theirs)


def _lost_before_comments(text: str, ours: Any, theirs: Any) -> bool:
    """Whether theirs is ours without some characters, marks of comments and spaces apart."""
    rest = iter("".join(ours.replace("%", "").split()))
    return all(character in rest for character in "".join(theirs.replace("%", "").split()))


_SPACES = dict.fromkeys(
    [p for p in range(0x110000) if chr(p).isspace() and chr(p) != "\n"]
    + [0x84, 0x200B, 0x200C, 0x200D, 0x2060, 0xFFFC],
    " ",
)


def _same_but_spaces(text: str, ours: Any, theirs: Any) -> bool:
    one, other = (made.translate(_SPACES).strip() for made in (ours, theirs))
    return bool(one == other)


_BY_LIST = "special characters by Unicode categories, not by a list"
_SPACE = "white space between the words that stay is kept"
_SPACY = "datatrove parts words by spaCy, so that a mark of punctuation is a word"
_PATTERN = "another pattern of our own"


def datajuicer_pairs(lists: str) -> list[Pair]:
    """What is compared with Data-Juicer; ``lists`` is a folder of lists of words."""
    words = {"tokenization": False}
    return [
        Pair(peer="alphanumeric_filter", ours="alphanumeric"),
        Pair(peer="average_line_length_filter", ours="average_line_length"),
        Pair(peer="maximum_line_length_filter", ours="maximum_line_length"),
        Pair(peer="text_length_filter", ours="text_length"),
        Pair(peer="character_repetition_filter", ours="character_repetition"),
        Pair(peer="special_characters_filter", ours="special_characters", reason=_BY_LIST),
        Pair(peer="words_num_filter", ours="words_num", peer_arguments=words, reason=_BY_LIST),
        Pair(peer="word_repetition_filter", ours="word_repetition", reason=_BY_LIST),
        Pair(
            peer="stopwords_filter",
            ours="stopwords",
            peer_arguments={"stopwords_dir": lists},
            reason=_BY_LIST,
        ),
        Pair(
            peer="flagged_words_filter",
            ours="flagged_words",
            peer_arguments={"flagged_words_dir": lists},
            arguments={"words": _FLAGGED},
            reason=_BY_LIST,
        ),
        Pair(peer="clean_copyright_mapper", ours="clean_copyright"),
        Pair(peer="clean_email_mapper", ours="clean_email", reason=_PATTERN),
        Pair(peer="clean_ip_mapper", ours="clean_ip", reason=_PATTERN),
        Pair(peer="clean_links_mapper", ours="clean_links", reason=_PATTERN),
        Pair(
            peer="clean_html_mapper",
            ours="clean_html",
            reason="blocks end lines, scripts go; tags by patterns, not by a parser that repairs",
        ),
        Pair(peer="expand_macro_mapper", ours="expand_macro", reason="macros inside macros put in"),
        Pair(
            peer="fix_unicode_mapper",
            ours="fix_unicode",
            reason="controls and line ends alike; quotes, ligatures, widths and mojibake stay",
        ),
        Pair(
            peer="punctuation_normalization_mapper",
            ours="punctuation_normalization",
            reason="１ stays a digit; ‘ and ‚ become ', too",
            explained=lambda text, ours, theirs: any(c in text for c in "１‘‚‛"),
        ),
        Pair(peer="remove_bibliography_mapper", ours="remove_bibliography"),
        Pair(
            peer="remove_comments_mapper",
            ours="remove_comments",
            reason="the character before a comment stays, a comment may be empty, and so may lines",
            explained=_lost_before_comments,
        ),
        Pair(peer="remove_header_mapper", ours="remove_header"),
        Pair(
            peer="remove_long_words_mapper",
            ours="remove_long_words",
            peer_arguments={"max_len": 30},
            arguments={"max": 30},
            reason=f"{_SPACE}; {_BY_LIST}",
        ),
        Pair(
            peer="remove_words_with_incorrect_substrings_mapper",
            ours="remove_words_with_incorrect_substrings",
            reason=f"{_SPACE}; {_BY_LIST}",
            explained=_same_words,
        ),
        Pair(peer="remove_non_chinese_character_mapper", ours="remove_non_chinese_character"),
        Pair(
            peer="remove_repeat_sentences_mapper",
            ours="remove_repeat_sentences",
            reason="sentences end at white space, and letters of all scripts are compared",
        ),
        Pair(peer="remove_specific_chars_mapper", ours="remove_specific_chars"),
        Pair(
            peer="remove_table_text_mapper",
            ours="remove_table_text",
            peer_arguments={"max_col": 4},
            arguments={"max_columns": 4},
            reason="white space of Unicode parts columns there, that of ASCII here",
            explained=lambda text, ours, theirs: (
                any(c.isspace() and c not in " \t\n\r\f\v" for c in text) or "\v" in text
            ),
            texts="odd",
        ),
        Pair(
            peer="replace_content_mapper",
            ours="replace_content",
            peer_arguments={"pattern": r"[a-c]+\d?", "repl": "<x>"},
            arguments={"pattern": r"[a-c]+\d?", "repl": "<x>"},
        ),
        Pair(
            peer="whitespace_normalization_mapper",
            ours="whitespace_normalization",
            reason="tabs and characters of no width stay; all other white space of Unicode goes",
            explained=_same_but_spaces,
        ),
        Pair(peer="document_deduplicator", ours="exact_dedup"),
        Pair(
            peer="document_deduplicator",
            ours="exact_dedup",
            peer_arguments={"lowercase": True},
            arguments={"lowercase": True},
        ),
    ]


def datatrove_pairs() -> list[Pair]:
    """What is compared with datatrove, words parted by white space on both sides."""
    return [
        Pair(
            peer="GopherQualityFilter",
            ours="gopher_quality",
            reason="stop words in upper case, or with punctuation, count here",
            explained=lambda text, ours, theirs: (
                bool(ours) and theirs == "gopher_enough_stop_words"
            ),
        ),
        Pair(
            peer="GopherRepetitionFilter",
            ours="gopher_repetition",
            reason="lines end at all of str.splitlines, and an empty text says nothing twice",
            explained=lambda text, ours, theirs: (
                not text
                or any(c in text for c in "\r\v\f\x1c\x1d\x1e\x85\u2028\u2029")
                or text.startswith("\n")
                or text.endswith("\n")
            ),
        ),
        Pair(
            peer="FineWebQualityFilter",
            ours="fineweb_quality",
            reason="lines end at all of str.splitlines",
            explained=lambda text, ours, theirs: (
                any(c in text for c in "\r\v\f\x1c\x1d\x1e\x85\u2028\u2029")
                or theirs == "division by zero"
            ),
        ),
        Pair(
            peer="C4QualityFilter",
            ours="c4_quality",
            reason="sentences by a pattern, not by spaCy; a line goes before its page is judged",
            explained=lambda text, ours, theirs: (
                theirs in (None, "too_few_sentences", "lorem_ipsum", "curly_bracket")
            ),
        ),
    ]


def _batches(texts: Sequence[str]) -> list[Batch]:
    found = []
    for start in range(0, len(texts), _ROWS):
        part = texts[start : start + _ROWS]
        columns = [
            pa.array([str(start + i) for i in range(len(part))], pa.string()),
            pa.array(part, pa.large_string()),
            pa.array([orjson.dumps({})] * len(part), pa.large_binary()),
        ]
        found.append(Batch(pa.RecordBatch.from_arrays(columns, names=[ID, TEXT, FIELDS])))
    return found


def ours(pair: Pair, texts: Sequence[str]) -> dict[str, Any]:
    """What our operator measures or makes, as ``datajuicer_peers.py`` says it."""
    one: Any = ops.operator_type(pair.ours)(**pair.arguments)
    found: dict[str, Any] = {}
    batches = _batches(texts)
    begin = time.process_time()
    if isinstance(one, Filter):
        if pair.ours == "c4_quality":
            lines = ops.operator_type("c4_lines")()
            batches = [batch.with_texts(lines.edit(batch)) for batch in batches]  # type: ignore[attr-defined]
        measured = [one.measure(batch) for batch in batches]
        found["kept"] = [bool(k) for values in measured for k in one.keep(values)]
        if one.name in measured[0]:
            found["values"] = [float(v) for values in measured for v in values[one.name]]
        if pair.ours == "c4_quality":
            found["texts"] = [text for batch in batches for text in batch.texts.strings]
    elif isinstance(one, Mapper):
        found["texts"] = [t for batch in batches for t in one.edit(batch).to_pylist()]
    else:
        digests = [one.marks(batch)["digest"].to_pylist() for batch in batches]
        seen: set[bytes] = set()
        found["kept"] = [
            digest not in seen and not seen.add(digest)  # type: ignore[func-returns-value]
            for part in digests
            for digest in part
        ]
    found["cpu_s"] = time.process_time() - begin
    return found


def judge(
    pair: Pair, texts: Sequence[str], mine: dict[str, Any], peer: dict[str, Any]
) -> dict[str, Any]:
    """How many rows agree, and how many of the others the reason explains."""
    row: dict[str, Any] = {
        "operator": pair.ours,
        "peer": pair.peer,
        "rows": len(texts),
        "cpu_s": {"ours": mine["cpu_s"], "peer": peer["cpu_s"]},
    }
    if "error" in peer:
        return {**row, "error": peer["error"]}
    if "values" in mine and "values" in peer:
        kind, left, right = "statistic", mine["values"], peer["values"]
        differ = [i for i, (a, b) in enumerate(zip(left, right, strict=True)) if abs(a - b) > 1e-12]
    elif "kept" in mine:
        kind, left, right = "fate", mine["kept"], peer["kept"]
        differ = [i for i, (a, b) in enumerate(zip(left, right, strict=True)) if a != b]
        right = peer.get("reasons", right)
    else:
        kind, left, right = "text", mine["texts"], peer["texts"]
        differ = [i for i, (a, b) in enumerate(zip(left, right, strict=True)) if a != b]
    explained = pair.explained or (lambda text, a, b: bool(pair.reason))
    open_ = [i for i in differ if not explained(texts[i], left[i], right[i])]
    row |= {
        "compared": kind,
        "equal": len(texts) - len(differ),
        "explained": len(differ) - len(open_),
        "unexplained": len(open_),
        "reason": pair.reason if differ else "",
        "reason_computed": pair.explained is not None,
    }
    if "kept" in mine and "kept" in peer:
        row["kept"] = {"ours": sum(mine["kept"]), "peer": sum(peer["kept"])}
        pairs = zip(mine["kept"], peer["kept"], strict=True)
        row["other_fates"] = sum(a != b for a, b in pairs)
    if open_:
        i = open_[0]
        row["example"] = {
            "text": texts[i][:300],
            "ours": str(left[i])[:300],
            "peer": str(right[i])[:300],
        }
    return row


def compare(texts: Sequence[str], odd: Sequence[str]) -> dict[str, Any]:
    """All operators, with the peers' versions; without peers only that ours run."""
    every = [*texts, *odd]
    characters()  # tables that are made once
    with TemporaryDirectory() as lists:
        for name, words in (("stopwords", STOPWORDS), ("flagged_words", _FLAGGED)):
            (Path(lists) / f"{name}.json").write_text(json.dumps({"en": list(words)}))
        pairs, known = datajuicer_pairs(lists), datatrove_pairs()
        if not has_peers():
            alone = [*pairs, *known]
            return {"rows": [{"operator": p.ours, "cpu_s": ours(p, every)["cpu_s"]} for p in alone]}
        found = []
        for chosen, given in (("all", every), ("odd", list(odd))):
            some = [p for p in pairs if p.texts == chosen]
            task = {"texts": given, "operators": [[p.peer, p.peer_arguments] for p in some]}
            peer = ask_peer("datajuicer", task, _PROGRAM)
            computed = _by_list(frozenset(peer["special"]))
            for pair, theirs in zip(some, peer["results"], strict=True):
                if pair.ours in computed and pair.explained is None:
                    pair = Pair(**{**vars(pair), "explained": computed[pair.ours]})
                found.append(judge(pair, given, ours(pair, given), theirs))
    for words in ("white space", "own"):
        task = {"texts": every, "operators": [[p.peer, {}] for p in known], "words": words}
        peer = ask_peer("datatrove", task, _PROGRAM)
        for pair, theirs in zip(known, peer["results"], strict=True):
            if words == "own":
                pair = Pair(peer=pair.peer, ours=pair.ours, reason=_SPACY)
            row = judge(pair, every, ours(pair, every), theirs)
            found.append({**row, "peer_words": words})
    return {"rows": found, "versions": peer["versions"]}


def main() -> None:
    args = arguments(__doc__, NAME)
    if args.quick:
        texts, odd = own_pages()[:20], odd_texts()[:50]
    else:
        texts, odd = real_texts(), odd_texts()
    results = compare(texts, odd)
    size = sum(map(len, texts)) + sum(map(len, odd))
    config = {"texts": len(texts), "odd_texts": len(odd), "characters": size}
    save(args, results, config=config)
    for row in results["rows"]:
        print({k: v for k, v in row.items() if k != "example"})


if __name__ == "__main__":
    main()
