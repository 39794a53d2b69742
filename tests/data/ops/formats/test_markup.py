"""Text out of HTML, and tables out of text."""

from __future__ import annotations

import html
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.texts import COLUMNS, make_batch
from sharpen.core.errors import ConfigError
from sharpen.data import ops


def cleaned(text):
    return ops.clean_html().edit(make_batch([text])).to_pylist()[0]


@pytest.mark.parametrize(
    ("page", "wanted"),
    [
        ("<p>One &amp; two</p><p>three</p>", "One & two\nthree\n"),
        ("a<br>b<BR/>c<br class=x>d", "a\nb\nc\nd"),
        ("<ul><li>x</li><li id='a'>y</li></ul>", "\n* x\n* y\n"),
        ("<script>if (a < b) {}</script >text<style>p {}</style>", "text"),
        ("<!-- hid\nden -->seen<!DOCTYPE html>", "seen"),
        ("2 < 3 and 4 > 1, a <b>bold</b> claim", "2 < 3 and 4 > 1, a bold claim"),
        ("<a href='x>y'>link</a>", "y'>link"),
        ("&lt;p&gt; &#8217; &#x41; &nbsp;| &unknown; &", "<p> ’ A \xa0| &unknown; &"),
        ("plain", "plain"),
        ("<head><title>T</title></head><body><h1>H</h1>b</body>", "H\nb"),
    ],
)
def test_text_of_a_page(page, wanted):
    assert cleaned(page) == wanted


class Text(HTMLParser):
    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.parts = []

    def handle_data(self, data):
        self.parts.append(data)


@given(
    st.recursive(
        st.text("abc 12.,", min_size=1, max_size=8),
        lambda inner: st.tuples(
            st.sampled_from(["b", "i", "span", "a", "em"]), st.lists(inner, max_size=3)
        ).map(lambda t: f"<{t[0]} class='x'>{''.join(t[1])}</{t[0]}>"),
        max_leaves=8,
    )
)
def test_inline_tags_leave_what_a_parser_leaves(page):
    parser = Text()
    parser.feed(page)
    parser.close()
    assert cleaned(page) == "".join(parser.parts)


@given(COLUMNS)
def test_texts_without_tags_stay(texts):
    plain = [re.sub("[<>&]", "", text) for text in texts]
    assert ops.clean_html().edit(make_batch(plain)).to_pylist() == plain
    escaped = [html.escape(text) for text in plain]
    assert ops.clean_html().edit(make_batch(escaped)).to_pylist() == plain


def slow_tables(text, low, high):
    """As Data-Juicer 1.6.1 does it."""
    for more in range(low - 1, high):
        text = re.sub(rf"(?<=\n)((\S+?)([ |\t](\S+?)){{{more}}}\n+){{2,}}", "", text)
    return text


@given(st.lists(st.text("ab| \t\n", max_size=30), max_size=3))
def test_tables_go(texts):
    found = ops.remove_table_text(max_columns=5).edit(make_batch(texts)).to_pylist()
    assert found == [slow_tables(text, 2, 5) for text in texts]


def test_columns_are_in_order():
    with pytest.raises(ConfigError, match="min_columns=1"):
        ops.remove_table_text(min_columns=1)
    text = "head\na b\nc d\n1 2 3\n4 5 6\nend"
    batch = make_batch([text])
    assert ops.remove_table_text(min_columns=3).edit(batch).to_pylist() == ["head\na b\nc d\nend"]
