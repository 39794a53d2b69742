"""A recorded program as a picture: boxes for values, lines for what they were made from."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from sharpen.core.diagram import Box, svg
from sharpen.core.errors import ConfigError
from sharpen.core.report import Picture, Section, Text, write_html
from sharpen.text.listing import elided, name_nodes, shown
from sharpen.text.nodes import Node
from sharpen.text.parameter import Parameter
from sharpen.text.record import ErrorNode
from sharpen.text.subgraph import minimal_subgraph
from sharpen.text.sweep import ancestors

__all__ = ["Drawing"]

_MOST = 200  # boxes that a person can still look at
_DETAIL, _HINT = 60, 2000  # characters of a value in a box, and under the pointer
_UNSAFE = re.compile(r'["<>\[\]{}|`\\\n\r]')


class Drawing:
    """A picture of what outputs were made from.

    Where that is more than 200 values only the part that depends on parameters is drawn (the
    minimal subgraph), and of that the last 200.

    Args:
        outputs: of one program, such as those a tape noted.

    Raises:
        ConfigError: there are none.
        GraphFreedError: the tape that recorded them has ended.

    Examples:
        >>> import sharpen.text as st
        >>> y = st.Parameter(2.0, "a") * 3
        >>> print(st.Drawing(y).to_mermaid())
        flowchart TD
          n0(["a = 2.0"])
          n1[/"y = 3"/]
          n2["multiply_0 = 6.0"]
          n0 --> n2
          n1 --> n2
    """

    def __init__(self, *outputs: Node) -> None:
        if not outputs:
            raise ConfigError("there is nothing to draw: give the outputs of a program.")
        nodes = ancestors(outputs)
        if len(nodes) > _MOST:
            linked = {n.id: n for output in outputs for n in minimal_subgraph(output).nodes}
            nodes = [linked[i] for i in sorted(linked)] or nodes
        self.left_out = max(len(nodes) - _MOST, 0)
        self.nodes = nodes[self.left_out :]
        names = name_nodes(self.nodes)
        self._outputs = {output.id for output in outputs}
        position = {node.id: i for i, node in enumerate(self.nodes)}
        self.edges = [
            (position[parent.id], i)
            for i, node in enumerate(self.nodes)
            for parent in node.inputs
            if parent.id in position
        ]
        self.boxes = [  # now: a tape that ends takes what made them away
            Box(
                title=names[node.id],
                detail=_short(shown(node._value)),
                kind=self._kind(node),
                hint=self._hint(node),
            )
            for node in self.nodes
        ]

    def to_mermaid(self) -> str:
        """As a flowchart of Mermaid, which many pages for Markdown draw."""
        shapes = {"parameter": ('(["', '"])'), "input": ('[/"', '"/]'), "error": ('{{"', '"}}')}
        lines = ["flowchart TD"]
        for i, box in enumerate(self.boxes):
            before, after = shapes.get(box.kind, ('["', '"]'))
            text = f"{box.title} = {box.detail}"
            lines.append(f"  n{i}{before}{_UNSAFE.sub(' ', text)}{after}")
        lines += [f"  n{a} --> n{b}" for a, b in self.edges]
        return "\n".join(lines)

    def to_svg(self) -> str:
        """As an ``<svg>`` element."""
        return svg(self.boxes, self.edges)

    def to_html(self, path: str | Path, title: str = "Program") -> None:
        """Write a page with the picture.

        Raises:
            StorageError: it cannot be written.
        """
        write_html(Path(path), title, [self.section()])

    def section(self) -> Section:
        """For a report."""
        blocks: list[Text | Picture] = [Picture(self.to_svg())]
        if self.left_out:
            blocks.append(Text(f"{self.left_out} earlier values are left out."))
        return Section("Program", blocks)

    def _kind(self, node: Node) -> str:
        if isinstance(node, ErrorNode):
            return "error"
        if isinstance(node, Parameter):
            return "parameter"
        if node.id in self._outputs:
            return "output"
        return "input" if node.is_root else "value"

    def _hint(self, node: Node) -> str:
        parts: Iterable[str] = (
            node.role,
            f"{node.operation.name}: {node.operation.doc}" if node.operation else "",
            elided(shown(node._value), _HINT),
        )
        return "\n\n".join(part for part in parts if part)


def _short(text: str) -> str:
    """The beginning of a text on one line."""
    text = " ".join(text[: 4 * _DETAIL].split())
    return text if len(text) <= _DETAIL else text[: _DETAIL - 1] + "…"
