"""What is allowed and seldom meant: said in a line before the work, which it does not stop."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Protocol

from bt_llm.cli._output import say

if TYPE_CHECKING:
    from bt_llm.advice import AdvisorConfig

__all__ = ["say_doubts"]

_MUCH = 0.01
"""A cost from which on a percentage was probably taken for a fraction."""


class Costs(Protocol):
    """What has a commission and a slippage, as fractions."""

    @property
    def commission(self) -> float:
        """Of the traded value."""

    @property
    def slippage(self) -> float:
        """Of the price."""


def say_doubts(configs: Iterable[AdvisorConfig], costs: Costs | None = None) -> None:
    """Say what of an account's costs, and of how models are asked, is probably not meant.

    Parameters
    ----------
    configs : iterable of AdvisorConfig
        How models will be asked.
    costs : Account or a study's account, optional
        What trading costs.
    """
    lines = [line for config in configs for line in _of_asking(config)]
    if costs is not None:
        lines += _of_costs(costs)
    for line in dict.fromkeys(lines):
        say(f"warning: {line}")


def _of_costs(costs: Costs) -> Iterator[str]:
    for name, value, what in (
        ("commission", costs.commission, "the value of every trade"),
        ("slippage", costs.slippage, "the price of every fill"),
    ):
        if value >= _MUCH:
            yield (
                f"--{name} {value:g} is {100 * value:g} % of {what}: it is a fraction, such as 0.0001 for a "
                "hundredth of a percent"
            )


def _of_asking(config: AdvisorConfig) -> Iterator[str]:
    from bt_llm.models import cpu_threads, gpu_names

    if config.reader == "json":
        yield (
            "--reader json: a confidence is what the model writes of itself, no probability; where bars are "
            "judged by it, compare --reader logprobs"
        )
    yield from _of_words(config)
    if not _is_computed_here(config):
        return
    if config.n_threads is not None and config.n_threads > (cores := cpu_threads()):
        yield f"--threads {config.n_threads}: this process may use {cores} cores, and {cores} threads compute"
    with contextlib.suppress(ImportError, OSError):  # who asks the model is told what is wrong with llama.cpp
        if config.n_gpu_layers and not gpu_names():
            yield (
                f"--gpu-layers {config.n_gpu_layers}: this build of llama.cpp knows no graphics processor, "
                "and all layers are computed by the CPU; see docs/install.md"
            )


def _of_words(config: AdvisorConfig) -> Iterator[str]:
    from bt_llm.exceptions import BtLlmError
    from bt_llm.prompts import PromptTemplate, unsaid

    if config.template is None:
        return
    with contextlib.suppress(BtLlmError):  # who asks the model is told
        template = PromptTemplate.load(config.template_source)
        if silent := unsaid(config.state_space, template.question):
            yield (
                f"template {template.name!r} asks the same whatever {' and '.join(silent)} may be: no "
                "verdict can depend on it"
            )


def _is_computed_here(config: AdvisorConfig) -> bool:
    """Return whether a model is a file that llama.cpp computes."""
    from bt_llm.exceptions import ConfigError
    from bt_llm.models import kind_of

    try:
        return kind_of(str(config.model)).kind == "file"
    except ConfigError:  # who asks the model is told
        return False
