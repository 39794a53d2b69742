"""Sort reviews with a language model: replies by a schema, a cache, and a budget that holds.

Without an address a script answers, so that this runs offline: python examples/text/lm.py
With a model: python examples/text/lm.py local:smollm2-135m-instruct, or a server's address. Run it
twice: the second run asks nothing.
"""

import argparse

from sharpen import LM, Scripted
from sharpen.core.lm import Budget, BudgetExhausted

REVIEWS = [
    "The soup was cold and the waiter forgot us twice.",
    "Best noodles in town, and so cheap!",
    "It was fine. Nothing special.",
    "We will never come back here.",
    "A warm welcome, a perfect fish, a view of the harbour.",
]
SCHEMA = {
    "type": "object",
    "properties": {"mood": {"enum": ["good", "bad", "neither"]}},
    "required": ["mood"],
    "additionalProperties": False,
}
RULES = [
    (r"Best|perfect", '{"mood": "good"}'),
    (r"cold|never", "I think it is {'mood': 'bad'}."),  # small models write worse than this
    (r"", '{"mood": "neither"}'),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("address", nargs="?", help="local:NAME or http://HOST:PORT/v1")
    parser.add_argument("--calls", type=int, default=20, help="at most so many calls")
    arguments = parser.parse_args()
    lm = LM(
        arguments.address or Scripted(RULES),
        cache="replies.sqlite",
        budget=Budget(max_calls=arguments.calls),
        max_tokens=40,
    )
    prompts = [f"Is this review good, bad or neither?\n\n{review}" for review in REVIEWS]
    try:
        replies = lm.map_json(prompts, SCHEMA)
    except BudgetExhausted as error:
        print(f"stopped: {error}")
        return
    for review, reply in zip(REVIEWS, replies, strict=True):
        print(f"{reply['mood']:8} {review}")
    usage = lm.usage
    print(f"{usage.calls} calls, {usage.cache_hits} from the cache, {usage.tokens} tokens")


if __name__ == "__main__":
    main()
