"""Programs made of words that improve themselves from feedback.

A program is recorded while it runs (:func:`op`, :class:`Parameter`), feedback of any kind is sent
back through the record (``output.backward(...)``), and an optimizer changes the parameters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sharpen.core.lazy import exports

if TYPE_CHECKING:
    from sharpen.core.lm.budget import Budget
    from sharpen.core.lm.client import LM
    from sharpen.core.lm.scripted import Scripted
    from sharpen.text.drawing import Drawing
    from sharpen.text.errors import (
        BackwardTwiceError,
        ExecutionError,
        GraphFreedError,
        UndeclaredInputError,
    )
    from sharpen.text.feedback import Feedback
    from sharpen.text.llm_op import LLM
    from sharpen.text.losses import MetricLoss, TextLoss, textsum
    from sharpen.text.module import Module
    from sharpen.text.nodes import Node, Operation, no_trace, node
    from sharpen.text.optimizers.base import StepReport, TextOptimizer
    from sharpen.text.optimizers.opro import OPRO
    from sharpen.text.optimizers.optoprime import OptoPrime
    from sharpen.text.optimizers.optoprime_multi import OptoPrimeMulti
    from sharpen.text.optimizers.search_proposer import SearchProposer
    from sharpen.text.optimizers.textgrad import TGD, TextGrad
    from sharpen.text.parameter import Parameter
    from sharpen.text.problem import TextProblem
    from sharpen.text.rag.bm25 import BM25Index
    from sharpen.text.rag.chunks import Chunker
    from sharpen.text.rag.search import ChunkSearch
    from sharpen.text.record import Op, bundle, op
    from sharpen.text.run_report import write_report
    from sharpen.text.scalar import ScalarPropagator
    from sharpen.text.subgraph import Subgraph, minimal_subgraph
    from sharpen.text.sweep import Propagator
    from sharpen.text.tape import Tape
    from sharpen.text.textual import TextGradient, TextualPropagator
    from sharpen.text.trainers.base import TrainResult
    from sharpen.text.trainers.minibatch import Minibatch
    from sharpen.text.trainers.search import BasicSearch, BeamSearch
    from sharpen.text.trainers.ucb import UCBSearch

_MODULES = {
    "drawing": ["Drawing"],
    "errors": ["BackwardTwiceError", "ExecutionError", "GraphFreedError", "UndeclaredInputError"],
    "feedback": ["Feedback"],
    "nodes": ["Node", "Operation", "no_trace", "node"],
    "module": ["Module"],
    "parameter": ["Parameter"],
    "problem": ["TextProblem"],
    "rag.bm25": ["BM25Index"],
    "rag.chunks": ["Chunker"],
    "rag.search": ["ChunkSearch"],
    "record": ["Op", "bundle", "op"],
    "run_report": ["write_report"],
    "scalar": ["ScalarPropagator"],
    "subgraph": ["Subgraph", "minimal_subgraph"],
    "sweep": ["Propagator"],
    "tape": ["Tape"],
    "llm_op": ["LLM"],
    "losses": ["MetricLoss", "TextLoss", "textsum"],
    "textual": ["TextGradient", "TextualPropagator"],
    "trainers.base": ["TrainResult"],
    "trainers.minibatch": ["Minibatch"],
    "trainers.search": ["BasicSearch", "BeamSearch"],
    "trainers.ucb": ["UCBSearch"],
    "optimizers.base": ["StepReport", "TextOptimizer"],
    "optimizers.optoprime": ["OptoPrime"],
    "optimizers.optoprime_multi": ["OptoPrimeMulti"],
    "optimizers.opro": ["OPRO"],
    "optimizers.search_proposer": ["SearchProposer"],
    "optimizers.textgrad": ["TGD", "TextGrad"],
}

__all__ = [
    "LLM",
    "LM",
    "OPRO",
    "TGD",
    "BM25Index",
    "BackwardTwiceError",
    "BasicSearch",
    "BeamSearch",
    "Budget",
    "ChunkSearch",
    "Chunker",
    "Drawing",
    "ExecutionError",
    "Feedback",
    "GraphFreedError",
    "MetricLoss",
    "Minibatch",
    "Module",
    "Node",
    "Op",
    "Operation",
    "OptoPrime",
    "OptoPrimeMulti",
    "Parameter",
    "Propagator",
    "ScalarPropagator",
    "Scripted",
    "SearchProposer",
    "StepReport",
    "Subgraph",
    "Tape",
    "TextGrad",
    "TextGradient",
    "TextLoss",
    "TextOptimizer",
    "TextProblem",
    "TextualPropagator",
    "TrainResult",
    "UCBSearch",
    "UndeclaredInputError",
    "bundle",
    "minimal_subgraph",
    "no_trace",
    "node",
    "op",
    "textsum",
    "write_report",
]

_CORE = {
    "LM": "sharpen.core.lm.client",
    "Budget": "sharpen.core.lm.budget",
    "Scripted": "sharpen.core.lm.scripted",
}

__getattr__ = exports(
    __name__,
    _CORE | {name: f"{__name__}.{module}" for module, names in _MODULES.items() for name in names},
)
