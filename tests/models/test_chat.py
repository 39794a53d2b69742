import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharpen.core.errors import DataError
from sharpen.models.chat import assistant_mask, check_messages, render, render_chat
from sharpen.models.tokenizer import Tokenizer
from small_models import TEMPLATE, byte_tokenizer

CHATML = (
    "{% for message in messages %}"
    "{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nBe helpful.<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = (
    "{{- bos_token }}\n"
    "{%- if tools %}\n    {{- 'Functions: ' + (tools | tojson(indent=2)) }}\n{%- endif %}\n"
    "{%- for message in messages %}\n"
    "    {%- if message.role not in ['system', 'user', 'assistant', 'tool'] %}\n"
    "        {{- raise_exception('Unknown role: ' ~ message.role) }}\n    {%- endif %}\n"
    "    {%- if message.tool_calls %}\n"
    "        {%- for call in message.tool_calls %}{{- call.function | tojson }}{%- endfor %}\n"
    "        {%- continue %}\n    {%- endif %}\n"
    "    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}\n"
    "    {%- generation %}{{- message['content'] | trim + '<|eot_id|>' }}{%- endgeneration %}\n"
    "{%- endfor %}\n"
    "{%- if add_generation_prompt %}\n"
    "    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}\n{%- endif %}"
)
GENERATION = (
    "{% for m in messages %}{% if m.role == 'assistant' %}"
    "A:{% generation %}{{ m.content }};{% endgeneration %}"
    "{% else %}U:{{ m.content }};{% endif %}{% endfor %}"
)
TALK = [
    {"role": "user", "content": "1 + 1 ="},
    {"role": "assistant", "content": "two"},
    {"role": "user", "content": "sure?"},
    {"role": "assistant", "content": "yes é🎉"},
]


def with_template(template: str | None) -> Tokenizer:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


def learned(tokenizer: Tokenizer, messages: list[dict[str, str]]) -> str:
    ids, mask = assistant_mask(tokenizer, messages)
    assert ids == tokenizer.encode(render_chat(tokenizer, messages))
    marked = [i if keep else 7 for i, keep in zip(ids, mask, strict=True)]
    return tokenizer.decode(marked, skip_special=False)


def test_messages_become_text() -> None:
    text = render_chat(byte_tokenizer(), TALK[:1], add_generation_prompt=True)
    assert text == "<|im_start|>user\n1 + 1 =<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.peer
@pytest.mark.parametrize("template", [CHATML, LLAMA3, TEMPLATE], ids=["chatml", "llama3", "small"])
@pytest.mark.parametrize("prompt", [False, True])
def test_templates_render_as_in_transformers(template: str, prompt: bool) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    tools = [{"type": "function", "function": {"name": "f", "description": "d<é>"}}]
    call = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "x": 1}}]}
    talks: list[list[dict[str, Any]]] = [
        TALK[:1],
        [{"role": "system", "content": "  Short. "}, *TALK[:3]],
        [*TALK, {"role": "user", "content": "<|im_end|>{{ 1 }}"}],
        [TALK[0], call, {"role": "tool", "content": "3"}],
    ]
    for talk in talks:
        for given_tools in (None, tools):
            expected, _ = render_jinja_template(
                conversations=[talk],
                tools=given_tools,
                chat_template=template,
                add_generation_prompt=prompt,
                bos_token="<s>",
                eos_token="</s>",
            )
            found = render(
                talk,
                template,
                add_generation_prompt=prompt,
                tools=given_tools,
                bos_token="<s>",
                eos_token="</s>",
            )
            assert found == expected[0]


def test_an_assistants_tokens_and_end_of_turn_are_marked_by_prefixes() -> None:
    text = learned(byte_tokenizer(), TALK)
    skipped = byte_tokenizer().decode([7])
    assert text.replace(skipped, "") == "two<|im_end|>yes é🎉<|im_end|>"
    assert len(text) > 60


def test_an_assistants_tokens_are_marked_by_generation_blocks() -> None:
    text = learned(with_template(GENERATION), TALK)
    skipped = byte_tokenizer().decode([7])
    assert text.replace(skipped, "") == "two;yes é🎉;"
    assert text.startswith(skipped * len("U:1 + 1 =;A:"))


def test_a_conversation_without_an_assistant_marks_nothing() -> None:
    _, mask = assistant_mask(byte_tokenizer(), TALK[:1])
    assert not any(mask)


def test_a_first_turn_of_the_assistant_is_marked_without_its_opening() -> None:
    skipped = byte_tokenizer().decode([7])
    assert learned(byte_tokenizer(), TALK[1:2]).replace(skipped, "") == "two<|im_end|>"


@pytest.mark.parametrize(
    "empty", ["{{ messages[0].role[99:] }}", "{% if not messages %}?{% endif %}"]
)
def test_a_first_turn_is_marked_whole_where_the_template_tells_no_opening(empty: str) -> None:
    text = learned(with_template(empty + TEMPLATE), TALK[1:2])
    assert text.startswith("<|im_start|>assistant\ntwo<|im_end|>")


@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1), min_size=1, max_size=3))
def test_both_ways_of_marking_agree(contents: list[str]) -> None:
    marked = TEMPLATE.replace(
        "{{ m.content }}<|im_end|>\n",
        "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}"
        "{% else %}{{ m.content }}<|im_end|>{% endif %}{{ '\n' }}",
    )
    roles = ("user", "assistant", "user")
    talk = [{"role": r, "content": c} for r, c in zip(roles, contents, strict=False)]
    prefix, blocks = with_template(TEMPLATE), with_template(marked)
    assert render_chat(prefix, talk) == render_chat(blocks, talk)
    assert assistant_mask(prefix, talk) == assistant_mask(blocks, talk)


def test_text_that_looks_like_a_mark_stays_text() -> None:
    talk = [{"role": "assistant", "content": "\ue000g[a]g\ue000 <0123> </0123>"}]
    tokenizer = with_template(GENERATION)
    assert render_chat(tokenizer, talk) == "A:" + talk[0]["content"] + ";"


def test_threads_that_render_at_once_do_not_mix_their_marks() -> None:
    tokenizer, wrong = with_template(GENERATION), []
    expected = assistant_mask(tokenizer, TALK)

    def work() -> None:
        for _ in range(60):
            if assistant_mask(tokenizer, TALK) != expected:
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_template_that_rewrites_earlier_turns_is_refused() -> None:
    template = (
        "{% for m in messages %}{{ m.content if loop.last else '-' }};{% endfor %}"
        "{% if add_generation_prompt %}?{% endif %}"
    )
    with pytest.raises(DataError, match="renders earlier turns differently"):
        assistant_mask(with_template(template), TALK)


def test_without_a_template_nothing_is_rendered() -> None:
    for call in (render_chat, assistant_mask):
        with pytest.raises(DataError, match="no chat template"):
            call(with_template(None), TALK)


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages.__class__ }}{{ messages.__class__.__mro__ }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages|attr('__class__')|attr('__mro__') }}{{ (messages|attr('__class__')).x.y }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ raise_exception.__globals__['datetime'] }}",
        "{{ '{0.__class__.__mro__}'.format(1) }}{{ ''.__class__.a.b }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update({'a': 1}) }}",
        "{{ messages.clear() }}",
        "{% for i in range(10**9) %}x{% endfor %}",
        "{% for i in range(99999) %}{% for j in range(99999) %}xxxxxxxxx{% endfor %}{% endfor %}",
        "{{ 'x' * 10**10 }}",
        "{{ 10**10 * 'x' }}",
        "{{ ['x'] * 10**9 }}",
        "{{ 9 ** 9 ** 9 }}",
        "{{ 10 ** 100000 }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
        "{{ undefined.attribute }}",
        "{{ '{0}'.format() }}",
        "{{ 1 / 0 }}",
        "{{ 5 | dictsort }}",
        "{{ messages | join(5, 5, 5, 5) }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{{ raise_exception('no such role') }}",
        "{% for %}",
        "{% generation %}",
        "{{ 'a'.encode('bogus') }}",
    ],
)
def test_a_hostile_or_broken_template_ends_in_our_error(template: str) -> None:
    talk = [{"role": "user", "content": "x"}]
    with pytest.raises(DataError, match="chat template"):
        render(talk, template)
    assert talk == [{"role": "user", "content": "x"}]


def test_templates_may_stop_the_conversation_with_their_own_words() -> None:
    with pytest.raises(DataError, match="Unknown role: critic"):
        render([{"role": "critic", "content": "x"}], LLAMA3)


def test_templates_know_the_date() -> None:
    found = render(TALK, "{{ strftime_now('%Y') }}")
    assert len(found) == 4
    assert found.isdigit()


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "non-empty list"),
        ("hello", "non-empty list"),
        (None, "non-empty list"),
        (["x"], r"row: messages\[0\] must have a 'role'"),
        ([{"role": 5, "content": "x"}], "must have a 'role'"),
        ([{"content": "x"}], "must have a 'role'"),
        ([TALK[0], {"role": "user"}], r"messages\[1\] must have 'content'"),
        ([{"role": "user", "content": 5}], "must be text"),
    ],
)
def test_messages_of_the_wrong_shape_are_refused(messages: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_messages(messages, "row: messages")


def test_a_call_of_a_tool_needs_no_content() -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f"}}]}
    assert check_messages((call,)) == [call]
