import json
import time

import jsonschema
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sharpen.core.errors import ConfigError
from sharpen.serve import LLM, Grammar, SamplingParams
from sharpen.serve.grammar import Grammars
from small_models import byte_tokenizer, save_small_model

HANGS = {"allOf": [{"type": "string", "pattern": f".*a.{{{i}}}"} for i in range(1, 60)]}
POINT = {
    "type": "object",
    "properties": {"x": {"type": "integer"}, "name": {"type": "string", "maxLength": 5}},
    "required": ["x", "name"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_small_model(tmp_path_factory.mktemp("models") / "tiny", max_positions=512)


@pytest.fixture(scope="module")
def llm(folder):
    return LLM(folder, dtype="float32")


@pytest.fixture(scope="module")
def grammars():
    one = Grammars(byte_tokenizer(), 304, {2}, timeout_s=1.0)
    yield one
    one.close()


def allowed(guide, avoid=()):
    masked = guide.mask(torch.zeros(304), avoid)
    return set(torch.isfinite(masked).nonzero().flatten().tolist())


def test_exactly_the_tokens_that_may_come_stay(grammars):
    tokenizer = byte_tokenizer()
    guide = grammars.guide(Grammar.choice(["ab", "ac", "b"]))
    assert allowed(guide) == set(tokenizer.encode("ab"))
    (a,) = tokenizer.encode("a")
    guide.advance(a)
    assert allowed(guide) == set(tokenizer.encode("bc"))
    assert guide.fitting(tokenizer.encode("cc")) == 1
    assert not guide.finished
    guide.advance(tokenizer.encode("c")[0])
    assert guide.finished


def test_the_end_of_sequence_may_come_when_the_text_is_complete(grammars):
    tokenizer = byte_tokenizer()
    (a,) = tokenizer.encode("a")
    guide = grammars.guide(Grammar.regex("a+"))
    assert allowed(guide) == {a}
    guide.advance(a)
    assert allowed(guide) == {a, 2}
    assert allowed(guide, avoid=(2,)) == {a}
    assert not guide.finished
    again = grammars.guide(Grammar.regex("a+"))
    assert allowed(again) == {a}


@pytest.mark.parametrize(
    ("grammar", "message"),
    [
        (Grammar.regex("(a"), "unclosed group"),
        (Grammar.regex("a(?=b)"), "look-around"),
        (Grammar.lark("start: other"), "unknown name"),
        (Grammar.json({"type": "strin"}), "strin"),
        (Grammar.json({"not": {"type": "string"}}), "not"),
        (Grammar.json({"$ref": "https://example.com/schema"}), "not fetch"),
        (Grammar.json({"allOf": [{"type": "string"}, {"type": "null"}]}), "Unsatisfiable"),
        (Grammar.json({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}), "no text"),
    ],
)
def test_what_is_wrong_with_a_grammar_is_told(grammars, grammar, message):
    for _ in range(2):
        with pytest.raises(ConfigError, match=message) as caught:
            grammars.guide(grammar)
        assert "\n" not in str(caught.value)


def test_a_grammar_that_compiles_without_end_is_given_up(grammars):
    begin = time.monotonic()
    with pytest.raises(ConfigError, match="longer than 1 s"):
        grammars.guide(Grammar.json(HANGS))
    assert time.monotonic() - begin < 30
    assert allowed(grammars.guide(Grammar.choice(["a"])))


def test_grammars_are_compiled_once(grammars):
    grammar = Grammar.json(POINT)
    assert grammars.begin(grammar) is grammars.begin(Grammar.json(json.dumps(POINT)))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Grammar.json("{"),
        lambda: Grammar.json("[]"),
        lambda: Grammar.json({"a": float("nan")}),
        lambda: Grammar.json({"a": object()}),
        lambda: Grammar.regex(""),
        lambda: Grammar.regex("a" * (1 << 21)),
        lambda: Grammar.choice([]),
        lambda: Grammar.choice(["a", ""]),
    ],
)
def test_mistakes_are_refused_at_once(make):
    with pytest.raises(ConfigError):
        make()


def test_a_pydantic_model_is_a_schema(llm):
    from pydantic import BaseModel

    class Answer(BaseModel, extra="forbid"):
        yes: bool

    params = SamplingParams(seed=1, grammar=Grammar.json(Answer), max_tokens=64)
    assert Answer.model_validate_json(llm.generate("a", params).text)


def scalars():
    numbers = st.integers(-50, 50)
    return st.one_of(
        st.just({"type": "boolean"}),
        st.just({"type": "null"}),
        st.builds(
            lambda a, b: {"type": "integer", "minimum": min(a, b), "maximum": max(a, b)},
            numbers,
            numbers,
        ),
        st.builds(lambda n: {"type": "string", "maxLength": n}, st.integers(0, 4)),
        st.builds(
            lambda values: {"enum": values},
            st.lists(st.one_of(st.text(max_size=4), numbers), min_size=1, max_size=4),
        ),
        st.sampled_from([{"type": "string", "pattern": "^[ab]{1,4}$"}, {"const": {"a": [1]}}]),
    )


def composed(inner):
    def record(fields, count):
        names = sorted(fields)
        return {
            "type": "object",
            "properties": fields,
            "required": names[:count],
            "additionalProperties": False,
        }

    return st.one_of(
        st.builds(
            record,
            st.dictionaries(st.text(min_size=1, max_size=3), inner, max_size=3),
            st.integers(0, 3),
        ),
        st.builds(
            lambda one, least, more: {
                "type": "array",
                "items": one,
                "minItems": least,
                "maxItems": least + more,
            },
            inner,
            st.integers(0, 2),
            st.integers(0, 1),
        ),
        st.builds(lambda a, b: {"anyOf": [a, b]}, inner, inner),
    )


@settings(max_examples=25)
@given(
    schemas=st.lists(st.recursive(scalars(), composed, max_leaves=5), min_size=1, max_size=3),
    temperature=st.sampled_from([0.0, 1.0]),
)
def test_every_complete_text_satisfies_its_schema(llm, schemas, temperature):
    params = [
        SamplingParams(
            temperature=temperature, seed=i, max_tokens=200, grammar=Grammar.json(schema), n=2
        )
        for i, schema in enumerate(schemas)
    ]
    plain = SamplingParams(temperature=0, max_tokens=9)
    *guided, other = llm.generate(["x"] * (len(schemas) + 1), [*params, plain])
    for schema, output in zip(schemas, guided, strict=True):
        for one in output.outputs:
            assert one.finish_reason in ("stop", "length")
            if one.finish_reason == "stop":
                jsonschema.validate(json.loads(one.text), schema)
    assert other == llm.generate("x", plain)


def test_a_text_that_is_cut_says_so(llm):
    grammar = Grammar.json({"type": "string", "minLength": 30})
    cut, whole = llm.generate(
        ["a", "a"],
        [SamplingParams(seed=1, max_tokens=n, grammar=grammar) for n in (8, 400)],
    )
    assert cut.outputs[0].finish_reason == "length"
    assert len(cut.outputs[0].ids) == 8
    if whole.outputs[0].finish_reason == "stop":
        assert len(json.loads(whole.text)) >= 30


def test_neither_minimum_length_nor_ignored_ends_break_a_grammar(llm):
    params = SamplingParams(
        temperature=0, grammar=Grammar.regex("a{1,4}"), min_tokens=4, ignore_eos=True
    )
    assert llm.generate("x", params).text == "aaaa"
    params = SamplingParams(temperature=0, grammar=Grammar.choice(["ab"]), min_tokens=9)
    assert llm.generate("x", params).text == "ab"


def test_penalties_and_biases_stay_within_the_grammar(llm):
    params = SamplingParams(
        temperature=0,
        grammar=Grammar.regex("[ab]{6}"),
        repetition_penalty=2.0,
        presence_penalty=2.0,
        logit_bias={byte_tokenizer().encode("z")[0]: 100},
        logprobs=2,
    )
    output = llm.generate("x", params).outputs[0]
    assert set(output.text) == {"a", "b"}
    assert len(output.logprobs) == 6


def test_guesses_change_no_guided_text(folder, llm):
    quick = LLM(folder, dtype="float32", speculate="ngram:k=4,n=3")
    prompt = '{"x": 1, "name": "abc"} {"x": 1, "name": "abc"}'
    for temperature in (0.0, 0.5):
        params = SamplingParams(
            temperature=temperature, seed=3, max_tokens=48, grammar=Grammar.json(POINT)
        )
        assert quick.generate(prompt, params) == llm.generate(prompt, params)
    regex = SamplingParams(temperature=0, max_tokens=40, grammar=Grammar.regex("(abc ){2,9}"))
    assert quick.generate("abc abc", regex) == llm.generate("abc abc", regex)
    assert quick.engine.num_guessed > 0


def test_a_wrong_grammar_is_refused_before_anything_runs(llm):
    good, bad = SamplingParams(), SamplingParams(grammar=Grammar.regex("("))
    with pytest.raises(ConfigError, match="unclosed"):
        llm.generate(["a", "b"], [good, bad])
    assert not llm.engine.num_waiting
