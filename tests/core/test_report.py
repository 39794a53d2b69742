from pathlib import Path

import pytest

from sharpen.core.report import (
    Chart,
    Section,
    Series,
    Table,
    Text,
    format_value,
    shorten,
    visible,
    write_html,
)


def test_a_report_is_self_contained_and_escapes_what_it_shows(tmp_path: Path) -> None:
    path = tmp_path / "r.html"
    chart = Chart("c </script>", [Series("s", [1, 2], [1.0, float("nan")])], "x", "y (s)")
    table = Table(["name", "n"], [["<b>", 1234567], ["q", 0.5]])
    write_html(path, "a & b", [Section("one", [Text("x < y", True), table, chart])])
    page = path.read_text()
    body = page[page.rindex("<body>") :]
    assert "a &amp; b" in body
    assert "x &lt; y" in body
    assert "1,234,567" in body
    assert "&lt;b&gt;" in body
    assert body.count("</script>") == 1
    assert "[1.0, null]" in body
    assert 'src="http' not in page


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (True, "yes"), (12345, "12,345"), (0.12341, "0.1234"), (1e-7, "1.000e-07"),
     (12345.6, "12,346"), (float("nan"), "–"), ("x", "x"), (0.0, "0")],
)  # fmt: skip
def test_values_are_written_as_people_read_them(value: object, text: str) -> None:
    assert format_value(value) == text


def test_what_cannot_be_seen_is_made_visible_and_can_be_written(tmp_path: Path) -> None:
    odd = "bell \a, escape \x1b[31m, null \0, half \ud800, turned \u202e, deleted \x7f, c1 \x85"
    shown = "bell ␇, escape ␛[31m, null ␀, half \\ud800, turned \\u202e, deleted ␡, c1 \\u0085"
    assert visible(odd) == shown
    assert visible("kept:\n\ttab, é, 漢字, 👍\r\n") == "kept:\n\ttab, é, 漢字, 👍\n"
    path = tmp_path / "r.html"
    write_html(path, odd, [Section(odd, [Text(odd), Text(odd, True), Table([odd], [[odd]])])])
    assert path.read_text(encoding="utf-8").count("half \\ud800") == 7


def test_long_texts_keep_both_ends() -> None:
    assert shorten("abc", 3) == "abc"
    text = "a" * 900 + "b" * 100
    short = shorten(text, 100)
    assert short.startswith("a" * 75)
    assert short.endswith("b" * 25)
    assert "900 characters" in short
    assert len(shorten("x" * 10_000_000, 2000)) < 2100


def test_names_in_charts_cannot_end_the_script(tmp_path: Path) -> None:
    path = tmp_path / "r.html"
    name = "<!--<script></script>"
    write_html(path, "t", [Section("s", [Chart(name, [Series(name, [1], [2.0])], "x", "y")])])
    page = path.read_text()
    body = page[page.rindex("<body>") :]
    assert name not in body
    assert body.count("</script>") == 1
