from pathlib import Path

import pytest

from sharpen.core.report import Chart, Section, Series, Table, Text, format_value, write_html


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
