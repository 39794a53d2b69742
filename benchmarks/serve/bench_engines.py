"""The engine beside others: one sequence, sixteen, and prompts; SmolLM2-135M and model M.

What ``sharpen bench serve`` measures, on weights in Hugging Face layout that every engine reads, or
in .gguf files made of them: passes go over all engines in turn, each a process of its own with one
thread on one core. Ours also runs on the folders that ``sharpen compress mixllm`` makes of them
with 8 and with 4.4 bits. M: 12 layers, hidden 768, 12 heads and 4 for keys, 2048 between,
vocabulary 32,000, random weights. None runs in float32 but OpenVINO where its bfloat16 fails.

Peers in another environment: ``BENCH_PEERS_PYTHON``; ``optimum-cli`` is looked for on the path.

    python -m benchmarks.serve.bench_engines [--json OUT] [--plot OUT] [--quick]
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from benchmarks.common import arguments, draw_bars, save
from benchmarks.serve.gguf_models import write_gguf

from sharpen.core.model_spec import ModelSpec
from sharpen.models import load_model, load_tokenizer, save_model
from sharpen.models.decoder import DecoderLM
from sharpen.serve.bench.peers import choose_peers, lacking
from sharpen.serve.bench.roofline import measure_bandwidth, token_bytes
from sharpen.serve.bench.throughput import Entry, Settings, measure_throughput

SMOLLM = "smollm2-135m-instruct"
ASK = """
import importlib.metadata, json
found = {}
for name in ("transformers", "ctranslate2", "onnxruntime-genai", "openvino-genai"):
    try:
        found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        pass
try:
    import llama_cpp
    found["llama-cpp-python"] = llama_cpp.__version__
except ImportError:
    pass
print(json.dumps(found))
"""
OTHER_CLASS = ("hf-float32", "ctranslate2-float32", "onnx-float32")
BITS = {"w8a8": "8", "w4.4a8": "4.4"}


def model_m() -> DecoderLM:
    spec = ModelSpec(
        family="llama",
        vocab_size=32_000,
        hidden_size=768,
        intermediate_size=2048,
        num_layers=12,
        num_heads=12,
        num_kv_heads=4,
        head_dim=64,
        max_positions=2048,
        tie_word_embeddings=False,
    )
    model = DecoderLM(spec)
    model.init_weights(0)
    return model.to(torch.bfloat16)


def folders(name: str, where: Path) -> dict[str, str]:
    """The weights in bfloat16, and compressed."""
    base = where / name
    model = load_model(SMOLLM, dtype=torch.bfloat16) if name == "smollm2" else model_m()
    save_model(model, base, tokenizer=load_tokenizer(SMOLLM if name == "smollm2" else "tiny"))
    found = {"bf16": str(base)}
    for label, bits in BITS.items():
        out = where / f"{name}-{label}"
        command = [sys.executable, "-m", "sharpen.cli.main", "compress", "mixllm", str(base)]
        command += ["--bits", bits, "--solver", "rtn", "--samples", "8", "--out", str(out)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        found[label] = str(out)
    return found


def versions(python: str) -> dict[str, str]:
    """Of the peers, in the environment that has them."""
    done = subprocess.run([python, "-c", ASK], check=True, capture_output=True, text=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found


def main() -> int:
    options = arguments(__doc__, "serve_engines")
    python = os.environ.get("BENCH_PEERS_PYTHON")
    settings = Settings(passes=1 if options.quick else 3)
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in ("smollm2",) if options.quick else ("smollm2", "m"):
            made = folders(name, Path(folder))
            names, left_out = choose_peers("auto", made["bf16"], python)
            names = [one for one in names if one not in OTHER_CLASS]
            entries = [Entry("sharpen", path, f"sharpen {kind}") for kind, path in made.items()]
            entries += [Entry(peer, made["bf16"]) for peer in names]
            if python is not None and not lacking(["llama_cpp"], python):
                files = write_gguf(Path(made["bf16"]), Path(folder), python)
                entries += [Entry("llama.cpp", p, f"llama.cpp {kind}") for kind, p in files.items()]
            rows = measure_throughput(
                entries, settings, Path(folder) / f"{name}-peers", python=python, tell=print
            )
            bandwidth = measure_bandwidth(1)
            limits = {
                f"sharpen {kind}": bandwidth / token_bytes(path) for kind, path in made.items()
            }
            for row in rows:
                share = row.decode.get(1, 0) / limits[row.name] if row.name in limits else None
                print(row.name, row.decode, row.prefill, row.error, share and f"{share:.0%}")
            results[name] = {
                "rows": [dataclasses.asdict(row) for row in rows],
                "left_out": left_out,
                "bandwidth_gb_s": bandwidth / 1e9,
                "memory_limits": limits,
            }
    save(
        options,
        results,
        config={
            "threads": 1,
            "new_tokens": settings.new_tokens,
            "passes": settings.passes,
            "peers": versions(python or sys.executable),
        },
        plot=lambda figure: draw(figure, results),
    )
    return 0


def draw(figure: Any, results: dict[str, Any]) -> None:
    figure.set_size_inches(10, 4 * len(results))
    for axes, (name, found) in zip(
        figure.subplots(len(results), 1, squeeze=False)[:, 0], results.items(), strict=True
    ):
        rows = [row for row in found["rows"] if not row["error"]]
        draw_bars(
            axes,
            y_label=f"{name}, tokens a second",
            groups=[row["name"] for row in rows],
            series={
                "1 sequence": [row["decode"].get(1, 0.0) for row in rows],
                "16 sequences": [row["decode"].get(16, 0.0) for row in rows],
                "prompt of 512": [row["prefill"] or 0.0 for row in rows],
            },
        )
        axes.set_yscale("log")
        axes.tick_params(axis="x", labelsize=6, rotation=20)


if __name__ == "__main__":
    sys.exit(main())
