import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharpen.core.errors import ConfigError
from sharpen.models.decode import prepare_for_inference
from sharpen.serve.engine import Engine
from sharpen.serve.sampling import SamplingParams
from sharpen.serve.speculation import NgramGuesser, Speculation
from small_models import byte_tokenizer, small_model


def plain_guess(tokens: list[int], count: int, settings: Speculation) -> list[int]:
    """By looking at every earlier place."""
    for n in range(min(settings.longest, len(tokens)), settings.shortest - 1, -1):
        for end in range(len(tokens) - 1, n - 1, -1):
            if tokens[end - n : end] == tokens[-n:]:
                return tokens[end : end + min(count, settings.tokens)]
    return []


@given(
    tokens=st.lists(st.integers(0, 3), min_size=1, max_size=40),
    cuts=st.lists(st.integers(1, 40), max_size=5),
    longest=st.integers(2, 4),
)
def test_guesses_are_what_followed_before(tokens: list[int], cuts: list[int], longest: int) -> None:
    settings = Speculation(tokens=3, longest=longest, shortest=2)
    guesser = NgramGuesser(settings)
    for cut in sorted({min(cut, len(tokens)) for cut in [*cuts, 40]}):
        seen = tokens[:cut]
        assert guesser.guess(seen, 5) == plain_guess(seen, 5, settings)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_guesses_change_no_token(temperature: float) -> None:
    chance = random.Random(0)
    prompts = [[chance.choice([5, 6, 7]) for _ in range(30)] for _ in range(3)]
    found, guessed = [], []
    for speculation in (None, Speculation(tokens=3)):
        engine = Engine(
            prepare_for_inference(small_model()), byte_tokenizer(), speculation=speculation
        )
        ids: list[list[int]] = [[] for _ in prompts]
        for prompt, box in zip(prompts, ids, strict=True):
            engine.submit(
                prompt,
                SamplingParams(temperature=temperature, seed=1, max_tokens=60, ignore_eos=True),
                lambda piece, box=box: box.extend(piece.ids),
            )
        engine.run()
        found.append(ids)
        guessed.append(engine.num_guessed)
    assert found[0] == found[1]
    assert guessed[0] == 0
    if temperature == 0:
        assert guessed[1] > 20  # a greedy small model repeats itself


@pytest.mark.parametrize("text", ["draft", "ngram:k", "ngram:x=2", "ngram:k=0", "ngram:n=1"])
def test_unknown_settings_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="speculation"):
        Speculation.parse(text)


def test_settings_are_read() -> None:
    assert Speculation.parse("ngram") == Speculation()
    assert Speculation.parse("ngram:k=6,n=4,min=3,max=2") == Speculation(
        tokens=6, longest=4, shortest=3, max_sequences=2
    )
