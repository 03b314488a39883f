"""Chat templates of seventy real models, beside what llama.cpp's own server made of them."""

from __future__ import annotations

import datetime
import functools
import json
import locale
import lzma
import random
from typing import Any

import pytest

from bt_llm.advice import Advisor, AdvisorConfig
from bt_llm.exceptions import PromptError
from bt_llm.models import ModelIdentity, ScriptedBackend, open_thought, render_chat
from bt_llm.prompts import PromptTemplate
from bt_llm.verdicts import StateSpace
from tests.prompts.make_chat_templates import CONVERSATION, RECORDED

THE_DAY = datetime.date(2024, 7, 26)

OPENED = {  # what comes after the server's text: the thought closed, or what the template puts before answers
    "Apriel-1.6-15b-Thinker-fixed": "\n[BEGIN FINAL RESPONSE]\n",
    "Cohere2MoE": "<|END_THINKING|><|START_TEXT|>",
    "CohereForAI-c4ai-command-r7b-12-2024-tool_use": "<|START_RESPONSE|>",
    "GLM-4.6": "\n",
    "Kimi-K2-Thinking": "<think></think>",
    "Kimi-K3": "<|close|>think<|sep|><|open|>response<|sep|>",
    "MiniMax-M2": "\n</think>\n\n",
    "MiniMax-M3": "</mm:think>",
    "Reka-Edge": " ",
    "StepFun3.5-Flash": "\n</think>\n",
    "deepseek-ai-DeepSeek-R1-Distill-Llama-8B": "\n</think>\n\n",
    "llama-cpp-deepseek-r1": "\n</think>\n\n",
    "meetkai-functionary-medium-v3.2": "all\n",
    "muse-glimmer": " to=user<|message|>",
    "openai-gpt-oss-120b": "<|channel|>final<|message|>",
    "poolside-Laguna-XS-2.1": "\n",
    "poolside-Laguna-XS.2": "\n",
    "upstage-Solar-Open-100B": "<|content|>",
}


@functools.cache
def recorded() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(lzma.decompress(RECORDED.read_bytes()))
    return found


def rendered(source: str, messages=CONVERSATION, *, thinking: bool = False) -> str:
    return render_chat(source, messages, bos_token="<s>", eos_token="</s>", thinking=thinking)


def by_the_server(name: str) -> str:
    """What the server wrote, with the fixed date for that of the day."""
    text, day = recorded()["templates"][name]["prompt"], datetime.date.fromisoformat(recorded()["day"])
    for form in ("%d %b %Y", "%b %d %Y", "%Y-%m-%d"):
        text = text.replace(day.strftime(form), THE_DAY.strftime(form))
    return str(text).removeprefix("<s>")  # the server leaves the token that the model's vocabulary adds off


def test_the_server_rendered_all_of_them() -> None:
    templates = recorded()["templates"]
    assert len(templates) == 70
    assert all(one["prompt"] and not one["error"] for one in templates.values())
    assert recorded()["conversation"] == CONVERSATION


@pytest.mark.parametrize("name", sorted(recorded()["templates"]))
def test_a_template_is_rendered_as_the_server_renders_it(name: str) -> None:
    text = rendered(recorded()["templates"][name]["source"]).removeprefix("<s>")
    if name == "NVIDIA-Nemotron-Nano-v2":  # an empty thought is written on one line there
        assert text == by_the_server(name).removesuffix("<think>\n") + "<think></think>"
    else:
        assert text == by_the_server(name) + OPENED.get(name, "")
    assert not open_thought(text)


def test_a_prompt_of_every_template_holds_question_and_answer() -> None:
    template = PromptTemplate.load("market")
    for name, one in recorded()["templates"].items():
        identity = ModelIdentity(
            name=name, sha256="0" * 64, chat_template=one["source"], bos_token="<s>", eos_token="</s>"
        )
        (prompt,) = template.prompts(StateSpace(), [3], identity)
        template.check_answer(identity)
        assert "You are a trading analyst." in prompt.text, name
        assert prompt.text.count("RSI: below 20\nTrend: up") == 1, name
        assert prompt.text.endswith("Verdict:"), name


# -- what is mended, one by one

GEMMA = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}<{{ m.role }}>{{ m.content }}"
    "{% endfor %}<model>"
)
DROPS = (
    "{% for m in messages %}{% if m.role != 'system' %}[{{ m.role }}]{{ m.content }}{% endif %}{% endfor %}"
)


@pytest.mark.parametrize("template", [GEMMA, DROPS])
def test_a_system_that_is_refused_or_dropped_begins_the_first_question(template: str) -> None:
    text = rendered(template)
    assert text.count("Judge the market.\nTrend: up") == 1
    assert text.replace("Judge the market.\n", "") == rendered(template, CONVERSATION[1:])


def test_what_a_template_says_against_other_messages_is_told() -> None:
    twice = [CONVERSATION[1], CONVERSATION[1]]
    with pytest.raises(PromptError, match="Conversation roles must alternate"):
        rendered(GEMMA, twice)
    with pytest.raises(PromptError, match="System role not supported"):
        rendered(GEMMA, CONVERSATION[:1])


def test_a_template_that_needs_a_clock_is_told_one_day_in_any_locale() -> None:
    source = "{{ strftime_now('%A %d %B %Y, %b %a') }}|{{ messages[0].content }}"
    text = rendered(source, CONVERSATION[1:2])
    assert text == "Friday 26 July 2024, Jul Fri|Trend: up"
    others = [one for one in locale.locale_alias.values() if one.startswith(("de_", "fr_")) and "UTF" in one]
    before = locale.setlocale(locale.LC_TIME)
    try:
        for name in random.Random(1).sample(others, min(3, len(others))):
            try:
                locale.setlocale(locale.LC_TIME, name)
            except locale.Error:
                continue
            assert rendered(source, CONVERSATION[1:2]) == text
    finally:
        locale.setlocale(locale.LC_TIME, before)


def test_the_generation_tag_is_what_stands_in_it() -> None:
    source = "{% for m in messages %}{% generation %}{{ m.content }};{% endgeneration %}{% endfor %}"
    assert rendered(source, CONVERSATION[1:3]) == "Trend: up;Verdict: Bullish;"


def test_a_conversation_for_a_person_may_think() -> None:
    source = recorded()["templates"]["Qwen-Qwen3-0.6B"]["source"]
    assert rendered(source).endswith("assistant\n<think>\n\n</think>\n\n")
    assert rendered(source, thinking=True).endswith("<|im_start|>assistant\n")


def test_a_thought_that_cannot_be_closed_is_refused_with_the_reader_that_works() -> None:
    odd = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}<|deep_thought|>"

    class Odd(ScriptedBackend):
        identity = ModelIdentity(name="odd", sha256="0" * 64, chat_template=odd)

    backend = Odd(lambda prompt: (0.5, 0.2, 0.3), name="odd")
    with pytest.raises(PromptError, match=r"inside a thought \(<\|deep_thought\|>\).* use reader='json'"):
        Advisor(AdvisorConfig(cache_mode="off", calibration="none"), backend=backend).prompts([0])
    json_reader = AdvisorConfig(cache_mode="off", reader="json")
    (prompt,) = Advisor(json_reader, backend=backend).prompts([0])
    assert prompt.text.endswith("<|deep_thought|>")
