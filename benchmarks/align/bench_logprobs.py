"""Log-probabilities of tokens beside whole logits in torch and beside TRL's chunked function.

One call is forward and backward over hidden states and head, as a step of any alignment method has
it; ``in turn`` they share a process, so that whatever else the machine does strikes all. Memory is
the high-water mark of a process of its own less what it held before the call, gradients included.
Checked before anything is timed: values and gradients equal those of float64 whole logits, to the
precision of the type.

    python -m benchmarks.align.bench_logprobs [--json OUT] [--plot OUT] [--quick]
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from benchmarks.common import arguments, draw_bars, interleave, ratio, save, summarize
from torch import Tensor

from sharpen.align.logprobs import token_logprobs

CASES: dict[str, tuple[int, int, int, torch.dtype]] = {
    "49k words, float32": (1024, 576, 49_152, torch.float32),
    "49k words, bfloat16": (1024, 576, 49_152, torch.bfloat16),
    "304 words, float32": (2048, 128, 304, torch.float32),
}
"""Rows, hidden size, vocabulary and type; the last is that of the small models of tests."""
QUICK = {"2k words, float32": (256, 64, 2048, torch.float32)}
LEAST_PRODUCTS = 5 * 10**9
"""Multiplications of one product in a sample: short steps are taken several times in a row."""
OURS, WHOLE, CHUNKED = "Sharpen", "whole logits", "TRL, chunked"


def ours(h: Tensor, w: Tensor, tokens: Tensor) -> Tensor:
    """This package's."""
    return token_logprobs(h, w, tokens).logp


def whole(h: Tensor, w: Tensor, tokens: Tensor) -> Tensor:
    """Float32 softmax of all logits."""
    logits = (h @ w.T).to(torch.promote_types(h.dtype, torch.float32))
    return torch.log_softmax(logits, dim=1).gather(1, tokens[:, None]).squeeze(1)


def chunked(h: Tensor, w: Tensor, tokens: Tensor) -> Tensor:
    """What TRL's trainers call, with their sizes."""
    from trl.kernels.chunked_logprob import ChunkedLogProbFunction
    from trl.trainer.utils import _CHUNKED_LOGPROB_CHUNK_SIZE

    found: Tensor = ChunkedLogProbFunction.apply(
        h, w, None, tokens, 1.0, _CHUNKED_LOGPROB_CHUNK_SIZE, None, 1.0, ()
    )[0]
    return found


Contender = Callable[[Tensor, Tensor, Tensor], Tensor]
CONTENDERS: dict[str, Contender] = {
    OURS: ours,
    WHOLE: whole,
    CHUNKED: chunked,
}


def inputs(shape: tuple[int, int, int, torch.dtype]) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states of unit size, a head that makes logits of about unit size, and tokens."""
    rows, hidden, vocab, dtype = shape
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(rows, hidden, generator=generator)
    w = torch.randn(vocab, hidden, generator=generator) / hidden**0.5
    tokens = torch.randint(0, vocab, (rows,), generator=generator)
    return h.to(dtype).requires_grad_(), w.to(dtype).requires_grad_(), tokens


def step(work: Contender, given: tuple[Tensor, Tensor, Tensor], times: int = 1) -> None:
    """Forward and backward, one or several times; gradients begin anew."""
    h, w, tokens = given
    for _ in range(times):
        h.grad = w.grad = None
        work(h, w, tokens).mean().backward()


def check(shape: tuple[int, int, int, torch.dtype]) -> dict[str, float]:
    """Largest error of each contender's values; its gradients are near the exact ones, too."""
    h, w, tokens = inputs((min(shape[0], 128), *shape[1:]))
    exact = (h.detach().double().requires_grad_(), w.detach().double().requires_grad_())
    expected = whole(*exact, tokens)
    wanted = torch.autograd.grad(expected.mean(), exact)
    errors = {}
    for name, work in CONTENDERS.items():
        found = work(h, w, tokens)
        grads = torch.autograd.grad(found.mean(), (h, w))
        value = float((found.detach().double() - expected.detach()).abs().max())
        slope = max(
            float((a.double() - b).norm() / b.norm()) for a, b in zip(grads, wanted, strict=True)
        )
        most = 2e-2 if shape[3] == torch.bfloat16 else 1e-4
        assert value < most * 2, (name, value)
        assert slope < most, (name, slope)
        errors[name] = value
    return errors


def peak(name: str, case: str) -> int:
    """Bytes that one step of a fresh process takes beyond its inputs."""
    line = [sys.executable, "-m", "benchmarks.align.bench_logprobs", "--peak", name, case]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    return int(json.loads(done.stdout.splitlines()[-1])["bytes"])


def _high_water() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError("no VmHWM")


def measure_peak(name: str, case: str) -> None:
    """What :func:`peak` runs: a small step first, so that libraries are loaded."""
    torch.set_num_threads(1)
    step(CONTENDERS[name], inputs((32, 8, 64, torch.float32)))
    given = inputs({**CASES, **QUICK}[case])
    before = _high_water()
    step(CONTENDERS[name], given)
    print(json.dumps({"bytes": _high_water() - before}))


def main() -> None:
    """Measure."""
    if sys.argv[1:2] == ["--peak"]:
        measure_peak(*sys.argv[2:4])
        return
    args = arguments(__doc__, "align_logprobs")
    torch.set_num_threads(1)
    cases = QUICK if args.quick else CASES
    results: dict[str, Any] = {}
    for case, shape in cases.items():
        errors = check(shape)
        given = inputs(shape)
        least = LEAST_PRODUCTS // 50 if args.quick else LEAST_PRODUCTS
        times = max(1, least // (shape[0] * shape[1] * shape[2]))
        samples = interleave(
            {name: partial(step, work, given, times) for name, work in CONTENDERS.items()},
            repeats=2 if args.quick else 7,
        )
        peaks = {name: peak(name, case) for name in CONTENDERS}
        results[case] = {
            "steps_a_sample": times,
            "samples": samples,
            "summary": {name: summarize(values) for name, values in samples.items()},
            "ratios": {name: ratio(samples[name], samples[OURS]) for name in (WHOLE, CHUNKED)},
            "peak_bytes": peaks,
            "largest_error": errors,
        }
        print(case, results[case]["ratios"], {k: v >> 20 for k, v in peaks.items()}, flush=True)

    def plot(figure: Any) -> None:
        time_axes, memory_axes = figure.subplots(1, 2)
        draw_bars(
            time_axes,
            y_label="time of a step, whole logits = 1",
            groups=[case.replace(", ", "\n") for case in cases],
            series={
                name: [
                    results[case]["summary"][name]["median"]
                    / results[case]["summary"][WHOLE]["median"]
                    for case in cases
                ]
                for name in CONTENDERS
            },
        )
        draw_bars(
            memory_axes,
            y_label="memory of a step, MB",
            groups=[case.replace(", ", "\n") for case in cases],
            series={
                name: [results[case]["peak_bytes"][name] / 1e6 for case in cases]
                for name in CONTENDERS
            },
        )
        figure.suptitle("Log-probabilities of tokens: forward and backward")

    config = {
        name: {"rows": rows, "hidden": hidden, "vocab": vocab, "dtype": str(dtype)}
        for name, (rows, hidden, vocab, dtype) in cases.items()
    }
    save(args, results, config=config, plot=plot)


if __name__ == "__main__":
    main()
