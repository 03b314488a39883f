from __future__ import annotations

import base64
import contextlib
import json
import logging
import math
import pickle
import re
import signal
import ssl
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import trustme

from bt_llm.advice import Advisor, AdvisorConfig
from bt_llm.advice import _readers as readers
from bt_llm.cache import VerdictCache, export_pack, import_pack
from bt_llm.exceptions import (
    ConfigError,
    GenerationTimeout,
    MissingExtraError,
    ModelError,
    ModelNotFoundError,
)
from bt_llm.models import (
    LabelScores,
    LlamaModel,
    ModelConfig,
    Prompt,
    RemoteBackend,
    RemoteConfig,
    giving_up_when,
)
from bt_llm.models.openai._keys import ApiKey
from bt_llm.prompts import PromptTemplate
from bt_llm.verdicts import DEFAULT_LABELS, Action, StateSpace
from tests.faulty_server import LABELS, Fault, FaultyServer, probabilities, random_faults
from tests.planted import CORE, SECRET

SPLIT = {" Bullish": (" Bull", "ish"), " Bearish": (" Bear", "ish")}
NAN = (-math.inf,) * 3


@pytest.fixture(autouse=True)
def secret_stays_secret(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> Iterator[None]:
    """Look for the planted API key after every test of this module, in what it printed and logged too."""
    caplog.set_level(logging.DEBUG)
    yield
    output = capfd.readouterr()
    records = [record.getMessage() for phase in ("setup", "call") for record in caplog.get_records(phase)]
    for text in (*records, output.out, output.err):
        assert CORE not in text
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert CORE.encode() not in path.read_bytes(), path


@contextlib.contextmanager
def fails(kind: type[Exception], match: str) -> Iterator[None]:
    """Expect an error of one line that nowhere holds the key, in what it was made of neither."""
    with pytest.raises(kind, match=match) as caught:
        yield
    error = caught.value
    everything = "".join(traceback.format_exception(error)) + repr(error) + repr(error.args)
    assert CORE not in everything
    assert "\n" not in str(error)


def remote(server: FaultyServer, **options: Any) -> RemoteBackend:
    settings = {"backoff": 0.01, "timeout": 60, "deadline": 300, **options}
    return RemoteBackend.named(f"openai:{server.url}?" + "&".join(f"{k}={v}" for k, v in settings.items()))


def prompts(count: int) -> list[Prompt]:
    return [Prompt((f"Bars: {i}\n", "Verdict:")) for i in range(count)]


def ask(backend: RemoteBackend, count: int) -> list[LabelScores]:
    return [scores for batch in backend.score(prompts(count), LABELS) for scores in batch]


def right(count: int) -> list[tuple[float, ...]]:
    return [tuple(math.log(p) for p in probabilities(prompt.text)) for prompt in prompts(count)]


def only_prompts(fault: str) -> Fault:
    """Go wrong on what `prompts` makes, and let what finds out about the server pass."""
    return lambda _number, prompt: fault if prompt.startswith("Bars:") else None


# The name


def test_a_name_says_who_is_asked_and_how() -> None:
    config = RemoteConfig.parse(
        f"openai:https://LLM.example:8443/api/v1/?model=org/big&sha256={'ab' * 32}&connections=4&timeout=2.5"
    )
    assert (config.base_url, config.model, config.connections, config.timeout_s) == (
        "https://llm.example:8443/api/v1",
        "org/big",
        4,
        2.5,
    )
    assert config.name == f"openai:*?model=org/big&sha256={'ab' * 32}"  # wherever those weights are
    assert RemoteConfig.parse(config.name).name == config.name
    unpinned = RemoteConfig.parse("openai:https://LLM.example:8443/api/v1/?model=org/big&timeout=2.5")
    assert unpinned.name == "openai:https://llm.example:8443/api/v1?model=org/big"
    assert RemoteConfig.parse("openai:http://localhost:80").base_url == "http://localhost:80/v1"
    assert RemoteConfig.parse("openai:http://[::1]:80/v1").host == "[::1]:80"
    assert RemoteConfig.parse("openai:http://[0:0:0::1]").base_url == "http://[::1]/v1"


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("http://localhost/v1", "begins with 'openai:'"),
        ("openai:localhost:8000", "expected openai:http"),
        ("openai:ftp://localhost/v1", "expected openai:http"),
        ("openai:http://localhost:99999/v1", "expected openai:http"),
        ("openai:http://[::1:8000/v1", "expected openai:http"),
        ("openai:http://[1::2::3]:8000/v1", "expected openai:http"),
        pytest.param(f"openai:http://user:{CORE}@localhost/v1", "holds a password", id="password"),
        pytest.param(
            f"openai:http://localhost/v1?api_key={CORE}",
            "option 'api_key' of a remote model is unknown",
            id="key",
        ),
        ("openai:http://localhost/v1?model=a&model=b", "given twice"),
        (
            "openai:http://localhost/v1?connections=many",
            "connections='many' of a remote model: expected a number",
        ),
        ("openai:http://localhost/v1?connections=1.5", "connections=1.5: expected a whole number"),
        ("openai:http://localhost/v1?connections=0", "connections=0: expected a whole number of at least 1"),
        ("openai:http://localhost/v1?timeout=nan", "timeout_s=nan: expected a number of seconds"),
        ("openai:http://localhost/v1?retries=inf", "retries=inf"),
        ("openai:http://localhost/v1?sha256=12", "expected 64 hex digits"),
        (f"openai:http://localhost/v1?sha256={'ab' * 32}&gguf=smollm2", "both given"),
        ("openai:http://localhost/v1?via=telepathy", "expected one of auto, completions, chat, json"),
        ("openai:http://localhost/v1?key_env=OPENAI_API_KEY", "a name chooses no key"),
    ],
)
def test_a_wrong_name_is_refused(name: str, match: str) -> None:
    with fails(ConfigError, match):
        RemoteBackend.named(name)


def test_nothing_is_asked_before_it_is_needed() -> None:
    backend = RemoteBackend.named("openai:http://127.0.0.1:1/v1")
    backend.close()
    assert list(backend.score([], LABELS)) == []


def test_without_httpx_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx", None)
    with fails(MissingExtraError, re.escape("pip install 'bt-llm[remote]'")):
        _ = RemoteBackend.named("openai:http://127.0.0.1:1/v1").identity


# Ways of reading


@pytest.mark.parametrize("tokens", [None, SPLIT])
def test_completions_give_the_probability_of_whole_labels(tokens: Any) -> None:
    with FaultyServer(tokens=tokens) as server:
        backend = remote(server)
        scores = ask(backend, 20)
        assert backend.reader.method == "tokens"
        assert backend.identity.details["reader"] == {"via": "completions", "method": "tokens", "top": 100}
    rest = 0.95 if tokens else 1.0  # what the fake gives to "ish" after " Bull"
    for got, (bullish, neutral, bearish) in zip(scores, right(20), strict=True):
        whole = (bullish + math.log(rest), neutral, bearish + math.log(rest))
        assert got.logprobs == pytest.approx(whole, abs=1e-9)
        # Words of the prompt and the one that is generated, or of that and of two with a label begun.
        assert got.tokens == (4 + 5 + 5 if tokens else 4)


def test_tokens_that_all_labels_share_are_followed() -> None:
    tokens = {" Bullish": (" B", "ullish"), " Bearish": (" B", "earish"), " Neutral": (" Neutral",)}
    with FaultyServer(tokens=tokens) as server:
        scores = ask(remote(server), 3)
        assert max(n for text, n in server.asked.items() if text.startswith("Bars:")) == 1
    for got, expected in zip(scores, right(3), strict=True):
        shifted = [expected[0] + math.log(0.95), expected[1], expected[2] + math.log(0.95)]
        assert got.logprobs == pytest.approx(shifted, abs=1e-9)


def test_as_many_tokens_are_asked_for_as_the_server_gives() -> None:
    with FaultyServer(most_tokens=20) as server:
        backend = remote(server)
        assert backend.reader.top == 20
        ask(backend, 1)
        assert server.payloads[-1]["logprobs"] == 20
        assert remote(server, top=3).reader.top == 3
        with fails(ModelError, "no log-probabilities via=completions"):
            _ = remote(server, top=21, via="completions").identity


def test_a_label_out_of_sight_gets_the_most_it_can_have() -> None:
    with FaultyServer() as server:
        [scores] = ask(remote(server, top=2), 1)
    first, second, third = sorted(scores.logprobs, reverse=True)
    top = sorted(right(1)[0], reverse=True)
    assert (first, second) == (pytest.approx(top[0]), pytest.approx(top[1]))
    assert third == second > top[2]


def test_no_label_in_sight_makes_the_verdict_invalid() -> None:
    with FaultyServer(only_prompts("wrong labels")) as server:
        backend = remote(server)
        assert [scores.logprobs for scores in ask(backend, 2)] == [NAN, NAN]
        [[(verdict, _)]] = readers.read_logprobs(backend, prompts(1), LABELS, DEFAULT_LABELS, "canonical")
    assert verdict.action is Action.INVALID


def test_chat_is_read_by_the_first_token() -> None:
    with FaultyServer(endpoints=("chat", "json_schema"), tokens=SPLIT) as server:
        backend = remote(server)
        scores = ask(backend, 5)
        assert (backend.reader.via, backend.reader.method) == ("chat", "first_token")
        assert {"/v1/chat/completions"} == set(server.paths[-5:])
    assert [s.logprobs for s in scores] == [pytest.approx(expected) for expected in right(5)]


@pytest.mark.parametrize("form", ["json_schema", "json_object"])
def test_json_is_the_last_resort_and_says_so(form: str, caplog: pytest.LogCaptureFixture) -> None:
    with FaultyServer(endpoints=(form,)) as server:
        backend = remote(server)
        scores = ask(backend, 2)
        assert backend.reader.method == form
    assert [[round(math.exp(v), 6) for v in s.logprobs] for s in scores] == [[0.8, 0.1, 0.1]] * 2
    assert "gives no log-probabilities" in caplog.text


def test_no_way_at_all_is_an_error() -> None:
    with FaultyServer(endpoints=()) as server, fails(ModelError, "neither log-probabilities nor JSON"):
        _ = remote(server).identity


@pytest.mark.parametrize("form", ["json_schema", "json_object"])
def test_json_with_a_reason_is_generated(form: str) -> None:
    text = {"Bullish": None}
    with FaultyServer(endpoints=("completions", form)) as server:
        backend = remote(server)
        schema = {"type": "object", "properties": text}
        answers = list(backend.generate_json(prompts(3), schema, max_tokens=50, seed=7))
        last = server.payloads[-1]
    assert [json.loads(answer.text)["confidence"] for answer in answers] == [70] * 3
    assert all(answer.finished for answer in answers)
    assert (last["seed"], last["max_tokens"], last["response_format"]["type"]) == (7, 50, form)


def test_labels_that_cannot_be_told_apart_are_refused() -> None:
    backend = RemoteBackend.named("openai:http://127.0.0.1:1/v1")
    for labels in [(" Up", " Upper", " Down"), ("", "a", "b")]:
        with fails(ConfigError, "begins another one"):
            list(backend.score(prompts(1), labels))


# Who answers


def test_unknown_weights_are_said_to_be_unknown() -> None:
    with FaultyServer() as first, FaultyServer() as second:
        one, other = remote(first).identity, remote(second).identity
    assert one.details["weights"] == "unknown"
    assert one.sha256 != other.sha256
    assert one.name == f"openai:{first.url}"


def test_pinned_weights_are_the_same_from_every_server() -> None:
    pin = "ab" * 32
    with FaultyServer() as first, FaultyServer() as second, FaultyServer(endpoints=("chat",)) as third:
        same = {remote(server, sha256=pin).identity.sha256 for server in (first, second)}
        assert len(same) == 1
        assert remote(third, sha256=pin).identity.sha256 not in same  # read in another way
        assert remote(first, sha256="cd" * 32).identity.sha256 not in same
        assert remote(first, top=5, sha256=pin).identity.sha256 not in same
        details = remote(first, sha256=pin).identity.details
    assert details["weights"] == f"sha256 {pin}, as the user says"


def test_the_model_must_be_one_of_those_served() -> None:
    with FaultyServer(models=("small", "large")) as server:
        with fails(ModelNotFoundError, r"no model ''; name one with model=, of \['large', 'small'\]"):
            _ = remote(server).identity
        with fails(ModelNotFoundError, "no model 'huge'"):
            _ = remote(server, model="huge").identity
        assert remote(server, model="large").identity.sha256 != remote(server, model="small").identity.sha256
        assert server.payloads[-1]["model"] == "small"


def test_a_llama_cpp_server_tells_its_chat_template() -> None:
    props = {
        "chat_template": "{{ bos_token }}{{ messages[0].content }}",
        "eos_token": "</s>",
        "bos_token": "<s>",
    }
    with FaultyServer(props=props) as server:
        identity = remote(server).identity
        assert identity.chat_template == props["chat_template"]
        assert (identity.bos_token, identity.eos_token) == (
            "",
            "</s>",
        )  # the server adds the first one itself
        assert remote(server, via="chat").identity.chat_template == ""
        with fails(ConfigError, "add via=json"):
            list(remote(server).generate_json(prompts(1), {}, max_tokens=1))
    with FaultyServer(props={"chat_template": 7, "eos_token": "x"}) as server:
        assert remote(server).identity.chat_template == ""


def test_the_served_file_gives_hash_and_template(smollm2_path: Path) -> None:
    with FaultyServer() as server:
        remote_identity = remote(server, gguf=smollm2_path).identity
    local = LlamaModel(ModelConfig(model_path=smollm2_path)).identity
    assert remote_identity.chat_template == local.chat_template
    assert local.sha256 in remote_identity.details["weights"]
    assert remote_identity.sha256 != local.sha256


def test_what_was_found_out_is_kept(tmp_path: Path) -> None:
    with FaultyServer(endpoints=("chat",)) as server:
        first = remote(server).identity
        probes = len(server.payloads)
        again = RemoteBackend(RemoteConfig.parse(f"openai:{server.url}"), known=[first])
        assert again.identity == first
        assert len(server.payloads) == probes  # nothing was tried out
        other = RemoteBackend(RemoteConfig.parse(f"openai:{server.url}?via=completions"), known=[first])
        with fails(ModelError, "no log-probabilities via=completions"):
            _ = other.identity
    damaged = {**first.details, "reader": {"via": "chat", "method": "tokens", "top": 5}}
    with fails(ModelError, "record it again"):
        identity = type(first)(name="x", sha256=first.sha256, details=damaged)
        _ = RemoteBackend(again.config, identity=identity).reader


# Faults


def test_random_failures_lose_nothing_and_ask_nothing_twice() -> None:
    with FaultyServer() as server:
        expected = [scores.logprobs for scores in ask(remote(server), 200)]
    with FaultyServer(random_faults(0.2, seed=4)) as server:
        scores = ask(remote(server), 200)
        assert len(server.times) > 200 * 1.15
        assert {prompt.text: 1 for prompt in prompts(200)}.items() <= server.answered.items()
        assert server.at_once <= 16
    assert [s.logprobs for s in scores] == expected


def test_connections_are_limited_and_kept() -> None:
    with FaultyServer(delay_s=0.005) as server:
        ask(remote(server, connections=3), 60)
        assert server.at_once <= 3
        assert server.connections <= 3 + 3  # as many found out who answers


def test_answers_come_in_order_and_as_they_come() -> None:
    opened = threading.Event()

    def hold_back_the_last(_number: int, prompt: str) -> None:
        if prompt.startswith("Bars: 5\n"):
            opened.wait(50)

    with FaultyServer(hold_back_the_last) as server:
        backend = remote(server, connections=2)
        stream = backend.score(prompts(6), LABELS)
        first = next(stream)
        opened.set()
        rest = [scores for batch in stream for scores in batch]
    assert [s.logprobs for s in [*first, *rest]] == [pytest.approx(expected) for expected in right(6)]
    assert len(first) <= 5  # prompt 5 was held back until the first batch was there


def test_a_consumer_that_stops_stops_the_asking() -> None:
    stopped = threading.Event()

    def hold_back(number: int, _prompt: str) -> None:
        if number > 50:
            stopped.wait(50)

    with FaultyServer(hold_back) as server:
        stream = remote(server, connections=2).score(prompts(500), LABELS)
        next(stream)
        stream.close()
        asked = len(server.times)
        stopped.set()
        time.sleep(0.1)
        assert len(server.times) <= asked + 2
        assert asked < 100


def test_answers_do_not_run_far_ahead_of_one_that_is_late() -> None:
    fault: Fault = lambda _n, prompt: "500" if prompt.startswith("Bars: 0\n") else None  # noqa: E731
    with FaultyServer(fault) as server:
        with fails(ModelError, "refused with status 500: fault 500"):
            ask(remote(server, connections=2, retries=4, backoff=0.2), 400)
        assert len(server.answered) < 2 * 16 + 10


@pytest.mark.parametrize("retry_after", ["0.3", "date"])
def test_retry_after_is_obeyed_by_all(retry_after: str) -> None:
    def fault(number: int, _prompt: str) -> str | None:
        if retry_after == "date":  # in whole seconds: one to two from now
            server.retry_after = formatdate(time.time() + 2, usegmt=True)
        return "429" if number == 1 else None

    with FaultyServer(fault, retry_after=retry_after) as server:
        ask(remote(server, connections=1), 3)
        pause = server.times[2] - server.times[1]
        assert pause >= (0.3 if retry_after != "date" else 0.5)
        assert all(server.answered[prompt.text] == 1 for prompt in prompts(3))


@pytest.mark.parametrize("retry_after", ["99999", "1e400", "-5", "soon", "nan"])
def test_a_senseless_retry_after_blocks_nobody(retry_after: str) -> None:
    fault: Fault = lambda number, prompt: "429" if number == 1 else None  # noqa: E731
    with FaultyServer(fault, retry_after=retry_after) as server:
        backend = remote(server)
        if retry_after == "99999":
            with fails(GenerationTimeout, r"deadline of 300 s over after 0 of 1 answers"):
                ask(backend, 1)
        else:
            assert len(ask(backend, 1)) == 1


@pytest.mark.parametrize(
    ("fault", "kind", "match"),
    [
        ("400", ModelError, "/completions refused with status 400: fault 400"),
        ("401", ModelError, "status 401: fault 401; set the API key"),
        ("403", ModelError, "status 403"),
        ("404", ModelError, "status 404: fault 404; is it an OpenAI-compatible API"),
        ("408", ModelError, "status 408"),
        ("422", ModelError, "status 422"),
        ("redirect", ModelError, r"redirects elsewhere \(status 307\): refused"),
        ("huge", ModelError, "longer than 4,194,304 bytes"),
        ("gzip", ModelError, "compressed, which was not asked for"),
        ("not json", ModelError, "not JSON: '<html>Welcome</html>'"),
        ("nan", ModelError, "not JSON"),
        ("deep", ModelError, "not JSON"),
        ("no choices", ModelError, "no choices"),
        ("no logprobs", ModelError, "no log-probabilities"),
        ("positive", ModelError, "log-probability of 0.7"),
        ("too much", ModelError, "sum to more than 1"),
        ("200 text", ModelError, "/completions refused with status 200: the model crashed"),
        ("200 object", ModelError, "refused with status 200: no such adapter"),
        ("200 401", ModelError, r"refused with status 401: who is it\?; set the API key"),
        ("echo key in 200", ModelError, "status 401: .its message is withheld"),
        ("echo key in error", ModelError, "message is withheld"),
        ("echo key in reply", ModelError, "repeats the API key: refused"),
        ("echo key in garbage", ModelError, "message is withheld"),
    ],
)
def test_what_no_retry_cures_is_not_retried(
    fault: str,
    kind: type[Exception],
    match: str,
    caplog: pytest.LogCaptureFixture,
    bind_key: Callable[[str], None],
) -> None:
    with FaultyServer(only_prompts(fault)) as server:
        bind_key(server.url)
        backend = remote(server)
        with fails(kind, match):
            ask(backend, 1)
        assert server.asked[prompts(1)[0].text] == 1
        assert f"Bearer {SECRET}" in server.authorizations  # it was really sent
        assert "send_request_headers" in caplog.text  # and the HTTP library wrote its debug log


@pytest.mark.parametrize(
    ("fault", "match"),
    [
        ("429", "status 429: too many"),
        ("503", "status 503"),
        ("200 503", "status 503: overloaded"),
        ("200 choice", "status 502: cut"),
        ("cut", "the connection broke, 3 times; is the server running"),
        ("drop", "the connection broke, 3 times"),
    ],
)
def test_retries_end(fault: str, match: str) -> None:
    with FaultyServer(only_prompts(fault)) as server:
        with fails(ModelError, match):
            ask(remote(server, retries=2), 1)
        assert server.asked[prompts(1)[0].text] == 3


def test_an_error_with_a_status_of_200_is_no_way_of_reading() -> None:
    with FaultyServer(lambda number, _prompt: "200 400" if number < 3 else None) as server:
        backend = remote(server)
        assert (backend.reader.via, backend.reader.method) == ("chat", "first_token")
        assert len(ask(backend, 2)) == 2


def test_a_server_that_hangs_is_given_up() -> None:
    with FaultyServer(only_prompts("hang")) as server, fails(ModelError, r"no answer for 0.1 s, 2 times"):
        ask(remote(server, timeout=0.1, retries=1), 1)


def test_a_server_that_drips_meets_the_deadline() -> None:
    with FaultyServer(only_prompts("drip")) as server:
        backend = remote(server)
        _ = backend.identity
        hurried = RemoteBackend(
            RemoteConfig(base_url=server.url, deadline_s=0.3, timeout_s=5.0), identity=backend.identity
        )
        with fails(GenerationTimeout, r"deadline of 0.3 s over after 0 of [12] answers"):
            ask(hurried, 2)


def test_a_server_that_drips_is_given_up_like_one_that_hangs() -> None:
    with FaultyServer(only_prompts("drip")) as server, fails(ModelError, r"no answer for 0.3 s, 2 times"):
        ask(remote(server, timeout=0.3, retries=1), 1)


@pytest.mark.parametrize("asked_first", ["who it is", "a prompt"])
def test_whoever_asks_can_give_up(asked_first: str) -> None:
    hang: Fault = lambda _number, prompt: "hang"  # noqa: E731
    with FaultyServer(hang if asked_first == "who it is" else only_prompts("hang")) as server:
        backend = remote(server)
        if asked_first == "a prompt":
            _ = backend.identity
        end = time.monotonic() + 0.1
        with giving_up_when(lambda: time.monotonic() > end):
            with fails(GenerationTimeout, "no answer while somebody waited for it"):
                ask(backend, 50)
            assert time.monotonic() - end < 50  # a reply would take a minute


def test_nobody_there() -> None:
    with fails(ModelError, r"127.0.0.1:1: cannot connect, 2 times; is the server running there\?"):
        _ = RemoteBackend.named("openai:http://127.0.0.1:1/v1?retries=1&backoff=0.01").identity


def test_a_redirect_of_the_first_question_is_refused() -> None:
    with FaultyServer(endpoints=("models redirect",)) as server, fails(ModelError, "redirects elsewhere"):
        _ = remote(server).identity


def test_it_works_inside_a_running_event_loop() -> None:
    import asyncio

    async def main() -> list[LabelScores]:
        return ask(backend, 3)

    with FaultyServer() as server:
        backend = remote(server)
        assert len(asyncio.run(main())) == 3


def test_it_works_from_several_threads_at_once() -> None:
    with FaultyServer(delay_s=0.002) as server:
        backend = remote(server, connections=2)
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda _: [s.logprobs for s in ask(backend, 30)], range(4)))
    assert answers == [right(30)] * 4


@pytest.mark.parametrize("asked_first", ["who it is", "a prompt"])
def test_ctrl_c_ends_the_asking_at_once(asked_first: str) -> None:
    main, once, before = threading.get_ident(), threading.Lock(), set(threading.enumerate())
    sent: list[float] = []

    def interrupt(_number: int, prompt: str) -> str | None:
        if asked_first == "a prompt" and not prompt.startswith("Bars:"):
            return None
        if once.acquire(blocking=False):
            sent.append(time.monotonic())
            signal.pthread_kill(main, signal.SIGINT)
        return "hang"

    with FaultyServer(interrupt) as server:
        backend = remote(server)
        if asked_first == "a prompt":
            _ = backend.identity
        with pytest.raises(KeyboardInterrupt):
            ask(backend, 50)
        assert time.monotonic() - sent[0] < 50  # a reply would take a minute
    assert set(threading.enumerate()) <= before


def test_addresses_of_ipv6_are_asked() -> None:
    try:
        server = FaultyServer(host="::1")
    except OSError:
        pytest.skip("this machine has no ::1")
    with server:
        backend = remote(server)
        assert [s.logprobs for s in ask(backend, 5)] == [pytest.approx(expected) for expected in right(5)]
        assert backend.identity.name == f"openai:{server.url}"
        assert backend.config.host == server.url.split("/")[2]
        assert backend.config.host.startswith("[::1]:")


# TLS


def test_certificates_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    with FaultyServer(context=context) as server:
        with fails(
            ModelError, r"no secure connection \(.*\); if the certificate is your own, set SSL_CERT_FILE"
        ):
            _ = remote(server).identity
        assert server.paths == []
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
        assert len(ask(remote(server), 3)) == 3


def test_plain_http_to_a_secure_port_is_one_clear_line() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    with FaultyServer(context=context) as server:
        wrong = server.url.replace("https", "http")
        with fails(ModelError, "the connection broke"):
            _ = RemoteBackend.named(f"openai:{wrong}?retries=0").identity


# The key


def test_a_key_shows_itself_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    key = ApiKey(SECRET)
    assert repr(key) == str(key) == "ApiKey(set)"
    with pytest.raises(TypeError):
        pickle.dumps(key)
    backend = RemoteBackend.named("openai:http://127.0.0.1:1/v1")
    assert CORE.encode() not in pickle.dumps(backend)
    monkeypatch.setenv("BT_LLM_API_KEY", f"{SECRET}\nX-Injected: 1")
    monkeypatch.setenv("BT_LLM_API_HOST", "127.0.0.1:1")
    with fails(ConfigError, "the API key in BT_LLM_API_KEY holds a character that cannot be sent"):
        _ = RemoteBackend.named("openai:http://127.0.0.1:1/v1").identity


def test_a_key_is_recognised_in_parts_and_encoded() -> None:
    key = ApiKey(SECRET)
    assert key.repeated_in(f"you sent {SECRET[:10]}***")
    assert key.repeated_in(base64.b64encode(SECRET.encode()).decode())
    assert key.repeated_in(f"?key={quote(SECRET, safe='')}")
    assert not key.repeated_in("you sent nothing")
    assert not ApiKey("EMPTY").repeated_in("EMPTY")  # what servers that check none are given
    assert not ApiKey("").repeated_in("anything")


def test_a_key_goes_to_the_host_that_the_user_has_bound_it_to_and_to_no_other(
    bind_key: Callable[[str], None],
) -> None:
    with FaultyServer() as theirs, FaultyServer() as ours:
        _ = remote(ours).identity
        assert ours.authorizations == {None}  # a key alone is for nobody
        bind_key(ours.url)
        _ = remote(ours).identity, remote(theirs).identity
        assert ours.authorizations == {None, f"Bearer {SECRET}"}
        assert theirs.authorizations == {None}


def test_of_several_servers_each_gets_its_own_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bind_key: Callable[[str], None]
) -> None:
    keys = tmp_path / "keys.toml"
    monkeypatch.setenv("BT_LLM_KEYS_FILE", str(keys))
    with FaultyServer() as one, FaultyServer() as two, FaultyServer() as three:
        keys.touch(mode=0o600)
        keys.write_text(f'"{two.url.removeprefix("http://").removesuffix("/v1")}" = "another-secret-key"')
        bind_key(one.url)
        name = f"openai:{one.url},{two.url},{three.url}?sha256={'ab' * 32}"
        _ = RemoteBackend.named(name).identity
        assert one.authorizations == {f"Bearer {SECRET}"}
        assert two.authorizations == {"Bearer another-secret-key"}
        assert three.authorizations == {None}


# With the cache


def test_a_run_is_stored_replayed_and_packed(tmp_path: Path) -> None:
    with FaultyServer(random_faults(0.1, seed=2)) as server:
        backend = remote(server)
        config = AdvisorConfig(model=backend.config.name, cache_dir=tmp_path / "a")
        advisor = Advisor(config, backend=backend)
        verdicts = advisor.advise_cells(range(len(advisor.space)))
        again = Advisor(config, backend=remote(server)).advise_cells(range(5))
    assert all(verdict.cached for verdict in again)
    cache = VerdictCache(tmp_path / "a")
    [identity] = cache.find_models(backend.config.name)
    assert identity == backend.identity
    record = next(cache.records())
    assert record.provenance["server"] == server.url
    assert record.provenance["method"] == "tokens"
    export_pack(cache, tmp_path / "pack.jsonl")
    import_pack(VerdictCache(tmp_path / "b"), tmp_path / "pack.jsonl")
    replay = AdvisorConfig(model=backend.config.name, cache_dir=tmp_path / "b", cache_mode="replay")
    away = RemoteBackend(backend.config, identity=identity)
    assert Advisor(replay, backend=away).advise_cells(range(len(advisor.space))) == verdicts


def test_another_way_of_reading_is_another_key(tmp_path: Path) -> None:
    with FaultyServer() as server:
        for via in ("completions", "chat"):
            backend = remote(server, via=via)
            config = AdvisorConfig(model=backend.config.name, cache_dir=tmp_path, calibration="none")
            [verdict] = Advisor(config, backend=backend).advise_cells([3])
            assert not verdict.cached
    assert len(VerdictCache(tmp_path).keys()) == 2


# llama-cpp-python's own server

TOLERANCE = 0.02
"""Of a probability: the server rounds as llama.cpp does by default, not canonically."""


@pytest.fixture(scope="module")
def llama_server(smollm2_path: Path) -> Iterator[str]:
    """The address of llama-cpp-python's OpenAI server with SmolLM2."""
    program = Path(__file__).parents[1] / "llama_server.py"
    with subprocess.Popen(
        [sys.executable, str(program), str(smollm2_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        yield f"http://127.0.0.1:{port}/v1"
        assert process.stdin is not None
        process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        process.kill()


@pytest.mark.model
def test_llama_cpp_pythons_server_agrees_with_the_local_scorer(llama_server: str, smollm2_path: Path) -> None:
    template, space = PromptTemplate.load("market"), StateSpace()
    local = LlamaModel(ModelConfig(model_path=smollm2_path, n_threads=2))
    backend = RemoteBackend.named(f"openai:{llama_server}?model=smollm2&gguf={smollm2_path}&connections=2")
    cells = range(0, len(space), 9)
    asked = template.prompts(space, cells, backend.identity)
    assert asked == template.prompts(space, cells, local.identity)
    assert backend.reader.via == "completions"

    def verdicts(of: Any) -> list[Any]:
        batches = readers.read_logprobs(of, asked, template.continuations, template.choices, "canonical")
        return [verdict for batch in batches for verdict, _ in batch]

    ours, theirs = verdicts(local), verdicts(backend)
    local.close()
    assert len(ours) == 12
    assert [verdict.action for verdict in theirs] == [verdict.action for verdict in ours]
    for mine, other in zip(ours, theirs, strict=True):
        assert other.probabilities == pytest.approx(mine.probabilities, abs=TOLERANCE)
        assert other.label_mass == pytest.approx(mine.label_mass, abs=TOLERANCE)


@pytest.mark.model
@pytest.mark.parametrize("via", ["chat", "json"])
def test_llama_cpp_pythons_server_can_be_read_in_the_other_ways(llama_server: str, via: str) -> None:
    template, space = PromptTemplate.load("market"), StateSpace()
    backend = RemoteBackend.named(f"openai:{llama_server}?via={via}&backoff=0.01")
    asked = template.prompts(space, [50], backend.identity)
    [[(verdict, _)]] = readers.read_logprobs(
        backend, asked, template.continuations, template.choices, "canonical"
    )
    assert verdict.valid
    assert backend.reader.method == {"chat": "first_token", "json": "json_object"}[via]


@pytest.mark.model
def test_llama_cpp_pythons_server_writes_json(llama_server: str) -> None:
    template, space = PromptTemplate.load("market_json"), StateSpace()
    backend = RemoteBackend.named(f"openai:{llama_server}?via=json&backoff=0.01")
    asked = template.prompts(space, [50], backend.identity)
    [[(verdict, _)]] = readers.read_json(backend, asked, template.choices)
    assert verdict.valid
    assert verdict.reason


@pytest.mark.model
def test_a_model_that_the_server_would_replace_silently_is_refused(llama_server: str) -> None:
    with fails(ModelNotFoundError, r"no model 'llama-70b'; name one with model=, of \['smollm2'\]"):
        _ = RemoteBackend.named(f"openai:{llama_server}?model=llama-70b").identity
