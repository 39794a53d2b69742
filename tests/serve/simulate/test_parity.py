"""Twenty requests beside the simulator published with the Splitwise paper.

Recorded from Mutinifni/splitwise-sim (commit 8f99e7d, scheduler seed 0): ``performance_model=db``,
Llama-2 70B; one H100 for prompts and one A100 for tokens with ``mixed_pool``, and one H100 with
``token_jsq``. Its keys and values count every query head, and 200 GiB/s is its link.
"""

import pytest

from sharpen.plan.serving.machines import MODELS, Link, machine
from sharpen.plan.serving.traces import Trace
from sharpen.serve.simulate.cluster import ClusterSim, Placed, SimConfig
from sharpen.serve.simulate.transfer import Transfer

ARRIVALS = (
    *(0.02, 0.047, 0.133, 0.154, 0.178, 0.207, 0.214, 0.238, 0.271, 0.324),
    *(0.327, 0.339, 0.342, 0.398, 0.437, 0.438, 0.573, 0.684, 0.72, 0.751),
)
PROMPTS = (
    *(496, 888, 1652, 890, 797, 514, 1416, 1800, 2409, 2009),
    *(783, 1076, 2850, 821, 3398, 1518, 1357, 822, 967, 1577),
)
TRACE = Trace(ARRIVALS, PROMPTS, tuple(37 if i == 4 else 60 for i in range(20)))
SPLIT_TTFT = (
    *(0.0537, 0.0981, 0.1246, 0.218, 0.194, 0.2929, 0.2859, 0.3825, 0.5266, 0.3176),
    *(0.6018, 0.5898, 1.0362, 0.4678, 1.5045, 0.5329, 0.5037, 0.5248, 0.4888, 0.577),
)
SPLIT_E2E = (
    *(4.0962, 4.1545, 4.1964, 4.2607, 3.256, 4.2077, 4.2007, 4.2193, 4.1863, 4.0907),
    *(4.1303, 4.1183, 4.1153, 4.0593, 4.0203, 2.6515, 3.8843, 3.7733, 3.7373, 2.4329),
)
BASELINE_E2E = (
    *(3.6546, 3.6588, 3.6041, 3.6144, 2.8718, 3.5927, 3.5857, 3.593, 3.56, 3.5383),
    *(3.5667, 3.5547, 3.5517, 3.5271, 3.5195, 3.5499, 3.4463, 3.3039, 3.3308, 3.3313),
)


def simulate(placed, policy):
    transfer = Transfer(
        layers=80,
        kv_bytes=2 * 80 * 8192 * 2,
        link=Link(bandwidth=200 * 1024**3),
        overlap="none",
    )
    config = SimConfig(batching="whole")
    return ClusterSim(placed, policy, TRACE, transfer=transfer, config=config).run()


def test_a_split_pair_that_lends_machines_gives_the_same_times():
    model = MODELS["llama2-70b"]
    placed = [
        Placed(machine("dgx-a100", model), "token"),
        Placed(machine("dgx-h100", model), "prompt"),
    ]
    result = simulate(placed, "mixed_pool")
    assert result.ttft_s() == pytest.approx(SPLIT_TTFT, abs=6e-5)
    assert result.e2e_s() == pytest.approx(SPLIT_E2E, abs=6e-5)
    assert {job.prompt_on for job in result.jobs} == {0, 1}  # some prompts on the borrowed one


def test_a_machine_that_does_both_ends_requests_within_two_percent():
    # Which waiting prompt goes before which preempted token differs, so first tokens do.
    result = simulate([Placed(machine("dgx-h100", MODELS["llama2-70b"]))], "token_jsq")
    assert result.e2e_s() == pytest.approx(BASELINE_E2E, rel=0.02)
