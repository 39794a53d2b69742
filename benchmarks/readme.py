"""Write the measured numbers of README and pages from ``benchmarks/results``, and their plot.

python -m benchmarks.readme [--check]

A place for numbers stands between ``<!-- measured: NAME -->`` and ``<!-- end -->``. With
``--check`` nothing is written; the exit code is 1 when a file would change.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.align import agents_sections as acting
from benchmarks.align import align_sections as aligning
from benchmarks.align import bcoder_sections as valuing
from benchmarks.align import logprobs_sections as scoring
from benchmarks.align import rewards_sections as rewarding
from benchmarks.code import enamel_sections as evaluating
from benchmarks.code import improve_sections as improving
from benchmarks.code import measure_sections as timing
from benchmarks.code import pie_sections as editing
from benchmarks.code import sandbox_sections as sandboxing
from benchmarks.common import OURS, PEER, RESULTS
from benchmarks.data import sections as preparing
from benchmarks.search import sections as searching
from benchmarks.serve import sections as serving
from benchmarks.text import lm_sections as calling
from benchmarks.text import porting_sections as porting
from benchmarks.text import program_sections as programs
from benchmarks.text import prompt_sections as asking
from benchmarks.text import rag_sections as retrieving
from benchmarks.text import smollm2_sections as prompting
from benchmarks.text import task_sections as solving

ROOT = Path(__file__).resolve().parent.parent
PAGES = (
    *("README.md", "docs/plan/plan.md", "docs/train/train.md", "docs/train/long_sequences.md"),
    *("docs/compress/quantize.md", "docs/compress/mixllm.md", "docs/compress/locret.md"),
    *(
        "docs/align/agents.md",
        "docs/align/align.md",
        "docs/align/bcoder.md",
        "docs/align/losses.md",
        "docs/align/rewards.md",
        "docs/code/improve.md",
        "docs/code/evaluate.md",
        "docs/code/measure.md",
        "docs/code/sandbox.md",
        "docs/code/training-data.md",
        "docs/data/bitcipher.md",
        "docs/data/clean.md",
        "docs/data/datajuicer.md",
        "docs/data/models.md",
        "docs/plan/serving.md",
        "docs/serve/bench.md",
        "docs/serve/gpu.md",
        "docs/serve/server.md",
        "docs/serve/split.md",
        "docs/train/zero.md",
        "docs/optim/optimizers.md",
        "docs/optim/sso.md",
        "docs/problems/arch.md",
        "docs/search/bandits.md",
        "docs/search/bayesian.md",
        "docs/search/compared.md",
        "docs/search/reinforcement.md",
        "docs/search/studies.md",
        "docs/text/lm.md",
        "docs/text/programs.md",
        "docs/text/prompts.md",
        "docs/text/porting.md",
        "docs/text/rag.md",
    ),
)
PLOT = ROOT / "docs" / "benchmarks.png"


def load(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return document


def _where(document: dict[str, Any]) -> str:
    machine = document["machine"]
    return (
        f"{document['date'][:10]}, {machine['cpu']}, {machine['logical_cores']} cores, torch "
        f"{machine['versions']['torch']}"
    )


def lora() -> str:
    document = load("train_lora")
    r, versions = document["results"], document["machine"]["versions"]
    ours, peer, _ = r["tokens_per_s"].values()
    memory, peer_memory, _ = r["peak_bytes"].values()
    return (
        "LoRA of SmolLM2-135M (rank 16, all linear layers, sequences of 512, bf16), beside "
        f"transformers {versions['transformers']} Trainer + peft {versions['peft']} with the same "
        f"rows and types: **{r['speed_ratio']:.2f} x** the tokens a second ({ours:.0f} and "
        f"{peer:.0f}) in **{r['memory_ratio']:.2f} x** the peak memory "
        f"({memory / 2**30:.2f} and {peer_memory / 2**30:.2f} GiB). Huge pages, which "
        "`sharpen run` asks for, are part of that: beside the peer with the same setting it is "
        f"{r['speed_ratio_tuned_peer']:.2f} x. {_where(document)}; "
        "`benchmarks/train/bench_lora.py`."
    )


def plan() -> str:
    document = load("plan")
    rows = document["results"]["rows"]
    lines = [
        "| recipe | memory, GiB | measured | error | step, s | measured | error |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for r in rows:
        cells = [r["name"]]
        for key, unit in (("memory_bytes", 2**30), ("step_s", 1.0)):
            foreseen, seen = r[key]["predicted"] / unit, r[key]["measured"] / unit
            cells += [f"{foreseen:.2f}", f"{seen:.2f}", f"{foreseen / seen - 1:+.0%}"]
        lines.append("| " + " | ".join(cells) + " |")
    where = f"{_where(document)}; `benchmarks/plan/bench_plan.py`."
    return "\n".join([*lines, "", where])


def zero() -> str:
    document = load("train_zero")
    rows, claims = document["results"]["rows"], document["results"]["claims"]
    lines = ["| | ms a step | optimizer states, bytes a parameter |", "| --- | ---: | ---: |"]
    for name, row in rows.items():
        held = max(row["state_bytes_a_parameter"])
        lines.append(f"| {name} | {row['summary_s']['median'] * 1e3:.0f} | {held:.1f} |")
    lines += [
        "",
        f"Stage 0 takes {claims['stage 0 over DDP']:.2f} x DDP's time, stage 1 "
        f"{claims['stage 1 over DDP']:.2f} x and {claims['stage 1 over DeepSpeed']:.2f} x that of "
        f"DeepSpeed's stage 1; stage 3 {claims['stage 3 over FSDP2']:.2f} x that of FSDP2 alone "
        f"and {claims['stage 3 over DeepSpeed']:.2f} x that of DeepSpeed's stage 3. DeepSpeed "
        f"0.19.8 has torch's fused AdamW here, too. {_where(document)}, 2 ranks of one thread; "
        "`benchmarks/train/bench_zero.py`.",
    ]
    return "\n".join(lines)


def summary() -> str:
    train, generate, planned = load("train_lora"), load("serve_generate"), load("plan")
    lines = [
        "| SmolLM2-135M on 2 CPU cores | Sharpen | peer | ratio |",
        "| --- | ---: | ---: | ---: |",
    ]
    r = train["results"]
    ours, peer, _ = r["tokens_per_s"].values()
    lines.append(
        f"| LoRA training, bf16, 512 tokens: tokens/s | {ours:.0f} | {peer:.0f} (transformers + "
        f"peft) | {r['speed_ratio']:.2f} x |"
    )
    ours, peer, _ = (v / 2**30 for v in r["peak_bytes"].values())
    lines.append(
        f"| the same: peak memory, GiB | {ours:.2f} | {peer:.2f} | {r['memory_ratio']:.2f} x |"
    )
    for row in generate["results"]:
        ours, peer = row["tokens_per_s"].values()
        lines.append(
            f"| greedy decoding, {row['dtype']}, batch {row['batch']}: tokens/s | {ours:.1f} | "
            f"{peer:.1f} (transformers) | {row['ratio']:.2f} x |"
        )
    worst = planned["results"]["summary"]
    count = len(planned["results"]["rows"])
    lines += [
        "",
        f"Plans of {count} recipes against what was measured: peak memory off by at most "
        f"{worst['worst_memory_error']:.0%}, step time by at most {worst['worst_time_error']:.0%}.",
        "",
        f"{_where(train)}.",
    ]
    return "\n".join(lines)


def quantized() -> str:
    document = load("compress_quantized")
    rows, checks = document["results"]["rows"], document["results"]["checks"]
    lines = [
        "| weights | on disk, MB | in memory, MB | perplexity | tokens/s | over bfloat16 |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, row in rows.items():
        change = row.get("perplexity_change")
        lines.append(
            f"| {name} | {row['disk_bytes'] / 1e6:.1f} | {row['memory_bytes'] / 1e6:.1f} | "
            f"{'' if change is None or name == 'float32' else f'{change:+.1%}'} | "
            f"{row['tokens_per_s']:.1f} | {row['speed_over_bfloat16']:.2f} |"
        )
    lines += [
        "",
        "Logits of `transformers` on our int4 folder differ from ours by "
        f"{checks['peer_logits_relative_distance']:.0e} (float32). {_where(document)}, one thread; "
        "`benchmarks/compress/bench_quantized.py`.",
    ]
    return "\n".join(lines)


def mixllm() -> str:
    document = load("compress_mixllm")
    lines = [
        "| | linear layers, MB | perplexity over float32 | 8-bit features |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name, found in document["results"].items():
        size = sum(found["text_tokens"].values())
        lines.append(f"| **{name}**, {size:,} tokens | | | |")
        for label, row in found["rows"].items():
            if "change" in row:
                lines.append(
                    f"| {label} | {row['block_bytes'] / 1e6:.2f} | {row['change']:+.2%} | "
                    f"{row['rows_int8'] / row['rows']:.0%} |"
                )
    claims = [
        f"{found['claims']['over_rtn4']:.2f} x that of RTN 4 and "
        f"{found['claims']['over_gptq4']:.2f} x that of GPTQ 4 ({name})"
        for name, found in document["results"].items()
    ]
    config = document["config"]
    lines += [
        "",
        f"All by groups of 128, with 8-bit activations; {config['rows']} calibration rows of "
        f"{config['row_tokens']} tokens from other texts. MixLLM's increase is "
        f"{'; '.join(claims)}. {_where(document)}; `benchmarks/compress/bench_mixllm.py`.",
    ]
    return "\n".join(lines)


def locret() -> str:
    document = load("compress_locret")
    recall, smol = (document["results"][name]["lengths"] for name in ("recall", "smollm2"))

    def table(lengths: dict[str, Any], key: str, form: str) -> list[str]:
        rows = [f"| {' | '.join(['', *(f'{int(n):,} tokens' for n in lengths)])} |"]
        rows.append("| --- |" + " ---: |" * len(lengths))
        for label in next(iter(lengths.values())):
            cells = [format(found[label][key], form) for found in lengths.values()]
            rows.append(f"| {label} | {' | '.join(cells)} |")
        return rows

    questions = document["results"]["recall"]["questions"]
    texts = document["results"]["smollm2"]["texts"]
    steps = document["config"]["smollm2_heads"]["steps"]
    trained = document["config"]["smollm2_texts"]
    heads = document["results"]["smollm2"]["heads"]
    counts = ", ".join(f"{count} of {int(n):,}" for n, count in texts.items())
    peak = [
        found["locret"]["peak_bytes"] / found["full"]["peak_bytes"] for found in recall.values()
    ]
    return "\n".join(
        [
            "An eighth of the keys and values is kept when the prompt has been read; questions "
            "come after that. Answers right, a small model trained to recall 16 pairs in a text, "
            f"{questions} questions a length:",
            "",
            *table(recall, "retrieved", ".1%"),
            "",
            "SmolLM2-135M-Instruct, digits right of one of four codes in licences and code:",
            "",
            *table(smol, "digits", ".0%"),
            "",
            "All five digits right:",
            "",
            *table(smol, "retrieved", ".0%"),
            "",
            "Perplexity of the 64 tokens that follow such texts:",
            "",
            *table(smol, "perplexity", ".2f"),
            "",
            f"Texts: {counts} tokens. At most {max(peak):.2f} x the bytes of the whole cache are "
            "held at any time (a budget and a chunk). SmolLM2's heads were trained on "
            f"{steps:,} other texts of {' to '.join(f'{n:,}' for n in trained)} tokens, half of "
            f"them with codes, on one {heads['device']} in {heads['seconds'] / 60:.0f} minutes, "
            f"other work beside. {_where(document)}; "
            "`benchmarks/compress/bench_locret.py`.",
        ]
    )


def long() -> str:
    document = load("train_long")
    loss, models = document["results"]["loss"], document["results"]["models"]
    lines = [
        "| two ranks of one thread, stage 3 | memory a rank, GiB | longest, FSDP2 alone | longest, "
        "all savings | tokens/s where both fit: all savings | the fewest that fit |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, found in models.items():
        longest, speed = found["longest"], found["speed_ratio"]
        (fewest,) = (kind for kind in speed if kind != "all savings")
        lines.append(
            f"| {name} | {found['limit_bytes'] / 2**30:.2f} | {longest['plain']} | "
            f"{longest['ours']} or more | {speed['all savings']:.2f} x | "
            f"{speed[fewest]:.2f} x ({fewest}) |"
        )
    lines += [
        "",
        f"The tiled loss of 8192 tokens over 32,000 words takes {loss['memory_ratio']:.2f} x the "
        f"extra memory of whole logits and {loss['time_ratio']:.2f} x their time. All savings: "
        "`mode: full`, `offload: nvme`, `tiled_mlp: auto`, both ranks on one sequence; lengths are "
        "doubled, ours up to eight times. "
        f"{_where(document)}; `benchmarks/train/bench_long.py`.",
    ]
    return "\n".join(lines)


def ulysses() -> str:
    document = load("train_sequence_parallel")
    lines = [
        "| query/key heads, tokens | Sharpen, ms | DeepSpeed, ms | attention alone, ms | "
        "overhead, of DeepSpeed's |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for row in document["results"]:
        ms = {who: 1e3 * found["median"] for who, found in row["summary_s"].items()}
        ours, peer, floor = ms["sharpen"], ms.get("deepspeed"), ms["floor"]
        beside = f"{peer:.0f}" if peer else "refused"
        share = f"{row['overhead_ratio']:.2f} x" if peer else ""
        lines.append(f"| {row['name']} | {ours:.0f} | {beside} | {floor:.0f} | {share} |")
    lines += [
        "",
        "Ulysses, forward and backward, heads of 64, two gloo ranks of one thread, in turn with "
        "`DistributedAttention` of DeepSpeed 0.19.8, whose outputs and gradients are the same. "
        "Overhead is what a side takes above the attention of a rank's heads alone, the median of "
        f"each round's. {_where(document)}; `benchmarks/train/bench_sequence_parallel.py`.",
    ]
    return "\n".join(lines)


def optim_steps() -> str:
    document = load("optim_steps")
    found = document["results"]
    lines = [
        "| | ns a parameter | by memory | first step | bytes of state | times as fast as |",
        "| --- | ---: | ---: | ---: | ---: | --- |",
    ]
    for r in sorted(found["rows"], key=lambda r: r["ns_per_param"]):
        ratio = "" if r["ratio"] is None else f"{r['ratio']:.2f} x {r['peer']}"
        limit = r["limit_ns_per_param"]
        lines.append(
            f"| {r['name']} | {r['ns_per_param']:.2f} | {f'{limit:.2f}' if limit else ''} | "
            f"{r['first_ns_per_param']:.0f} | {r['state_bytes_per_param']:.2f} | {ratio} |"
        )
    narrow = [
        f"{r['name']} {r['ns_per_param']:.2f} ({r['ratio']:.1f} x {r['peer']})"
        for r in found.get("avx2", [])
        if r["ratio"] is not None
    ]
    if narrow:
        lines += ["", f"With AVX2 only: {', '.join(narrow)}."]
    return "\n".join(
        [
            *lines,
            "",
            f"Least CPU time of a step, one thread, {found['isa']}, "
            f"{found['bandwidth_gb_s']:.0f} GB/s to memory (*by memory*: moving a rule's bytes "
            "at that; caches can be quicker); element-wise methods on 7 M weights, "
            f"others on the matrices of a small Llama. {_where(document)}; "
            "`benchmarks/optim/bench_steps.py`.",
        ]
    )


def optim_quality() -> str:
    document = load("optim_quality")
    found = document["results"]
    base = found["rows"]["adamw"]["mean"]
    lines = [
        "| | validation loss, nats a byte | to AdamW | best lr | bytes of state |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, r in sorted(found["rows"].items(), key=lambda item: item[1]["mean"]):
        edge = " (edge of the grid)" if r["at_the_edge"] else ""
        lines.append(
            f"| {name} | {r['mean']:.3f} ± {r['std']:.3f} | {r['mean'] / base - 1:+.1%} | "
            f"{r['lr']:.2g}{edge} | {r['state_bytes_per_param']:.2f} |"
        )
    claims = [
        f"- {name}: {'reproduced' if c['reproduced'] else 'not reproduced'} ({c['ratio']:.3f} x)"
        for name, c in found["claims"].items()
    ]
    config = document["config"]
    text = (
        f"{config['steps']} steps, mean and standard deviation of three seeds. {_where(document)}; "
        "`benchmarks/optim/bench_quality.py`. What the papers say, here:"
    )
    return "\n".join([*lines, "", text, "", *claims])


def optim_surrogates() -> str:
    document = load("optim_surrogates")
    found = document["results"]
    names = list(found)
    lines = [
        f"| gradients until the loss is reached | {' | '.join(names)} |",
        "| --- |" + " ---: |" * len(names),
    ]
    for method in found[names[0]]["rows"]:
        calls = " | ".join(str(found[name]["rows"][method]["calls"]) for name in names)
        lines.append(f"| {method} | {calls} |")
    config = document["config"]
    return "\n".join(
        [
            *lines,
            "",
            f"Logistic regression, batches of {config['batch']}, each method at the best of "
            f"{len(config['rates'])} learning rates, {config['seeds']} seeds. {_where(document)}; "
            "`benchmarks/optim/bench_surrogates.py`.",
        ]
    )


def plan_serving() -> str:
    document = load("plan_serving")
    found = document["results"]
    lines = [
        "| 116 kW, `whole` | $/h | conversation | coding |",
        "| --- | ---: | ---: | ---: |",
    ]
    conv, code = (found["whole"][kind]["designs"] for kind in ("conv", "code"))
    for name in sorted(conv, key=lambda n: -conv[n]["rate"]):
        cost = f"{conv[name]['cost_per_h']:.0f}"
        lines.append(f"| {name} | {cost} | {conv[name]['rate']:.0f} | {code[name]['rate']:.0f} |")
    for kind, title in (("conv", "Conversation"), ("code", "Coding")):
        told = [
            f"{pair} {one['throughput']:.1f} x at {one['cost']:.2f} x the cost"
            for pair, one in found["whole"][kind]["ratios"].items()
        ]
        lines += ["", f"{title}: {'; '.join(told)}."]
    own = [
        f"{title} "
        + ", ".join(f"{n} {d['rate']:.1f}" for n, d in found["scheduled"][kind]["designs"].items())
        for kind, title in (("conv", "conversation"), ("code", "coding"))
    ]
    return "\n".join(
        [
            *lines,
            "",
            f"With the engine's own scheduler, 58 kW: {'; '.join(own)}.",
            "",
            f"Simulated; `benchmarks/plan/bench_serving_designs.py`, {document['date'][:10]}.",
        ]
    )


_OF_ROOMS = {
    **scoring.SECTIONS,
    **acting.SECTIONS,
    **aligning.SECTIONS,
    **valuing.SECTIONS,
    **rewarding.SECTIONS,
    **improving.SECTIONS,
    **evaluating.SECTIONS,
    **editing.SECTIONS,
    **timing.SECTIONS,
    **sandboxing.SECTIONS,
    **serving.SECTIONS,
    **searching.SECTIONS,
    **preparing.SECTIONS,
    **calling.SECTIONS,
    **programs.SECTIONS,
    **asking.SECTIONS,
    **porting.SECTIONS,
    **retrieving.SECTIONS,
    **prompting.SECTIONS,
    **solving.SECTIONS,
}


def _of_room(name: str) -> str:
    file, section = _OF_ROOMS[name]
    document = load(file)
    return section(document, _where(document))


SECTIONS: dict[str, Callable[[], str]] = {
    "locret": locret,
    "long": long,
    "mixllm": mixllm,
    "lora": lora,
    "optim_quality": optim_quality,
    "optim_steps": optim_steps,
    "optim_surrogates": optim_surrogates,
    "plan": plan,
    "plan_serving": plan_serving,
    "quantized": quantized,
    "summary": summary,
    "ulysses": ulysses,
    "zero": zero,
    **{name: partial(_of_room, name) for name in _OF_ROOMS},
}


def filled(text: str) -> str:
    """``text`` with every place filled anew."""

    def fill(match: re.Match[str]) -> str:
        return f"<!-- measured: {match[1]} -->\n{SECTIONS[match[1]]()}\n<!-- end -->"

    return re.sub(r"<!-- measured: (\w+) -->\n.*?<!-- end -->", fill, text, flags=re.DOTALL)


def draw() -> None:
    """The ratios as one plot."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    bars = [("LoRA training, tokens/s", load("train_lora")["results"]["speed_ratio"])]
    bars += [
        (f"decoding {row['dtype']}, batch {row['batch']}", row["ratio"])
        for row in load("serve_generate")["results"]
    ]
    figure = Figure(figsize=(7, 2.6), layout="constrained")
    axes = figure.subplots()
    names, ratios = [n for n, _ in bars][::-1], [r for _, r in bars][::-1]
    axes.barh(names, ratios, color=OURS)
    axes.bar_label(axes.containers[0], fmt="%.2f x", padding=3)
    axes.axvline(1.0, color=PEER, linewidth=2, linestyle="--", label="transformers (+ peft)")
    axes.set_xlabel("speed, ratio to the peer; SmolLM2-135M, 2 CPU cores")
    axes.set_xlim(0, max(ratios) * 1.15)
    axes.legend(frameon=False, loc="lower right")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(PLOT, dpi=150)


def main() -> int:
    stale = []
    for name in PAGES:
        path = ROOT / name
        text = path.read_text(encoding="utf-8")
        new = filled(text)
        if new != text:
            stale.append(name)
            if "--check" not in sys.argv:
                path.write_text(new, encoding="utf-8")
    if "--check" in sys.argv:
        print("\n".join(f"{name} is not what benchmarks/results say" for name in stale))
        return 1 if stale else 0
    draw()
    return 0


if __name__ == "__main__":
    sys.exit(main())
