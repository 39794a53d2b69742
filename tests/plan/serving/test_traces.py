import statistics
from pathlib import Path

import pytest

from sharpen.core.errors import ConfigError, FileFormatError, MissingFileError
from sharpen.plan.serving.traces import Trace, synthetic_trace


@pytest.mark.parametrize(("kind", "prompt", "output"), [("code", 1500, 13), ("conv", 1020, 129)])
def test_synthetic_lengths_have_the_published_medians(kind: str, prompt: int, output: int) -> None:
    trace = synthetic_trace(kind, rate=50, seconds=400, seed=1)
    assert statistics.median(trace.prompt_tokens) == pytest.approx(prompt, rel=0.03)
    assert statistics.median(trace.output_tokens) == pytest.approx(output, rel=0.03)


@pytest.mark.parametrize("cv", [0.5, 1.0, 3.0])
def test_gaps_have_the_asked_rate_and_variation(cv: float) -> None:
    trace = synthetic_trace("code", rate=10, seconds=3000, cv=cv)
    gaps = [b - a for a, b in zip(trace.arrival_s, trace.arrival_s[1:], strict=False)]
    assert statistics.mean(gaps) == pytest.approx(0.1, rel=0.05)
    assert statistics.stdev(gaps) / statistics.mean(gaps) == pytest.approx(cv, rel=0.06)


def test_a_seed_decides_the_trace_and_a_rate_only_its_times() -> None:
    one = synthetic_trace("code", rate=2, seconds=100, seed=3)
    assert one == synthetic_trace("code", rate=2, seconds=100, seed=3)
    assert one != synthetic_trace("code", rate=2, seconds=100, seed=4)
    twice = synthetic_trace("code", rate=4, seconds=50, seed=3)
    assert twice.prompt_tokens == one.prompt_tokens
    assert one.at_rate(5.0).rate == pytest.approx(5)
    assert one.at_rate(5.0).output_tokens == one.output_tokens


def test_a_written_trace_reads_back_exactly(tmp_path: Path) -> None:
    trace = synthetic_trace("conv", rate=5, seconds=20)
    trace.write(tmp_path / "t.csv")
    assert Trace.read(tmp_path / "t.csv") == trace


def test_production_columns_begin_at_zero_and_are_sorted(tmp_path: Path) -> None:
    path = tmp_path / "azure.csv"
    path.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:15:47.1805900,374,44\n"
        "2023-11-16 18:15:46.6805900,396,109\n"
        "2023-11-16 18:15:50.6805900,396,0\n"
    )
    trace = Trace.read(path)
    assert trace.arrival_s == pytest.approx((0.0, 0.5), abs=1e-6)
    assert trace.prompt_tokens == (396, 374)
    assert trace.until(0.4).output_tokens == (109,)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a,b\n1,2\n", "no column prompt_size or ContextTokens; it has a, b"),
        ("arrival_timestamp,prompt_size,token_size\n1,x,2\n", ":2 is no request"),
        ("arrival_timestamp,prompt_size,token_size\n1,0,2\n", "prompt_size=0"),
        ("arrival_timestamp,prompt_size,token_size\nnan,4,2\n", "arrival_timestamp=nan"),
    ],
)
def test_bad_files_are_told_by_line(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(FileFormatError, match=told):
        Trace.read(tmp_path / "t.csv")


def test_bad_values_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError):
        Trace.read(tmp_path / "none.csv")
    with pytest.raises(ConfigError, match="kind='chat' must be code or conv"):
        synthetic_trace("chat", rate=1, seconds=1)
    with pytest.raises(ConfigError, match="cv=0"):
        synthetic_trace("code", rate=1, seconds=1, cv=0)
    with pytest.raises(ConfigError, match="out of order"):
        Trace((1.0, 0.5), (1, 1), (1, 1))
    with pytest.raises(ConfigError, match="rate=2"):
        Trace((1.0,), (1,), (1,)).at_rate(2)
