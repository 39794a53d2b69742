"""Architecture design: simulators of hardware whose parameters are searched for."""

from sharpen.problems.arch.accelerator import Accelerator, Cost, Layer, accelerator_space
from sharpen.problems.arch.accelerator_problem import NETWORKS, AcceleratorProblem
from sharpen.problems.arch.dataset import Dataset, Sample
from sharpen.problems.arch.dram import DramController, DramPolicy, DramResult
from sharpen.problems.arch.external import ExternalSimulator
from sharpen.problems.arch.problem import DramProblem, dram_space, make
from sharpen.problems.arch.proxy import ProxyModel, Quality
from sharpen.problems.arch.rewards import reward_of
from sharpen.problems.arch.soc import Soc, Task
from sharpen.problems.arch.soc_problem import APPLICATIONS, SocProblem
from sharpen.problems.arch.timings import SPECS, DramSpec, DramTimings, Rail
from sharpen.problems.arch.traces import WORKLOADS, Trace, read_trace, workload

__all__ = [
    "APPLICATIONS",
    "NETWORKS",
    "SPECS",
    "WORKLOADS",
    "Accelerator",
    "AcceleratorProblem",
    "Cost",
    "Dataset",
    "DramController",
    "DramPolicy",
    "DramProblem",
    "DramResult",
    "DramSpec",
    "DramTimings",
    "ExternalSimulator",
    "Layer",
    "ProxyModel",
    "Quality",
    "Rail",
    "Sample",
    "Soc",
    "SocProblem",
    "Task",
    "Trace",
    "accelerator_space",
    "dram_space",
    "make",
    "read_trace",
    "reward_of",
    "workload",
]
