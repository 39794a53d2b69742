"""The report: what was found, what it rests on, and what was not looked at.

One text for Markdown, one page of HTML with a drawing of how time grows; both are made of the same
sections.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from pathlib import Path

from sharpen.code.improver.result import ImproveResult
from sharpen.code.improver.verdict import LevelTimes
from sharpen.core.files import atomic_write_text
from sharpen.core.report import Picture, Section, Table, Text, format_value, write_html

__all__ = ["scaling_svg", "sections", "write_markdown", "write_page"]

_WIDTH, _HEIGHT, _PAD = 560, 320, 56
_BEFORE, _AFTER = "#e0a030", "#1f5fa8"


def sections(result: ImproveResult) -> list[Section]:
    """The parts of a report."""
    evidence = result.evidence
    found = [
        Section(
            "Result", [Text(result.summary()), *([Text(result.explain)] if result.explain else [])]
        )
    ]
    if result.levels:
        rows = [
            [
                one.name,
                one.before_s,
                one.after_s,
                f"{one.ratio:.3g} x",
                f"{one.low:.3g} to {one.high:.3g}",
                "yes" if one.decides else "no, too short",
            ]
            for one in result.levels
        ]
        columns = ["inputs", "before, s", "after, s", "ratio", "interval, 99 %", "decides"]
        blocks: list[Text | Table | Picture] = [Table(columns, rows)]
        if result.exponents is not None:
            before, after = result.exponents
            blocks.append(Text(f"Time grew with n^{before:.2f}, and now with n^{after:.2f}."))
        before_mib, after_mib = result.memory_mib
        blocks.append(
            Text(f"Peak memory at the largest size: {before_mib:.1f} MiB, now {after_mib:.1f} MiB.")
        )
        found.append(Section("Time", blocks))
    sources = ", ".join(f"{count} {name}" for name, count in evidence.inputs.items())
    facts: list[list[object]] = [
        ["inputs compared without a difference", evidence.compared],
        ["where they come from", sources],
        ["equality", evidence.equality],
        ["largest difference of floats, ulp", evidence.largest_ulp],
        ["arguments solved for", evidence.symbolic],
        ["seeds", ", ".join(map(str, evidence.seeds))],
        ["your tests", evidence.tests or "not run"],
        ["arguments", ", ".join(f"{name}: {kind}" for name, kind in evidence.kinds.items())],
        ["what the change rests on", result.risk or "–"],
        *[[f"left out: {why}", count] for why, count in evidence.dropped.items()],
    ]
    words = (
        "No difference was found on these inputs. That is no proof: it says nothing of inputs that"
        " were not tried."
    )
    found.append(Section("Evidence", [Table(["", ""], facts), Text(words)]))
    found.append(
        Section("Not checked", [Text("\n".join(f"- {one}" for one in evidence.not_checked), True)])
    )
    if len(result.versions) > 1:
        versions: list[list[object]] = [
            [
                ", ".join(one.steps) or "as it is",
                f"{one.speedup:.3g} x",
                one.memory_mib,
                one.length,
                "yes" if one.text == result.text else "",
            ]
            for one in result.versions
        ]
        columns = ["version", "as fast, first look", "peak memory, MiB", "characters", "chosen"]
        words = "No other version that was tried is better than one of these in all three."
        found.append(Section("Trade-offs", [Table(columns, versions), Text(words)]))
    if result.patch:
        found.append(Section("Change", [Text(result.patch, preformatted=True)]))
    if result.profile is not None:
        found.append(Section("Profile before", [Text(result.profile.table(), preformatted=True)]))
    if result.attempts:
        tried: list[list[object]] = [
            [i, one.origin, ", ".join(one.steps), one.verdict, one.score or None, one.reason[:300]]
            for i, one in enumerate(result.attempts)
        ]
        columns = ["", "by", "steps", "verdict", "first look, x", "why"]
        found.append(Section("Attempts", [Table(columns, tried)]))
    if result.notes:
        found.append(Section("Notes", [Text(note) for note in result.notes]))
    return found


def write_page(result: ImproveResult, path: Path) -> None:
    """Write the HTML page; it needs no network.

    Raises:
        StorageError: it cannot be written.
    """
    parts = sections(result)
    drawing = scaling_svg(result.levels)
    if drawing:
        parts.insert(2, Section("How time grows", [Picture(drawing)]))
    write_html(path, f"sharpen improve: {result.target}", parts)


def write_markdown(result: ImproveResult, path: Path) -> None:
    """Write the same as Markdown; raises as :func:`write_page`."""
    lines = [f"# sharpen improve: {result.target}", ""]
    for section in sections(result):
        lines += [f"## {section.title}", ""]
        for block in section.blocks:
            if isinstance(block, Text):
                lines += [f"```text\n{block.text}\n```" if block.preformatted else block.text, ""]
            elif isinstance(block, Table):
                lines += _table(block)
    atomic_write_text(path, "\n".join(lines).rstrip() + "\n")


def _table(table: Table) -> list[str]:
    rows = [list(map(str, table.columns)), ["---"] * len(table.columns)]
    rows += [[_cell(format_value(value)) for value in row] for row in table.rows]
    return [*(f"| {' | '.join(row)} |" for row in rows), ""]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def scaling_svg(levels: Sequence[LevelTimes]) -> str:
    """Time over size, both logarithmic, before and after; empty with fewer than two sizes."""
    some = [one for one in levels if one.name != "as known" and one.size > 0]
    if len({one.size for one in some}) < 2:
        return ""
    xs = [math.log10(one.size) for one in some]
    both = [math.log10(max(t, 1e-9)) for one in some for t in (one.before_s, one.after_s)]
    low, high = math.floor(min(both)), math.ceil(max(both))
    high = max(high, low + 1)

    def x(value: float) -> float:
        return _PAD + (value - xs[0]) / (xs[-1] - xs[0]) * (_WIDTH - 2 * _PAD)

    def y(value: float) -> float:
        return _HEIGHT - _PAD - (value - low) / (high - low) * (_HEIGHT - 2 * _PAD)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img"'
        f' width="{_WIDTH}" height="{_HEIGHT}" font-family="sans-serif" font-size="12"'
        ' fill="currentColor"><title>Seconds over the size of the inputs</title>'
    ]
    for power in range(low, high + 1):
        at = y(power)
        parts.append(
            f'<line x1="{_PAD}" x2="{_WIDTH - _PAD}" y1="{at:.1f}" y2="{at:.1f}" stroke="#8884"/>'
            f'<text x="{_PAD - 8}" y="{at + 4:.1f}" text-anchor="end">1e{power} s</text>'
        )
    for one, at in zip(some, xs, strict=True):
        parts.append(
            f'<text x="{x(at):.1f}" y="{_HEIGHT - _PAD + 20}" text-anchor="middle">'
            f"{html.escape(one.name)}</text>"
        )
    for name, colour, times in (
        ("before", _BEFORE, [one.before_s for one in some]),
        ("after", _AFTER, [one.after_s for one in some]),
    ):
        points = [(x(a), y(math.log10(max(t, 1e-9)))) for a, t in zip(xs, times, strict=True)]
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{colour}"/>' for a, b in points]
        a, b = points[-1]
        parts.append(f'<text x="{a + 8:.1f}" y="{b + 4:.1f}" fill="{colour}">{name}</text>')
    return "".join(parts) + "</svg>"
