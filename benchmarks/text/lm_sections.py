"""What pages say of the measured cost of calling language models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["SECTIONS"]


def calls(document: dict[str, Any], where: str) -> str:
    r, config = document["results"], document["config"]
    lines = [
        f"| CPU ms a call, {config['at_once']} at once | `LM` | OpenAI's client | ratio |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name, row in r["calls"].items():
        ours, peer = (row["summary"][one]["median"] for one in ("sharpen", "openai"))
        lines.append(
            f"| prompts of {config['sizes'][name]:,} characters | {ours:.2f} | {peer:.2f} | "
            f"{row['ratio']:.2f} x |"
        )
    cache, shared = r["cache"], r["shared"]
    lines += [
        "",
        f"A reply that the cache has takes {cache['hit_alone_cpu_ms']:.2f} ms of CPU time "
        f"({cache['hit_cpu_ms']:.2f} with {config['at_once']} threads that wait for each other); a "
        f"call whose reply is to be kept takes {cache['miss_cpu_ms']:.2f} ms in all, through one "
        f"file that all write in turn. {shared['processes']} processes that wanted the same "
        f"{shared['replies']} replies at once paid for {sum(shared['paid'])}. The server answers "
        f"at once; openai {r['versions']['openai']}, httpx {r['versions']['httpx']}. {where}; "
        "`benchmarks/text/bench_lm.py`.",
    ]
    return "\n".join(lines)


SECTIONS: dict[str, tuple[str, Callable[[dict[str, Any], str], str]]] = {
    "text_lm": ("text_lm", calls),
}
