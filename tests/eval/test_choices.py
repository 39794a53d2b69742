"""Multiple choice, against every choice run alone in float64."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sharpen.core.errors import DataError
from sharpen.eval import choice_log_likelihoods, load_task, score_choices
from sharpen.eval.choices import encode_choice
from small_models import byte_tokenizer, save_small_model, small_model


def alone(model, ids, context):
    double = small_model().double()
    double.load_state_dict({k: v.double() for k, v in model.state_dict().items()})
    with torch.no_grad():
        logs = torch.log_softmax(double(torch.tensor([ids[:-1]]))[0], -1)
    return sum(float(logs[t - 1, ids[t]]) for t in range(context, len(ids)))


token_ids = st.integers(0, 303)


@settings(max_examples=25)
@given(
    prompt=st.lists(token_ids, min_size=1, max_size=12),
    choices=st.lists(st.lists(token_ids, min_size=1, max_size=6), min_size=1, max_size=4),
)
def test_log_likelihoods_with_a_shared_prefix_are_those_of_each_choice_alone(prompt, choices):
    model = small_model()
    encoded = [(prompt + choice, len(prompt)) for choice in choices]
    scores = choice_log_likelihoods(model, encoded)
    assert scores == pytest.approx([alone(model, ids, n) for ids, n in encoded], abs=1e-4)


def test_contexts_may_differ_between_choices():
    model = small_model()
    encoded = [([1, 2, 3, 4, 5], 3), ([1, 2, 9, 4], 2), ([1, 7], 1)]
    scores = choice_log_likelihoods(model, encoded)
    assert scores == pytest.approx([alone(model, ids, n) for ids, n in encoded], abs=1e-4)


def test_trailing_spaces_of_the_prompt_go_to_the_choice():
    tokenizer = byte_tokenizer()
    ids, context = encode_choice(tokenizer, "a b ", "c")
    assert tokenizer.decode(ids[:context]) == "a b"
    assert tokenizer.decode(ids[context:]) == " c"


@pytest.mark.parametrize("encoded", [([1, 2], 0), ([1, 2], 2), ([1] * 300, 3)])
def test_choices_without_context_or_beyond_the_models_are_refused(encoded):
    with pytest.raises(DataError, match=r"at least one token after|model's context is 256"):
        choice_log_likelihoods(small_model(), [encoded])


def task_of(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_task(path)


def test_accuracies_follow_from_the_log_likelihoods(tmp_path):
    model, tokenizer = small_model(seed=3), byte_tokenizer()
    texts = [(f"item {i}:", [" yes", " certainly not", " no"]) for i in range(8)]
    rows, right, right_norm = [], 0, 0
    for number, (prompt, choices) in enumerate(texts):
        answer = number % 3
        pairs = [encode_choice(tokenizer, prompt, choice) for choice in choices]
        scores = [alone(model, ids, n) for ids, n in pairs]
        normed = [s / len(c.encode()) for s, c in zip(scores, choices, strict=True)]
        right += scores.index(max(scores)) == answer
        right_norm += normed.index(max(normed)) == answer
        rows.append({"prompt": prompt, "choices": choices, "answer": answer})
    seen = []
    task = task_of(tmp_path / "t.jsonl", rows)
    result = score_choices(model, tokenizer, task, on_progress=seen.append)
    assert (result.acc, result.acc_norm, result.count) == (right / 8, right_norm / 8, 8)
    assert sum(seen) == 8
    assert score_choices(model, tokenizer, task, limit=2).count == 2


def test_a_question_that_does_not_fit_is_named(tmp_path):
    rows = [{"prompt": "x" * 400, "choices": ["a", "b"], "answer": 0}]
    task = task_of(tmp_path / "long.jsonl", rows)
    with pytest.raises(DataError, match=r"long\.jsonl:1: .*context"):
        score_choices(small_model(), byte_tokenizer(), task)
    match = task_of(tmp_path / "m.jsonl", [{"prompt": "x", "answer": "y"}])
    with pytest.raises(DataError, match="has no choices"):
        score_choices(small_model(), byte_tokenizer(), match)


@pytest.mark.peer
@pytest.mark.slow
def test_transformers_gives_the_same_log_likelihoods(tmp_path):
    from transformers import AutoModelForCausalLM

    save_small_model(tmp_path / "m")
    peer = AutoModelForCausalLM.from_pretrained(tmp_path / "m", dtype=torch.float32)
    encoded = [([5, 6, 7, 8, 9], 3), ([5, 6, 7, 20], 3)]
    wanted = []
    for ids, context in encoded:
        with torch.no_grad():
            logs = torch.log_softmax(peer(torch.tensor([ids])).logits[0], -1)
        wanted.append(sum(float(logs[t - 1, ids[t]]) for t in range(context, len(ids))))
    assert choice_log_likelihoods(small_model(), encoded) == pytest.approx(wanted, abs=1e-4)
