"""RemoteBackend: verdicts from any OpenAI-compatible server, such as llama.cpp's or vLLM.

How a verdict is read depends on what the server gives. In the order in which they are tried:

===========  ============  ===========================================================================
via          method        the log-probability of a label is ...
===========  ============  ===========================================================================
completions  tokens        read from the most probable next tokens after the prompt; where a label has
                           several tokens, asked for again after each of them and added up
chat         first_token   that of the tokens which begin this label and no other one, as the first of
                           the answer; the server's own chat template wraps the prompt
json         json_schema   made of the confidence that the model writes, as JSON with a schema: the
             json_object   last resort, and the one that has least to do with a probability; `label_mass`
                           is 1 then
===========  ============  ===========================================================================

A label that is not among the tokens that the server gives gets the log-probability of the least of them,
the most it can have; if none of the labels is there, the verdict is INVALID. ``echo`` is not used: llama.cpp
refuses it, and llama-cpp-python shifts its log-probabilities by one token.

The method is part of the identity's hash and so of every key, and stands in its details. So does who
answers: the hash of the weights where the user pins it, else the server's address, the model's name there and
what the server reports of it. A server's sums are rounded as it likes: ``numerics`` changes nothing here.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from bt_llm.backends.base import Answer, LabelScores, ModelIdentity, Numerics, Prompt, canonical_json
from bt_llm.backends.remote_calls import Calls, Exchange
from bt_llm.backends.remote_config import PREFIX, RemoteConfig
from bt_llm.backends.remote_readers import (
    Asking,
    JsonMethod,
    RemoteReader,
    candidates,
    check_labels,
    json_request,
    stored_reader,
)
from bt_llm.backends.remote_replies import chat_text, served_models
from bt_llm.exceptions import ConfigError, ModelError, ModelNotFoundError

__all__ = ["PREFIX", "RemoteBackend", "RemoteConfig", "RemoteReader"]

_log = logging.getLogger("bt_llm.remote")

FORMAT = 1
"""Version of how a server is asked; another one gives other keys."""

_LONGEST_TEMPLATE = 100_000
_FIRST_RETRIES = 3  # a wrong address should not take a minute to be noticed


class RemoteBackend:
    """Asks an OpenAI-compatible server, many prompts at a time.

    Nothing is asked before it is needed, and no connection stays open between calls. The server sees the
    prompt as text and tokenises it; with ``gguf`` or a llama.cpp server, which tells its chat template, it
    is the text that the same model is given locally.

    Parameters
    ----------
    config : RemoteConfig
        Which server, and how.
    identity : ModelIdentity, optional
        Who answers, if it is known, as in replay: then the server is not asked who it is.
    known : sequence of ModelIdentity
        Identities that this name had before: if the server is still one of them, it is read as it was then.

    Raises
    ------
    ConfigError
        From `score` for labels that begin with each other.
    ModelNotFoundError
        If the server does not serve the model.
    ModelError
        If the server refuses, redirects, or stays broken; the message never holds the API key.
    GenerationTimeout
        If the deadline is over.
    MissingExtraError
        If httpx is not installed.

    Examples
    --------
    >>> backend = RemoteBackend.named("openai:http://127.0.0.1:8000/v1?model=smollm2")
    >>> backend.config.host
    '127.0.0.1:8000'
    """

    def __init__(
        self,
        config: RemoteConfig,
        *,
        identity: ModelIdentity | None = None,
        known: Sequence[ModelIdentity] = (),
    ) -> None:
        self.config = config
        self._calls = Calls(config)
        self._first_calls = Calls(replace(config, retries=min(config.retries, _FIRST_RETRIES)))
        self._identity = identity
        self._known = known
        self._model = config.model
        self._json_method: JsonMethod | None = None

    @classmethod
    def named(
        cls, name: str, *, identity: ModelIdentity | None = None, known: Sequence[ModelIdentity] = ()
    ) -> RemoteBackend:
        """Return the backend of a name such as ``openai:http://127.0.0.1:8000/v1?model=NAME``."""
        return cls(RemoteConfig.parse(name), identity=identity, known=known)

    @property
    def identity(self) -> ModelIdentity:
        """Who answers and how it is read; asks the server when first used."""
        if self._identity is None:
            self._identity = self._first_calls.one(self._learn)
        return self._identity

    @property
    def reader(self) -> RemoteReader:
        """How verdicts are read."""
        reader = stored_reader(self.identity)
        if reader is None:
            raise ModelError(
                f"model {self.identity.name!r} was stored without the way it is read: record it again"
            )
        return reader

    @property
    def provenance(self) -> Mapping[str, Any]:
        """The server, the way it is read, and the HTTP library."""
        try:
            httpx = version("httpx")
        except PackageNotFoundError:
            httpx = ""
        reader = asdict(self.reader)
        return {"backend": "openai", "server": self.config.base_url, "httpx": httpx, **reader}

    def score(
        self, prompts: Sequence[Prompt], labels: Sequence[str], *, numerics: Numerics = "canonical"
    ) -> Iterator[list[LabelScores]]:
        """Yield the labels' log-probabilities in the prompts' order, as the answers come.

        `tokens` counts what the server says it took, prompts and answers, and `milliseconds` is the time
        from the first request of a prompt to its last reply.
        """
        check_labels(labels)
        if not prompts:
            return
        reader = self.reader

        async def work(exchange: Exchange, number: int) -> LabelScores:
            started = time.monotonic()
            asking = Asking(exchange, self.config.host, self._model)
            logprobs = await reader.scores(asking, prompts[number].text, labels)
            return LabelScores(logprobs, asking.tokens, 1e3 * (time.monotonic() - started))

        yield from self._calls.many(len(prompts), work)

    def generate_json(
        self, prompts: Sequence[Prompt], schema: Mapping[str, Any], *, max_tokens: int, seed: int = 0
    ) -> Iterator[Answer]:
        """Yield one answer a prompt, in order; the server is told the schema and decodes greedily.

        Raises
        ------
        ConfigError
            If the prompts are wrapped in a chat template already, which the server would do again.
        """
        if self.identity.chat_template:
            raise ConfigError(
                f"model {self.identity.name!r}: JSON is asked for as a chat, which the server wraps in its "
                "own template; add via=json to the model's name"
            )

        method = self._how_to_write()

        async def work(exchange: Exchange, number: int) -> Answer:
            started = time.monotonic()
            asking = Asking(exchange, self.config.host, self._model)
            text = prompts[number].text
            request = json_request(text, schema, method, max_tokens=max_tokens, seed=seed)
            text, finished = chat_text((await asking.post(*request)).document)
            return Answer(text, finished, asking.tokens, 1e3 * (time.monotonic() - started))

        for batch in self._calls.many(len(prompts), work):
            yield from batch

    def close(self) -> None:
        """Do nothing: no connection stays open."""

    # Who answers

    async def _learn(self, exchange: Exchange) -> ModelIdentity:
        """Ask the server what it serves and what it can do."""
        config, asking = self.config, Asking(exchange, self.config.host)
        models = served_models((await asking.get("/models")).document)
        if not config.model and len(models) == 1:
            self._model = next(iter(models))
        if self._model not in models:
            raise ModelNotFoundError(
                f"{config.host}: no model {config.model!r}; name one with model=, of {sorted(models)}"
            )
        asking.model = self._model
        local = self._local()
        sha256 = config.sha256 or (local.sha256 if local else "")
        who = {"sha256": sha256} if sha256 else {"server": config.base_url, "model": self._model}
        if not sha256:
            who["reported"] = canonical_json(models[self._model])
        reader = self._remembered(who) or await self._settle(asking)
        template, eos = "", ""
        if reader.via == "completions":
            template, eos = (local.chat_template, local.eos_token) if local else await self._template(asking)
        parts = {"backend": "openai", "format": FORMAT, "who": who, "reader": asdict(reader)}
        weights = f"sha256 {sha256}, as the user says" if sha256 else "unknown"
        return ModelIdentity(
            name=config.name,
            sha256=hashlib.sha256(canonical_json(parts).encode()).hexdigest(),
            chat_template=template,
            bos_token="",  # the server adds the one that the model wants
            eos_token=eos,
            details={
                **(local.details if local else {}),
                "weights": weights,
                "who": who,
                "reader": asdict(reader),
            },
        )

    def _local(self) -> ModelIdentity | None:
        """Return the identity of the file that is said to be served."""
        if not self.config.gguf:
            return None
        from bt_llm.backends.llama import identify
        from bt_llm.model_files import find_model

        return identify(find_model(self.config.gguf))

    def _remembered(self, who: Mapping[str, str]) -> RemoteReader | None:
        for identity in self._known:
            reader = stored_reader(identity)
            if reader is not None and identity.details.get("who") == who and self._wanted(reader):
                return reader
        return None

    def _wanted(self, reader: RemoteReader) -> bool:
        config = self.config
        return config.via in ("auto", reader.via) and (not config.top or config.top == reader.top)

    async def _settle(self, asking: Asking) -> RemoteReader:
        """Find the best way of reading that the server has."""
        via, host = self.config.via, self.config.host
        for choice in ("completions", "chat", "json") if via == "auto" else (via,):
            for reader in candidates(choice, self.config.top):
                if await reader.works(asking):
                    if via == "auto" and choice == "json":
                        _log.warning(
                            "%s gives no log-probabilities: verdicts are made of the confidence that the "
                            "model writes as JSON",
                            host,
                        )
                    return reader
        if via in ("completions", "chat"):
            raise ModelError(
                f"{host}: no log-probabilities via={via}; use via=auto, or start the server so that it gives "
                "them"
            )
        raise ModelError(f"{host}: via={via} finds neither log-probabilities nor JSON after a schema there")

    async def _template(self, asking: Asking) -> tuple[str, str]:
        """Return the chat template and the end token that a llama.cpp server tells; else empty ones."""
        reply = await asking.get(f"{self.config.root_url}/props", must=False)
        facts = reply.document if reply.ok and isinstance(reply.document, dict) else {}
        template, eos = facts.get("chat_template"), facts.get("eos_token")
        if isinstance(template, str) and isinstance(eos, str) and len(template) <= _LONGEST_TEMPLATE:
            return template, eos
        return "", ""

    def _how_to_write(self) -> JsonMethod:
        """Return the form in which the server is asked for JSON, found out once."""
        reader = self.reader
        if reader.method in ("json_schema", "json_object"):
            return reader.method

        async def find(exchange: Exchange) -> JsonMethod:
            asking = Asking(exchange, self.config.host, self._model)
            for candidate in candidates("json", 0):
                if candidate.method in ("json_schema", "json_object") and await candidate.works(asking):
                    return candidate.method
            raise ModelError(f"{self.config.host}: it writes no JSON after a schema; use the reader logprobs")

        if self._json_method is not None:
            return self._json_method
        found = self._first_calls.one(find)
        self._json_method = found
        return found
