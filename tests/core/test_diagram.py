"""Pictures of graphs: layers, order and escaped texts."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharpen.core.diagram import Box, svg

graphs = st.integers(0, 12).flatmap(
    lambda n: st.tuples(
        st.just(n),
        st.lists(
            st.tuples(st.integers(0, max(n - 1, 0)), st.integers(0, max(n - 1, 0))).filter(
                lambda e: e[0] < e[1]
            ),
            max_size=20,
        )
        if n > 1
        else st.just([]),
    )
)


def _places(picture: str) -> list[tuple[float, float]]:
    root = ElementTree.fromstring(picture)
    name = "{http://www.w3.org/2000/svg}rect"
    return [(float(r.get("x", "")), float(r.get("y", ""))) for r in root.iter(name)]


@given(graphs, st.text(max_size=30))
def test_every_edge_points_down_and_no_boxes_overlap(graph, text: str) -> None:
    n, edges = graph
    picture = svg([Box(f"{i} <&>'\"", text, hint=text) for i in range(n)], edges)
    places = _places(picture)
    assert len(places) == n
    assert all(places[a][1] < places[b][1] for a, b in edges)
    assert all(
        abs(x0 - x1) >= 190 or abs(y0 - y1) >= 48
        for i, (x0, y0) in enumerate(places)
        for x1, y1 in places[:i]
    )


def test_neighbours_are_ordered_so_that_edges_do_not_cross() -> None:
    # Two chains whose boxes are given crosswise.
    boxes = [Box(name) for name in ("a", "b", "b2", "a2")]
    places = _places(svg(boxes, [(0, 3), (1, 2)]))
    assert (places[0][0] < places[1][0]) == (places[3][0] < places[2][0])


def test_edges_that_point_backwards_are_refused() -> None:
    with pytest.raises(ValueError, match="later one"):
        svg([Box("a"), Box("b")], [(1, 0)])
    with pytest.raises(ValueError, match="later one"):
        svg([Box("a")], [(0, 1)])
