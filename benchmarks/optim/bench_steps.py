"""Nanoseconds and bytes of state a parameter of every optimizer's step, beside its peers.

What ``sharpen bench optim`` measures, six seconds a contender, one thread, in turn, the least CPU
time; ``docs/optim/bench.md`` tells how. The bars are those of ``WANTED``: as many times as fast as
the peer, or nanoseconds a parameter on a processor with AVX-512; what is missed is printed and
published as well. A few are measured with AVX2 too.

    pip install lion-pytorch==0.2.5 schedulefree==1.4.1 galore-torch==1.0 bitsandbytes==0.50.2 \
        pytorch-optimizer==4.1.0
    python -m benchmarks.optim.bench_steps [--json OUT] [--plot OUT] [--quick]
"""

from __future__ import annotations

import dataclasses
import os
import sys
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from benchmarks.common import OURS, PEER, arguments, save

from sharpen.native.info import supported
from sharpen.optim.bench.step_cost import measure_costs

# Ratio to the peer, ns a parameter.
WANTED: dict[str, tuple[float | None, float | None]] = {
    "adamw": (1.0, None),
    "adamw_8bit": (12.0, 1.3),
    "lion": (None, 0.45),
    "lion_8bit": (None, 0.7),
    "apollo_mini": (None, 0.5),
    "frugal": (None, 0.45),
}

NARROW = ["adamw", "adamw_8bit", "adamw_4bit", "lion", "lion_8bit", "adafactor", "lamb"]


def main() -> int:
    options = arguments(__doc__, "optim_steps")
    names = ["adamw", "lion"] if options.quick else None
    found = measure_costs(names, seconds=0.2 if options.quick else 6.0, tell=print)
    rows = [dataclasses.asdict(row) for row in found.pop("rows")]
    for row in sorted(rows, key=lambda r: r["ns_per_param"]):
        wanted = WANTED.get(row["name"], (None, None))
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f} x {row['peer']}"
        print(
            f"{row['name']:24} {row['ns_per_param']:8.2f} ns {row['state_bytes_per_param']:6.2f} B "
            f"{ratio} {'' if wanted == (None, None) else f'wanted {wanted}'}"
        )
    narrow = _with_avx2(["adamw_8bit"] if options.quick else NARROW, 0.2 if options.quick else 6.0)
    save(
        options,
        {"rows": rows, "avx2": narrow, **found},
        config={"wanted": WANTED},
        plot=lambda figure: draw(figure, rows),
    )
    return 0


def _with_avx2(names: list[str], seconds: float) -> list[dict[str, Any]]:
    """The same with narrower vectors, beside the same peers."""
    if "avx2" not in supported():
        return []
    before = os.environ.get("SHARPEN_NATIVE")
    os.environ["SHARPEN_NATIVE"] = "avx2"
    try:
        rows = measure_costs(names, seconds=seconds)["rows"]
    finally:
        del os.environ["SHARPEN_NATIVE"]
        if before is not None:
            os.environ["SHARPEN_NATIVE"] = before
    for row in rows:
        print(f"avx2 {row.name:24} {row.ns_per_param:8.2f} ns {row.ratio or 0:.2f} x {row.peer}")
    return [dataclasses.asdict(row) for row in rows]


def draw(figure: Any, rows: list[dict[str, Any]]) -> None:
    axes = figure.subplots()
    shown = sorted(rows, key=lambda r: -r["ns_per_param"])
    peers = {row["peer"] for row in rows} | {"torch AdamW fused"}
    colours = [PEER if row["name"] in peers else OURS for row in shown]
    axes.barh([r["name"] for r in shown], [r["ns_per_param"] for r in shown], color=colours)
    axes.set_xscale("log")
    axes.tick_params(axis="y", labelsize=6)
    axes.set_xlabel("ns a parameter, one thread")
    axes.set_title("A step; yellow: what users take instead", fontsize=10)


if __name__ == "__main__":
    sys.exit(main())
