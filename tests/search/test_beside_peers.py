"""Population methods beside other packages on a few functions of BBOB, with equal evaluations."""

import pytest


@pytest.mark.peer
@pytest.mark.slow
def test_methods_reach_targets_about_as_soon_as_their_peers() -> None:
    pytest.importorskip("ioh")
    pytest.importorskip("nevergrad")
    from benchmarks.search.bench_bbob import measure, summarize

    summary = summarize(measure((5,), (1, 8, 21), range(1, 3)))
    for ours, peers in summary["against"].items():
        for peer, found in peers.items():
            # Six runs each: the ratio of the means scatters by about a seventh.
            assert found["score_ratio"]["5"] > 0.7, f"{ours} scores less than {peer}"
    assert summary["against"]["cmaes"]["cma"]["score_ratio"]["5"] == pytest.approx(1, abs=0.02)
