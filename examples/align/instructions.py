"""Find instructions for an agent: a critic reads its episodes, proposals are tested on other tasks.

    python examples/align/instructions.py                    # a script plays agent and critic
    python examples/align/instructions.py --lm http://127.0.0.1:8000/v1

The scripted agent opens the red door unless its instructions tell it of the note, and the scripted
critic sees that from an episode that failed.
"""

import argparse
import re
import sys
from pathlib import Path

from sharpen import LM, Scripted
from sharpen.align.agents import tune_instructions

sys.path.insert(0, str(Path(__file__).parent))
from worlds import Doors


def act(prompt: str) -> str:
    """What the agent does."""
    instructions, _, seen = prompt.partition("Goal: ")
    if "note" in instructions.lower():
        found = re.search(r"The note says (\w+)", seen)
        return f"open {found[1]}" if found else "read the note"
    return "open red"


def reply(prompt: str) -> str:
    """Agent, critic or writer, by what is asked."""
    if prompt.endswith("\n>"):
        return act(prompt)
    if "<NEW>" in prompt:
        knows = "the note should be read" in prompt
        return f"<NEW>{'First read the note.' if knows else 'Open a door.'}</NEW>"
    missed = "read the note" in prompt and "Did not reach the goal" in prompt
    return "It guesses: the note should be read first." if missed else "Nothing is wrong."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lm", help="the model that acts, criticizes and writes")
    parser.add_argument("--optimizer", default="textgrad")
    args = parser.parse_args()
    lm = LM(args.lm or Scripted(lambda request: reply(request.prompt)))
    found = tune_instructions(
        Doors, lm, "Open the red door.", optimizer=args.optimizer, steps=2, max_tokens=64
    )
    print(found.summary())
    print(f"instructions: {found.instructions}")


if __name__ == "__main__":
    main()
