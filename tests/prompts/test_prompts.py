from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

from bt_llm.advice import Advisor, AdvisorConfig
from bt_llm.exceptions import PromptError
from bt_llm.models import LlamaModel, ModelConfig, ModelIdentity, find_model, identify
from bt_llm.prompts import PromptTemplate
from bt_llm.prompts._chat_text import chat_text
from bt_llm.verdicts import Feature, StateSpace

PLAIN = ModelIdentity(name="base", sha256="0" * 64)
CHATML = ModelIdentity(
    name="chat",
    sha256="1" * 64,
    chat_template=(
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] | trim }}<|im_end|>\n"
        "{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
)
MINIMAL = """
format = 1
name = "mine"
version = 3
labels = { bullish = "Up", neutral = "Flat", bearish = "Down" }
user = "Trend {{ trend }}, RSI {{ rsi }}"
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_shipped_prompt_word_for_word() -> None:
    [prompt] = PromptTemplate.load("market").prompts(StateSpace(), [52], CHATML)
    assert prompt.chunks[1:] == (
        "Volatility: normal\n",
        "RSI: 45 to 55\n",
        "Trend: flat<|im_end|>\n<|im_start|>assistant\nVerdict:",
    )
    assert prompt.chunks[0].endswith(
        "<|im_start|>user\nVolatility: normal\nRSI: 30 to 45\nTrend: down<|im_end|>\n"
        "<|im_start|>assistant\nVerdict: Bearish<|im_end|>\n<|im_start|>user\n"
    )
    assert prompt.chunks[0].count("<|im_start|>assistant") == 3  # one example a label


def test_all_states_share_the_static_part_and_differ_in_the_rest() -> None:
    space = StateSpace()
    prompts = PromptTemplate.load("market").prompts(space, range(len(space)), CHATML)
    assert len({prompt.chunks[0] for prompt in prompts}) == 1
    assert len({prompt.text for prompt in prompts}) == len(space)


def test_nothing_in_the_prompt_names_the_instrument_a_date_or_a_price() -> None:
    space = StateSpace()
    for prompt in PromptTemplate.load("market").prompts(space, range(len(space)), CHATML):
        lowered = prompt.text.lower()
        assert not any(word in lowered for word in ("eur", "usd", "201", "s&p", "price:"))


def test_a_model_without_chat_template_gets_plain_text() -> None:
    [prompt] = PromptTemplate.load("market").prompts(StateSpace(), [0], PLAIN)
    assert prompt.text.startswith("You are a trading analyst.")
    assert prompt.text.endswith("Volatility: low\nRSI: below 20\nTrend: strong down\nVerdict:")
    assert "Verdict: Bullish\n\n" in prompt.text


def test_a_feature_of_the_user_reaches_prompt_and_examples() -> None:
    band = Feature(
        name="percent_b", title="Bollinger %B", edges=(0.0, 1.0), labels=("below", "inside", "above")
    )
    space = StateSpace().with_feature(band)
    [prompt] = PromptTemplate.load("market").prompts(space, [0], CHATML)
    assert "Bollinger %B: below<|im_end|>" in prompt.chunks[-1]
    assert prompt.chunks[0].count("Bollinger %B: inside") == 3  # the examples take its middle bucket


def test_a_template_by_path_with_its_own_words(tmp_path: Path) -> None:
    template = PromptTemplate.load(write(tmp_path, MINIMAL))
    assert (template.name, template.version) == ("mine", 3)
    assert template.continuations == ("Up", "Flat", "Down")
    [prompt] = template.prompts(StateSpace(), [52], CHATML)
    assert prompt.text == "<|im_start|>user\nTrend flat, RSI 45 to 55<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (("format = 1", "format = 2"), "format 2; this version reads format 1"),
        (("{{ trend }}", "{{ trend "), "cannot be rendered"),
        (("version = 3", 'version = "3"'), "'version' is '3'; expected int"),
        (('bearish = "Down"', 'bearish = "Up"'), "expected two or more, all different"),
        (('name = "mine"', 'name = "mine"\nsysten = "x"'), r"unknown keys \['systen'\]"),
        (("user =", "user"), "not TOML"),
        (('name = "mine"', 'name = " "'), "name=' ': expected a text that is not blank"),
        (('name = "mine"', 'name = "a\\nb"'), "expected a text that is not blank, in one line"),
    ],
)
def test_a_template_with_a_fault_says_which(tmp_path: Path, edit: tuple[str, str], message: str) -> None:
    path = write(tmp_path, MINIMAL.replace(*edit))
    with pytest.raises(PromptError, match=message):
        PromptTemplate.load(path)


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        ("{{ trand }}", "template 'mine' cannot be rendered: 'trand' is undefined; variables are"),
        ("{{ ().__class__.__mro__ }}", "cannot be rendered"),
        ("{# nothing #}", "gives an empty question"),
    ],
)
def test_an_advisor_checks_the_question_before_the_first_bar(
    tmp_path: Path, variable: str, message: str
) -> None:
    path = write(tmp_path, MINIMAL.replace("Trend {{ trend }}, RSI {{ rsi }}", variable))
    with pytest.raises(PromptError, match=message):
        Advisor(AdvisorConfig(model="scripted:trend", template=path))


def test_a_template_can_use_a_feature_of_the_users_by_its_name(tmp_path: Path) -> None:
    band = Feature(name="percent_b", edges=(0.0, 1.0), labels=("below", "inside", "above"))
    template = PromptTemplate.load(write(tmp_path, MINIMAL.replace("{{ rsi }}", "band {{ percent_b }}")))
    config = AdvisorConfig(
        model="scripted:trend", template=template, state_space=StateSpace().with_feature(band)
    )
    [prompt] = Advisor(config).prompts([0])
    assert prompt.text == "Trend strong down, RSI band below\n"
    with pytest.raises(PromptError, match="'percent_b' is undefined"):
        Advisor(AdvisorConfig(model="scripted:trend", template=template))


def test_a_template_without_labels_gives_no_verdicts() -> None:
    with pytest.raises(PromptError, match="template 'news' has no labels"):
        Advisor(AdvisorConfig(model="scripted:trend", template="news"))


def test_a_template_is_its_words_wherever_they_come_from(tmp_path: Path) -> None:
    path = write(tmp_path, MINIMAL)
    first = PromptTemplate.load(path)
    assert PromptTemplate.parse("# another comment\n" + MINIMAL) == first
    assert PromptTemplate.load(first) is first
    assert pickle.loads(pickle.dumps(first)) == first
    write(tmp_path, MINIMAL.replace("Trend ", "The trend is "))
    edited = PromptTemplate.load(path)  # the same path, in the same process
    assert edited != first
    assert edited.question({"trend": "up", "rsi": "55"}) == "The trend is up, RSI 55"
    assert len({first, edited, PromptTemplate.parse(MINIMAL)}) == 2
    configs = {AdvisorConfig(template=first), AdvisorConfig(template=edited)}
    assert AdvisorConfig(template=PromptTemplate.parse(MINIMAL)) in configs
    assert len(configs) == 2


def test_the_hash_of_a_shipped_template_is_the_one_that_manifests_recorded(repository: Path) -> None:
    recorded = json.loads((repository / "data" / "demo_run.json").read_text(encoding="utf-8"))
    template = PromptTemplate.load("market")
    assert recorded["gate"]["advisor"]["template"]["sha256"] == template.sha256


@pytest.mark.parametrize("example", ['state = 3\nverdict = "bullish"', 'state = { rsi = 1 }\nverdict = "up"'])
def test_examples_are_checked(tmp_path: Path, example: str) -> None:
    with pytest.raises(PromptError, match="expected a state of numbers and a verdict"):
        PromptTemplate.load(write(tmp_path, MINIMAL + "\n[[examples]]\n" + example))


def test_unknown_names_list_the_known() -> None:
    with pytest.raises(PromptError, match=r"no template 'markt': give a .toml file, or one of \['market',"):
        PromptTemplate.load("markt")
    with pytest.raises(PromptError, match="cannot be read"):
        PromptTemplate.load("absent.toml")


def test_a_chat_template_is_sandboxed_and_its_errors_are_ours() -> None:
    hostile = ModelIdentity(
        name="h", sha256="2" * 64, chat_template="{{ messages.__class__.__mro__[1].__subclasses__() }}"
    )
    with pytest.raises(PromptError, match="model 'h': the model's chat template cannot be rendered"):
        chat_text(hostile, [{"role": "user", "content": "x"}])
    strict = ModelIdentity(name="s", sha256="3" * 64, chat_template="{{ raise_exception('no system') }}")
    with pytest.raises(PromptError, match="no system"):
        chat_text(strict, [{"role": "system", "content": "x"}])
    silent = ModelIdentity(name="q", sha256="4" * 64, chat_template="nothing")
    with pytest.raises(PromptError, match="drops the question"):
        PromptTemplate.load("market").prompts(StateSpace(), [0], silent)


def test_a_template_that_prints_the_date_has_no_clock() -> None:
    dated = (
        "{% if strftime_now is defined %}{{ strftime_now('%Y') }}{% else %}26 Jul 2024{% endif %}"
        "{{ messages[0].content }}"
    )
    identity = ModelIdentity(name="d", sha256="5" * 64, chat_template=dated)
    assert chat_text(identity, [{"role": "user", "content": "!"}]) == "26 Jul 2024!"


@pytest.mark.model
def test_answers_of_the_direction_template_are_one_token_each(smollm2_path: Path) -> None:
    template, file = PromptTemplate.load("market_direction"), find_model(smollm2_path)
    [prompt] = template.prompts(StateSpace(), [52], identify(file))
    with LlamaModel(ModelConfig(model_path=file)) as model:
        _, after = model.tokens(prompt, template.continuations)
    assert [[text for _, text in label] for label in after] == [[" Up"], [" Flat"], [" Down"]]
