from __future__ import annotations

import pytest

from bt_llm.exceptions import ConfigError, PromptError
from bt_llm.models import check_messages, render_chat

CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] "
    "+ '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# The part of Llama 3.2's template that asks for a clock.
DATED = (
    "{%- if not date_string is defined %}{%- if strftime_now is defined %}"
    '{%- set date_string = strftime_now("%d %b %Y") %}{%- else %}{%- set date_string = "26 Jul 2024" %}'
    "{%- endif %}{%- endif %}{{ bos_token }}Today Date: {{ date_string }}"
)
USER = [{"role": "user", "content": "Up or down?"}]


def render(template, messages=USER):
    return render_chat(template, messages, bos_token="<s>", eos_token="</s>")


def test_a_conversation_is_open_for_the_answer():
    messages = [{"role": "system", "content": "Be brief."}, *USER]
    assert render(CHATML, messages) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nUp or down?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_templates_may_write_json():
    assert render("{{ messages[0] | tojson }}") == '{"role": "user", "content": "Up or down?"}'


def test_a_template_gets_no_clock():
    assert render(DATED) == "<s>Today Date: 26 Jul 2024"


@pytest.mark.parametrize(
    "template",
    [
        "{% if",
        "{{ raise_exception('roles must alternate') }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ messages[7].content + 1 }}",
        "{% for i in range(999999999) %}x{% endfor %}",
        "{{ 1 // 0 }}",
    ],
)
def test_a_bad_or_hostile_template_is_an_error_in_one_line(template):
    with pytest.raises(PromptError, match="chat template cannot be rendered"):
        render(template)


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([], "at least one"),
        ("Up or down?", "expected a list"),
        ({"role": "user", "content": "x"}, "expected a list"),
        (["x"], "message 0: expected exactly the keys"),
        ([{"role": "user"}], "message 0: expected exactly the keys"),
        ([*USER, {"role": "robot", "content": "x"}], "message 1: role 'robot'"),
        ([{"role": "user", "content": 3}], "content is int"),
    ],
)
def test_bad_messages_are_named(messages, words):
    with pytest.raises(ConfigError, match=words):
        check_messages(messages)


def test_messages_are_copied():
    (copy,) = check_messages(USER)
    assert copy == USER[0]
    assert copy is not USER[0]
