"""Several servers of one model: who is asked, who goes away, and that no verdict depends on it."""

from __future__ import annotations

import collections
import contextlib
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bt_llm.advice import Advisor, AdvisorConfig
from bt_llm.cache import VerdictCache, export_pack, merge_packs
from bt_llm.cli._verifying import ask_again
from bt_llm.exceptions import ConfigError, ModelError, ModelNotFoundError, PackError
from bt_llm.models import LabelScores, ModelConfig, RemoteBackend, RemoteConfig, kind_of
from tests.faulty_server import LABELS, FaultyServer, random_faults
from tests.models.test_openai_backend import ask, prompts, right

PIN = "ab" * 32
NOWHERE = "http://127.0.0.1:1/v1"


@contextlib.contextmanager
def several(*servers: FaultyServer) -> Iterator[tuple[FaultyServer, ...]]:
    with contextlib.ExitStack() as stack:
        yield tuple(stack.enter_context(server) for server in servers)


def name(*servers: FaultyServer | str, **options: Any) -> str:
    urls = [server if isinstance(server, str) else server.url for server in servers]
    settings = {"sha256": PIN, "backoff": 0.01, "timeout": 60, "deadline": 300, **options}
    return f"openai:{','.join(urls)}?" + "&".join(f"{key}={value}" for key, value in settings.items())


def backend(*servers: FaultyServer | str, **options: Any) -> RemoteBackend:
    return RemoteBackend.named(name(*servers, **options))


def answered(*servers: FaultyServer) -> collections.Counter[str]:
    """How often each of the prompts was answered, by anybody."""
    total = sum((server.answered for server in servers), collections.Counter())
    return collections.Counter({text: n for text, n in total.items() if text.startswith("Bars:")})


# The name


def test_addresses_stand_between_commas() -> None:
    config = RemoteConfig.parse(f"openai:http://a:8000,https://B:9/api/?sha256={PIN}&connections=4")
    assert (config.base_url, config.replicas) == ("http://a:8000/v1", ("https://b:9/api",))
    assert [server.addresses for server in config.servers] == ["http://a:8000/v1", "https://b:9/api"]
    assert [server.connections for server in config.servers] == [4, 4]
    assert config == RemoteConfig(
        base_url="http://a:8000", replicas=("https://b:9/api",), sha256=PIN, connections=4
    )
    assert config.name == RemoteConfig.parse(f"openai:http://c:1?sha256={PIN}").name


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ("openai:http://a:1,http://b:1", "2 servers of unknown weights: say with sha256=HEX or gguf=FILE"),
        (f"openai:http://a:1,http://a:1/v1/?sha256={PIN}", "http://a:1/v1 given twice"),
        (f"openai:http://a:1,b:1?sha256={PIN}", "address 'b:1' of a remote model: expected openai:http"),
        (f"openai:http://a:1,?sha256={PIN}", "address '' of a remote model"),
        (f"openai:*,http://a:1?sha256={PIN}", r"address '\*' of a remote model"),
        ("openai:*?model=small", r"address '\*' of a remote model"),
    ],
)
def test_wrong_addresses_are_refused(wrong: str, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        RemoteConfig.parse(wrong)
    with pytest.raises(ConfigError, match="expected a tuple of addresses"):
        RemoteConfig(base_url="http://a:1", replicas="http://b:1", sha256=PIN)  # type: ignore[arg-type]


def test_a_name_without_an_address_cannot_be_asked() -> None:
    with pytest.raises(ConfigError, match="names no server to ask: give the address in the place of the"):
        _ = RemoteBackend.named(f"openai:*?sha256={PIN}").identity


# Who is asked


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_number_of_servers_changes_nothing(count: int) -> None:
    slow = [FaultyServer(random_faults(0.2, seed=i), delay_s=0.004 * i) for i in range(count)]
    with several(*slow) as servers:
        many = backend(*servers, connections=3)
        scores = ask(many, 120)
        alone = backend(servers[-1], connections=3).identity
        assert all(server.at_once <= 3 for server in servers)
        assert all(answered(server) for server in servers)
        assert answered(*servers) == {prompt.text: 1 for prompt in prompts(120)}
    assert [s.logprobs for s in scores] == [pytest.approx(expected) for expected in right(120)]
    assert many.identity == alone  # and so is every key


def test_a_slow_server_gets_less_to_do() -> None:
    others_done = threading.Event()

    def wait(_number: int, prompt: str) -> None:
        if prompt.startswith("Bars:"):
            others_done.wait(50)

    def count(_number: int, _prompt: str) -> None:
        if len(answered(quick)) >= 7:
            others_done.set()

    with several(FaultyServer(wait), FaultyServer(count)) as (slow, quick):
        both = backend(slow, quick, connections=1)
        stream = both.score(prompts(12), LABELS)  # within what may be ahead of one that is late
        assert len([one for batch in stream for one in batch]) == 12
        assert len(answered(slow)) < len(answered(quick))


def test_a_server_that_dies_hands_its_prompts_to_the_others(caplog: pytest.LogCaptureFixture) -> None:
    held, died = threading.Semaphore(0), threading.Event()

    def hold(_number: int, prompt: str) -> None:
        if prompt.startswith("Bars:") and int(prompt.split()[1]) >= 100:
            held.release()
            died.wait(50)

    with several(FaultyServer(hold), FaultyServer(hold)) as (dying, living):
        both = backend(dying, living, connections=2)
        stream = both.score(prompts(300), LABELS)
        scores = list(next(stream))
        assert all(held.acquire(timeout=50) for _ in range(4))  # each connection waits for an answer
        dying.die()
        died.set()
        scores += [one for batch in stream for one in batch]
        assert answered(dying)
        assert answered(dying, living) == {prompt.text: 1 for prompt in prompts(300)}
        asked = len(dying.times)
        assert len(ask(both, 20)) == 20
        assert len(dying.times) == asked  # it is not asked again
    assert [s.logprobs for s in scores] == [pytest.approx(expected) for expected in right(300)]
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    [warning] = [text for text in warnings if "what it had to do goes to" in text]
    assert RemoteConfig.parse(name(dying)).host in warning


@pytest.mark.parametrize("fault", ["503", "drop", "429", "200 503"])
def test_a_server_that_stays_broken_is_given_up(fault: str, caplog: pytest.LogCaptureFixture) -> None:
    breaks = threading.Event()

    def after_some(number: int, _prompt: str) -> str | None:
        if number > 30:
            breaks.set()
        return fault if number > 30 else None

    def until_then(_number: int, prompt: str) -> None:
        if prompt.startswith("Bars:"):
            breaks.wait(50)

    with several(FaultyServer(after_some), FaultyServer(until_then)) as (broken, living):
        scores = ask(backend(broken, living, connections=4, retries=2), 100)
        assert answered(broken, living) == {prompt.text: 1 for prompt in prompts(100)}
    assert [s.logprobs for s in scores] == [pytest.approx(expected) for expected in right(100)]
    assert caplog.text.count("what it had to do goes to") == 1


def test_what_was_answered_is_kept_when_all_are_gone(tmp_path: Path) -> None:
    """A prompt that no server can answer takes them all down; every other answer is in the cache."""
    poisoned: set[str] = set()

    def poison(_number: int, prompt: str) -> str | None:
        return "500" if prompt in poisoned else None

    with several(FaultyServer(poison), FaultyServer(poison), FaultyServer()) as (one, two, healthy):
        config = AdvisorConfig(model=name(one, two, retries=1), cache_dir=tmp_path, calibration="none")
        advisor = Advisor(config)
        cells = range(len(advisor.space))
        texts = [prompt.text for prompt in advisor.prompts(cells)]
        poisoned.add(texts[7])
        with pytest.raises(ModelError, match=r"none of 2 servers is left; the last one: .* status 500"):
            advisor.raw_cells(cells)
        kept = {text for text in texts if one.answered[text] + two.answered[text]}
        stored = {record.question.text for record in VerdictCache(tmp_path).records()}
        assert stored == kept
        assert 7 < len(kept) < len(texts)
        assert kept > set(texts[:7])
        later = AdvisorConfig(model=name(healthy), cache_dir=tmp_path, calibration="none")
        assert len(Advisor(later).raw_cells(cells)) == len(cells)
        assert all(one.answered[t] + two.answered[t] + healthy.answered[t] == 1 for t in texts)


def test_a_refusal_is_not_handed_on() -> None:
    fault = lambda _number, prompt: "400" if prompt.startswith("Bars: 3\n") else None  # noqa: E731
    with several(FaultyServer(fault), FaultyServer(fault)) as (one, two):
        with pytest.raises(ModelError, match="refused with status 400"):
            ask(backend(one, two), 10)
        assert one.asked["Bars: 3\nVerdict:"] + two.asked["Bars: 3\nVerdict:"] == 1


# Who they are


def test_one_that_is_down_at_first_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    with FaultyServer() as server:
        both = backend(NOWHERE, server, retries=1)
        assert both.identity == backend(server).identity
        assert len(ask(both, 5)) == 5
    assert caplog.text.count("127.0.0.1:1: cannot connect, 2 times") == 1
    with pytest.raises(ModelError, match="none of 2 servers is there"):
        _ = backend(NOWHERE, "http://127.0.0.1:2/v1", retries=0).identity


@pytest.mark.parametrize(
    ("one", "two", "match"),
    [
        ({}, {"models": ("large",)}, "the model is 'small' at the first and 'large' at the second"),
        ({"meta": {"n_params": 7}}, {"meta": {"n_params": 8}}, "n_params is 7 at the first and 8 at the"),
        ({}, {"most_tokens": 20}, r"\(tokens, top=100\) at the first and via=completions \(tokens, top=20\)"),
        (
            {"props": {"chat_template": "{{ messages }}", "eos_token": "x"}},
            {"props": {"chat_template": "{{ other }}" * 20, "eos_token": "x"}},
            "the chat template is '{{ messages }}' at the first and one with SHA-256",
        ),
    ],
)
def test_a_different_server_is_refused(one: Any, two: Any, match: str) -> None:
    with several(FaultyServer(**one), FaultyServer(**two)) as (first, second):
        with pytest.raises(ConfigError, match=match) as caught:
            ask(backend(first, second), 3)
        assert all(server.url.split("/")[2] in str(caught.value) for server in (first, second))
        assert "\n" not in str(caught.value)
        assert not answered(first, second)


def test_a_way_of_reading_that_is_remembered_is_tried_on_each() -> None:
    with several(FaultyServer(), FaultyServer(most_tokens=20)) as (first, second):
        known = [backend(first).identity]
        both = RemoteBackend(RemoteConfig.parse(name(first, second)), known=known)
        with pytest.raises(ConfigError, match=r"the way of reading is .* give via= and top= that all can do"):
            _ = both.identity
        agreed = RemoteBackend(RemoteConfig.parse(name(first, second, top=20)), known=known)
        assert len(ask(agreed, 3)) == 3


def test_what_only_one_server_reports_is_no_difference() -> None:
    with several(FaultyServer(meta={"n_params": 7}), FaultyServer()) as (first, second):
        assert len(ask(backend(first, second), 3)) == 3


def test_the_model_must_be_served_everywhere() -> None:
    with (
        several(FaultyServer(), FaultyServer(models=("large",))) as servers,
        pytest.raises(ModelNotFoundError, match="no model 'small'"),
    ):
        _ = backend(*servers, model="small").identity


def test_servers_are_checked_even_if_the_identity_is_known() -> None:
    with several(FaultyServer(), FaultyServer(models=("large",))) as (first, second):
        known = backend(first).identity
        config = RemoteConfig.parse(name(first, second))
        with pytest.raises(ConfigError, match="do not serve the same"):
            ask(RemoteBackend(config, identity=known), 3)
        other = RemoteBackend(
            RemoteConfig.parse(name(first, first.url + "/x", sha256="cd" * 32)), identity=known
        )
        with pytest.raises(ModelError):
            ask(other, 3)


# With the cache


def test_what_one_server_said_is_replayed_under_the_address_of_another(tmp_path: Path) -> None:
    with FaultyServer() as server:
        config = AdvisorConfig(model=name(server), cache_dir=tmp_path)
        verdicts = Advisor(config).raw_cells(range(10))
    for address in (NOWHERE, "*"):
        replay = AdvisorConfig(model=name(address), cache_dir=tmp_path, cache_mode="replay")
        assert Advisor(replay).raw_cells(range(10)) == verdicts


def test_pinned_verdicts_are_verified_where_they_came_from(tmp_path: Path) -> None:
    with several(FaultyServer(), FaultyServer()) as servers:
        config = AdvisorConfig(model=name(*servers), cache_dir=tmp_path, calibration="none")
        Advisor(config).raw_cells(range(12))
        records = list(VerdictCache(tmp_path).records())
        [identity] = VerdictCache(tmp_path).models()
        drift = ask_again(records, identity.sha256, [identity.name], trust=bool)
        assert (drift.asked, drift.same) == (12, 12)
        with pytest.raises(ConfigError, match="names no server to ask"):
            ask_again([], identity.sha256, [identity.name], trust=bool)


def recorded(folder: Path, server: FaultyServer, cells: range) -> Path:
    """The pack of a machine that asked its own server about those cells."""
    config = AdvisorConfig(model=name(server), cache_dir=folder, calibration="none")
    Advisor(config).raw_cells(cells)
    export_pack(VerdictCache(folder), folder / "pack.jsonl")
    return folder / "pack.jsonl"


def test_packs_of_two_machines_merge_to_that_of_one(tmp_path: Path) -> None:
    with several(FaultyServer(), FaultyServer(), FaultyServer()) as (one, two, alone):
        whole = recorded(tmp_path / "whole", alone, range(105))
        halves = [
            recorded(tmp_path / "a", one, range(60)),  # they overlap
            recorded(tmp_path / "b", two, range(50, 105)),
        ]
        for order in (halves, halves[::-1]):
            merge_packs(order, tmp_path / "merged.jsonl")
            assert (tmp_path / "merged.jsonl").read_bytes() == whole.read_bytes()
        assert one.url.encode() not in whole.read_bytes()


def test_packs_that_differ_in_a_verdict_do_not_merge(tmp_path: Path) -> None:
    with several(FaultyServer(), FaultyServer(tokens={" Bullish": (" Bull", "ish")})) as (one, two):
        packs = [recorded(tmp_path / "a", one, range(1)), recorded(tmp_path / "b", two, range(1))]
        [key] = VerdictCache(tmp_path / "a").keys()
    with pytest.raises(PackError, match=rf"different verdicts for 1 keys \({key[:12]}\): nothing is written"):
        merge_packs(packs, tmp_path / "merged.jsonl")
    assert not (tmp_path / "merged.jsonl").exists()


def test_the_lookup_takes_several_addresses(tmp_path: Path) -> None:
    with several(FaultyServer(), FaultyServer()) as servers:
        model = kind_of(name(*servers))
        assert model.identify(VerdictCache(tmp_path)).name == f"openai:*?sha256={PIN}"
        found = model.open(ModelConfig())
        [[scores, *_], *_] = found.score(prompts(1), LABELS)
        assert isinstance(scores, LabelScores)
        assert found.provenance["server"] == ",".join(server.url for server in servers)


def test_a_configuration_takes_scalars_of_numpy() -> None:
    given = RemoteConfig(base_url=NOWHERE, model="m", top=np.int64(5), timeout_s=np.float32(2.0))
    assert given == RemoteConfig(base_url=NOWHERE, model="m", top=5, timeout_s=2.0)
    assert (type(given.top), type(given.timeout_s)) == (int, float)
