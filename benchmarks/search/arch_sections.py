"""The numbers of the page on architecture search, from ``benchmarks/results``."""

from __future__ import annotations

import statistics
from typing import Any

__all__ = ["lottery", "proxy", "speed"]


def speed(document: dict[str, Any], where: str) -> str:
    """Milliseconds and commands a second of the simulator."""
    config, lines = document["config"], []
    memories = list(dict.fromkeys(row["memory"] for row in document["results"]["speed"]))
    lines = [
        f"Ten thousand requests under the default controller, milliseconds of one core (millions "
        f"of commands a second); {config['requests']:,} of them a design in the tables below "
        f"({where}):",
        "",
        f"| workload | {' | '.join(memories)} |",
        f"| --- |{' ---: |' * len(memories)}",
    ]
    cells: dict[str, list[str]] = {}
    for row in document["results"]["speed"]:
        rate = row["commands_a_second"] / 1e6
        cells.setdefault(row["workload"], []).append(f"{row['ms']:.2f} ({rate:.0f})")
    lines += [f"| {name} | {' | '.join(row)} |" for name, row in cells.items()]
    return "\n".join(lines)


def proxy(document: dict[str, Any], where: str) -> str:
    """Errors of stand-ins by samples, and their time beside the simulator's."""
    r = document["results"]
    lines = [
        "Root of the mean squared error over the mean, of designs drawn uniformly, on 4,000 others "
        f"(median of the relative error; share within the 90 % bars); {where}:",
        "",
        "| workload | samples | model | power | latency |",
        "| --- | ---: | --- | --- | --- |",
    ]
    for row in r["proxies"]:
        cells = [
            f"{100 * e['relative_rmse']:.2f} % ({_percent(e['median_error'])}; "
            f"{100 * e['coverage_90']:.0f} %)"
            for e in (row["errors"]["power"], row["errors"]["latency"])
        ]
        lines.append(
            f"| {row['workload']} | {row['samples']:,} | {row['model']} | {' | '.join(cells)} |"
        )
    lines += [
        "",
        "The same on what the families of the lottery tried, a forest that did or did not see the "
        "family it is tested on:",
        "",
        "| problem | tested on | samples (trials) | power | latency |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    for row in r["by_agent"]:
        on = "a fifth at random" if row["split"] == "random" else "what `ga` tried"
        cells = [f"{100 * row['errors'][m]['relative_rmse']:.2f} %" for m in ("power", "latency")]
        lines.append(
            f"| {row['problem']} | {on} | {row['samples']:,} ({row['given']:,}) | "
            f"{' | '.join(cells)} |"
        )
    timed = [row for row in r["proxies"] if "times" in row]
    last = {row["workload"]: row for row in timed}
    parts = []
    for name, row in last.items():
        t = row["times"]
        parts.append(
            f"`{name}` {t['simulated_us']:,.0f} us simulated, {t['alone_us']:,.0f} us predicted "
            f"alone ({t['simulated_us'] / t['alone_us']:.2g} x), {t['batch_us']:.0f} us in a batch "
            f"of 10,000 ({t['simulated_us'] / t['batch_us']:.2g} x)"
        )
    lines += [
        "",
        "Time a design, of the forest with the most samples: " + "; ".join(parts) + ". This "
        "simulator is quick; beside one that takes seconds a stand-in saves that much more.",
    ]
    return "\n".join(lines)


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %" if share >= 1e-4 else "below 0.01 %"


def lottery(document: dict[str, Any], where: str) -> str:
    """Spread within families and difference between them."""
    results, config = document["results"], document["config"]
    r, short, trials = results["lottery"], results["lottery_short"], config["budget"]
    early = trials // 5
    lines = [
        f"{r['experiments']:,} experiments: {len(config['families'])} families x "
        f"{config['settings']} settings x {config['seeds']} seeds x {len(config['problems'])} "
        f"problems, {trials} trials each ({where}). Best rewards after {trials} trials, and after "
        f"the first {early} of them:",
        "",
        f"| problem | family | best | median | worst to best setting | median, {early} | worst to "
        f"best setting, {early} |",
        "| --- | --- | ---: | ---: | --- | ---: | --- |",
    ]
    before = {(row["problem"], row["algorithm"]): row for row in short["rows"]}
    for row in r["rows"]:
        key = row["problem"], row["algorithm"]
        late, first = (list(found["scores"][key[0]][key[1]].values()) for found in (r, short))
        cells = [
            f"{row['best']:.3f}",
            f"{row['median']:.3f}",
            f"{min(late):.3f} to {max(late):.3f}",
            f"{before[key]['median']:.3f}",
            f"{min(first):.3f} to {max(first):.3f}",
        ]
        lines.append(f"| {key[0]} | {key[1]} | {' | '.join(cells)} |")
    lines += [
        "",
        "| problem | trials | spread of settings within a family | between the families' best "
        "settings | between their medians |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for count, found in ((trials, r), (early, short)):
        for one in found["lottery"]:
            within = statistics.median(one["within"].values())
            lines.append(
                f"| {one['problem']} | {count} | {within:.3f} | {one['between_tuned']:.3f} | "
                f"{one['between_medians']:.3f} |"
            )
    holds = [one["holds"] for found in (r, short) for one in found["lottery"]]
    lines += [
        "",
        f"In {sum(holds)} of these {len(holds)} rows settings within a family (the median of the "
        "families) differ more than families that are tuned.",
    ]
    return "\n".join(lines)
