"""The numbers of the pages on methods of alignment, from ``benchmarks/results``."""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean
from typing import Any

__all__ = ["SECTIONS"]


def learning(document: dict[str, Any], where: str) -> str:
    """Which methods reach the target, and how soon."""
    r, config = document["results"], document["config"]
    lines = [
        "| method | learnt | batches given | until the target, median | completions a batch |"
        " reward at the end | right, held out | best, held out |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, own in r["methods"].items():
        ends = [one["last"] for one in own["runs"]]
        reached = sorted(one["reached_after"] or own["budget"] for one in own["runs"])
        right, best = (
            sum(one["held_out"][key] for one in own["runs"]) / own["of"]
            for key in ("right", "best")
        )
        lines.append(
            f"| {name} | {own['learnt']} of {own['of']} | {own['budget']} |"
            f" {reached[len(reached) // 2]} | {own['completions_a_batch']} |"
            f" {min(ends):.2f}-{max(ends):.2f} | {right:.0%} | {best:.0%} |"
        )
    start = [sum(one[key] for one in r["start"]) / len(r["start"]) for key in ("right", "best")]
    lines += [
        "",
        f"The start writes {start[0]:.0%} right programs and {start[1]:.0%} best ones. At the end:"
        " the mean reward of the last ten batches, least and most of the seeds. Learnt: it is at"
        f" least {config['target']}, of 0.5 that can be had. {where};"
        " `benchmarks/align/bench_learning.py`.",
    ]
    return "\n".join(lines)


def remax(document: dict[str, Any], where: str) -> str:
    """Time and memory of ReMax beside PPO."""
    r = document["results"]
    lines = [
        "| | seconds of learning a batch | of PPO's | peak memory, GiB | above import, GiB |"
        " of PPO's, above import |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, one in r["summary_s"].items():
        ours = name == "ReMax"
        time = "1" if ours else f"{r['time'][name]:.2f}"
        memory = "1" if ours else f"{r['memory_above_import'][name]:.2f}"
        lines.append(
            f"| {name} | {one['median']:.2f} | {time} | {r['peak_bytes'][name] / 2**30:.2f} |"
            f" {r['peak_above_import_bytes'][name] / 2**30:.2f} | {memory} |"
        )
    lines += [
        "",
        f"{r['parameters'] / 1e6:.0f} M parameters, all trained, float32, one thread, a function as"
        f' the reward, no reference. Columns "of PPO\'s" are ReMax over that row. {where};'
        " `benchmarks/align/bench_remax.py`.",
    ]
    return "\n".join(lines)


def trl(document: dict[str, Any], where: str) -> str:
    """DPO and GRPO beside TRL."""
    r = document["results"]
    lines = [
        "| | seconds a step | TRL | speed | limit | peak memory, GiB | TRL | of TRL's |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, one in r.items():
        if name == "wanted":
            continue
        best = one["best_peer"]
        ours, peer = (one["summary_s"][side]["median"] for side in ("sharpen", best))
        most = f"{one['limit']['speed']:.1f} x" if "limit" in one else "-"
        sizes = [one["peak_bytes"][side] / 2**30 for side in ("sharpen", best)]
        lines.append(
            f"| {name} | {ours:.2f} | {peer:.2f} | {one['speed'][best]:.2f} x |"
            f" {most} | {sizes[0]:.2f} | {sizes[1]:.2f} | {one['memory']:.2f} |"
        )
    asked = ", ".join(
        f"{one['speed']['trl']:.2f} x ({name.removeprefix('dpo, ')})"
        for name, one in r.items()
        if name.startswith("dpo")
    )
    limits = {name: one["limit"] for name, one in r.items() if "limit" in one}
    told = ""
    if limits:
        parts = "; ".join(
            f"{', '.join(f'{part} {n / 1e9:.0f}' for part, n in one['operations'].items())}"
            f" ({name.removeprefix('grpo, ')})"
            for name, one in limits.items()
        )
        rates = [max(one["rates"].values()) / 1e9 for one in limits.values()]
        plain = [one["rates"]["torch"] / 1e9 for one in limits.values()]
        told = (
            f" Limit: TRL's time over that of the step's products alone, in GFLOP {parts}, at the"
            f" highest rate of any library on this core, {min(rates):.0f}-{max(rates):.0f} GFLOP/s;"
            f" torch's own reach {min(plain):.0f}-{max(plain):.0f}."
        )
    lines += [
        "",
        "TRL 1.16.0 with transformers' generation, float32, one thread and huge pages each (which"
        " `sharpen align` asks for by itself), step by step in turn;"
        " losses of DPO agree to 1e-3. For DPO the faster of TRL's ways is shown, which takes the"
        f" reference's log-probabilities before; against its default we are {asked}.{told} {where};"
        " `benchmarks/align/bench_trl.py`.",
    ]
    return "\n".join(lines)


def cuda(document: dict[str, Any], where: str) -> str:
    """Models of 0.5B and 1.5B on a GPU, beside TRL."""
    r, config = document["results"], document["config"]
    versions = document["machine"]["versions"]
    lines = [
        "| | seconds a step | TRL | speed | peak on the device, GiB | TRL | of TRL's |"
        " new tokens/s | generating, of the time |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, one in r.items():
        method, model = name.split(", ")
        size, tune = config["sizes"][model], config["tune"][model]
        ours = one["summary_s"]["ours"]
        peer = ["ended" if "trl" in one["failed"] else "-", "-", "-", "-"]
        if "speed" in one:
            peer = [f"{one['summary_s']['trl']['min']:.2f}", f"{one['speed']:.2f} x"]
            peer += [f"{one['device_bytes']['trl'] / 2**30:.1f}", f"{one['memory']:.2f}"]
        made = ["-", "-"]
        if one["parts_s"]:
            draws = config["generations"] if method == "grpo" else 1
            tokens = size["examples"] * draws * size["new"]
            made = [f"{tokens / ours['median']:,.0f}"]
            made += [f"{one['parts_s']['generate_s']['median'] / ours['median']:.0%}"]
        lines.append(
            f"| {method}, {model}, {'adapters' if tune == 'lora' else 'whole'} |"
            f" {ours['min']:.2f} | {peer[0]} | {peer[1]} |"
            f" {one['device_bytes']['ours'] / 2**30:.1f} | {peer[2]} | {peer[3]} |"
            f" {made[0]} | {made[1]} |"
        )
    first = r["dpo, 0.5B"]["seconds"]["trl"]
    size = config["sizes"]["0.5B"]
    lines += [
        "",
        f"{config['device']}, bfloat16, random weights of Qwen2.5's shapes, prompts of"
        f" {size['prompt']} tokens. A step: {size['examples']} pairs of texts of {size['text']}"
        f" tokens (DPO), or {size['examples']} prompts with {config['generations']} completions"
        f" (GRPO) or one (PPO, with four passes) of {size['new']} tokens. Fastest of"
        f" {len(first)} steps (DPO) and of {len(r['grpo, 0.5B']['seconds']['ours'])} after the"
        " first, in turn with TRL"
        f" {versions['trl']} and transformers' generation; TRL's steps of DPO took"
        f" {', '.join(f'{one:.2f}' for one in first)} s, until its pool of memory had grown. Both"
        " sides have a process of their own on one device; TRL's DPO of 1.5B ended with an error"
        f" beside ours. {where}; `benchmarks/align/bench_cuda.py`.",
    ]
    return "\n".join(lines)


def functions(document: dict[str, Any], where: str) -> str:
    """What becomes of replies before and after learning from the sandbox."""
    r, config = document["results"], document["config"]
    outcomes = r["before"]["outcomes"]
    lines = [
        "| | " + " | ".join(outcomes) + " | right in one of the draws |",
        "| --- |" + " ---: |" * (len(outcomes) + 1),
    ]
    for name in ("before", "after"):
        shares = " | ".join(f"{value:.0%}" for value in r[name]["outcomes"].values())
        lines.append(f"| {name} | {shares} | {r[name]['right_in_any_draw']:.0%} |")
    training = config["training"]
    completions = training["steps"] * training["batch"] * training["generations"]
    lines += [
        "",
        f"SmolLM2-135M, adapters of rank {training['rank']}, {training['steps']} batches of GRPO"
        f" with {completions} completions of {r['prompts']} prompts in {r['seconds'] / 60:.0f}"
        " minutes on one thread;"
        f" {r['after']['replies']} replies to prompts of other kinds, {config['draws']}"
        f" draws of each. {where}; `benchmarks/align/bench_functions.py`.",
    ]
    return "\n".join(lines)


def agents(document: dict[str, Any], where: str) -> str:
    """Success of an agent after each method."""
    r = document["results"]
    lines = [
        "| | success | 95 % | turns | episodes learnt from | p, McNemar |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        f"| start | {r['start']['value']:.2f} | {r['start']['low']:.2f}-{r['start']['high']:.2f} |"
        f" {r['start']['turns']:.1f} | - | - |",
    ]
    lines += [
        f"| {name} | {one['value']:.2f} | {one['low']:.2f}-{one['high']:.2f} | {one['turns']:.1f} |"
        f" {one['episodes']} | {one['p']:.1g} |"
        for name, one in r["methods"].items()
    ]
    lines += [
        "",
        f"Four rooms, a table of preferences as the agent; {document['config']['judged']} tasks"
        " that nothing was learnt from.",
        "",
        "| a language model | success, least and most | episodes | CPU seconds |",
        "| --- | ---: | ---: | ---: |",
        f"| start | {r['model']['start']:.2f} | - | - |",
    ]
    lines += [
        f"| `{name}` | {fmean(one['success']):.2f} ({min(one['success']):.2f}-"
        f"{max(one['success']):.2f}) | {fmean(one['episodes']):.0f} | {fmean(one['cpu_s']):.0f} |"
        for name, one in r["model"]["methods"].items()
    ]
    config = document["config"]
    lines += [
        "",
        "Our tiny model (3.1 M parameters) in the world of early letters of `steps.yaml`, with its"
        f" learning rate for all: {config['rounds']} rounds of 136 episodes at most, from"
        f" {config['seeds']} seeds, judged on {config['judged']} tasks. {where};"
        " `benchmarks/align/bench_agents.py`.",
    ]
    return "\n".join(lines)


SECTIONS: dict[str, tuple[str, Callable[[dict[str, Any], str], str]]] = {
    "align_agents": ("align_agents", agents),
    "align_cuda": ("align_cuda", cuda),
    "align_functions": ("align_functions", functions),
    "align_learning": ("align_learning", learning),
    "align_remax": ("align_remax", remax),
    "align_trl": ("align_trl", trl),
}
