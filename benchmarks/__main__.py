"""Run every benchmark, or those whose path holds one of the given words.

python -m benchmarks [--quick] [WORD ...]
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def main() -> int:
    """Run them one after the other; exit code 1 when one fails."""
    here = Path(__file__).resolve().parent
    flags = [word for word in sys.argv[1:] if word.startswith("-")]
    words = [word for word in sys.argv[1:] if not word.startswith("-")]
    failed = []
    for script in sorted(here.glob("*/bench_*.py")):
        name = script.relative_to(here).as_posix()
        if words and not any(word in name for word in words):
            continue
        print(f"== {name}", flush=True)
        module = ".".join(("benchmarks", *script.relative_to(here).with_suffix("").parts))
        done = subprocess.run([sys.executable, "-m", module, *flags], cwd=here.parent)
        if done.returncode:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
