"""Domains, phrases and patterns of the user's."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.texts import make_batch
from sharpen.core.errors import ConfigError, DataError, MissingFileError
from sharpen.data import ops


def test_domains_block_what_is_below_them(tmp_path):
    file = tmp_path / "domains.txt"
    file.write_text("# of a friend\nads.example.net\n\n")
    one = ops.url_blocklist(domains=["Example.org"], file=str(file), words=["casino"])
    urls = [
        *("https://example.org/x", "http://a.b.example.org:80/", "https://notexample.org"),
        *("ads.example.net/page", "https://example.net", "https://x.com/Best-Casino_2", None, 7),
        *("https://x.com/occasinox", "http://[bad", ""),
    ]
    batch = make_batch([""] * len(urls), [{"url": url} for url in urls])
    found = one.measure(batch)
    assert one.keep(found).tolist() == [
        *(False, False, True, False, True, False, True, True, True, True, True)
    ]
    assert one.miss(found, 1).reason == "example.org is listed"
    assert one.miss(found, 5).reason == "casino is listed"


def test_a_changed_list_is_another_operator(tmp_path):
    file = tmp_path / "list.txt"
    file.write_text("a")
    before = ops.listed_phrases(file=str(file)).describe()
    assert before == ops.listed_phrases(file=str(file)).describe()
    file.write_text("b\n")
    assert before != ops.listed_phrases(file=str(file)).describe()
    with pytest.raises(MissingFileError, match=r"no such file: gone\.txt"):
        ops.url_blocklist(file="gone.txt")
    file.write_bytes(b"\xff")
    with pytest.raises(DataError, match="is not UTF-8"):
        ops.url_blocklist(file=str(file))


def test_phrases_stand_alone():
    one = ops.listed_phrases(phrases=["foo", "c++", "two words"])
    texts = [
        "foo",
        "FOO, food",
        "afoo foo_",
        "I know C++.",
        "Two words",
        "two  words",
        "",
        "foo foo",
    ]
    found = one.measure(make_batch(texts))
    assert found["listed_phrases"].tolist() == [1, 1, 0, 1, 1, 0, 0, 2]
    assert one.keep(found).tolist() == [False, False, True, False, False, True, True, False]


@given(st.lists(st.text("ab1 \n", max_size=20), max_size=4))
def test_matches_are_counted(texts):
    one = ops.matches_num(pattern=r"a[ab]|\d", max=3)
    found = one.measure(make_batch(texts))["matches_num"].tolist()
    assert found == [len(re.findall(r"a[ab]|\d", text)) for text in texts]


def test_nothing_to_look_for_is_refused():
    with pytest.raises(ConfigError, match="url_blocklist needs domains"):
        ops.url_blocklist()
    with pytest.raises(ConfigError, match="listed_phrases needs phrases"):
        ops.listed_phrases()
    with pytest.raises(ConfigError, match="is not one of RE2"):
        ops.matches_num(pattern=r"(?=a)")
