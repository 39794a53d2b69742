"""Mappers for LaTeX against Data-Juicer's patterns where they are the same, and by example."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.texts import make_batch
from sharpen.core.errors import DataError
from sharpen.data import ops

PIECES = [
    *(
        r"\section{A}",
        r"\chapter*[x]{B",
        r"\subparagraph{C}",
        "}",
        "\n",
        "text ",
        r"\begin{document}",
    ),
    *(r"\appendix", r"\begin{thebibliography}", r"\bibliography{refs}", r"\sectional{D}"),
    *("%", r"\%", r"\\", "50", " note"),
]
TEXTS = st.lists(st.lists(st.sampled_from(PIECES), max_size=9).map("".join), max_size=4)


def edited(one, *texts):
    return one.edit(make_batch(texts)).to_pylist()


def slow_header(text, drop):
    kinds = "chapter|part|section|subsection|subsubsection|paragraph|subparagraph"
    found = re.search(rf"\\(?:{kinds})\b\*?(?:\[.*?\])?\{{.*?\}}", text, re.DOTALL)
    if found is None:
        return "" if drop else text
    return text[found.start() :]


@given(TEXTS, st.booleans())
def test_what_stands_before_the_first_heading_goes(texts, drop):
    found = edited(ops.remove_header(drop_no_head=drop), *texts)
    assert found == [slow_header(text, drop) for text in texts]


@given(TEXTS)
def test_references_go(texts):
    pattern = (
        r"(\\appendix|\\begin\{references\}|\\begin\{REFERENCES\}|\\begin\{thebibliography\}"
        r"|\\bibliography\{.*\}).*$"
    )
    wanted = [re.sub(pattern, "", text, flags=re.DOTALL) for text in texts]
    assert edited(ops.remove_bibliography(), *texts) == wanted


def slow_comments(text):
    lines = []
    for line in text.split("\n"):
        if line.startswith("%"):
            continue
        kept, i = "", 0
        while i < len(line) and line[i] != "%":
            step = 2 if line[i] == "\\" else 1
            kept += line[i : i + step]
            i += step
        lines.append(kept)
    return "\n".join(lines)


@given(TEXTS)
def test_comments_go(texts):
    texts = [text + "\nend" for text in texts]  # a last line, so that none ends without a feed
    assert edited(ops.remove_comments(), *texts) == [slow_comments(text) for text in texts]


def test_comments_of_one_kind():
    text = "% whole\na 50\\% b % inline\nc"
    assert edited(ops.remove_comments(inline=False), text) == ["a 50\\% b % inline\nc"]
    assert edited(ops.remove_comments(multiline=False), text) == ["% whole\na 50\\% b \nc"]


def test_macros_are_put_in():
    text = (
        "\\newcommand{\\dna}{\\emph{DNA}}\n\\newcommand*{\\pair}{\\dna pair}\n\\def \\n{no}\n"
        "\\pair, \\dna\\dna. \\nothing \\n"
    )
    found = edited(ops.expand_macro(), text, "no macros \\here")
    wanted = "\\emph{DNA} pair, \\emph{DNA}\\emph{DNA}. \\nothing no"
    assert found[0].splitlines()[-1] == wanted
    assert found[1] == "no macros \\here"
    later = "\\def\\a{\\b{} x}\n\\def\\b{y}\n\\a"
    assert edited(ops.expand_macro(), later)[0].splitlines()[-1] == "y{} x"
    itself = "\\def\\a{\\a x}\n\\a"
    assert edited(ops.expand_macro(), itself)[0].splitlines()[-1] == "\\a x x"


def test_macros_that_grow_without_end_fail():
    doubled = "".join(f"\\def\\m{i + 1}{{\\m{i} \\m{i} }}\n" for i in range(40))
    with pytest.raises(DataError, match="come to more than"):
        ops.expand_macro().edit(make_batch(["\\def\\m0{x}\n" + doubled + "\\m40"]))
