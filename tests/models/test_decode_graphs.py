"""What recorded steps read: laid out as for a GPU, and run by the interpreted kernels elsewhere."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sharpen.models import prepare_for_inference
from sharpen.models.decode_graphs import StepInputs, graph_sizes
from sharpen.models.paged import PagedPart
from sharpen.models.rope import Rope
from sharpen.models.triton_step import TritonStep
from small_models import small_model

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered in exp")


class OnePart(TritonStep):
    """Interpreted, programs of empty parts of the context cost seconds."""

    def _parts(self, rows):
        return 1


def test_numbers_of_rows_that_are_recorded():
    assert graph_sizes(1) == [1]
    assert graph_sizes(5) == [1, 2, 4, 5]
    assert graph_sizes(16) == [1, 2, 4, 8, 16]
    assert graph_sizes(1000)[-1] == 512
    for most in (3, 60, 100, 500):
        sizes = graph_sizes(most)
        assert sizes == sorted(set(sizes)) and sizes[-1] == most


@settings(max_examples=5)
@given(
    steps=st.lists(
        st.tuples(
            st.lists(st.sampled_from([1, 4, 5, 13]), min_size=1, max_size=3),
            st.integers(0, 2),  # rows that fill up
            st.integers(0, 1000),
        ),
        min_size=2,
        max_size=3,
    )
)
def test_steps_that_follow_each_other_see_their_own_sequences(steps):
    """One buffer for all: other sequences, sizes and widths, and tables that stay or change."""
    model = prepare_for_inference(small_model(max_positions=64).to(DEVICE))
    kernels = OnePart(model.spec)
    caches = [model.new_paged_cache(24, 4) for _ in range(2)]
    for cache in caches:
        for layer in range(model.spec.num_layers):
            for seed, buffer in enumerate(cache.buffers(layer)):
                source = torch.Generator().manual_seed(2 * layer + seed)
                buffer.copy_(torch.randn(buffer.shape, generator=source))
    angles = Rope(model.spec).tables(64, DEVICE)
    inputs = StepInputs(angles, caches[1], most=5, longest=64)
    for lengths, filled, seed in steps:
        order = torch.randperm(24, generator=torch.Generator().manual_seed(seed % 3)).tolist()
        parts = []
        for i, length in enumerate(lengths):
            blocks = order[8 * i : 8 * i + -(-length // 4)]
            parts.append(PagedPart([3 + seed % 300], length - 1, blocks))
        expected = model.states(parts, caches[0])
        size = len(parts) + filled
        inputs.lay(parts, size)
        model._fused, before = kernels, model._fused
        for block in model._blocks:
            block._fused = kernels
        with torch.inference_mode():
            x, delta = model._through(inputs.context(size))
            found = kernels.add_norm(x, delta, model._norm.weight.detach())[1]
        model._fused = before
        for block in model._blocks:
            block._fused = before
        torch.testing.assert_close(found[: len(parts)], expected, atol=1e-4, rtol=1e-4)
        for layer in range(model.spec.num_layers):
            for ours, theirs in zip(*(c.buffers(layer) for c in caches), strict=True):
                torch.testing.assert_close(theirs, ours, atol=1e-4, rtol=1e-4)
