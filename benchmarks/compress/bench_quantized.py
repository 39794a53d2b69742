"""Quantized weights beside full precision and beside ``transformers`` on the same folders.

For SmolLM2-135M-Instruct in float32, bfloat16, int8 (a scale a row), int4 (groups of 32, symmetric
and not) and int4 with an int8 head: bytes on disk and in memory, perplexity on two texts, and
greedy tokens/s at batch 1 with one thread, all contenders in turn in one process. The peers are
``transformers`` in bfloat16, and with ``compressed-tensors`` on the very int4 folder we wrote.

Before anything is timed, int8 may cost at most 1 % of perplexity, and the peer's logits on our int4
folder must agree with ours. Bytes are compared with the formula
bits / 8 + 2 / group a weight, 2 bytes for all else. The asset's weights were on another 4-bit grid
(Q4_1) before, so int4 rounds a second time here.
"""

from __future__ import annotations

import os

os.environ.setdefault("GOMP_SPINCOUNT", "20000")  # for all: threads wait briefly, then sleep

import hashlib
import math
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from benchmarks.common import OURS, PEER, arguments, interleave, ratio, save, summarize
from transformers import AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from sharpen.compress import Grid, load_quantized, save_quantized, weight_bytes
from sharpen.eval import perplexity
from sharpen.models import generate, load_model, load_tokenizer, save_model
from sharpen.models.decode import prepare_for_inference

MODEL = "smollm2-135m-instruct"
TEXTS = (
    Path("/usr/share/common-licenses/GPL-3"),
    Path(sysconfig.get_path("stdlib"), "argparse.py"),
)
PROMPT = "The library of a small town by the sea keeps old maps, letters and the logs of ships."
VARIANTS: dict[str, tuple[Grid, str]] = {
    "int8": (Grid(bits=8), "keep"),
    "int4": (Grid(bits=4, group=32), "keep"),
    "int4 asymmetric": (Grid(bits=4, group=32, symmetric=False), "keep"),
    "int4, int8 head": (Grid(bits=4, group=32), "int8"),
}
PEERS = {"transformers bfloat16": "full", "transformers int4": "int4"}


def texts(tokenizer: Any, tokens: int) -> dict[str, list[int]]:
    """The first tokens of each text that this machine has, named with the text's hash."""
    found = {}
    for path in TEXTS:
        if path.exists():
            data = path.read_bytes()
            name = f"{path.name} {hashlib.sha256(data).hexdigest()[:16]}"
            found[name] = tokenizer.encode(data.decode())[:tokens]
    return found


def expected_bytes(grid: Grid, head: str, linear: int, embedding: int, rest: int) -> float:
    """Bytes of the weights by the formula; shapes and zero points are a few thousandths more."""
    per_weight = grid.bits / 8 + (2 / grid.group_size if grid.group_size > 0 else 0)
    return linear * per_weight + embedding * (1 if head == "int8" else 2) + rest * 2


def peer_decoder(folder: Path, prompt: list[int], new_tokens: int) -> tuple[Any, Callable[[], Any]]:
    """A ``transformers`` model on a folder and its generate loop."""
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
    ids = torch.tensor([prompt])
    mask = torch.ones_like(ids)

    def run() -> None:
        out = model.generate(
            ids,
            attention_mask=mask,
            do_sample=False,
            min_new_tokens=new_tokens,
            max_new_tokens=new_tokens,
        )
        assert out.shape[1] == len(prompt) + new_tokens

    return model, run


def peer_distance(folder: Path, prompt: list[int]) -> float:
    """Relative distance of our logits from the peer's on a quantized folder, both in float32."""
    peer: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        wanted = peer(torch.tensor([prompt])).logits
        found = load_quantized(folder, kernel="reference")(torch.tensor([prompt]))
    return float((found - wanted).norm() / wanted.norm())


def our_decoder(
    ref: str | Path, dtype: torch.dtype, prompt: list[int], new_tokens: int
) -> Callable[[], Any]:
    """Our generate loop on a model prepared for inference."""
    model = prepare_for_inference(load_model(ref, dtype=dtype))

    def run() -> None:
        (done,) = generate(model, [prompt], max_new_tokens=new_tokens)
        assert len(done.ids) == new_tokens

    return run


def measure_quality(folder: Path, tokenizer: Any, tokens: int) -> dict[str, dict[str, Any]]:
    """Bytes and perplexities of every format; writes the folders."""
    exact = load_model(MODEL)
    split = {"linear": 0, "embedding": 0, "rest": 0}
    for name, parameter in exact.named_parameters():
        kind = "embedding" if "embed" in name else "linear" if parameter.ndim == 2 else "rest"
        split[kind] += parameter.numel()
    inputs = texts(tokenizer, tokens)
    save_model(exact, folder / "full", dtype=torch.bfloat16, tokenizer=tokenizer)
    rows: dict[str, dict[str, Any]] = {}
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        model = load_model(MODEL, dtype=dtype)
        rows[name] = {
            "disk_bytes": dtype.itemsize * sum(split.values()),
            "memory_bytes": weight_bytes(model),
            "perplexity": {k: perplexity(model, ids) for k, ids in inputs.items()},
        }
    for name, (grid, head) in VARIANTS.items():
        save_quantized(exact, folder / name, grid, head=head, tokenizer=tokenizer)  # type: ignore[arg-type]
        model = load_model(folder / name, dtype=torch.bfloat16)
        rows[name] = {
            "disk_bytes": (folder / name / "model.safetensors").stat().st_size,
            "expected_bytes": expected_bytes(grid, head, **split),
            "memory_bytes": weight_bytes(model),
            "perplexity": {k: perplexity(model, ids) for k, ids in inputs.items()},
        }
    for row in rows.values():
        logs = [
            math.log(value / rows["float32"]["perplexity"][key])
            for key, value in row["perplexity"].items()
        ]
        row["perplexity_change"] = math.exp(sum(logs) / len(logs)) - 1 if logs else None
    return rows


def main() -> int:
    options = arguments(__doc__, "compress_quantized")
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    torch.set_num_threads(1)
    tokenizer = load_tokenizer(MODEL)
    prompt = tokenizer.encode(PROMPT)
    tokens, new_tokens, repeats = (512, 8, 3) if options.quick else (1536, 32, 5)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        rows = measure_quality(folder, tokenizer, tokens)
        contenders: dict[str, Callable[[], Any]] = {
            "float32": our_decoder(MODEL, torch.float32, prompt, new_tokens),
            "bfloat16": our_decoder(MODEL, torch.bfloat16, prompt, new_tokens),
        }
        for name in VARIANTS:
            contenders[name] = our_decoder(folder / name, torch.bfloat16, prompt, new_tokens)
        gap = peer_distance(folder / "int4", prompt)
        peers = {}
        for name, source in PEERS.items():
            peers[name], contenders[name] = peer_decoder(folder / source, prompt, new_tokens)
        samples = interleave(contenders, repeats=repeats)
        for name, source in PEERS.items():
            stored = (folder / source / "model.safetensors").stat().st_size
            # After the runs: the peer unpacks its weights on the first one.
            rows[name] = {"disk_bytes": stored, "memory_bytes": weight_bytes(peers[name])}
    for name, seconds in samples.items():
        row = rows[name]
        row["seconds"] = seconds
        row["summary_s"] = summarize(seconds)
        row["tokens_per_s"] = new_tokens / row["summary_s"]["median"]
        row["speed_over_bfloat16"] = ratio(samples["bfloat16"], seconds)
    for name, row in rows.items():
        change = row.get("perplexity_change")
        shown = "" if change is None else f"{change:+.1%}"
        print(
            f"{name:22} {row.get('disk_bytes', 0) / 1e6:7.1f} MB on disk, "
            f"{row.get('memory_bytes', 0) / 1e6:7.1f} MB in memory, perplexity {shown:>7}, "
            f"{row['tokens_per_s']:6.1f} tokens/s, {row['speed_over_bfloat16']:.2f} x bfloat16",
            flush=True,
        )
    checks = {
        "peer_logits_relative_distance": gap,
        "int8_perplexity_change": rows["int8"]["perplexity_change"],
        "int4_over_peer_int4": ratio(samples["transformers int4"], samples["int4"]),
        "int4_bytes_over_formula": rows["int4"]["disk_bytes"] / rows["int4"]["expected_bytes"],
    }
    config = {"model": MODEL, "text_tokens": tokens, "window": 512, "new_tokens": new_tokens}
    save(options, {"rows": rows, "checks": checks}, config=config, plot=lambda f: draw(f, rows))
    print(checks)
    good = gap < 0.01 and abs(checks["int8_perplexity_change"]) < 0.01
    good = good and abs(checks["int4_bytes_over_formula"] - 1) < 0.01
    return 0 if good and checks["int4_over_peer_int4"] > 1 else 1


def draw(figure: Any, rows: dict[str, dict[str, Any]]) -> None:
    """Size and perplexity on the left, speed on the right."""
    left, right = figure.subplots(1, 2)
    for name, row in rows.items():
        if row.get("perplexity_change") is not None:
            x, y = row["disk_bytes"] / 1e6, 100 * row["perplexity_change"]
            left.plot(x, y, "o", color=OURS)
            left.annotate(
                name,
                (x, y),
                xytext=(3, -11 if "head" in name else 4),
                textcoords="offset points",
                fontsize=7,
            )
    left.set_xlabel("weights on disk (MB)")
    left.set_ylabel("perplexity over float32 (%)")
    left.set_xlim(0, 620)
    names = list(rows)[::-1]
    speeds = [rows[name]["tokens_per_s"] for name in names]
    bars = right.barh(
        names, speeds, color=[PEER if name in PEERS else OURS for name in names], edgecolor="white"
    )
    right.bar_label(bars, fmt="%.3g", fontsize=7)
    right.tick_params(axis="y", labelsize=7)
    right.set_xlabel("greedy decoding at batch 1 (tokens/s)")
    for axes in (left, right):
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    speed = rows["int4"]["speed_over_bfloat16"]
    figure.suptitle(f"SmolLM2-135M, 1 thread: int4 decodes at {speed:.2f} x bfloat16", fontsize=10)


if __name__ == "__main__":
    sys.exit(main())
