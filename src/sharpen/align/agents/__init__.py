"""Agents: trajectories, worlds, collecting, filtering, pairs of steps, reflection, evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sharpen.core.lazy import exports

if TYPE_CHECKING:
    from sharpen.align.agents.collecting import Episode, collect, play
    from sharpen.align.agents.environment import TextWorld
    from sharpen.align.agents.evaluation import AgentReport, compare_agents, evaluate, report_of
    from sharpen.align.agents.filtering import Filtered, Rule, filter_trajectories
    from sharpen.align.agents.instructing import Instructed, InstructedAgent, tune_instructions
    from sharpen.align.agents.memory import Entry, ReflectionMemory, lesson_of
    from sharpen.align.agents.pairs import StepPair, pair_rows, pair_tokens, step_pairs
    from sharpen.align.agents.policies import LMPolicy, Move, Policy, State, TablePolicy
    from sharpen.align.agents.tools import Toolbox
    from sharpen.align.agents.trajectory import (
        Step,
        Trajectory,
        context_ids,
        context_of,
        episode_ids,
        read_trajectories,
        to_rollout,
        to_rows,
        write_trajectories,
    )
    from sharpen.align.agents.values import outcome, process_mc

_MODULES = {
    "collecting": ["Episode", "collect", "play"],
    "environment": ["TextWorld"],
    "evaluation": ["AgentReport", "compare_agents", "evaluate", "report_of"],
    "filtering": ["Filtered", "Rule", "filter_trajectories"],
    "instructing": ["Instructed", "InstructedAgent", "tune_instructions"],
    "memory": ["Entry", "ReflectionMemory", "lesson_of"],
    "pairs": ["StepPair", "pair_rows", "pair_tokens", "step_pairs"],
    "policies": ["LMPolicy", "Move", "Policy", "State", "TablePolicy"],
    "tools": ["Toolbox"],
    "trajectory": [
        "Step",
        "Trajectory",
        "context_ids",
        "context_of",
        "episode_ids",
        "read_trajectories",
        "to_rollout",
        "to_rows",
        "write_trajectories",
    ],
    "values": ["outcome", "process_mc"],
}

__all__ = [
    "AgentReport",
    "Entry",
    "Episode",
    "Filtered",
    "Instructed",
    "InstructedAgent",
    "LMPolicy",
    "Move",
    "Policy",
    "ReflectionMemory",
    "Rule",
    "State",
    "Step",
    "StepPair",
    "TablePolicy",
    "TextWorld",
    "Toolbox",
    "Trajectory",
    "collect",
    "compare_agents",
    "context_ids",
    "context_of",
    "episode_ids",
    "evaluate",
    "filter_trajectories",
    "lesson_of",
    "outcome",
    "pair_rows",
    "pair_tokens",
    "play",
    "process_mc",
    "read_trajectories",
    "report_of",
    "step_pairs",
    "to_rollout",
    "to_rows",
    "tune_instructions",
    "write_trajectories",
]

__getattr__ = exports(
    __name__,
    {name: f"{__name__}.{module}" for module, names in _MODULES.items() for name in names},
)
