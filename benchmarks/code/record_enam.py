"""Record what enam 0.2.0 (MIT), the benchmark of ENAMEL's authors, computes; tests compare with it.

    PYTHONPATH=FOLDER-OF-ENAM python -m benchmarks.code.record_enam

writes ``enam_record.json`` beside this file.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path


def main() -> int:
    from enam.evaluate import calc_eff, calc_eff_at_k, calc_exec_time, calc_pass_at_k

    rng = random.Random(0)
    record: dict[str, list[dict[str, object]]] = {"time": [], "eff": [], "eff@k": [], "pass@k": []}
    for _ in range(30):
        times = [rng.lognormvariate(0, 1) for _ in range(rng.randint(1, 8))]
        record["time"].append({"times": times, "value": float(calc_exec_time(times))})
        reference = rng.uniform(0.1, 1)
        limit, elapsed = 2 * reference * rng.uniform(1, 2), rng.uniform(0, 3)
        value = float(calc_eff(elapsed, reference, limit))
        one = {"elapsed": elapsed, "reference": reference, "limit": limit, "value": value}
        record["eff"].append(one)
        e = [rng.choice([0.0, rng.uniform(0, 1.2)]) for _ in range(rng.randint(1, 40))]
        k = rng.randint(1, len(e))
        record["eff@k"].append({"e": e, "k": k, "value": float(calc_eff_at_k(list(e), k))})
        n = rng.randint(1, 200)
        c, k = rng.randint(0, n), rng.randint(1, n)
        value = float(calc_pass_at_k(n, c, k))
        record["pass@k"].append({"n": n, "c": c, "k": k, "value": value})
    file = Path(__file__).with_name("enam_record.json")
    file.write_text(json.dumps({"version": "0.2.0", **record}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
