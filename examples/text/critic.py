"""Let one model criticize what another writes, and improve the instruction by the criticism.

    python examples/text/critic.py                       # replies from this file
    python examples/text/critic.py --lm http://127.0.0.1:8000/v1 --steps 3

Textual gradients: the loss is a judgement in words; it is turned into criticism of the text, then
of the instruction, and the optimizer rewrites the instruction. A new one is kept only while it says
no more than 20 words.
"""

from __future__ import annotations

import argparse

import sharpen.text as st

TOPICS = ("a steel kettle", "a garden chair")
REPLIES = [
    # A description of each topic, and a judgement of each.
    "A kettle. It is made of steel and it boils water, as kettles do.",
    "The text repeats what everybody knows and gives no number.",
    "A chair for gardens, on which one can sit in the garden.",
    "It says nothing that helps to choose, such as size or weight.",
    # Criticism of each text, and of the instruction for it; then a new instruction.
    "Name the volume and the time to boil.",
    "Ask for numbers, and forbid what is obvious.",
    "Name size and weight.",
    "Ask for size and weight.",
    "<NEW>Describe the product in one sentence with two numbers; leave out the obvious.</NEW>",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lm", help="the model that writes and criticizes")
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--report", default="critic.html", help="where the report goes")
    args = parser.parse_args()

    lm = st.LM(args.lm or st.Scripted(REPLIES))
    rule = st.Parameter(
        "Describe the product.",
        "rule",
        role="instruction of a writer of product descriptions",
        constraint="at most 20 words",
        check=lambda text: len(text.split()) <= 20,
    )
    write = st.LLM(lm, system=rule)
    loss = st.TextLoss("Judge whether this text helps to choose the product.", lm)
    optimizer = st.TextGrad([rule], lm)
    output = None
    for step in range(args.steps):
        optimizer.zero_feedback()
        losses = [loss(write(topic)) for topic in TOPICS]
        output = st.textsum(losses)
        output.backward()
        report = optimizer.step()
        print(f"{step}: {rule.value}")
        for name, reason in report.rejected.items():
            print(f"   {name} was refused: {reason}")
    print(f"{lm.usage.calls} calls")
    st.write_report(args.report, optimizer, output=output, lm=lm, title="Criticism")


if __name__ == "__main__":
    main()
