"""RemoteBackend: verdicts from any OpenAI-compatible server, such as llama.cpp's or vLLM.

How a verdict is read depends on what the server gives. In the order in which they are tried, but for models
whose chat template only the server has, of which chat is the first:

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
decision     choice        told by a decision server for each label
===========  ============  ===========================================================================

A label that is not among the tokens that the server gives gets the log-probability of the least of them,
the most it can have, and nothing in the mass; if none of the labels is there, the verdict is INVALID.
``echo`` is not used: llama.cpp refuses it, and llama-cpp-python shifts its log-probabilities by one token.

The method is part of the identity's hash and so of every key, and stands in its details. So does who
answers: the hash of the weights where the user pins it, Ollama's digest, else the server's address, the
model's name there and what the server reports of it.

A server's sums are rounded as it likes. llama.cpp's is told to compute each prompt whole and alone, which
rounds them alike each time, unless ``numerics`` is ``fast``. When a server is met, some questions are asked
twice: `differs` in the details and the provenance is by how much a probability was another one then.

Several servers of one model share the prompts, each taking the next one whenever it is free. Their weights
must be pinned, and no key depends on which of them answered or how many there were; what they report and the
way they are read must be the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from bt_llm.exceptions import ConfigError, ModelError
from bt_llm.models._base import Answer, LabelScores, ModelIdentity, Numerics, Prompt
from bt_llm.models.openai._config import PREFIX, RemoteConfig
from bt_llm.models.openai._identity import identify_servers
from bt_llm.models.openai._probing import find_reader
from bt_llm.models.openai._readers import RemoteReader, stored_reader
from bt_llm.models.openai._scores import check_labels
from bt_llm.models.openai._server import Server
from bt_llm.models.openai._servers import Servers
from bt_llm.models.openai._wording import Wording

__all__ = ["PREFIX", "RemoteBackend", "RemoteConfig", "RemoteReader"]


class RemoteBackend:
    """Asks an OpenAI-compatible server, or several of the same model, many prompts at a time.

    Nothing is asked before it is needed, and no connection stays open between calls. The server sees the
    prompt as text and tokenises it; with ``gguf`` or a llama.cpp server, which tells its chat template, it
    is the text that the same model is given locally.

    Parameters
    ----------
    config : RemoteConfig
        Which servers, and how.
    identity : ModelIdentity, optional
        Who answers, if it is known, as in replay: then the servers are not asked who they are before the
        first prompt.
    known : sequence of ModelIdentity
        Identities that this name had before: if the server is still one of them, it is read as it was then.

    Raises
    ------
    ConfigError
        From `score` for labels that begin with each other; for servers that differ from each other.
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
        self._stored = identity
        self._known = known if identity is None else (identity, *known)

    @classmethod
    def named(
        cls, name: str, *, identity: ModelIdentity | None = None, known: Sequence[ModelIdentity] = ()
    ) -> RemoteBackend:
        """Return the backend of a name such as ``openai:http://127.0.0.1:8000/v1?model=NAME``."""
        return cls(RemoteConfig.parse(name), identity=identity, known=known)

    @property
    def identity(self) -> ModelIdentity:
        """Who answers and how it is read; asks the servers when first used."""
        return self._stored or self._found[0]

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
        """The servers, the way they are read, and the HTTP library."""
        try:
            httpx = version("httpx")
        except PackageNotFoundError:
            httpx = ""
        facts = {"backend": self.config.kind, "server": self.config.addresses, "httpx": httpx}
        differs = self.identity.details.get("differs")
        return {**facts, **self.reader.document, **({"differs": differs} if differs else {})}

    def score(
        self, prompts: Sequence[Prompt], labels: Sequence[str], *, numerics: Numerics = "canonical"
    ) -> Iterator[list[LabelScores | None]]:
        """Yield the labels' log-probabilities in the prompts' order, as the answers come.

        Before an error is raised, answers beyond the first that is missing are yielded too, with None for
        those that are missing.

        `tokens` counts what the server says it took, prompts and answers, and `milliseconds` is the time
        from the first request of a prompt to its last reply.
        """
        check_labels(labels)
        if not prompts:
            return
        reader, model = self.reader, self._model

        async def work(server: Server, number: int) -> LabelScores:
            asking = reader.asking(server, model, numerics)
            logprobs, mass = await reader.scores(asking, prompts[number].text, labels)
            return LabelScores(logprobs, asking.tokens, asking.milliseconds, mass)

        yield from self._servers.spread(len(prompts), work)

    def generate_json(
        self, prompts: Sequence[Prompt], schema: Mapping[str, Any], *, max_tokens: int, seed: int = 0
    ) -> Iterator[Answer | None]:
        """Yield one answer a prompt, in order; the server is told the schema and decodes greedily.

        Raises
        ------
        ConfigError
            If the prompts are wrapped in a chat template already, which the server would do again.
        """
        if self.reader.via == "decision":
            raise ConfigError(f"model {self.identity.name!r} answers questions and writes nothing")
        if self.identity.chat_template:
            raise ConfigError(
                f"model {self.identity.name!r}: JSON is asked for as a chat, which the server wraps in its "
                "own template; add via=json to the model's name"
            )

        model, reader = self._model, self._writer

        async def work(server: Server, number: int) -> Answer:
            asking = reader.asking(server, model)
            limits = {"max_tokens": max_tokens, "seed": seed}
            text, finished = await reader.write(asking, prompts[number].text, schema, **limits)
            return Answer(text, finished, asking.tokens, asking.milliseconds)

        for batch in self._servers.spread(len(prompts), work):
            yield from batch

    def close(self) -> None:
        """Do nothing: no connection stays open."""

    @cached_property
    def _servers(self) -> Servers:
        return Servers(self.config.servers)

    @cached_property
    def _found(self) -> tuple[ModelIdentity, str]:
        return identify_servers(self.config, self._servers, self._known)

    @property
    def _model(self) -> str:
        """The model's name there, once the servers have said that they are who they should be."""
        found, model = self._found
        if found.sha256 != self.identity.sha256:
            raise ConfigError(
                f"model {self.identity.name!r}: the servers are not what was stored under this name "
                f"({found.sha256[:12]}, not {self.identity.sha256[:12]}); record it again"
            )
        return model

    @cached_property
    def _writer(self) -> RemoteReader:
        """The form in which the servers are asked for JSON."""
        reader, model = self.reader, self._model
        if reader.via == "json":
            return reader

        async def find(server: Server) -> RemoteReader:
            wordings: tuple[Wording, ...] = ("ollama",) if reader.wording == "ollama" else ("",)
            return (await find_reader(server, model, ("json",), wordings))[0]

        return self._servers.each(find)[0]
