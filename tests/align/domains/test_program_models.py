from pathlib import Path

import pytest
import torch

from sharpen.align.domains import (
    program_model,
    program_rows,
    program_tokenizer,
    run_tests,
    write_program_model,
)
from sharpen.align.domains.programs import FAST
from sharpen.align.rows import row_batch, tokenize_rows
from sharpen.align.rows.parse import parse_row
from sharpen.models import generate, load_model
from sharpen.models.tokenizer import load_tokenizer


def test_a_token_is_a_character() -> None:
    tokenizer = program_tokenizer()
    text = "0123>3210 45>54=" + FAST + FAST.upper()
    ids = tokenizer.encode(text)
    assert len(ids) == len(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.vocab_size == 33
    assert (tokenizer.pad_id, tokenizer.eos_id) == (0, 1)


def test_the_folder_loads_as_any_model(tmp_path: Path) -> None:
    folder = write_program_model(tmp_path / "model", seed=3)
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    assert tokenizer.fingerprint == program_tokenizer().fingerprint
    ids = torch.tensor([tokenizer.encode("12>21 34>43=")])
    assert torch.equal(model(ids), program_model(seed=3)(ids))


@pytest.mark.slow
def test_a_small_model_learns_the_task() -> None:
    torch.manual_seed(0)
    tokenizer, model = program_tokenizer(), program_model()
    rows = tokenize_rows([parse_row(row, "train") for row in program_rows(3000)], tokenizer).rows
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(400):
        optimizer.param_groups[0]["lr"] = 3e-3 * min(1.0, (step + 1) / 50)
        batch = row_batch([rows[int(i)] for i in torch.randint(len(rows), (64,))])
        logp = torch.log_softmax(model(batch.input_ids)[:, :-1], -1)
        taken = logp.gather(2, batch.input_ids[:, 1:, None]).squeeze(2)
        mask = batch.action_mask[:, 1:]
        loss = -(taken * mask).sum() / mask.sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    test = program_rows(200, split="test")
    prompts = [tokenizer.encode(row["prompt"]) for row in test]
    found = generate(model, prompts, max_new_tokens=8, stop_ids=(1,))
    right = [
        run_tests(tokenizer.decode(one.ids), row["tests"]).ending == "correct"
        for one, row in zip(found, test, strict=True)
    ]
    assert sum(right) / len(right) > 0.5  # one letter in nine by chance
