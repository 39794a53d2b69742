"""Several adapters and the base in one pass, against each merged into the model alone."""

import dataclasses
import random
from pathlib import Path

import pytest
import torch

from sharpen.core.errors import FileFormatError
from sharpen.models import (
    DecoderLM,
    LoraConfig,
    add_lora,
    load_adapter,
    merge_lora,
    save_adapter,
    save_model,
)
from sharpen.models.decode import prepare_for_inference
from sharpen.models.paged import PagedPart
from small_models import small_spec

CONFIGS = (
    LoraConfig(rank=4),
    LoraConfig(rank=8, alpha=3.0, rslora=True, targets=("q_proj", "v_proj")),
    LoraConfig(rank=2, targets=("k_proj", "o_proj", "up_proj", "down_proj")),
)


def base(kind: str = "serial") -> DecoderLM:
    model = DecoderLM(small_spec(block=kind, tie_word_embeddings=False))
    model.init_weights(0, std=0.15)
    return model.eval()


def save_random_adapter(folder: Path, config: LoraConfig, seed: int, kind: str = "serial") -> Path:
    model = base(kind)
    add_lora(model, config, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("lora_B"):
                parameter.normal_(0, 0.1, generator=generator)
    save_adapter(model, folder, config)
    return folder


def prompts() -> list[list[int]]:
    chance = random.Random(0)
    return [[chance.randrange(304) for _ in range(n)] for n in (3, 20, 1, 12, 9, 2, 30, 5)]


@pytest.mark.parametrize("kind", ["serial", "parallel"])
def test_rows_of_adapters_and_of_the_base_go_together(tmp_path: Path, kind: str) -> None:
    folders = [
        save_random_adapter(tmp_path / str(i), config, i, kind) for i, config in enumerate(CONFIGS)
    ]
    engine = prepare_for_inference(base(kind))
    adapters = [None, *(engine.load_adapter(folder) for folder in folders)]
    merged = [base(kind)]
    for folder in folders:
        model = base(kind)
        load_adapter(model, folder)
        merge_lora(model)
        merged.append(model)
    cache = engine.new_paged_cache(64, 4)
    parts = [
        PagedPart(
            ids, 0, list(range(8 * i, 8 * i + 8)), len(ids), adapter=adapters[i % len(adapters)]
        )
        for i, ids in enumerate(prompts())
    ]
    logits = engine.paged(parts, cache)
    with torch.no_grad():
        expected = [
            merged[i % len(merged)](torch.tensor([ids]))[0] for i, ids in enumerate(prompts())
        ]
    torch.testing.assert_close(logits, torch.cat(expected), rtol=1e-4, atol=1e-4)


def test_an_adapter_knows_its_size(tmp_path: Path) -> None:
    engine = prepare_for_inference(base())
    adapter = engine.load_adapter(save_random_adapter(tmp_path / "a", CONFIGS[1], 0))
    assert adapter.num_bytes == 2 * 4 * 8 * ((64 + 64) + (64 + 32))


def test_what_must_change_the_base_is_refused_by_name(tmp_path: Path) -> None:
    engine = prepare_for_inference(base())
    config = dataclasses.replace(CONFIGS[0], dora=True)
    with pytest.raises(FileFormatError, match="DoRA"):
        engine.load_adapter(save_random_adapter(tmp_path / "dora", config, 0))
    file = save_random_adapter(tmp_path / "more", CONFIGS[0], 0) / "adapter_config.json"
    file.write_text(
        file.read_text().replace('"modules_to_save": null', '"modules_to_save": ["lm_head"]')
    )
    with pytest.raises(FileFormatError, match="modules_to_save"):
        engine.load_adapter(file.parent)


@pytest.mark.peer
@pytest.mark.filterwarnings("ignore")
def test_three_adapters_in_one_batch_are_pefts_merged_models(tmp_path: Path) -> None:
    from peft import LoraConfig as PeftConfig
    from peft import PeftModel, get_peft_model
    from transformers import AutoModelForCausalLM

    save_model(base(), tmp_path / "base")

    def fresh():  # type: ignore[no-untyped-def]
        return AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)

    expected = [fresh().eval()]
    engine = prepare_for_inference(base())
    adapters = [None]
    for i, config in enumerate(CONFIGS):
        torch.manual_seed(i)
        options = PeftConfig(
            r=config.rank,
            lora_alpha=config.alpha or 16,
            target_modules=list(config.names),
            use_rslora=config.rslora,
            init_lora_weights=False,
        )
        folder = tmp_path / str(i)
        get_peft_model(fresh(), options).save_pretrained(folder)
        merged = PeftModel.from_pretrained(fresh(), folder).merge_and_unload()
        expected.append(merged.eval())
        adapters.append(engine.load_adapter(folder))
    cache = engine.new_paged_cache(64, 4)
    parts = [
        PagedPart(
            ids, 0, list(range(8 * i, 8 * i + 8)), len(ids), adapter=adapters[i % len(adapters)]
        )
        for i, ids in enumerate(prompts())
    ]
    logits = engine.paged(parts, cache)
    with torch.no_grad():
        wanted = [
            expected[i % len(expected)](torch.tensor([ids])).logits[0]
            for i, ids in enumerate(prompts())
        ]
    together = torch.cat(wanted)
    torch.testing.assert_close(logits, together, rtol=1e-4, atol=1e-4 * float(together.abs().max()))
