"""Each server that people use, in its documented shape: who answers, how it is read, and what is said."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import re
from pathlib import Path
from typing import Any

import pytest

from bt_llm.advice import Advisor, AdvisorConfig
from bt_llm.advice import _readers as readers
from bt_llm.cache import VerdictCache
from bt_llm.exceptions import ConfigError, ModelError, ModelNotFoundError
from bt_llm.models import Prompt, RemoteBackend, kind_of
from bt_llm.models.openai._decisions import choice_scores
from bt_llm.models.openai._keys import ApiKey
from bt_llm.models.openai._replies import ReplyError
from bt_llm.verdicts import DEFAULT_LABELS
from tests import server_shapes as shapes
from tests.server_shapes import ShapedServer

LABELS = (" Bullish", " Neutral", " Bearish")
QUESTION = [Prompt(("Trend: up\n", "Verdict:"))]


def opened(name: str) -> Any:
    return kind_of(name).open(None)  # type: ignore[arg-type]


def remote(server: ShapedServer, path: str = "/v1", **options: Any) -> Any:
    settings = {"backoff": 0.01, "timeout": 60, "deadline": 300, **options}
    return opened(f"openai:{server.url}{path}?" + "&".join(f"{k}={v}" for k, v in settings.items()))


def chances(backend: RemoteBackend) -> list[float]:
    [[scores]] = backend.score(QUESTION, LABELS)
    assert scores is not None
    return [round(math.exp(value), 6) for value in scores.logprobs]


def warnings(caplog: pytest.LogCaptureFixture) -> str:
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    return "\n".join(text for text in said if "keyring" not in text)  # this machine may have none


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bind a key to whatever server the test starts."""
    monkeypatch.setattr("bt_llm.models.openai._servers.key_for", lambda _url: ApiKey("sk-test"))


# Ollama


def test_ollamas_models_are_known_by_their_digest_and_read_by_its_own_chat() -> None:
    with ShapedServer(shapes.ollama()) as one, ShapedServer(shapes.ollama()) as two:
        first = opened(f"ollama:llama3.2:1b?host={one.url}")
        assert first.identity == opened(f"ollama:llama3.2:1b?host={two.url}").identity  # wherever it is
        assert first.identity.name == "ollama:llama3.2:1b"
        assert first.identity.details["weights"] == f"Ollama's digest {'a' * 64}"
        assert first.reader.document["wording"] == "ollama"
        assert chances(first) == [0.4, 0.15, 0.3]
        asked = one.asked("/api/chat")[-1]
    assert asked["model"] == "llama3.2:1b"
    assert (asked["think"], asked["truncate"], asked["logprobs"], asked["top_logprobs"]) == (
        False,
        False,
        True,
        20,
    )
    assert asked["options"] == {"temperature": 0.0, "num_predict": 1, "seed": 0}


@pytest.mark.parametrize("kind", ["ollama", "openai"])
def test_what_is_pulled_again_under_a_tag_is_another_model(tmp_path: Path, kind: str) -> None:
    digest = ["a" * 64]

    def shape(*request: Any) -> Any:
        better = {"Bull": 0.1, "Bear": 0.8, "Ne": 0.05}
        return shapes.ollama(digest[0], chances=shapes.CHAT if digest[0][0] == "a" else better)(*request)

    actions = []
    with ShapedServer(shape) as server:
        name = f"ollama:llama3.2:1b?host={server.url}"
        if kind == "openai":
            name = f"openai:{server.url}?model=llama3.2:1b"
        for letter in "ab":
            digest[0] = letter * 64
            advisor = Advisor(AdvisorConfig(model=name, cache_dir=tmp_path, calibration="none"))
            actions.append(advisor.raw_cells([52])[0].action.name)
    assert actions == ["BULLISH", "BEARISH"]
    assert len(VerdictCache(tmp_path).keys()) == 2


def test_an_ollama_without_log_probabilities_is_refused_with_what_to_do() -> None:
    with ShapedServer(shapes.ollama(version="0.11.4")) as server:
        with pytest.raises(ModelError, match=r"0\.11\.4 gives no log-probabilities, .* 0\.12\.11: update it"):
            _ = opened(f"ollama:qwen3?host={server.url}").identity
        written = opened(f"ollama:qwen3?host={server.url}&via=json")
        assert chances(written) == [0.8, 0.1, 0.1]
        assert written.identity.name == "ollama:qwen3:latest?via=json"
        assert "format" in server.asked("/api/chat")[-1]


def test_a_version_of_ollama_that_is_no_number_is_not_taken_for_one() -> None:
    with ShapedServer(shapes.ollama(version="\u00b2." + "9" * 5_000)) as server:
        assert opened(f"ollama:qwen3?host={server.url}").identity.name == "ollama:qwen3:latest"


def test_a_model_that_ollama_has_not_is_named_with_those_it_has() -> None:
    with ShapedServer(shapes.ollama()) as server, ShapedServer(shapes.lm_studio) as other:
        with pytest.raises(ModelNotFoundError, match=r"no model 'phi4:latest'; it has .*ollama pull phi4"):
            _ = opened(f"ollama:phi4?host={server.url}").identity
        with pytest.raises(ModelNotFoundError, match="or no Ollama server"):
            _ = opened(f"ollama:phi4?host={other.url}").identity
    with (
        ShapedServer(shapes.ollama(remote_model="big", remote_host="https://ollama.com")) as server,
        pytest.raises(ModelError, match="not there but in the cloud"),
    ):
        _ = opened(f"ollama:qwen3?host={server.url}").identity


@pytest.mark.parametrize(
    ("variable", "address"),
    [
        ("", "http://127.0.0.1:11434/v1"),
        ("0.0.0.0", "http://127.0.0.1:11434/v1"),
        ("box:8080", "http://box:8080/v1"),
        ("https://box", "https://box/v1"),
        ("[::1]", "http://[::1]:11434/v1"),
        ("http://[::1]:99/ollama/", "http://[::1]:99/ollama/v1"),
    ],
)
def test_ollama_is_where_its_own_variable_says(
    monkeypatch: pytest.MonkeyPatch, variable: str, address: str
) -> None:
    monkeypatch.setenv("OLLAMA_HOST", variable)
    model = kind_of("ollama:llama3.2")
    assert model.config.addresses == address  # type: ignore[attr-defined]
    assert model.config.model == "llama3.2:latest"  # type: ignore[attr-defined]


def test_only_a_host_that_the_name_gives_is_asked_about() -> None:
    assert kind_of("ollama:llama3.2").addresses == ()
    assert kind_of("ollama:llama3.2?host=http://10.0.0.2:11434").addresses == ("http://10.0.0.2:11434/v1",)


def test_an_ollama_asked_as_openai_is_named(caplog: pytest.LogCaptureFixture) -> None:
    def shape(method: str, path: str, headers: Any, body: Any) -> Any:
        if path == "/v1/chat/completions" and "response_format" not in body:
            return 200, shapes.chat_reply(body, None)  # some versions ignore what is asked there
        return shapes.ollama()(method, path, headers, body)

    with ShapedServer(shape) as server:
        assert remote(server, model="llama3.2:1b").reader.via == "json"
    assert "name the model ollama:llama3.2:1b" in warnings(caplog)


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("ollama:", "expected ollama:NAME:TAG"),
        ("ollama:a b", "expected ollama:NAME:TAG"),
        ("ollama:a?via=completions", "gives no log-probabilities there"),
        ("ollama:a?sha256=" + "ab" * 32, "its digest says who answers"),
        ("ollama:a?host=[::1", "expected one such as http://127.0.0.1:11434"),
        ("ollama:a?colour=red", "'colour' of a remote model is unknown"),
    ],
)
def test_a_wrong_name_of_ollamas_is_refused(name: str, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        kind_of(name)


# The chat template


def test_a_tuned_model_whose_template_the_server_keeps_is_asked_by_chat() -> None:
    with ShapedServer(shapes.vllm("meta-llama/Llama-3.2-1B-Instruct")) as server:
        backend = remote(server)
        assert (backend.reader.via, backend.reader.top, backend.reader.wording) == ("chat", 20, "continued")
        assert chances(backend) == [0.5, 0.2, 0.2]
        assert server.asked("/v1/completions") == []
        question, begun = server.log[-1][3]["messages"]
    assert question == {"role": "user", "content": "Trend: up"}
    assert begun == {"role": "assistant", "content": "Verdict:"}


def test_plain_text_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with ShapedServer(shapes.vllm("meta-llama/Llama-3.2-1B")) as server:
        assert remote(server).reader.via == "completions"
    assert "'meta-llama/Llama-3.2-1B' gets prompts as plain text" in warnings(caplog)


def test_llama_cpps_template_is_used_and_compared_with_its_own_rendering(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with ShapedServer(shapes.llama_cpp(rendered="<s>RSI: 50")) as server:
        assert remote(server).identity.chat_template == "{{ messages[0].content }}"
    assert warnings(caplog) == ""
    with ShapedServer(shapes.llama_cpp(rendered="<s>Question: RSI: 50")) as server:
        _ = remote(server).identity
    assert "is rendered otherwise by the server than here" in warnings(caplog)


# The same question twice


def test_llama_cpps_server_computes_each_prompt_alone(caplog: pytest.LogCaptureFixture) -> None:
    with ShapedServer(shapes.llama_cpp()) as server:
        backend = remote(server)
        assert backend.identity.details["reader"]["alone"] is True
        assert backend.identity.details["differs"] == 0.0
        runs = [[s.logprobs for b in backend.score(QUESTION * 20, LABELS) for s in b] for _ in range(2)]
        assert runs[0] == runs[1] == [runs[0][0]] * 20
        assert server.at_once <= 2  # and none is taken for hung while it waits in the server's queue
        list(backend.score(QUESTION, LABELS, numerics="fast"))
        assert "id_slot" not in server.asked("/v1/completions")[-1]
    assert warnings(caplog) == ""


def test_a_server_that_is_inexact_is_said_to_be(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    with ShapedServer(shapes.llama_cpp(wobble=True)) as server:
        backend = remote(server)
        assert 0 < backend.identity.details["differs"] < 0.01
        assert backend.provenance["differs"] == backend.identity.details["differs"]
        assert "inexact: the same question got another probability" in warnings(caplog)
        again = RemoteBackend(backend.config, known=[backend.identity])
        asked = len(server.asked("/v1/completions"))
        assert again.identity.details["differs"] == backend.identity.details["differs"]
        assert len(server.asked("/v1/completions")) == asked  # what was measured is kept


def test_how_llama_cpps_server_was_asked_before_it_was_exact_is_forgotten() -> None:
    with ShapedServer(shapes.llama_cpp()) as server:
        now = remote(server).identity
        stored = {**now.details, "reader": {"via": "completions", "method": "tokens", "top": 100}}
        old = type(now)(name=now.name, sha256="0" * 64, details=stored)
        backend = RemoteBackend(remote(server).config, known=[old])
        assert backend.reader.alone


# Lists of models


@pytest.mark.parametrize(
    "listing",
    [
        (200, [{"id": "m", "object": "model"}]),
        (404, {"detail": "Not Found"}),
        (403, {"error": {"message": "You have insufficient permissions. Missing scopes: api.model.read."}}),
        (200, {"object": "list", "data": []}),
        (200, "<html>the web page</html>"),
        shapes.listed("gpt-4o-2024-11-20"),
        shapes.listed("openai/*"),
    ],
)
def test_a_model_that_is_named_need_not_be_listed(listing: Any, caplog: pytest.LogCaptureFixture) -> None:
    def shape(method: str, path: str, headers: Any, body: Any) -> Any:
        return listing if path.endswith("/models") else shapes.litellm(method, path, headers, body)

    with ShapedServer(shape) as server:
        assert chances(remote(server, model="m")) == [0.4, 0.15, 0.3]
    said = "its list of models has no 'm', only" in warnings(caplog)
    assert said is (listing[0] == 200 and isinstance(listing[1], dict) and bool(listing[1]["data"]))


def test_what_answers_under_an_unlisted_name_is_part_of_who_it_is(key: None) -> None:
    with ShapedServer(shapes.azure) as server:
        identity = remote(server, "/openai/v1", model="mine").identity
        assert identity.details["who"]["answers"] == "gpt-4o-2024-11-20"
        with pytest.raises(ModelNotFoundError, match=r"no model 'other'; its list has .*does not exist"):
            _ = remote(server, "/openai/v1", model="other").identity


def test_of_many_models_those_that_look_alike_are_shown() -> None:
    with ShapedServer(shapes.openrouter()) as server, pytest.raises(ModelNotFoundError) as caught:
        _ = remote(server, "/api/v1").identity
    assert len(str(caught.value)) < 400
    assert "and 396 more" in str(caught.value)


# Gateways and hosted models


def test_a_gateways_provider_is_pinned_and_in_the_key() -> None:
    model = "meta-llama/llama-3.2-1b-instruct"
    with ShapedServer(shapes.openrouter()) as server:
        with pytest.raises(ModelError, match=r"spreads a model over providers .*provider=deepinfra"):
            _ = remote(server, "/api/v1", model=model).identity
        pinned = remote(server, "/api/v1", model=model, provider="deepinfra/fp8")
        assert chances(pinned) == [0.4, 0.15, 0.3]
        assert server.log[-1][3]["provider"] == {
            "only": ["deepinfra/fp8"],
            "allow_fallbacks": False,
            "require_parameters": True,
        }
        assert pinned.identity.details["who"]["provider"] == "deepinfra/fp8"
        assert "provider=deepinfra/fp8" in pinned.identity.name
        other = remote(server, "/api/v1", model=model, provider="together")
        with pytest.raises(ModelError, match="'DeepInfra' answered in the place of the provider 'together'"):
            _ = other.identity


def test_azures_deployments_are_asked_with_their_version_and_header(key: None) -> None:
    with ShapedServer(shapes.azure) as server:
        backend = opened(f"openai:{server.url}/openai/deployments/mine?api-version=2024-10-21")
        assert chances(backend) == [0.4, 0.15, 0.3]
        _method, path, headers, body = server.log[-1]
    assert path == "/openai/deployments/mine/chat/completions?api-version=2024-10-21"
    assert headers["api-key"] == "sk-test"
    assert "Authorization" not in headers
    assert body["model"] == "mine"


def test_togethers_chat_is_asked_with_a_number() -> None:
    with ShapedServer(shapes.together) as server:
        backend = remote(server)
        assert (backend.reader.via, backend.reader.wording, backend.reader.top) == ("chat", "count", 20)
        assert chances(backend) == [0.4, 0.15, 0.3]


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        ({}, "the reply has no choices"),
        ([{"choices": []}], "the reply has no choices"),
        ({"choices": [{"message": {"content": [{"text": "Bullish"}]}}]}, "the reply has no message with"),
        (
            {"choices": [{"logprobs": {"content": [{"top_logprobs": [{"token": "a", "logprob": "-1"}]}]}}]},
            "'a'",
        ),
    ],
)
def test_a_reply_of_another_form_is_told_with_the_server_that_gave_it(reply: Any, says: str) -> None:
    def shape(method: str, path: str, headers: Any, body: Any) -> tuple[int, Any]:
        if method == "GET":
            return shapes.listed("small") if path.endswith("/models") else (404, {})
        return (200, reply) if "chat" in path else (404, {})

    with ShapedServer(shape) as server, pytest.raises(ModelError, match=says) as told:
        chances(remote(server))
    assert str(told.value).startswith(server.url.removeprefix("http://"))


def test_lm_studio_gives_no_log_probabilities_and_that_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with ShapedServer(shapes.lm_studio) as server:
        backend = remote(server)
        assert backend.reader.method == "json_schema"
        assert chances(backend) == [0.8, 0.1, 0.1]
    assert "gives no log-probabilities: verdicts are made of the confidence" in warnings(caplog)


def test_a_reasoning_model_is_asked_in_its_words(key: None, caplog: pytest.LogCaptureFixture) -> None:
    with ShapedServer(shapes.openai_api) as server:
        backend = remote(server, model="o3-mini")
        assert (backend.reader.via, backend.reader.wording) == ("json", "reasoning")
        assert chances(backend) == [0.8, 0.1, 0.1]
        asked = server.log[-1][3]
        assert asked["max_completion_tokens"] > 4000
        assert not {"max_tokens", "temperature"} & set(asked)
        # The message of what was refused is what the user reads.
        with pytest.raises(ModelError, match="You are not allowed to request logprobs from this model"):
            _ = remote(server, model="o3-mini", via="chat").identity
    assert "You are not allowed to request logprobs from this model" in warnings(caplog)


def test_openais_chat_and_completions_models_are_read_as_they_can_be(key: None) -> None:
    with ShapedServer(shapes.openai_api) as server:
        chat, text = (remote(server, model=name) for name in ("gpt-4o-mini", "gpt-3.5-turbo-instruct"))
        assert (chat.reader.via, chat.reader.top) == ("chat", 20)
        assert (text.reader.via, text.reader.top) == ("completions", 5)


def test_a_refusal_of_the_key_is_said_and_nothing_else_is_tried() -> None:
    def shape(method: str, path: str, _headers: Any, _body: Any) -> Any:
        if path == "/v1/models":
            return shapes.listed("m")
        return shapes.error(403, "Country not supported") if method == "POST" else (404, "")

    with ShapedServer(shape) as server:
        with pytest.raises(ModelError, match="status 403: Country not supported"):
            _ = remote(server, model="m").identity
        assert len(server.asked("/v1/completions")) == 1


def test_a_server_that_is_still_loading_is_waited_for() -> None:
    patience = iter([503] * 6)
    ready = shapes.llama_cpp()

    def shape(*request: Any) -> Any:
        if request[1] == "/v1/models" and next(patience, 200) == 503:
            return 503, {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}
        return ready(*request)

    with ShapedServer(shape) as server:
        assert remote(server).identity.details["who"]["model"] == "small"


def test_the_names_in_the_docs_are_names() -> None:
    page = (Path(__file__).parents[2] / "docs" / "servers.md").read_text(encoding="utf-8")
    names = [name for block in re.findall(r"```text\n(.*?)```", page, flags=re.S) for name in block.split()]
    assert len(names) > 10
    for name in names:
        assert kind_of(name).addresses or name.startswith("ollama:")


# Decision servers


def test_a_decision_server_answers_with_the_mass_where_it_tells_it(caplog: pytest.LogCaptureFixture) -> None:
    with ShapedServer(shapes.decisions(native=True, coverage=0.5)) as server:
        backend = opened(f"systemone:{server.url}")
        assert chances(backend) == [0.25, 0.125, 0.125]
        assert next(backend.score(QUESTION, LABELS))[0].tokens == 9
        asked = server.asked("/v1/decide")[-1]
        assert asked["state"] == QUESTION[0].text
        assert asked["questions"]["verdict"]["criteria"] == dict.fromkeys(["Bullish", "Neutral", "Bearish"])
        assert backend.identity.name == f"systemone:{server.url}/v1"
        assert (
            backend.identity.details["who"]["reported"] == '{"description":"4B","release_date":"2026-09-01"}'
        )
    assert warnings(caplog) == ""
    with ShapedServer(shapes.decisions(native=False)) as server:
        assert chances(opened(f"systemone:{server.url}?model=small")) == [0.5, 0.25, 0.25]
        with pytest.raises(ModelNotFoundError, match=r"no model 'big'; name one of \['small'\]"):
            _ = opened(f"systemone:{server.url}?model=big").identity
    assert "does not tell how much of the probability the labels hold together" in warnings(caplog)


def test_a_decision_server_writes_no_json_and_takes_no_other_options(tmp_path: Path) -> None:
    with ShapedServer(shapes.decisions(native=True)) as server:
        config = AdvisorConfig(
            model=f"systemone:{server.url}", reader="json", template="market_json", cache_dir=tmp_path
        )
        with pytest.raises(ConfigError, match="cannot generate_json"):
            Advisor(config).raw_cells([0])
        with pytest.raises(ConfigError, match="answers questions and writes nothing"):
            list(opened(f"systemone:{server.url}").generate_json(QUESTION, {}, max_tokens=5))
    for option in ("via=chat", "top=5", "provider=a", "gguf=smollm2"):
        with pytest.raises(ConfigError, match="decision server"):
            kind_of(f"systemone:http://127.0.0.1:1?{option}")


@pytest.mark.parametrize(
    "answer",
    [
        {"probabilities": {"up": 0.5, "down": 0.4}},
        {"probabilities": {"up": 1.0}},
        {"probabilities": {"up": "1", "down": 0}},
        {"probabilities": [1, 0]},
        {},
    ],
)
def test_wrong_answers_of_a_decision_server_are_refused(answer: Any) -> None:
    with pytest.raises(ReplyError):
        choice_scores({"answers": {"verdict": answer}}, ["up", "down"], native=False)
    right = {"probabilities": {"up": 0.5, "down": 0.5}}
    with pytest.raises(ReplyError, match="hold together"):
        choice_scores({"answers": {"verdict": right}}, ["up", "down"], native=True)


# Keys


def test_keys_of_servers_that_were_read_rightly_are_what_they_were() -> None:
    pin = "ab" * 32
    with ShapedServer(shapes.vllm("meta-llama/Llama-3.2-1B")) as server:
        pinned = remote(server, sha256=pin).identity.sha256
        unknown = remote(server).identity.sha256
        reported = '{"root":"meta-llama/Llama-3.2-1B"}'
        who = {"server": f"{server.url}/v1", "model": "meta-llama/Llama-3.2-1B", "reported": reported}
    reader = {"via": "completions", "method": "tokens", "top": 20}

    def digest(who: Any) -> str:
        parts = {"backend": "openai", "format": 1, "who": who, "reader": reader}
        text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    assert (pinned, unknown) == (digest({"sha256": pin}), digest(who))


# What is known of the labels


def test_the_mass_is_what_was_seen() -> None:
    seen = {"Bull": 0.02, "The": 0.5, "**": 0.3, "I": 0.1}
    with ShapedServer(shapes.ollama(chances=seen)) as server:
        backend = opened(f"ollama:qwen3?host={server.url}")
        [[scores]] = backend.score(QUESTION, LABELS)
        [[(verdict, _)]] = readers.read_logprobs(backend, QUESTION, LABELS, DEFAULT_LABELS, "canonical")
    assert scores.mass == pytest.approx(0.02)
    assert verdict.label_mass == pytest.approx(0.02)  # though each of the other two may have as much
