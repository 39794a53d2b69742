"""How operators agree with Data-Juicer's and datatrove's, as a table of a page."""

from __future__ import annotations

from typing import Any

__all__ = ["datajuicer_equality"]


def _times(row: dict[str, Any]) -> str:
    ours, peer = row["cpu_s"]["ours"], row["cpu_s"]["peer"]
    if max(ours, peer) < 0.02:  # too short to tell
        return ""
    ratio = peer / ours if ours else float("inf")
    return f"{ratio:.1f} x" if ratio < 10 else f"{ratio:.0f} x"


def _line(row: dict[str, Any], name: str) -> str:
    rows, equal = row["rows"], row["equal"]
    different = "" if equal == rows else f"{rows - equal:,}: {row['reason']}"
    if row["unexplained"]:
        different += f" ({row['unexplained']} not explained)"
    return f"| `{row['operator']}` | {name} | {equal:,} of {rows:,} | {different} | {_times(row)} |"


def datajuicer_equality(document: dict[str, Any], where: str) -> str:
    """Rows that agree, what the others differ by, and CPU time."""
    config = document["config"]
    rows = [row for row in document["results"]["rows"] if "equal" in row]
    versions = document["results"]["versions"]
    head = ["| ours | theirs | rows alike | the others | theirs / our CPU time |"]
    head.append("| --- | --- | ---: | --- | ---: |")
    juicer = [row for row in rows if "peer_words" not in row]
    trove = [row for row in rows if "peer_words" in row]
    lines = [*head, *(_line(row, f"`{row['peer']}`") for row in juicer)]
    spent = {side: sum(row["cpu_s"][side] for row in juicer) for side in ("ours", "peer")}
    fates = [row for row in juicer if "other_fates" in row]
    lines += [
        "",
        f"Data-Juicer {versions['py-data-juicer']}; {config['texts']:,} manuals of Linux and "
        f"Python, manual pages and e-mails, and {config['odd_texts']} odd texts, "
        f"{config['characters'] / 1e6:.1f} million characters; one thread on both sides. Of "
        f"{len(juicer)} comparisons {sum(row['equal'] == row['rows'] for row in juicer)} agree in "
        f"every row, and {sum(row['other_fates'] for row in fates)} of "
        f"{sum(row['rows'] for row in fates):,} rows that pass a filter's defaults, or not, do so "
        f"on one side alone. All in all {spent['peer'] / spent['ours']:.1f} times less CPU time.",
        "",
        f"Filters of datatrove {versions['datatrove']}, first with words parted by white space on "
        "both sides, then with its own:",
        "",
        *head,
    ]
    for row in trove:
        own = " with spaCy's words" if row["peer_words"] == "own" else ""
        lines.append(_line(row, f"`{row['peer']}`{own}"))
    lines += ["", f"{where}; `benchmarks/data/compare_datajuicer.py`."]
    return "\n".join(lines)
