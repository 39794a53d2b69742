"""What the pages on serving say of the benchmarks beside: tables in Markdown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["SECTIONS"]

TITLES = {"smollm2": "SmolLM2-135M-Instruct", "m": "M: 12 layers, 768 wide, random weights"}


def engines(document: dict[str, Any], where: str) -> str:
    lines = []
    for name, found in document["results"].items():
        limits = found["memory_limits"]
        lines += [
            f"{TITLES[name]}, tokens a second, one thread (memory: {found['bandwidth_gb_s']:.1f} "
            "GB/s):",
            "",
            "| engine | 1 sequence | of memory's limit | 16 sequences | prompt of 512 | spread |",
            "| --- | ---: | ---: | ---: | ---: | ---: |",
        ]
        for row in found["rows"]:
            if row["error"]:
                lines.append(f"| {row['name']} | {row['error'][:60]} | | | | |")
                continue
            one, many = (_number(row["decode"].get(str(b))) for b in (1, 16))
            limit = limits.get(row["name"])
            share = f"{row['decode']['1'] / limit:.0%}" if limit else ""
            prompt = _number(row["prefill"])
            cells = (row["name"], one, share, many, prompt, f"{row['spread']:.0%}")
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    versions = ", ".join(f"{k} {v}" for k, v in document["config"].get("peers", {}).items())
    told = f" Peers: {versions}." if versions else ""
    return "\n".join([*lines, f"{where}; `benchmarks/serve/bench_engines.py`.{told}"])


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def cuda(document: dict[str, Any], where: str) -> str:
    r, config = document["results"], document["config"]
    ours, peer = r["rows"]
    lines = [
        f"1.2 B parameters in Llama's shape, random, bfloat16, greedy, prompts of "
        f"{config['prompt']} tokens; {config['device']}, which reads {r['bandwidth_gb_s']:,.0f} "
        "GB/s. Tokens a second:",
        "",
        f"| sequences | {ours['name']} | of memory's limit | transformers "
        f"{config['transformers']} | ratio |",
        "| ---: | ---: | ---: | ---: | ---: |",
    ]
    for batch, rate in ours["decode"].items():
        share, other = rate / r["memory_limits"][batch], peer["decode"][batch]
        lines.append(f"| {batch} | {rate:,.0f} | {share:.0%} | {other:,.0f} | {rate / other:.1f} |")
    lines.append(
        f"| prompt of {config['prefill']} | {ours['prefill']:,.0f} | | {peer['prefill']:,.0f} | "
        f"{ours['prefill'] / peer['prefill']:.1f} |"
    )
    spread = max(row["spread"] for row in r["rows"])
    return "\n".join(
        [
            *lines,
            "",
            f"Passes differ by up to {spread:.0%}. {where}; `benchmarks/serve/bench_cuda.py`.",
        ]
    )


def server(document: dict[str, Any], where: str) -> str:
    lines = [
        "| 16 clients | in process, tokens/s | over HTTP | ratio | added p99 a token | scheduler | "
        "first token, 496 of 512 known | all 512 | 1,520 of 1,536 | one token alone |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, r in document["results"].items():
        lines.append(
            f"| {name} | {r['offline_tokens_per_s']:.0f} | {r['http_tokens_per_s']:.0f} | "
            f"{r['http']:.2f} | {r['added_ms']:.1f} ms | {r['scheduler']:.1%} of a round | "
            f"{r['prefix']:.2f} x | {r['same']:.2f} x | {r['prefix_long']:.2f} x | "
            f"{r['floor']:.2f} x |"
        )
    told = "First tokens are over those of prompts that are not known, of as many tokens."
    return "\n".join([*lines, "", f"{told} {where}; `benchmarks/serve/bench_server.py`."])


def split(document: dict[str, Any], where: str) -> str:
    r, config = document["results"], document["config"]
    (long, answer), (short, rest) = config["long"], config["short"]
    lines = [
        f"{config['model']} on two cores; half of the requests are prompts of {long} tokens with "
        f"answers of {answer}, half {short} with {rest}. Milliseconds:",
        "",
        "| requests/s | workers | between tokens, mean | p99 | first token, long | short |",
        "| ---: | --- | ---: | ---: | ---: | ---: |",
    ]

    def both(row: dict[str, Any], what: str, figure: str) -> str:
        return f"{row[what][figure]:.0f} ({row['predicted'][what][figure]:.0f})"

    lines += [
        f"| {row['rate']:g} | {row['arm']} | {both(row, 'tbt_ms', 'mean')} | "
        f"{both(row, 'tbt_ms', 'p99')} | {both(row, 'ttft_long_ms', 'mean')} | "
        f"{both(row, 'ttft_short_ms', 'mean')} |"
        for row in r["rows"]
    ]
    lines += ["", "Requests a second at which the 99th percentile stays below a limit:", ""]
    arms = list(next(iter(r["goodput"].values())))
    lines += [f"| limit | {' | '.join(arms)} |", "| --- |" + " ---: |" * len(arms)]
    for limit, by_arm in r["goodput"].items():
        lines.append(f"| {limit} | {' | '.join(f'{by_arm[arm]:g}' for arm in arms)} |")
    sent = r["transfer_s_per_1000_tokens"]
    told = ", ".join(f"{1e3 * seconds:.0f} ms by {name}" for name, seconds in sent.items())
    same = "the same" if r["simulated_goodput"] == r["goodput"] else r["simulated_goodput"]
    simulated = f"Simulated, these rates are {same}."
    return "\n".join(
        [
            *lines,
            "",
            f"In brackets what the simulator says. {simulated} Of the means between tokens and of "
            f"all first tokens it is off by {r['median_error']:.0%} in the middle and "
            f"{r['worst_error']:.0%} at most. Keys and values of 1,000 tokens take {told}. "
            f"{where}; `benchmarks/serve/bench_split.py`.",
        ]
    )


def products(document: dict[str, Any], where: str) -> str:
    names = ("w4a8", "w8a8", "bfloat16", "linear_dynamic", "onednn bfloat16")
    lines = [
        f"| outputs x inputs | rows | memory, GB/s | {' | '.join(names)} |",
        "| --- | ---: | ---: |" + " ---: |" * len(names),
    ]
    for row in document["results"]:
        if row["rows"] not in (1, 16, 64):
            continue
        few = row["rows"] == 1
        rates = row["bytes_per_s" if few else "operations_per_s"]
        unit = "GB/s" if few else "GOPS"
        cells = [f"{rates[name] / 1e9:.1f} {unit}" if name in rates else "" for name in names]
        size = f"{row['outputs']} x {row['inputs']}"
        read = f"{row['bandwidth_bytes_per_s'] / 1e9:.1f}"
        lines.append(f"| {size} | {row['rows']} | {read} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", f"{where}; `benchmarks/serve/bench_products.py`."])


def soak(document: dict[str, Any], where: str) -> str:
    r, config = document["results"], document["config"]
    counts: dict[str, int] = {}
    for key, count in r["answers"].items():
        status = key.rsplit(" ", 1)[1]
        counts[status] = counts.get(status, 0) + count
    told = ", ".join(f"{count:,} of status {status}" for status, count in sorted(counts.items()))
    first, last = (r[key] / 2**20 for key in ("first_bytes", "last_bytes"))
    return (
        f"{config['seconds'] / 60:.0f} minutes of {config['clients']} clients at random: answers, "
        "streams to their end and left in the middle, schemas never seen before, embeddings, "
        f"broken requests, crowds of 40 at a queue of {config['queue']}. {told}. Resident memory "
        f"{first:.0f} MiB when ready and {last:.0f} MiB at the end; from the third minute on it "
        f"grew by {r['growth']['bytes']:.1%}, threads by {r['growth']['threads']:.0%}. {where}; "
        "`benchmarks/serve/bench_soak.py`."
    )


SECTIONS: dict[str, tuple[str, Callable[[dict[str, Any], str], str]]] = {
    "cuda": ("serve_cuda", cuda),
    "engines": ("serve_engines", engines),
    "products": ("serve_products", products),
    "server": ("serve_server", server),
    "soak": ("serve_soak", soak),
    "split": ("serve_split", split),
}
"""Of a place in a page: the file of results, and what is said of it."""
