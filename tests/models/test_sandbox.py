"""Templates of strangers end, in one line, whatever they try."""

from __future__ import annotations

import json
import subprocess
import sys

import jinja2
import pytest

from bt_llm.exceptions import PromptError
from bt_llm.models import BoundedEnvironment, render_chat

DOUBLING = "{% set a = ['x', 'x'] %}" + "{% set a = [a, a] %}" * 40
OTHER = DOUBLING.replace(" a ", " b ").replace("[a, a]", "[b, b]")
AGAIN = "{%% set n = namespace(a=%s) %%}{%% for i in range(99) %%}{%% set n.a = %s %%}{%% endfor %%}"
TUPLES = "{% set a = (1, 1) %}" + "{% set a = (a, a) %}" * 40

BOMBS = {
    "nested loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}x",
    "a long text": "{{ 'x' * 10 ** 11 }}",
    "a long text that is not written": "{% set x = 'x' * 10 ** 11 %}",
    "a long list": "{{ [1] * 10 ** 9 }}",
    "a great number": "{{ 9 ** (9 ** 9) }}",
    "doubled sums": AGAIN % ("'x'", "n.a + n.a"),
    "doubled texts": AGAIN % ("'x'", "n.a ~ n.a"),
    "squared numbers": AGAIN % ("9", "n.a * n.a"),
    "division by zero": "{{ 1 / 0 }}",
    "nested too deeply": "".join(f"{{% for a{i} in [1] %}}" for i in range(25)) + "x" + "{% endfor %}" * 25,
    "brackets": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "a long sum": "{{ " + "1 + " * 20000 + "1 }}",
    "recursion": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "branching": "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
    "recursive loop": "{% for i in [1, 2] recursive %}{{ loop([1, 2]) }}{% endfor %}",
    "include": "{% include 'x' %}",
    "import": "{% import 'x' as y %}",
    "extends": "{% extends 'x' %}",
    "block in itself": "{% block a %}{{ self.a() }}{{ self.a() }}{% endblock %}",
    "center": "{{ 'x' | center(10 ** 9) }}",
    "center mapped": "{{ ['x'] | map('center', 10 ** 9) | list }}",
    "method center": "{{ 'x'.center(10 ** 9) }}",
    "method through map": "{{ 'x'.ljust(2 * 10 ** 9) | length }}",
    "zfill": "{{ 'x'.zfill(10 ** 9) }}",
    "expandtabs": "{{ ('\\t' * 9999).expandtabs(9999) }}",
    "indent": "{{ ('\\n' * 9999) | indent(9999) }}",
    "replace": "{{ ('x' * 99999) | replace('', 'y' * 999) }}",
    "method replace": "{{ ('x' * 99999).replace('x', 'y' * 999) }}",
    "join": "{{ range(99999) | join('y' * 999) }}",
    "method join": "{{ ('y' * 999).join(['x'] * 99999) }}",
    "format filter": "{{ '%1000000000d' | format(1) }}",
    "format operator": "{{ '%1000000000d' % 1 }}",
    "format star": "{{ '%*d' % (10 ** 9, 1) }}",
    "format method": "{{ '{:>1000000000}'.format(1) }}",
    "nested format": "{{ '{:{}}'.format(1, 10 ** 9) }}",
    "nested format by name": "{{ '{a:{b}}'.format(a=1, b=10 ** 9) }}",
    "repeated places": "{{ ('{0}' * 9999).format('x' * 9999) }}",
    "translate": "{{ ('x' * 99999).translate({120: 'y' * 9999}) }}",
    "wrap": "{{ ('x ' * 9999) | wordwrap(1, true, 'y' * 9999) }}",
    "to_bytes": "{{ (1).to_bytes(10 ** 9, 'big') }}",
    "round": "{{ 1.5 | round(10 ** 9, 'ceil') }}",
    "batch": "{{ [1] | batch(10 ** 9, 'x') | list }}",
    "slice": "{{ [1] | slice(10 ** 9) | list }}",
    "lorem ipsum": "{{ lipsum(10 ** 7) }}",
    "print a doubled list": DOUBLING + "{{ a }}",
    "compare doubled lists": DOUBLING + OTHER + "{{ a == b }}",
    "look for a doubled list": DOUBLING + OTHER + "{{ [a] is in([b]) }}",
    "hash doubled tuples": TUPLES + "{{ {a: 1} }}",
    "look up doubled tuples": TUPLES + "{{ {1: 1}[a] }}",
    "sum of lists": "{{ ([[1] * 9999] * 9999) | sum(start=[]) }}",
    "static text": "{% for i in range(99999) %}" + "x" * 9999 + "{% endfor %}",
    "static text of a macro": "{% macro m() %}"
    + "x" * 9999
    + "{% endmacro %}{% for i in range(9999) %}{{ m() }}{% endfor %}",
    "a kept text": "{% set b %}{% for i in range(99999) %}" + "x" * 999 + "{% endfor %}{% endset %}",
    "searches": "{% set x = 'x' * 999999 %}{% for i in range(99999) %}{{ 'y' in x }}{% endfor %}",
    "a long source": "x" * 10**6 + "{{ 1 }}",
    "unknown": "{{ ''.__class__.__mro__ }}",
    "broken": "{% if %}",
    "a long number": "{{ " + "9" * 5000 + " }}",
    "cycle": "{% set n = namespace() %}{% set n.a = n %}{{ n.a.a == n }}{{ {n.a: 1} | tojson }}",
}

PROGRAM = """
import json, resource, sys, time
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
from bt_llm.exceptions import PromptError
from bt_llm.models import render_chat
from bt_llm.prompts import PromptTemplate
form = 'format = 1\\nname = "x"\\nversion = 1\\nuser = %s'
said = {}
def told(work, *arguments, **named):
    started = time.process_time()
    try:
        made = f"{len(work(*arguments, **named))} characters"
    except PromptError as error:
        made = "refused: " + str(error)[:200]
    return made, time.process_time() - started
for name, source in json.load(sys.stdin).items():
    chat = told(render_chat, source, [{"role": "user", "content": "q"}], bos_token="", eos_token="")
    prompt = told(lambda: PromptTemplate.parse(form % json.dumps(source)).question({}))
    said[name] = (chat, prompt)
print(json.dumps(said))
"""


def test_no_template_runs_for_ever_or_takes_all_memory() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], input=json.dumps(BOMBS), capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    assert set(found) == set(BOMBS)
    accepted = {
        name for name, tried in found.items() if not all(one[0].startswith("refused") for one in tried)
    }
    assert accepted == set()
    slow = {name: tried for name, tried in found.items() if max(one[1] for one in tried) > 10}
    assert slow == {}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ 'a' ~ 1 ~ none }}", "a1None"),
        (
            "{% for x in [1, 2] %}{{ loop.index }}/{{ loop.length }}{{ ',' if not loop.last }}{% endfor %}",
            "1/2,2/2",
        ),
        ("{% for x in [] %}a{% else %}b{% endfor %}", "b"),
        ("{% for k, v in {'a': 1}.items() if v == 1 %}{{ k }}={{ v }}{% endfor %}", "a=1"),
        ("{% for x in [[1, [2]]] recursive %}{{ x if x is number else loop(x) }}{% endfor %}", "12"),
        (
            "{% macro m(a) %}<{{ a }}{{ caller() if caller }}>{% endmacro %}"
            "{{ m(1) }}{% call m(2) %}c{% endcall %}",
            "<1><2c>",
        ),
        ("{% set b %}x{{ 1 }}{% endset %}{{ b | upper }}{{ b.replace('x', 'yy') }}", "X1yy1"),
        ("{{ [3, 1] | sort | join('-') }}{{ ['a'] | map('upper') | first }}", "1-3A"),
        ("{{ 'a b'.split(' ')[-1] }}{{ '%s' | format('c') }}{{ '{:>3}'.format('d') }}", "bc  d"),
        ("{{ messages[0]['content'] | trim }}{{ messages | length }}{{ missing }}", "q1"),
        (
            "{% set n = namespace(i=0) %}{% for x in range(5) %}{% set n.i = n.i + x %}{% endfor %}{{ n.i }}",
            "10",
        ),
        ("{{ 2 ** 10 }} {{ 7 % 4 }} {{ 1.5 * 2 }} {{ 'ab' * 2 }} {{ 1 < 2 < 3 }}", "1024 3 3.0 abab True"),
    ],
)
def test_ordinary_templates_come_out_as_jinja_renders_them(source: str, expected: str) -> None:
    found = render_chat(source, [{"role": "user", "content": " q "}], bos_token="", eos_token="")
    assert found == expected


def test_the_same_template_ends_at_the_same_step() -> None:
    sandbox = BoundedEnvironment()
    template = sandbox.compiled("{% for i in range(n) %}{% for j in range(1000) %}{% endfor %}{% endfor %}")
    assert sandbox.rendered(template, {"n": 240}) == ""
    with pytest.raises(jinja2.TemplateError, match=r"^it takes over 250,000 steps$"):
        sandbox.rendered(template, {"n": 250})


def test_the_model_s_own_name_stands_in_the_error() -> None:
    with pytest.raises(PromptError, match="chat template cannot be rendered: it takes over"):
        render_chat(BOMBS["nested loops"], [{"role": "user", "content": "q"}], bos_token="", eos_token="")
