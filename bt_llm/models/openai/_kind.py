"""Models behind OpenAI-compatible servers, as a kind of models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from bt_llm.exceptions import ModelFileError
from bt_llm.models._base import Backend, ModelIdentity, Prompt
from bt_llm.models._config import ModelConfig
from bt_llm.models._cost import Cost, Rates
from bt_llm.models._registry import KnownModels, ModelKind, stored_identity
from bt_llm.models.openai._backend import RemoteBackend
from bt_llm.models.openai._config import ANY, RemoteConfig

__all__ = ["ServedModel"]


class ServedModel(ModelKind):
    """A model of one server, or of several that serve the same.

    Examples
    --------
    >>> model = ServedModel("*?sha256=" + "ab" * 32)
    >>> model.names_to_ask([{"server": "http://a:8000/v1"}])[0][:40]
    'openai:http://a:8000/v1?sha256=ababababa'
    """

    kind: ClassVar[str] = "openai"
    form: ClassVar[str] = "openai:http://HOST:PORT/v1?model=NAME"
    extra: ClassVar[str] = "bt-llm[remote]"
    config_type: ClassVar[type[RemoteConfig]] = RemoteConfig

    def __init__(self, rest: str) -> None:
        super().__init__(rest)
        self.config = self.config_type.parse(self.name)
        self._backend: RemoteBackend | None = None

    @property
    def addresses(self) -> tuple[str, ...]:
        """Addresses of the servers."""
        return self.config.urls

    def open(self, config: ModelConfig) -> RemoteBackend:
        """Return what asks the servers."""
        if self._backend is None:
            self._backend = RemoteBackend(self.config)
        return self._backend

    def identify(self, known: KnownModels, *, replay: bool = False) -> ModelIdentity:
        """Return who answers and how it is read; the servers are asked, except in replay.

        Where the user does not say which weights are served they are asked each time, since another model may
        have the name by now.
        """
        if replay:
            identity = stored_identity(self.config.name, known)
            self._backend = RemoteBackend(self.config, identity=identity)
            return identity
        before = self._backend
        if before is None or not (self.config.sha256 or self.config.gguf):
            met = [before.identity] if before is not None else []
            now = RemoteBackend(self.config, known=[*met, *known.find_models(self.config.name)])
            if before is None or now.identity.sha256 != before.identity.sha256:
                self._backend = now
            return now.identity
        return before.identity

    def recognise(self, backend: Backend) -> None:
        """Have what was opened before be given up where another model has its name now."""
        if self._backend is not None and backend.identity.sha256 != self._backend.identity.sha256:
            raise ModelFileError(f"{self.name} is another model now")

    def recall(self, known: KnownModels) -> ModelIdentity | None:
        """Return the one identity that this name had before, if it is one."""
        found = known.find_models(self.config.name)
        return found[0] if len(found) == 1 else None

    def cost(self, prompts: Sequence[Prompt], identity: ModelIdentity | None, rates: Rates) -> Cost:
        """Return the tokens and requests of a prompt; every request sends the whole of it."""
        whole = sum(len(prompt.text) for prompt in prompts) / len(prompts) / rates.letters_per_token
        at_once = self.config.connections * (1 + len(self.config.replicas))
        return Cost(
            tokens=rates.requests_per_prompt * (whole + 1),
            milliseconds=rates.requests_per_prompt * rates.request_ms / at_once,
            at_once=at_once,
            paid=True,
            source="constants",
        )

    def names_to_ask(self, provenances: Sequence[Mapping[str, Any]]) -> list[str]:
        """Return the name; for pinned weights, which have no address, those of the servers that answered."""
        anywhere = f"{self.kind}:{ANY}"
        if not self.name.startswith(anywhere):
            return [self.name]
        servers = sorted({str(facts["server"]) for facts in provenances if "server" in facts})
        options = self.name.removeprefix(anywhere)
        return [f"{self.kind}:{server}{options}" for server in servers] or [self.name]
