"""Products of few rows beside torch's: 4- and 8-bit weights with 8-bit activations, and bfloat16.

Each contender multiplies a stack of equal matrices, by 1 to 256 rows, on one thread. Contenders
take turns, and what all of them read is several times what a cache holds. A product of few rows
reads every weight once, so the ceiling is memory::

    seconds >= bytes of weights, scales and zeros / bandwidth

with the bandwidth of a plain read of 512 MiB in two streams, measured in the same rounds. The
shapes are those of SmolLM2-135M and of a model of 125 million parameters, and two larger ones. A
call from Python costs some microseconds, which count for little in matrices of 16 million weights
or more: only those are held against the ceiling.
Other jobs on the machine only add time, so rates are those of the fastest round; ratios are medians
over rounds. Before anything is
timed, results must be within 1e-5 of a float64 product of the dequantized operands (bfloat16:
within one rounding). The peers: ``quantized.linear_dynamic`` (int8 weights and activations, one
scale a row), ``_int_mm`` (bare integers, 17 rows at least), oneDNN's bfloat16 product.
"""

from __future__ import annotations

import ctypes
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from benchmarks.common import OURS, PEER, arguments, interleave, ratio, save, summarize
from torch import Tensor

from sharpen.compress.kernels import IntegerProduct
from sharpen.compress.mixed import MixedWeight, quantize_activations
from sharpen.compress.rows import grouped, quantize_rows
from sharpen.core.huge_pages import collapse
from sharpen.models.products import BFloat16, Blocked
from sharpen.native.build import function, load

MODEL_SHAPES = (
    *((960, 576), (576, 576), (3072, 576), (576, 1536), (49152, 576)),
    *((1280, 768), (768, 768), (4096, 768), (768, 2048), (32000, 768)),
)
SHAPES = ((4096, 4096), (14336, 4096), *MODEL_SHAPES)
ROWS, MODEL_ROWS = (1, 4, 8, 16, 64, 256), (1, 4, 16, 64)
STACK_BYTES = 128 << 20
READ_BYTES = 1 << 29
LEAST_INT_MM = 17
WANTED = {"w4a8": 1.6, "w8a8": 1.0}
"""Times linear_dynamic at one row, out of cache."""
OF_LIMIT = {"w4a8": 0.8, "w8a8": 0.9}
"""Shares of the bandwidth at one row; told, and left to the reader on a busy machine."""
LARGE = 1 << 24
LOOSE = 0.8

Contender = tuple[Callable[[Tensor], Any], int]
"""A product of all matrices of a stack, and the bytes it reads."""


def reader() -> Callable[[], Any]:
    """Reads as many bytes as fast as one thread can."""
    library = load("memory")
    assert library is not None, "this benchmark needs a compiler"
    data = torch.ones(READ_BYTES // 8, dtype=torch.int64)
    collapse([(data.data_ptr(), data.nbytes)])
    pointer, found = ctypes.c_void_p, ctypes.c_int64()
    native = function(library, "read_all", pointer, ctypes.c_int64, pointer, ctypes.c_int)
    return lambda: native(data.data_ptr(), data.numel(), ctypes.addressof(found), 1)


def each(products: Sequence[Callable[[Tensor], Any]]) -> Callable[[Tensor], Any]:
    """All products of a stack, one after the other."""

    def run(x: Tensor) -> None:
        for one in products:
            one(x)

    return run


def integer(weight: Tensor, share: float, count: int) -> tuple[Contender, float]:
    """Ours on one width, and its error."""
    eight = torch.full((weight.shape[0],), share) > 0.5
    stored = MixedWeight.of(quantize_rows(weight, eight))
    products = []
    for _ in range(count):
        made = IntegerProduct.of(stored.parts(), stored.shape, None)
        assert made is not None, "this benchmark needs a compiler"
        products.append(made)
    x = torch.randn(19, weight.shape[1])
    codes, scale = quantize_activations(x)
    inner = (grouped(codes.double()) * scale.double()[..., None]).flatten(1)[:, : x.shape[1]]
    exact = inner @ stored.dequantized(torch.float64).T
    error = float((products[0](x) - exact).norm() / exact.norm())
    return (each(products), count * products[0].nbytes), error


def contenders(weight: Tensor, count: int) -> tuple[dict[str, Contender], dict[str, float]]:
    """All, and the errors of ours."""
    size = count * weight.numel()
    half = [weight.bfloat16() + 0 for _ in range(count)]
    native = [BFloat16(one, None) for one in half]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch means to drop quantized tensors
        scales = weight.abs().amax(1) / 127
        zeros = torch.zeros(weight.shape[0], dtype=torch.int64)
        codes = torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8)
    packed = [torch.ops.quantized.linear_prepack(codes, None) for _ in range(count)]
    plain = [codes.int_repr() + 0 for _ in range(count)]
    dynamic: Any = torch.ops.quantized.linear_dynamic
    four, four_error = integer(weight, 0.0, count)
    eight, eight_error = integer(weight, 1.0, count)
    x = torch.randn(16, weight.shape[1]).bfloat16()
    exact = x.double() @ half[0].double().T

    def stack(of: Callable[[Any, Tensor], Any], matrices: Sequence[Any]) -> Callable[[Tensor], Any]:
        return each([partial(of, one) for one in matrices])

    made: dict[str, Contender] = {
        "w4a8": four,
        "w8a8": eight,
        "bfloat16": (stack(lambda p, x: p(x.bfloat16()), native), 2 * size),
        "linear_dynamic": (stack(lambda p, x: dynamic(x, p, False), packed), size),
        "_int_mm": (stack(lambda w, x: torch._int_mm(x.to(torch.int8), w.T), plain), size),
        "onednn bfloat16": (
            stack(lambda p, x: Blocked.__call__(p, x.bfloat16()), native),
            2 * size,
        ),
    }
    errors = {
        "w4a8": four_error,
        "w8a8": eight_error,
        "bfloat16": float((native[0](x).double() - exact).norm() / exact.norm()),
    }
    return made, errors


def main() -> int:
    options = arguments(__doc__, "serve_products")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    shapes = SHAPES[4:5] if options.quick else SHAPES
    repeats = 3 if options.quick else 7
    rows: list[dict[str, Any]] = []
    read = reader()
    for out, inputs in shapes:
        count = max(1, STACK_BYTES // (out * inputs))
        made, errors = contenders(torch.randn(out, inputs), count)
        if max(errors["w4a8"], errors["w8a8"]) > 1e-5 or errors["bfloat16"] > 2**-8:
            print(f"{out} x {inputs}: errors {errors}")
            return 1
        of_shape = MODEL_ROWS if (out, inputs) in MODEL_SHAPES else ROWS
        for number in (1, 16) if options.quick else of_shape:
            x = torch.randn(number, inputs)
            named = {
                name: partial(run, x)
                for name, (run, _) in made.items()
                if name != "_int_mm" or number >= LEAST_INT_MM
            }
            samples = interleave({**named, "read": read}, repeats=repeats)
            speed = READ_BYTES / min(samples["read"])
            operations = 2 * number * out * inputs * count
            row: dict[str, Any] = {
                "outputs": out,
                "inputs": inputs,
                "matrices": count,
                "rows": number,
                "seconds": samples,
                "summary_s": {name: summarize(one) for name, one in samples.items()},
                "errors": errors,
                "bandwidth_bytes_per_s": speed,
                "bytes_per_s": {n: made[n][1] / min(samples[n]) for n in named},
                "of_bandwidth": {n: made[n][1] / min(samples[n]) / speed for n in named},
                "operations_per_s": {n: operations / min(samples[n]) for n in named},
                "ratio_to_linear_dynamic": {
                    n: ratio(samples["linear_dynamic"], samples[n]) for n in ("w4a8", "w8a8")
                },
                "ratio_to_onednn": ratio(samples["onednn bfloat16"], samples["bfloat16"]),
            }
            rows.append(row)
            told = ", ".join(
                f"{n} {row['bytes_per_s'][n] / 1e9:.1f} GB/s {row['operations_per_s'][n] / 1e9:.0f}"
                for n in named
            )
            print(f"{out} x {inputs}, {number} rows: {told} GOPS; read {speed / 1e9:.1f} GB/s")
    config = {"shapes": shapes, "stack_bytes": STACK_BYTES, "read_bytes": READ_BYTES}
    save(options, rows, config=config, plot=lambda figure: draw(figure, rows))
    least = {
        name: min(row["ratio_to_linear_dynamic"][name] for row in rows if row["rows"] == 1)
        for name in WANTED
    }
    print(", ".join(f"{n}: {least[n]:.2f} x linear_dynamic at one row" for n in WANTED))
    large = [r for r in rows if r["rows"] == 1 and r["outputs"] * r["inputs"] >= LARGE]
    shares = {name: min((r["of_bandwidth"][name] for r in large), default=1.0) for name in WANTED}
    print(
        ", ".join(
            f"{n}: {shares[n]:.0%} of the bandwidth (wanted {OF_LIMIT[n]:.0%})" for n in WANTED
        )
    )
    wanted = dict.fromkeys(WANTED, LOOSE) if options.quick else WANTED
    return 0 if all(least[name] >= wanted[name] for name in WANTED) else 1


def draw(figure: Any, rows: list[dict[str, Any]]) -> None:
    first = [row for row in rows if row["outputs"] == rows[0]["outputs"]]
    axes = figure.subplots()
    styles = {
        "w4a8": (OURS, "-"),
        "w8a8": (OURS, "--"),
        "bfloat16": (OURS, ":"),
        "linear_dynamic": (PEER, "--"),
        "onednn bfloat16": (PEER, ":"),
    }
    for name, (color, style) in styles.items():
        axes.plot(
            [row["rows"] for row in first],
            [row["operations_per_s"][name] / 1e9 for row in first],
            color=color,
            linestyle=style,
            marker="o",
            label=name,
        )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlabel("rows of activations")
    axes.set_ylabel("10^9 operations/s, one thread")
    best = first[0]["ratio_to_linear_dynamic"]["w4a8"]
    axes.set_title(
        f"{first[0]['outputs']} x {first[0]['inputs']}: w4a8 at one row {best:.1f} x int8"
    )
    axes.legend()


if __name__ == "__main__":
    sys.exit(main())
