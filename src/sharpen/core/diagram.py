"""A directed graph without cycles as a picture: layers from top to bottom, plain SVG.

Sugiyama, Tagawa and Toda, *Methods for Visual Understanding of Hierarchical System Structures*,
1981: each box lies one layer below the lowest of its inputs; within a layer boxes are ordered by
the mean place of their neighbours, downwards and upwards in turns, which takes out most crossings.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Box", "svg"]

_WIDTH, _GAP_X, _GAP_Y, _PAD = 190, 24, 44, 16
_LINE, _CHARACTER = 17, 6.6  # pixels of a line and of a character, about
_SWEEPS = 6
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_COLOURS = {
    "parameter": ("#1f5fa8", "#1f5fa822"),
    "input": ("#888888", "#88888818"),
    "value": ("#555555", "#ffffff00"),
    "output": ("#2c8a4b", "#2c8a4b22"),
    "error": ("#c0392b", "#c0392b22"),
}


@dataclass(frozen=True, slots=True)
class Box:
    """A box of a diagram."""

    title: str
    """Its first line, in bold."""

    detail: str = ""
    """Its second line, in small letters."""

    kind: str = "value"
    """``parameter``, ``input``, ``value``, ``output`` or ``error``: its colour."""

    hint: str = ""
    """What a browser shows when the pointer rests on it."""


def svg(boxes: Sequence[Box], edges: Sequence[tuple[int, int]]) -> str:
    """The picture as an ``<svg>`` element.

    Args:
        boxes: in an order in which every edge points forwards.
        edges: pairs of positions, from and to; one may stand there several times.

    Raises:
        ValueError: an edge points backwards, or to no box.
    """
    if any(not 0 <= a < b < len(boxes) for a, b in edges):
        raise ValueError("every edge must point from a box to a later one.")
    layers = _ordered(_layered(len(boxes), edges), edges)
    height = 2 * _LINE + 14
    widest = max((len(layer) for layer in layers), default=0)
    total_w = 2 * _PAD + max(widest * (_WIDTH + _GAP_X) - _GAP_X, 0)
    total_h = 2 * _PAD + max(len(layers) * (height + _GAP_Y) - _GAP_Y, 0)
    places: dict[int, tuple[float, float]] = {}
    for row, layer in enumerate(layers):
        left = (total_w - len(layer) * (_WIDTH + _GAP_X) + _GAP_X) / 2
        for column, i in enumerate(layer):
            places[i] = (left + column * (_WIDTH + _GAP_X), _PAD + row * (height + _GAP_Y))
    parts = [_edge(places[a], places[b], height) for a, b in edges]
    parts += [_box(box, *places[i], height) for i, box in enumerate(boxes)]
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {total_w} {total_h}'"
        f" width='{total_w}' height='{total_h}' style='max-width: 100%; height: auto'"
        " font-family='system-ui, sans-serif' font-size='12' fill='currentColor'>"
        + "".join(parts)
        + "</svg>"
    )


def _layered(count: int, edges: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Boxes by layer: 0 without inputs, else one below the lowest input."""
    depth = [0] * count
    for a, b in sorted(edges):
        depth[b] = max(depth[b], depth[a] + 1)
    # An input stands right above what it first goes to.
    below: dict[int, list[int]] = {}
    for a, b in edges:
        below.setdefault(a, []).append(depth[b])
    inputs = {b for _, b in edges}
    for i in range(count):
        if i not in inputs and i in below:
            depth[i] = min(below[i]) - 1
    layers: list[list[int]] = [[] for _ in range(max(depth, default=-1) + 1)]
    for i, at in enumerate(depth):
        layers[at].append(i)
    return layers


def _ordered(layers: list[list[int]], edges: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Each layer by the mean place of neighbours above or below."""
    above: dict[int, list[int]] = {}
    below: dict[int, list[int]] = {}
    for a, b in edges:
        above.setdefault(b, []).append(a)
        below.setdefault(a, []).append(b)
    place = {i: k - (len(layer) - 1) / 2 for layer in layers for k, i in enumerate(layer)}

    def wanted(i: int, near: dict[int, list[int]]) -> float:
        others = near.get(i, ())
        return sum(place[j] for j in others) / len(others) if others else place[i]

    for sweep in range(_SWEEPS):
        near, rows = (above, layers) if sweep % 2 == 0 else (below, layers[::-1])
        for layer in rows:
            layer.sort(key=lambda i: wanted(i, near))
            place |= {i: k - (len(layer) - 1) / 2 for k, i in enumerate(layer)}
    return layers


def _edge(start: tuple[float, float], end: tuple[float, float], height: float) -> str:
    x0, y0 = start[0] + _WIDTH / 2, start[1] + height
    x1, y1 = end[0] + _WIDTH / 2, end[1]
    bend = (y1 - y0) / 2
    return (
        f"<path d='M{x0:.0f} {y0:.0f} C{x0:.0f} {y0 + bend:.0f} {x1:.0f} {y1 - bend:.0f}"
        f" {x1:.0f} {y1 - 5:.0f}' fill='none' stroke='#888'/>"
        f"<path d='M{x1 - 4:.0f} {y1 - 7:.0f} L{x1:.0f} {y1:.0f} L{x1 + 4:.0f} {y1 - 7:.0f} Z'"
        " fill='#888'/>"
    )


def _box(box: Box, x: float, y: float, height: float) -> str:
    line, fill = _COLOURS.get(box.kind, _COLOURS["value"])
    middle = x + _WIDTH / 2
    top = y + height / 2 + (4 if not box.detail else -3)
    texts = f"<text x='{middle:.0f}' y='{top:.0f}' font-weight='600'>{_cut(box.title)}</text>"
    if box.detail:
        texts += (
            f"<text x='{middle:.0f}' y='{top + _LINE:.0f}' font-size='11' opacity='.75'>"
            f"{_cut(box.detail)}</text>"
        )
    hint = f"<title>{_text(box.hint)}</title>" if box.hint else ""
    return (
        f"<g text-anchor='middle'>{hint}<rect x='{x:.0f}' y='{y:.0f}' width='{_WIDTH}'"
        f" height='{height}' rx='7' fill='{fill}' stroke='{line}'/>{texts}</g>"
    )


def _cut(text: str) -> str:
    """One line that fits a box."""
    text, most = " ".join(text.split()), int((_WIDTH - 14) / _CHARACTER)
    return _text(text if len(text) <= most else text[: most - 1] + "…")


def _text(text: str) -> str:
    return html.escape(_NOT_XML.sub("\ufffd", text))
