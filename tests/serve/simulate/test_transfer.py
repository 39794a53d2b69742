import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharpen.core.errors import ConfigError
from sharpen.plan.serving.machines import Link
from sharpen.serve.simulate.transfer import Transfer, layerwise_exposed_s


def sent_in_order(layers: int, compute_s: float, transfer_s: float) -> float:
    """One layer after another on one link, each as soon as it is computed and the link is free."""
    free = 0.0
    for layer in range(layers):
        computed = (layer + 1) * compute_s
        free = max(free, computed) + transfer_s
    return free - layers * compute_s


@given(st.integers(1, 100), st.floats(0, 10), st.floats(0, 10))
def test_the_closed_form_is_what_happens_layer_by_layer(layers, compute_s, transfer_s):
    expected = sent_in_order(layers, compute_s, transfer_s)
    found = layerwise_exposed_s(layers, compute_s, transfer_s)
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-9)
    assert found <= layers * transfer_s + 1e-9


def test_ways_of_sending():
    link = Link(bandwidth=1000.0, latency_s=0.5)
    exposed = {
        overlap: Transfer(layers=10, kv_bytes=1.0, link=link, overlap=overlap).exposed_s(1000, 20.0)
        for overlap in ("auto", "layers", "none", "x10")
    }
    # x = 0.1 a layer is hidden behind c = 2 but for the last one.
    assert exposed == pytest.approx({"auto": 0.6, "layers": 0.6, "none": 1.5, "x10": 0.6})
    short = Transfer(layers=10, kv_bytes=1.0, link=link)
    assert short.exposed_s(511, 20.0) == pytest.approx(0.5 + 0.511)
    assert short.exposed_s(512, 20.0) == pytest.approx(0.5 + 0.0512)
    slow = Transfer(layers=10, kv_bytes=1.0, link=link, overlap="layers")
    assert slow.exposed_s(30_000, 10.0) == pytest.approx(0.5 + 10 * 3 - 9 * 1)
    with pytest.raises(ConfigError, match="overlap='half'"):
        Transfer(layers=1, kv_bytes=1.0, overlap="half")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="layers=0"):
        Transfer(layers=0, kv_bytes=1.0)
