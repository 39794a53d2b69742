import json
import platform
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharpen.core.config import from_dict
from sharpen.core.errors import ConfigError, DataError
from sharpen.core.stage import RecipeContext, StageContext, StageResult
from sharpen.data.config import DataConfig, SourceConfig, SplitConfig
from sharpen.data.shards import IGNORE, TokenDataset
from sharpen.data.stages import DATA, run_data, split_rows
from sharpen.models.tokenizer import load_tokenizer
from small_models import byte_tokenizer

PAIRS = [{"prompt": f"{i} + 1 =", "completion": str(i + 1), "topic": i % 5} for i in range(20)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    byte_tokenizer().save(folder)
    return folder


def write(path: Path, rows: list[Any]) -> None:
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))


def run(
    tmp_path: Path, model: Path, rows: list[Any], *, seed: int = 0, out: str = "out", **options: Any
) -> StageResult:
    write(tmp_path / "rows.jsonl", rows)
    for name in (out, "work"):
        (tmp_path / name).mkdir(exist_ok=True)
    data = {"source": {"path": "rows.jsonl"}, "format": "prompt_completion", **options}
    context = StageContext(
        stage="data",
        seed=seed,
        model=str(model),
        inputs={},
        output=tmp_path / out,
        work=tmp_path / "work",
        folder=tmp_path,
    )
    return run_data(from_dict(DataConfig, data), context)


def texts(tmp_path: Path, split: str, model: Path, out: str = "out") -> list[tuple[str, str]]:
    """Inputs and labels of every document, as text."""
    tokenizer, found = load_tokenizer(model), []
    dataset = TokenDataset(tmp_path / out, split, verify=True)
    for i in range(len(dataset)):
        row = dataset[i]
        for number in range(int(row.document_ids.max()) + 1):
            place = row.document_ids == number
            labels = [x for x in row.labels[place].tolist() if x != IGNORE]
            found.append(
                (
                    tokenizer.decode(row.input_ids[place].tolist(), skip_special=False),
                    tokenizer.decode(labels, skip_special=False),
                )
            )
    return found


def test_rows_become_shards_with_masked_prompts_and_learned_ends(
    tmp_path: Path, model: Path
) -> None:
    result = run(tmp_path, model, PAIRS, split={"valid": 0.2}, max_tokens=128)
    train, valid = (texts(tmp_path, split, model) for split in ("train", "valid"))
    assert (len(train), len(valid)) == (16, 4)
    expected = {
        f"<|im_start|>user\n{row['prompt']}<|im_end|>\n<|im_start|>assistant\n{row['completion']}"
        for row in PAIRS
    }
    assert {text for text, _ in train + valid} == expected
    for text, learned in train + valid:
        assert learned == text.rpartition("\n")[2] + "<|im_end|>"
    assert result.results["train"]["examples"] == 16
    assert 0 < result.results["fill"] <= 1
    assert result.results["dropped"] == {}
    held = TokenDataset(tmp_path / "out", "valid").examples()
    assert {row["prompt"] for row in held} == {t.split("user\n")[1].split("<")[0] for t, _ in valid}
    titles = [section.title for section in DATA.report(result.results)]  # type: ignore[misc]
    assert titles == ["Data"]


def test_the_same_source_gives_the_same_bytes_and_another_seed_another_split(
    tmp_path: Path, model: Path
) -> None:
    for out, seed in (("a", 0), ("b", 0), ("c", 1)):
        run(tmp_path, model, PAIRS, split={"valid": 0.3}, seed=seed, out=out)
    names = sorted(p.name for p in (tmp_path / "a").iterdir())
    assert names == ["manifest.json", "train-00000.bin", "valid-00000.bin", "valid.jsonl"]
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert (tmp_path / "a" / names[3]).read_text() != (tmp_path / "c" / names[3]).read_text()


def test_a_topic_is_never_on_both_sides(tmp_path: Path, model: Path) -> None:
    run(tmp_path, model, PAIRS, split={"valid": 0.3, "by": "topic"})
    held = {row["prompt"] for row in TokenDataset(tmp_path / "out", "valid").examples()}
    topics = {row["topic"] for row in PAIRS if row["prompt"] in held}
    assert len(held) == 4 * len(topics) == 8


groups = st.lists(st.text(max_size=2), min_size=1, max_size=40)


@given(groups, st.floats(0, 0.9), st.integers(0, 3))
def test_splits_keep_groups_whole_meet_their_share_and_repeat(
    names: list[str], share: float, seed: int
) -> None:
    try:
        held = split_rows(names, share, seed)
    except DataError:
        # Only when a single group, or the last one, would have to be held out too.
        assert share > 0
        return
    inside = {n for n, h in zip(names, held, strict=True) if h}
    outside = {n for n, h in zip(names, held, strict=True) if not h}
    assert not inside & outside
    assert outside
    assert sum(held) >= share * len(names)
    # The group added last was needed.
    without = [sum(held) - names.count(n) for n in inside]
    assert not inside or min(without) < share * len(names)
    assert held == split_rows(names, share, seed)


def test_a_groups_side_does_not_depend_on_the_order_of_rows() -> None:
    names = [str(i % 9) for i in range(40)]
    forward = dict(zip(names, split_rows(names, 0.3, 0), strict=True))
    backward = dict(zip(names[::-1], split_rows(names[::-1], 0.3, 0), strict=True))
    assert forward == backward


def test_too_few_groups_cannot_be_split(tmp_path: Path, model: Path) -> None:
    with pytest.raises(DataError, match=r"Set split\.valid to 0"):
        run(tmp_path, model, PAIRS[:1], split={"valid": 0.5})
    result = run(tmp_path, model, PAIRS[:1], split={"valid": 0})
    assert "valid" not in result.results
    assert not (tmp_path / "out" / "valid.jsonl").exists()


def test_equal_rows_are_dropped_before_the_split(tmp_path: Path, model: Path) -> None:
    result = run(tmp_path, model, PAIRS * 3, split={"valid": 0.2})
    assert result.results["dropped"] == {"duplicate": 40}
    assert result.results["train"]["examples"] == 16
    result = run(tmp_path, model, PAIRS * 3, split={"valid": 0.2}, dedup="none", out="all")
    assert result.results["train"]["examples"] == 48


def test_bad_rows_are_named_by_file_and_line_or_counted(tmp_path: Path, model: Path) -> None:
    rows = [*PAIRS[:4], "", {"prompt": "a"}, "{", *PAIRS[4:]]
    with pytest.raises(DataError, match=r"rows\.jsonl:6: the key 'completion' is missing.*skip"):
        run(tmp_path, model, rows)
    with pytest.raises(DataError, match=r"rows\.jsonl:1: no key 'author' to split by"):
        run(tmp_path, model, rows, split={"valid": 0.1, "by": "author"})
    result = run(tmp_path, model, rows, on_error="skip")
    assert result.results["dropped"] == {"malformed": 1, "unreadable": 1}
    assert result.results["train"]["examples"] == 19


def test_long_examples_are_dropped_and_long_texts_cut(tmp_path: Path, model: Path) -> None:
    long = {"prompt": "x" * 200, "completion": "y"}
    result = run(tmp_path, model, [*PAIRS, long], max_tokens=64, split={"valid": 0})
    assert result.results["dropped"] == {"too long": 1}
    text = "".join(map(str, range(40)))
    result = run(
        *(tmp_path, model, [{"text": text}]),
        format="text",
        split={"valid": 0},
        max_tokens=16,
        packing=False,
        out="text",
    )
    pieces = texts(tmp_path, "train", model, "text")
    assert "".join(learned for _, learned in pieces) == text[1:] + "<|im_end|>"
    assert "".join(inputs for inputs, _ in pieces) == text
    assert all(len(inputs) == 16 for inputs, _ in pieces[:-1])


def test_packing_puts_several_documents_in_a_row(tmp_path: Path, model: Path) -> None:
    packed = run(tmp_path, model, PAIRS, max_tokens=256, split={"valid": 0})
    loose = run(tmp_path, model, PAIRS, max_tokens=256, split={"valid": 0}, packing=False, out="b")
    assert packed.results["train"]["rows"] * 3 < loose.results["train"]["rows"] == 20
    assert packed.results["train"]["labels"] == loose.results["train"]["labels"]
    found = [sorted(texts(tmp_path, "train", model, out)) for out in ("out", "b")]
    assert found[0] == found[1]


def test_prompts_are_learned_too_when_asked(tmp_path: Path, model: Path) -> None:
    run(tmp_path, model, PAIRS, split={"valid": 0}, mask_prompt=False, template="none")
    for text, learned in texts(tmp_path, "train", model):
        assert learned == text[1:] + "<|im_end|>"


def test_other_formats_run_through(tmp_path: Path, model: Path) -> None:
    talk = {
        "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b\u2028c"}]
    }
    other = {"messages": [{"role": "assistant", "content": "d"}]}
    run(tmp_path, model, [talk, other], format="chat", split={"valid": 0.5})
    learned = {x for split in ("train", "valid") for _, x in texts(tmp_path, split, model)}
    assert learned == {"b\u2028c<|im_end|>", "d<|im_end|>"}
    assert len(TokenDataset(tmp_path / "out", "valid").examples()) == 1
    row = {"instruction": "Add.", "input": "1", "output": "2"}
    run(tmp_path, model, [row], format="alpaca", split={"valid": 0}, template="none", out="alpaca")
    assert texts(tmp_path, "train", model, "alpaca") == [("Add.\n\n12", "2<|im_end|>")]


def test_limit_takes_the_first_rows(tmp_path: Path, model: Path) -> None:
    result = run(tmp_path, model, PAIRS, limit=5, split={"valid": 0})
    assert result.results["train"]["examples"] == 5


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([], {}, "no row is left of rows.jsonl: the source is empty"),
        ([{"a": 1}], {"on_error": "skip"}, "no row is left of rows.jsonl: 1 malformed"),
        (PAIRS, {"max_tokens": 8}, r"no example with a label left \(20 too long\)"),
        (
            [{"text": "a"}, {"text": "b"}],
            {"format": "text", "split": {"valid": 0.5, "by": "c"}},
            "no key 'c'",
        ),
    ],
)
def test_data_of_which_nothing_is_left_is_refused(
    tmp_path: Path, model: Path, rows: list[Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        run(tmp_path, model, rows, **options)


def test_data_without_a_label_is_refused(tmp_path: Path, model: Path) -> None:
    """A template that never renders the assistant leaves nothing to learn."""
    silent = byte_tokenizer()
    silent.chat_template = (
        "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}"
        "{% if m.role == 'assistant' %}{% generation %}{% endgeneration %}{% endif %}{% endfor %}"
    )
    silent.save(tmp_path / "silent")
    talk = {"messages": [{"role": "user", "content": "a b"}, {"role": "assistant", "content": "c"}]}
    with pytest.raises(DataError, match=r"no example with a label left \(1 no label\)"):
        run(tmp_path, tmp_path / "silent", [talk], format="chat", split={"valid": 0})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SourceConfig(), "exactly one of path, asset and mix"),
        (lambda: SourceConfig(path="a", asset="python-stdlib"), "exactly one"),
        (lambda: SourceConfig(asset="python-stdlb"), "Did you mean 'python-stdlib'"),
        (lambda: SourceConfig(asset="smollm2-135m-instruct"), "is no corpus"),
        (lambda: SplitConfig(valid=1.0), r"valid=1\.0"),
        (lambda: SplitConfig(valid=float("nan")), "valid=nan"),
        (lambda: DataConfig(source=SourceConfig(path="a"), max_tokens=7), "max_tokens=7"),
        (lambda: DataConfig(source=SourceConfig(path="a"), limit=0), "limit=0"),
    ],
)
def test_bad_options_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_the_address_follows_the_sources_bytes(tmp_path: Path) -> None:
    config = DataConfig(source=SourceConfig(path="rows.jsonl"))
    context = RecipeContext(model=None, seed=0, folder=tmp_path)
    assert DATA.fingerprint is not None
    write(tmp_path / "rows.jsonl", PAIRS)
    first = DATA.fingerprint(config, context)
    assert DATA.fingerprint(config, context) == first
    write(tmp_path / "rows.jsonl", PAIRS[1:])
    assert DATA.fingerprint(config, context) != first
    corpus = DataConfig(source=SourceConfig(asset="python-stdlib"))
    assert platform.python_version() in DATA.fingerprint(corpus, context)


def test_the_standard_library_is_a_source(tmp_path: Path, model: Path) -> None:
    source = {"asset": "python-stdlib", "view": "docstrings"}
    split = {"valid": 0.2, "by": "module"}
    run(tmp_path, model, [], source=source, split=split, limit=60, max_tokens=2048)
    held = TokenDataset(tmp_path / "out", "valid").examples()
    assert held
    assert all("def " in row["prompt"] for row in held)
    source["view"] = "text"
    result = run(
        *(tmp_path, model, []),
        source=source,
        format="text",
        limit=3,
        split={"valid": 0.3},
        out="text",
    )
    assert result.results["train"]["tokens"] > 1000


def test_sources_are_mixed_in_the_stage_with_operators_and_without(
    tmp_path: Path, model: Path
) -> None:
    for name, count in (("a", 40), ("b", 100)):
        write(tmp_path / f"{name}.jsonl", [{"text": f"{name} says {i}"} for i in range(count)])
    mix = [{"path": "a.jsonl", "weight": 1}, {"path": "[b].jsonl", "weight": 2}]
    for out, process in (("plain", []), ("cleaned", [{"text_length": {"min": 3}}])):
        run(
            *(tmp_path, model, []),
            source={"mix": mix},
            format="text",
            process=process,
            split={"valid": 0.0},
            out=out,
        )
        found = [text for text, _ in texts(tmp_path, "train", model, out)]
        assert sum(text.startswith("a") for text in found) == 40
        assert sum(text.startswith("b") for text in found) == 81  # (80 + 1/2) / 2 < 40 + 1/2
    chat = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    write(tmp_path / "c.jsonl", [chat])
    source = {"mix": [{"path": "c.jsonl", "name": "one"}, {"path": "c.jsonl", "name": "two"}]}
    done = run(tmp_path, model, [], source=source, format="chat", split={"valid": 0.0}, out="chat")
    assert done.results["dropped"] == {"duplicate": 1}


def test_operators_clean_the_rows_before_they_become_tokens(tmp_path: Path, model: Path) -> None:
    long = "A sentence that is long enough to be kept by the filter, number"
    rows = [{"text": f"{long} {i}. See https://a.example/{i}"} for i in range(6)]
    rows += [{"text": "short"}, dict(rows[2])]
    process = ["clean_links", {"text_length": {"min": 20}}, "exact_dedup"]
    result = run(tmp_path, model, rows, format="text", process=process, split={"valid": 0.0})
    assert result.results["dropped"] == {"exact_dedup": 1, "text_length": 1}
    found = [text for text, _ in texts(tmp_path, "train", model)]
    assert len(found) == 6
    assert not any("example" in text for text in found)
    context = RecipeContext(model=str(model), seed=0, stages={}, folder=tmp_path)
    configs = [
        from_dict(DataConfig, {"source": {"path": "rows.jsonl"}, "format": "text", "process": p})
        for p in (process, process[:2], [])
    ]
    assert DATA.fingerprint is not None
    prints = [json.dumps(DATA.fingerprint(config, context)) for config in configs]
    assert len(set(prints)) == 3
    with pytest.raises(ConfigError, match=r"process\[0\]: .*Did you mean 'clean_links'"):
        from_dict(DataConfig, {"source": {"path": "rows.jsonl"}, "process": ["clean_link"]})
