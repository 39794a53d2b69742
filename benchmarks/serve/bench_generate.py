"""Greedy generation beside ``transformers.generate``: same weights, type, threads, prompt, tokens.

Both decode 64 tokens after a prompt of 32, with the end of sequence ignored. Before anything is
timed the logits of the prompt must agree with those of a float32 model: within 1e-3 in float32; in
bfloat16, where rounding differs from kernel to kernel, our mean distance may not exceed the peer's
by more than half. The first new token must be the peer's. The ceiling is memory: a step reads
every weight once, so

    tokens/s <= batch * bandwidth / weight bytes,  bandwidth measured here by a large copy-free sum.
"""

from __future__ import annotations

import os

os.environ.setdefault("GOMP_SPINCOUNT", "20000")  # for both: threads wait briefly, then sleep

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from benchmarks.common import arguments, draw_bars, interleave, ratio, save, summarize
from transformers import AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from sharpen.models import generate, load_model, load_tokenizer, save_model
from sharpen.models.decode import InferenceLM, prepare_for_inference

MODEL = "smollm2-135m-instruct"
TEXT = "The library of a small town by the sea keeps old maps, letters and the logs of ships. " * 4
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
NEW_TOKENS = 64
PROMPT_TOKENS = 32
LOOSE, WANTED = 1.0, 1.5


def bandwidth(num_bytes: int = 1 << 29) -> float:
    """Bytes a second of reading a large tensor with all threads."""
    data = torch.ones(num_bytes // 4)
    best = float("inf")
    for _ in range(5):
        begin = time.perf_counter()
        data.sum()
        best = min(best, time.perf_counter() - begin)
    return num_bytes / best


def distance(logits: torch.Tensor, reference: torch.Tensor) -> float:
    """Mean absolute difference over all positions of the prompt."""
    return float((logits[0].float() - reference).abs().mean())


def first_token(ours: torch.Tensor, peer: torch.Tensor) -> tuple[bool, float]:
    """Whether both choose the same first token, and the largest difference of its logits."""
    one, other = ours[0, -1].float(), peer[0, -1].float()
    return bool(one.argmax() == other.argmax()), float((one - other).abs().max())


def contenders(
    ours: InferenceLM, peer: Any, prompts: list[list[int]], new_tokens: int
) -> dict[str, Callable[[], Any]]:
    """Both generate loops."""
    ids = torch.tensor(prompts)
    mask = torch.ones_like(ids)

    def run_ours() -> None:
        done = generate(ours, prompts, max_new_tokens=new_tokens)
        assert all(len(one.ids) == new_tokens for one in done)

    def run_peer() -> None:
        out = peer.generate(
            ids,
            attention_mask=mask,
            do_sample=False,
            min_new_tokens=new_tokens,
            max_new_tokens=new_tokens,
        )
        assert out.shape[1] == ids.shape[1] + new_tokens

    return {"sharpen": run_ours, "transformers": run_peer}


def main() -> int:
    options = arguments(__doc__, "serve_generate")
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    torch.set_num_threads(min(2, len(os.sched_getaffinity(0))))
    tokenizer = load_tokenizer(MODEL)
    prompt = tokenizer.encode(TEXT)[:PROMPT_TOKENS]
    exact = load_model(MODEL)
    with torch.inference_mode():
        reference = exact(torch.tensor([prompt]))[0]
    weight_count = sum(p.numel() for p in exact.parameters())
    new_tokens, repeats = (16, 3) if options.quick else (NEW_TOKENS, 7)
    dtypes = ["bfloat16"] if options.quick else list(DTYPES)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        save_model(exact, Path(folder) / "model", tokenizer=tokenizer)
        for name in dtypes:
            dtype = DTYPES[name]
            ours = prepare_for_inference(load_model(MODEL, dtype=dtype))
            peer: Any = AutoModelForCausalLM.from_pretrained(
                Path(folder) / "model", dtype=dtype, attn_implementation="sdpa"
            ).eval()
            with torch.inference_mode():
                our_logits = ours(torch.tensor([prompt]))
                peer_logits = peer(torch.tensor([prompt])).logits
            gap, peer_gap = distance(our_logits, reference), distance(peer_logits, reference)
            same, apart = first_token(our_logits, peer_logits)
            agrees = gap < 1e-3 if name == "float32" else gap < 1.5 * peer_gap
            if not agrees or not same:
                print(f"{name}: logits are off by {gap:.3g}, the peer's by {peer_gap:.3g}")
                return 1
            for batch in (1, 8):
                prompts = [prompt] * batch
                speed = bandwidth()
                samples = interleave(contenders(ours, peer, prompts, new_tokens), repeats=repeats)
                row = {
                    "dtype": name,
                    "batch": batch,
                    "seconds": samples,
                    "summary_s": {k: summarize(v) for k, v in samples.items()},
                    "tokens_per_s": {
                        k: batch * new_tokens / summarize(v)["median"] for k, v in samples.items()
                    },
                    "ratio": ratio(samples["transformers"], samples["sharpen"]),
                    "logits_mean_error": {"sharpen": gap, "transformers": peer_gap},
                    "first_token_max_difference": apart,
                    "bandwidth_bytes_per_s": speed,
                    "ceiling_tokens_per_s": batch * speed / (weight_count * dtype.itemsize),
                }
                rows.append(row)
                print(
                    f"{name:9} batch {batch}: {row['tokens_per_s']['sharpen']:7.1f} tokens/s, "
                    f"transformers {row['tokens_per_s']['transformers']:7.1f}, "
                    f"ratio {row['ratio']:.2f}, ceiling {row['ceiling_tokens_per_s']:.0f}",
                    flush=True,
                )
            del ours, peer
    config = {"model": MODEL, "prompt_tokens": PROMPT_TOKENS, "new_tokens": new_tokens}
    save(options, rows, config=config, plot=lambda figure: draw(figure, rows))
    least = min(row["ratio"] for row in rows)
    wanted = LOOSE if options.quick else WANTED
    print(f"least ratio {least:.2f}, wanted {wanted}")
    return 0 if least >= wanted else 1


def draw(figure: Any, rows: list[dict[str, Any]]) -> None:
    axes = figure.subplots()
    draw_bars(
        axes,
        y_label="tokens/s, all rows together",
        groups=[f"{row['dtype']}\nbatch {row['batch']}" for row in rows],
        series={
            who: [row["tokens_per_s"][who] for row in rows] for who in ("sharpen", "transformers")
        },
    )
    ratios = ", ".join(f"{row['ratio']:.2f}x" for row in rows)
    axes.set_title(f"Greedy decoding, SmolLM2-135M, 2 threads: {ratios}", fontsize=10)


if __name__ == "__main__":
    sys.exit(main())
