"""The engine on a GPU beside transformers, on a model of the 1B class with random weights.

Llama's shape of 1.2B parameters: 16 layers, hidden 2048, 32 heads and 8 for keys, 8192 between,
vocabulary 128,256, head tied to the embedding, bfloat16. Passes go over both engines in turn, each
a process of its own; limits are the bandwidth measured beside over the bytes of weights and of
keys and values that a step reads.

    python -m benchmarks.serve.bench_cuda [--json OUT] [--plot OUT] [--quick]
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import tempfile
from pathlib import Path
from typing import Any

import torch
from benchmarks.common import arguments, save

from sharpen.core.model_spec import ModelSpec
from sharpen.models import load_tokenizer, save_model
from sharpen.models.decoder import DecoderLM
from sharpen.models.paged import PagedCache
from sharpen.serve.bench.roofline import measure_bandwidth, token_bytes
from sharpen.serve.bench.throughput import Entry, Settings, measure_throughput

SPEC = ModelSpec(
    family="llama",
    vocab_size=128_256,
    hidden_size=2048,
    intermediate_size=8192,
    num_layers=16,
    num_heads=32,
    num_kv_heads=8,
    head_dim=64,
    max_positions=8192,
    tie_word_embeddings=True,
)
BATCHES = (1, 4, 16, 64, 256)


def make_folder(folder: Path) -> str:
    """Random weights, made on the device, in Hugging Face layout."""
    with torch.device("cuda"):
        model = DecoderLM(SPEC).to(torch.bfloat16)
    with torch.no_grad():
        for number, weight in enumerate(model.parameters()):
            if weight.dim() > 1:
                source = torch.Generator("cuda").manual_seed(number)
                weight.normal_(std=0.02, generator=source)
    save_model(model.cpu(), folder / "1b", tokenizer=load_tokenizer("tiny"))
    return str(folder / "1b")


def main() -> int:
    options = arguments(__doc__, "serve_cuda")
    settings = Settings(
        device="cuda",
        batches=BATCHES[::2] if options.quick else BATCHES,
        new_tokens=64,
        prompt=128,
        prefill=2048,
        passes=1 if options.quick else 3,
    )
    with tempfile.TemporaryDirectory() as name:
        folder = make_folder(Path(name))
        entries = [Entry("sharpen", folder, "sharpen"), Entry("hf-bfloat16", folder)]
        rows = measure_throughput(entries, settings, Path(name), tell=print)
        weights = token_bytes(folder)
    bandwidth = measure_bandwidth(1, "cuda")
    tokens = settings.prompt + settings.new_tokens / 2
    each = PagedCache.block_bytes(SPEC, 1, torch.bfloat16) * tokens
    limits = {batch: batch * bandwidth / (weights + batch * each) for batch in settings.batches}
    for row in rows:
        shares = {batch: f"{rate / limits[batch]:.0%}" for batch, rate in row.decode.items()}
        rates = {batch: round(rate) for batch, rate in row.decode.items()}
        print(row.name, rates, shares, row.prefill, f"{row.spread:.0%}", row.error)
    results = {
        "rows": [dataclasses.asdict(row) for row in rows],
        "bandwidth_gb_s": bandwidth / 1e9,
        "weights_bytes": weights,
        "memory_limits": limits,
    }
    config = {
        "device": torch.cuda.get_device_name(),
        "transformers": importlib.metadata.version("transformers"),
        **{name: getattr(settings, name) for name in ("new_tokens", "prompt", "prefill", "passes")},
    }
    save(options, results, config=config, plot=lambda figure: draw(figure, results))
    return 0


def draw(figure: Any, results: dict[str, Any]) -> None:
    axes = figure.subplots()
    for row in results["rows"]:
        batches = [int(batch) for batch in row["decode"]]
        axes.plot(batches, list(row["decode"].values()), marker="o", label=row["name"])
    limits = {int(batch): rate for batch, rate in results["memory_limits"].items()}
    axes.plot(list(limits), list(limits.values()), "k--", label="memory's limit")
    axes.set(xscale="log", yscale="log", xlabel="sequences", ylabel="tokens a second")
    axes.set_xticks(list(limits), [str(batch) for batch in limits])
    axes.legend()


if __name__ == "__main__":
    raise SystemExit(main())
