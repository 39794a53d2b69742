"""Perplexity and size at 4 to 8 bits: MixLLM beside rounding to nearest, AWQ, GPTQ and 8 bits.

Two trained models, SmolLM2-135M-Instruct and ``tiny``. All contenders round the linear layers of
the blocks by groups of 128, are stored in the same format, and run on 8-bit activations; embedding,
head and norms stay float32, but for one contender whose embedding and head, which are one in both
models, have 8 bits too. Calibration texts and the texts measured share nothing:

- SmolLM2 is calibrated on descriptions of installed packages and on modules of the standard
  library, and measured on the GPL-3 and on ``argparse.py``, 2,048 tokens of each.
- ``tiny`` is calibrated on modules that it was trained on, and measured on those held out then.

MixLLM's choice of rows is also compared with a choice by bytes, a tenth of the bytes that 8 bits
would add, and on ``tiny`` with a tenth of each layer's rows and with a tenth drawn at random; all
of them rounded by GPTQ.

SmolLM2's weights were on another 4-bit grid (Q4_1, groups of 32) before, so 4 bits round a second
time here and cost more than they cost a model in full precision. Perplexities change with the
calibration texts, which depend on the packages installed: their hash is in the result.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
import sysconfig
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from benchmarks.common import OURS, PEER, arguments, save

from sharpen.compress import MixLLMConfig, load_mixed, save_mixed
from sharpen.compress.calibration import calibration_dataset, samples
from sharpen.compress.salience import row_salience
from sharpen.core.assets import asset_path
from sharpen.data.shards import TokenDataset
from sharpen.data.stages import split_rows
from sharpen.data.stdlib import stdlib_texts
from sharpen.eval import perplexity
from sharpen.models import load_model, load_tokenizer
from sharpen.models.decoder import DecoderLM

MODELS = ("tiny", "smollm2-135m-instruct")
HEAD = "MixLLM 4.4, 8-bit head"
CONTENDERS: dict[str, dict[str, Any]] = {
    "RTN 4": {"bits": 4, "solver": "rtn"},
    "AWQ-style 4": {"bits": 4, "solver": "awq"},
    "GPTQ 4": {"bits": 4, "solver": "gptq"},
    "MixLLM 4.4": {"bits": 4.4},
    HEAD: {"bits": 4.4, "head": 8},
    "RTN 8": {"bits": 8, "solver": "rtn"},
    "10 % by bytes": {"bits": 4.4, "unit": "bytes"},
    "10 % of each layer": {"bits": 4.4, "scores": "each layer"},
    "10 % at random": {"bits": 4.4, "scores": "random"},
}
CLAIMED = ("RTN 4", "AWQ-style 4", "GPTQ 4", "MixLLM 4.4", "RTN 8")
ONLY_TINY = ("10 % of each layer", "10 % at random")
WINDOW = 512


def calibration_texts(name: str, count: int) -> list[str]:
    """Beginnings of texts, none of which is measured."""
    modules = list(stdlib_texts(asset_path("python-stdlib")))
    if name == "tiny":
        held = split_rows([row["module"] for row in modules], 0.03, seed=0)
        known = [row["text"] for row, out in zip(modules, held, strict=True) if not out]
        return known[:: max(1, len(known) // count)]
    sources = [row["text"] for row in modules if row["module"] not in ("argparse", "optparse")]
    prose = sorted(
        text
        for text in (str(d.metadata.get_payload()) for d in metadata.distributions())  # type: ignore[attr-defined]
        if len(text) > 4000 and "General Public License" not in text
    )
    half = count // 2
    pairs = zip(
        sources[:: max(1, len(sources) // half)], prose[:: max(1, len(prose) // half)], strict=False
    )
    return [text for pair in pairs for text in pair]


def measured_texts(name: str) -> dict[str, str]:
    """The texts whose perplexity is taken."""
    if name == "tiny":
        modules = list(stdlib_texts(asset_path("python-stdlib")))
        held = split_rows([row["module"] for row in modules], 0.03, seed=0)
        texts = [row["text"] for row, out in zip(modules, held, strict=True) if out]
        return {"held-out modules": "\n".join(texts)}
    paths = (
        Path("/usr/share/common-licenses/GPL-3"),
        Path(sysconfig.get_path("stdlib"), "argparse.py"),
    )
    return {path.name: path.read_text() for path in paths if path.exists()}


def calibrate(
    name: str, tokenizer: Any, folder: Path, rows: int, tokens: int
) -> tuple[TokenDataset, str]:
    """The calibration rows, and a hash of their texts."""
    # The beginning of each text fills one row, so that there are as many texts as rows.
    texts = [text[: 16 * tokens] for text in calibration_texts(name, 2 * rows)]
    ids = [tokenizer.encode(text) for text in texts]
    cut = [tokenizer.decode(one[:tokens]) for one in ids if len(one) > tokens]
    file = folder / "calibration.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in cut))
    (folder / "rows").mkdir()
    dataset = calibration_dataset(file, tokenizer, folder / "rows", rows=rows, tokens=tokens)
    return dataset, hashlib.sha256(file.read_bytes()).hexdigest()[:16]


def own_scores(kind: str, scores: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Scores that choose a share of each layer, or rows at random."""
    if kind == "random":
        generator = torch.Generator().manual_seed(0)
        return {n: torch.rand(s.numel(), generator=generator) for n, s in scores.items()}
    return {n: s.argsort().argsort().double() / s.numel() for n, s in scores.items()}


def measure(model: DecoderLM, texts: dict[str, list[int]]) -> dict[str, float]:
    return {name: perplexity(model, ids, window=WINDOW) for name, ids in texts.items()}


def change(row: dict[str, Any], base: dict[str, Any]) -> float:
    """Relative change of perplexity, as the geometric mean over texts."""
    logs = [math.log(p / base["perplexity"][t]) for t, p in row["perplexity"].items()]
    return math.exp(sum(logs) / len(logs)) - 1


def run(name: str, *, rows: int, row_tokens: int, tokens: int, quick: bool) -> dict[str, Any]:
    tokenizer, model = load_tokenizer(name), load_model(name)
    texts = {k: tokenizer.encode(v)[:tokens] for k, v in measured_texts(name).items()}
    base: dict[str, Any] = {
        "bytes": 4 * model.spec.num_parameters,
        "perplexity": measure(model, texts),
    }
    found: dict[str, Any] = {"float32": base}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        dataset, digest = calibrate(name, tokenizer, folder, rows, row_tokens)
        begin = time.perf_counter()
        scores = row_salience(model, samples(dataset, rows, model))
        salience_s = time.perf_counter() - begin
        for label, fields in CONTENDERS.items():
            if (quick and label not in (*CLAIMED, HEAD)) or (name != "tiny" and label in ONLY_TINY):
                continue
            fields = dict(fields)
            kind = fields.pop("scores", None)
            config = MixLLMConfig(**{"calibration": rows, "head": 16, **fields})
            chosen = scores if kind is None else own_scores(kind, scores)
            begin = time.perf_counter()
            told = save_mixed(
                model, folder / "out", config, dataset, scores=chosen, dtype=torch.float32
            )
            seconds = time.perf_counter() - begin
            row = found[label] = {
                "bytes": (folder / "out" / "model.safetensors").stat().st_size,
                "block_bytes": block_bytes(folder / "out"),
                "stored_bits": told.stored_bits,
                "rows_int8": told.rows_int8,
                "rows": told.rows,
                "share_int8": told.share_int8,
                "seconds": seconds,
                "perplexity": measure(load_mixed(folder / "out"), texts),
            }
            row["change"] = change(row, base)
            print(
                f"{name:22} {label:20} {row['block_bytes'] / 1e6:6.2f} MB in blocks, perplexity "
                f"{row['change']:+.2%}, {seconds:.0f} s",
                flush=True,
            )
    changes = {k: r["change"] for k, r in found.items() if "change" in r}
    claims = {
        "over_rtn4": changes["MixLLM 4.4"] / changes["RTN 4"],
        "over_gptq4": changes["MixLLM 4.4"] / changes["GPTQ 4"],
        "head_of_increase": changes[HEAD] / changes["MixLLM 4.4"] - 1,
        "gap_closed": (changes["GPTQ 4"] - changes["MixLLM 4.4"])
        / (changes["GPTQ 4"] - changes["RTN 8"]),
    }
    return {
        "rows": found,
        "claims": claims,
        "salience_s": salience_s,
        "calibration_sha256": digest,
        "calibration_rows": min(rows, len(dataset)),
        "text_tokens": {k: len(v) for k, v in texts.items()},
        "text_sha256": {
            k: hashlib.sha256(v.encode()).hexdigest()[:16] for k, v in measured_texts(name).items()
        },
    }


def block_bytes(folder: Path) -> int:
    """Bytes of the linear layers in the blocks."""
    from sharpen.models.hf import open_tensors

    return sum(
        file.num_bytes
        for tensor, file in open_tensors(folder).items()
        if tensor.startswith("model.layers.") and tensor.endswith(("int4", "int8"))
    )


def main() -> int:
    options = arguments(__doc__, "compress_mixllm")
    torch.set_num_threads(1)
    sizes = {"rows": 64, "row_tokens": 256, "tokens": 2048}
    names = MODELS
    if options.quick:
        sizes, names = {"rows": 16, "row_tokens": 256, "tokens": 2048}, MODELS[:1]
    results = {}
    for name in names:
        tokens = 4 * sizes["tokens"] if name == "tiny" else sizes["tokens"]
        results[name] = run(name, **{**sizes, "tokens": tokens}, quick=options.quick)
        print(name, results[name]["claims"])
    save(options, results, config={**sizes, "window": WINDOW, "group": 128}, plot=_drawing(results))
    good = all(
        r["claims"]["over_rtn4"] <= 0.5 and r["claims"]["over_gptq4"] < 1 for r in results.values()
    )
    if options.quick:
        good = all(r["claims"]["over_rtn4"] < 1 for r in results.values())
    return 0 if good else 1


def _drawing(results: dict[str, Any]) -> Any:
    return lambda figure: draw(figure, results)


def draw(figure: Any, results: dict[str, Any]) -> None:
    """Perplexity over bits a weight, a panel for each model."""
    panels = figure.subplots(1, len(results), squeeze=False)[0]
    for axes, (name, found) in zip(panels, results.items(), strict=True):
        rows = found["rows"]
        for label in CLAIMED:
            row = rows[label]
            x, y = row["block_bytes"] / 1e6, 100 * row["change"]
            ours = label.startswith("MixLLM")
            marker = "o" if ours else "s"
            axes.plot(x, y, marker, color=OURS if ours else PEER, markersize=7)
            axes.annotate(label, (x, y), xytext=(6, 4), textcoords="offset points", fontsize=7)
        axes.set_xlabel("linear layers in the blocks (MB)")
        axes.set_title(name, fontsize=9)
        axes.set_ylim(bottom=0)
        left, right = axes.get_xlim()
        axes.set_xlim(left, right + 0.25 * (right - left))
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    panels[0].set_ylabel("perplexity over float32 (%)")


if __name__ == "__main__":
    sys.exit(main())
